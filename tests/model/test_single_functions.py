"""Functions of the handlers called by themselves: all of their contract, where a whole machine would take too long for every case."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from dsl.compiler.pipeline import compile_function
from tests.execution.emulated import STACK, Emulated
from vmm.devices.rtc import date_register, is_time
from vmm.guest_memory import check_range

pytestmark = pytest.mark.t1
MEMORY = STACK + 0x100
SIZE = 6 << 20
WEEKDAY, DAY, MONTH, YEAR, CENTURY = 6, 7, 8, 9, 0x32
BINARY = 4
STATUS_B = 0x10 + 0x0B  # in the Rtc


def results(world: Emulated, symbol: str, arguments: list[int], content: dict[int, bytes]) -> tuple[int, ...]:
    """The result registers; no check fails."""
    found = world.call(symbol, arguments, content)
    assert not isinstance(found, str), (symbol, arguments, found)
    return found


def test_check_range() -> None:
    """A range is taken if it is not empty and lies in the memory, whatever wraps; its start is what comes back."""
    world = Emulated(compile_function(check_range))
    content = {MEMORY: b"".join(word.to_bytes(8, "little") for word in (0, 3, SIZE))}
    words = [
        (number + offset) % 2**64 for number in (0, 1 << 20, SIZE, 1 << 32, 1 << 63) for offset in (-2, -1, 0, 1, 2)
    ]
    for start in words:
        for size in words:
            failure, found = results(world, "vmm.guest_memory.check_range", [MEMORY, start, size], content)[:2]
            assert (failure == 0) == (size > 0 and start + size <= SIZE), (hex(start), hex(size))
            assert failure or found == start


def test_each_day_of_the_calendar() -> None:
    """The registers of the date, of each day of years of all kinds and around each end of February in 430 years."""
    world = Emulated(compile_function(date_register))
    content = {MEMORY: bytes(STATUS_B) + bytes([BINARY]) + bytes(64)}
    days = [date(year, 1, 1) + timedelta(day) for year in (1970, 1999, 2000, 2024, 2100) for day in range(366)]
    days += [date(year, 2, 27) + timedelta(day) for year in range(1970, 2400) for day in range(4)]
    for day in days:
        number = (day - date(1970, 1, 1)).days
        expected = {
            WEEKDAY: day.isoweekday() % 7 + 1, DAY: day.day, MONTH: day.month, YEAR: day.year % 100, CENTURY: day.year // 100,
        }  # fmt: skip
        for register, value in expected.items():
            found = results(world, "vmm.devices.rtc.date_register", [MEMORY, register, number], content)[0]
            assert found & 0xFF == value, (day, register)


def test_which_registers_show_the_time() -> None:
    """Of all 128: six of the first ten, and the century."""
    world = Emulated(compile_function(is_time))
    shown = {register for register in range(128) if results(world, "vmm.devices.rtc.is_time", [register], {})[0] & 1}
    assert shown == {0, 2, 4, 6, 7, 8, 9, CENTURY}
