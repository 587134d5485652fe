"""Every I/O port, read and written."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, text, u8, u16, u64, upto
from dsl.lang.intrinsics import in8, in16, in32, out8
from guests.intruder.report import report

PORT_COUNT: Final = 0x10000
SERIAL_FIRST: Final = 0x3F8  # our own console: writing there would garble the report
SERIAL_COUNT: Final = 8


@machine
def read_ports() -> u64:
    """Read every port, one byte wide; return how many answered anything but all ones."""
    answered = u64(0)
    for port in upto(u64(PORT_COUNT)):
        answered += u64(in8(port.truncate(u16)) != 0xFF)
    return answered


@machine
def read_wide_ports() -> u64:
    """Read every 16th port and the last ones two and four bytes wide; return how many answered."""
    answered = u64(0)
    for index in upto(u64(PORT_COUNT // 16)):
        port = (index * 16 + 15).truncate(u16)
        answered += u64(in16(port) != 0xFFFF) + u64(in32(port) != 0xFFFF_FFFF)
    return answered


@machine
def write_ports() -> u64:
    """Write 0 to every port but our console's; return how many."""
    written = u64(0)
    for port in upto(u64(PORT_COUNT)):
        if port - SERIAL_FIRST >= SERIAL_COUNT:
            out8(port.truncate(u16), u8(0))
            written += 1
    return written


@machine
def try_ports() -> None:
    """Try all ports."""
    report(text("ports"), u64(PORT_COUNT), text("answered"), read_ports())
    report(text("wide port reads"), u64(2 * PORT_COUNT // 16), text("answered"), read_wide_ports())
    report(text("port writes"), write_ports(), text("answered after"), read_ports())
