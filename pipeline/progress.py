"""Progress on standard error: standard output belongs to results.

On a terminal a step rewrites one line of its own; elsewhere (a log, CI) it says a line every ten seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

START = time.monotonic()
CLEAR_LINE = "\r\x1b[K"
_steps: list[str] = []  # those under way, the innermost last
_state = {"open": False}  # whether the terminal's last line is a step's, to be rewritten


def beat_seconds() -> float:
    """How often a step under way shows that it is alive."""
    return 2.0 if sys.stderr.isatty() else 10.0


def say(text: str) -> None:
    """Print one line with the seconds since the start."""
    clear = CLEAR_LINE if _state["open"] else ""
    _state["open"] = False
    print(f"{clear}[{time.monotonic() - START:6.1f}s] {text}", file=sys.stderr, flush=True)


def show_alive(text: str, seconds: float) -> None:
    """Say that a step goes on; on a terminal in place of what it said before."""
    line = f"{text} ... {seconds:.0f} s"
    if not sys.stderr.isatty():
        say(line)
        return
    _state["open"] = True
    print(f"{CLEAR_LINE}[{time.monotonic() - START:6.1f}s] {line}", end="", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say `text` if the work inside takes longer than two seconds, and again while it goes on."""
    done = threading.Event()
    began = time.monotonic()
    _steps.append(text)

    def beat() -> None:
        wait = 2.0
        while not done.wait(wait):
            wait = beat_seconds()
            if _steps[-1] is text:  # an inner step speaks for the outer ones
                show_alive(text, time.monotonic() - began)

    ticker = threading.Thread(target=beat, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        _steps.remove(text)
        if _state["open"] and not _steps:
            _state["open"] = False
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
