"""Progress on standard error: standard output belongs to results."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

START = time.monotonic()
_steps: list[str] = []  # those under way, the innermost last
BEAT_SECONDS = 2.0  # a step that takes longer than this shows that it is alive


def say(text: str) -> None:
    """Print one line with the seconds since the start."""
    print(f"[{time.monotonic() - START:6.1f}s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say `text` if the work inside takes longer than BEAT_SECONDS, and again while it goes on."""
    done = threading.Event()
    began = time.monotonic()
    _steps.append(text)

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            if _steps[-1] is text:  # an inner step speaks for the outer ones
                say(f"{text} ... {time.monotonic() - began:.0f} s")

    ticker = threading.Thread(target=beat, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        _steps.remove(text)
