"""The TPM's drivers as emitted code, one function at a time, before registers that keep account of every access."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dsl.lang import offset_of, size_of
from dsl.std.tpm import CRB, FIFO, Tpm
from tests.boot.tpm_device import BASE, Crb, Fifo
from tests.std.ported import Ported
from tests.std.tpm_program import hold_all

WIDTHS: Final = {
    "registers": 8, "interface": 4, "command_room": 4, "answer_room": 4, "reserved": 4, "command_buffer": 8, "answer_buffer": 8,
    "size": 8, "offset": 8, "end": 8, "command": 512, "answer": 1024, "malformed": 1, "padding": 7,
}  # fmt: skip
NUMBERS: Final = [name for name in WIDTHS if name not in ("command", "answer", "padding")]
NOISE: Final = bytes(0x80 | value % 101 for value in range(size_of(Tpm)))
MILLISECOND: Final = 8_000_000  # in ticks
BEGINNING: Final = (7 << 32) - 100  # of time: a wait begins before the lower half of the counter wraps
HANG: Final = 20_000  # accesses of one call
LOOKS: Final = 5  # at a stuck register before its wait is over
PLACE: Final = BASE + 0x80  # of a CRB's buffers
NO_TPM: Final = Fifo(lambda command: b"")

Access = tuple[str, int, int, int]  # "read" or "write", offset, width, value
Look = Callable[[int, int, int], int]  # number of the access, offset, what the device gives -> what is read


class Driver(Ported):
    """One function, and what it did. trace: the accesses to registers, in order; now: the time-stamp counter, which stands still.

    state: fields of TPM that are not noise, zero or the device's before a call.
    """

    def __init__(self, function: Callable[..., Any], device: Fifo | Crb = NO_TPM, **state: int | bytes) -> None:
        super().__init__(function, holder=hold_all)
        self.device = device
        self.trace: list[Access] = []
        self.now = BEGINNING
        self.look: Look = lambda number, offset, value: value
        self.engine.mmio_map(BASE, 0x5000, self.on_read, None, self.on_write, None)
        self.replace("rdtsc", lambda _: self.set_time(self.now))
        self.place = self.emulated.program.symbols["dsl.std.tpm.TPM"][0]
        is_crb = isinstance(device, Crb)
        self.before = bytearray(NOISE)
        usual: dict[str, int | bytes] = {
            "registers": BASE + 0x40 * is_crb, "interface": CRB if is_crb else FIFO, "command_room": 512, "answer_room": 1024,
            "command_buffer": PLACE, "answer_buffer": PLACE + (device.answer_at if isinstance(device, Crb) else 0),
            "size": 0, "offset": 0, "end": 0, "malformed": 0,
        }  # fmt: skip
        for name, value in (usual | state).items():
            self.set(name, value)

    def set(self, name: str, value: int | bytes) -> None:
        """Give a field of TPM a value, for the calls that follow; bytes are the first ones of a field."""
        content = value if isinstance(value, bytes) else value.to_bytes(WIDTHS[name], "little")
        at = offset_of(Tpm, name)
        self.before[at : at + len(content)] = content

    def on_read(self, _engine: object, offset: int, width: int, _data: object) -> int:
        """A register is read."""
        value = self.look(len(self.trace), offset, self.device.read(offset, width))
        self.trace.append(("read", offset, width, value))
        assert len(self.trace) < HANG, "the driver hangs"
        return value

    def on_write(self, _engine: object, offset: int, width: int, value: int, _data: object) -> None:
        """A register is written."""
        self.trace.append(("write", offset, width, value))
        self.device.write(offset, width, value)

    def results(self, *arguments: int) -> tuple[int, ...]:
        """Run it: what it leaves in its result registers. The parts of TPM that are nobody's to change stay as they were."""
        self.trace.clear()
        found = self.emulated.call(self.symbol, list(arguments), {self.place: bytes(self.before)})
        assert not isinstance(found, str), "a check failed"
        kept = slice(offset_of(Tpm, "padding"), size_of(Tpm))
        assert self.memory()[kept] == self.before[kept]
        return found

    def call(self, *arguments: int) -> int:
        """Run it; what it leaves in RAX: of a fallible function, the failure's code or 0."""
        return self.results(*arguments)[0]

    def stops(self, *arguments: int) -> bool:
        """Run it; whether a check fails."""
        return self.emulated.call(self.symbol, list(arguments), {self.place: bytes(self.before)}) == "stopped"

    def memory(self) -> bytes:
        """All of TPM."""
        return self.emulated.read(self.place, size_of(Tpm))

    def field(self, name: str) -> bytes:
        """A field of TPM."""
        return self.memory()[offset_of(Tpm, name) :][: WIDTHS[name]]

    def number(self, name: str) -> int:
        """The same as a number."""
        return int.from_bytes(self.field(name), "little")

    def changed(self) -> dict[str, int]:
        """The numbers of TPM that are others than before."""
        before = {name: self.before[offset_of(Tpm, name) :][: WIDTHS[name]] for name in NUMBERS}
        return {name: self.number(name) for name in NUMBERS if self.field(name) != before[name]}

    def pointed(self, address: int, size: int) -> bytes:
        """Bytes that a result points at."""
        return self.emulated.read(address, size)


@dataclass
class Stuck:
    """A register that always gives the same, from one access on; at the last look a wait has lasted its time, and not a tick more."""

    driver: Driver
    register: int
    value: int
    milliseconds: int
    since: int = 0
    last: int | None = None  # what the last look gives, if that is another
    width: int = 4
    looked: int = 0

    def __call__(self, number: int, offset: int, value: int) -> int:
        """What is read; the time passes after the first look, and goes one tick further after the last."""
        if number < self.since or offset != self.register:
            return value
        self.looked += 1
        self.driver.now += {1: self.milliseconds * MILLISECOND, LOOKS: 1}.get(self.looked, 0)
        return self.looks()[min(self.looked, LOOKS) - 1][3]

    def looks(self) -> list[Access]:
        """All looks of a wait in vain."""
        values = [*[self.value] * (LOOKS - 1), self.value if self.last is None else self.last]
        return [("read", self.register, self.width, value) for value in values]


def answer(content: bytes = b"", code: int = 0, tag: int = 0x8001, size: int | None = None) -> bytes:
    """An answer (TPM 2.0 Library, part 1, 18.2): tag, size, code, and what belongs to it."""
    return struct.pack(">HII", tag, 10 + len(content) if size is None else size, code) + content


def with_sessions(content: bytes, rest: bytes = b"\0\0\1\0\0") -> bytes:
    """An answer with a session: the parameters have their size before them, the session's part follows."""
    return answer(struct.pack(">I", len(content)) + content + rest, tag=0x8002)
