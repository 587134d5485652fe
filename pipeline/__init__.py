"""The host side: lowering guests, keys and chains, disk images, emulators, the verifier, reports.

Only build.py and tests import this package. `arguments`, `setup`, `doctor`, `paths`, `progress` and `errors` use the standard
library alone and run on Python 3.9, because they run before the machine is set up.
"""
