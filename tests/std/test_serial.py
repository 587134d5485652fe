"""The serial port as emitted code: how it is set up, what goes over it, and how long anybody waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsl.std import serial
from dsl.std.serial import COM1
from tests.std.ported import Ported

pytestmark = pytest.mark.t1
DATA, STATUS, SCRATCH = COM1, COM1 + 5, COM1 + 7
READY, DONE, ARRIVED = 0x20, 0x40, 0x01
SETUP = [(COM1 + 1, 0), (COM1 + 3, 0x80), (COM1, 1), (COM1 + 1, 0), (COM1 + 3, 3), (COM1 + 2, 7), (COM1 + 4, 3)]
WAIT = int(serial.WAIT_READS)


def written(world: Ported) -> list[tuple[int, int]]:
    """What was written, in order."""
    return [(port, value) for kind, port, value in world.accesses if kind == "out"]


@pytest.mark.parametrize(
    ("scratch", "status"), [(0x5A, 0x60), (0x5A, 0xFE), (0x5A, 0xFF), (0xFF, 0xFF), (0, 0x60), (0x5B, 0x60)]
)
def test_it_is_set_up_where_there_is_one(scratch: int, status: int) -> None:
    """115200 baud, 8N1, FIFOs on, no interrupts (PC16550D, 8.0), once the scratch register holds what was written; else nothing more."""
    world = Ported(serial.serial_start, {SCRATCH: scratch, STATUS: status}.__getitem__)
    found = world.call() & 0xFF
    is_there = scratch == 0x5A and status != 0xFF
    assert found == is_there
    assert written(world) == [(SCRATCH, 0x5A), *(SETUP if is_there else [])]


@pytest.mark.parametrize("status", [0, ARRIVED, READY, DONE, 0xFF, 0xDF, 0xFE])
def test_what_the_status_says(status: int) -> None:
    """Bit 0: a byte has arrived; bit 5: the transmitter takes one."""
    answers: list[tuple[Callable[[], object], int]] = [
        (serial.serial_can_send, READY),
        (serial.serial_can_receive, ARRIVED),
    ]
    for function, bit in answers:
        world = Ported(function, {STATUS: status}.__getitem__)
        assert world.call() & 0xFF == bool(status & bit)
        assert world.accesses == [("in", STATUS, status)]


def test_a_byte_is_received() -> None:
    """From the data register."""
    world = Ported(serial.serial_receive, {DATA: 0xC3}.__getitem__)
    assert world.call() & 0xFF == 0xC3


def after(reads: int, bit: int) -> Callable[[int], int]:
    """A line status in which a bit is clear for so many reads."""
    count = iter(range(1 << 30))
    return lambda port: 0xFF if next(count) >= reads else 0xFF ^ bit


@pytest.mark.parametrize("reads", [0, 1, 7, WAIT - 1, WAIT])
def test_waits_have_an_end(reads: int) -> None:
    """A byte goes out once the transmitter is ready, or is dropped after so many looks; draining ends likewise."""
    world = Ported(serial.serial_send, after(reads, READY))
    sent = world.call(0xAB) & 0xFF
    assert sent == (reads < WAIT)
    assert written(world) == ([(DATA, 0xAB)] if sent else [])
    assert [row[:2] for row in world.accesses if row[0] == "in"] == [("in", STATUS)] * min(reads + 1, WAIT)
    world = Ported(serial.serial_drain, after(reads, DONE))
    world.call()
    assert [row[:2] for row in world.accesses] == [("in", STATUS)] * min(reads + 1, WAIT)


def test_text_is_sent_with_carriage_returns() -> None:
    """A newline goes out as two bytes; nothing follows a byte that nobody took."""
    text = b"one\ntwo\n\nx" + bytes(range(11, 40))
    world = Ported(serial.serial_write, lambda port: READY)
    world.call(world.write(0, text), len(text))
    assert bytes(value for _, value in written(world)) == text.replace(b"\n", b"\r\n")
    assert {port for port, _ in written(world)} == {DATA}
    for taken in range(4):  # of a, CR, LF, b
        count = iter(range(1 << 30))
        world = Ported(serial.serial_write, lambda port, count=count, taken=taken: READY if next(count) < taken else 0)  # type: ignore[misc]
        world.call(world.write(0, b"a\nb"), 3)
        assert bytes(value for _, value in written(world)) == b"a\r\nb"[:taken]
        assert len(world.accesses) == 2 * taken + WAIT
