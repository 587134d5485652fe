"""The two ways a verb fails, and the exit status of each."""

from __future__ import annotations

OK = 0
REFUSED = 1  # something was refused, or did not verify, or a check found a fault
USAGE = 2  # wrong use, or a machine that is not set up


class PipelineError(Exception):
    """A failure that ends the verb with one message and no traceback. The text names what was expected and what was found."""

    status = REFUSED


class UsageError(PipelineError):
    """Wrong arguments, a wrong configuration file, or a machine that lacks something."""

    status = USAGE
