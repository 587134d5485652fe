"""A machine that an emulator plays: its process, its first serial line, and the end of both. Bochs and QEMU say how they start."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pipeline import paths, processes
from pipeline.errors import PipelineError

LOG_TAIL_LINES = 12
END_SECONDS = 5.0  # from the end of the serial line to that of the process


class EmulatorError(PipelineError):
    """A machine that did not start, ended by itself, or did not say what was waited for."""


class Emulator(ABC):
    """A running machine. Use as a context manager: leaving it ends the process, and only that one."""

    name: ClassVar[str]
    folder: Path  # its own, in out/, while it runs
    disk: Path  # what it boots, as it was at the start
    receiver: int  # descriptors of the serial line
    sender: int

    def __init__(self, sink: Callable[[bytes], None] | None = None) -> None:
        """`sink` is given each piece of serial output as it comes."""
        self.sink = sink
        self.output = bytearray()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the machine."""
        paths.OUT.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name.lower()}-", dir=paths.OUT))
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the machine."""
        self.end()

    @abstractmethod
    def start(self) -> None:
        """Start the process and open the serial line: sets `process`, `disk`, `receiver` and `sender`."""

    @abstractmethod
    def last_words(self) -> str:
        """The end of what the emulator said of itself, in indented lines."""

    def end(self) -> None:
        """End the process, by its id, and remove what it left."""
        if self.process is not None:
            processes.end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, seconds: float) -> bytes:
        """Output that comes within this time, as soon as there is any; empty if none came. Raises EmulatorError at the end."""
        if not select.select([self.receiver], [], [], max(seconds, 0))[0]:
            return b""
        try:
            data = os.read(self.receiver, 65536)
        except OSError:
            data = b""
        if not data:
            raise self.ended()
        self.output += data
        if self.sink is not None:
            self.sink(data)
        return data

    def wait_for(self, found: Callable[[], bool], what: str, seconds: float) -> None:
        """Read until `found` holds. Raises EmulatorError naming `what`, and the last line, when the time is over."""
        deadline = time.monotonic() + seconds
        while not found():
            left = deadline - time.monotonic()
            if left <= 0:
                last = bytes(self.output).rstrip().rsplit(b"\n", 1)[-1].decode("ascii", "backslashreplace").strip()
                raise EmulatorError(
                    f"expected {what} within {seconds:.0f} s, found none; the last line was: {last or '(nothing)'}"
                )
            self.read(min(left, 1.0))

    def send(self, data: bytes) -> None:
        """Type bytes on the serial line. Raises EmulatorError where it is gone."""
        try:
            while data:
                data = data[os.write(self.sender, data) :]
        except OSError:
            raise self.ended() from None

    def ended(self) -> EmulatorError:
        """What to raise once the serial line has ended, and with it the machine."""
        assert self.process is not None
        try:
            status: object = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            status = "unknown: it still runs"
        return EmulatorError(f"{self.name} closed the serial line (status {status})\n{self.last_words()}")


def tail(lines: list[str]) -> str:
    """The end of a log."""
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
