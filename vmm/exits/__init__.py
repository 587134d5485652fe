"""Exit handlers: one file a subject, one function a reason, tied together in `dispatch.py`."""
