"""Our own lines never cut one of the machine's in two."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from pipeline import run
from pipeline.run import Terminal

pytestmark = pytest.mark.t0


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, io.BytesIO, SimpleNamespace]:
    """A terminal whose output and our lines go to one buffer, and a clock that the test moves."""
    stream, clock = io.BytesIO(), SimpleNamespace(now=0.0)
    monkeypatch.setattr(run, "say", lambda text: stream.write(f"<{text}>\n".encode()))
    monkeypatch.setattr("pipeline.run.time.monotonic", lambda: clock.now)
    terminal = Terminal(show=True)
    monkeypatch.setattr(terminal, "stream", stream)
    return terminal, stream, clock


def test_a_line_is_finished_first(screen: tuple[Terminal, io.BytesIO, SimpleNamespace]) -> None:
    """What is said in the middle of a line comes after its end, and before the next one."""
    terminal, stream, _ = screen
    terminal.take(b"terrane| mon")
    terminal.note("waiting")
    terminal.take(b"itor\r\ndeb")
    terminal.take(b"ian| on\r\n")
    terminal.note("done")
    assert stream.getvalue() == b"terrane| monitor\r\n<waiting>\ndebian| on\r\n<done>\n"


def test_a_prompt_does_not_hold_us_up(screen: tuple[Terminal, io.BytesIO, SimpleNamespace]) -> None:
    """A line that does not go on is ended by us after a while; the middle of a name is no prompt."""
    terminal, stream, clock = screen
    terminal.take(b"debian| debian# ")
    terminal.note("waiting")
    terminal.settle(3.0)
    assert b"<" not in stream.getvalue()
    clock.now = 3.0
    terminal.settle(3.0)
    assert stream.getvalue() == b"debian| debian# \r\n<waiting>\n"
    terminal.take(b"\r\nt")
    terminal.note("again")
    clock.now = 60.0
    terminal.settle(3.0)
    assert not stream.getvalue().endswith(b"<again>\n")
    terminal.settle()
    assert stream.getvalue().endswith(b"t\r\n<again>\n")
