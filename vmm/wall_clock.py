"""The machine's own clock (MC146818), read once for each box: boxes' clocks start from it. Nothing trusts the time it tells."""

from __future__ import annotations

from typing import Final

from dsl.lang import Struct, machine, u8, u16, u64, upto
from dsl.lang.intrinsics import in8, out8
from vmm.devices.rtc import (
    A_UPDATE,
    B_24_HOURS,
    B_BINARY,
    CENTURY,
    DAY,
    HOURS,
    MINUTES,
    MONTH,
    PM,
    SECONDS,
    SECONDS_A_DAY,
    STATUS_A,
    STATUS_B,
    YEAR,
    days_before,
)

INDEX_PORT: Final = 0x70
DATA_PORT: Final = 0x71
WAIT_READS: Final = 100_000  # of the update flag: an update takes 2 ms
TRIES: Final = 10  # readings until two agree
OLDEST_YEAR: Final = 1970


class Reading(Struct):
    """The registers of one reading, as numbers."""

    second: u64
    minute: u64
    hour: u64
    day: u64
    month: u64
    year: u64


@machine
def cmos(register: u8) -> u8:
    """Read a register."""
    out8(u16(INDEX_PORT), register)
    return in8(u16(DATA_PORT))


@machine
def wait_for_quiet() -> bool:
    """Wait until no update is under way; False if that never ends."""
    for _ in upto(u64(WAIT_READS)):
        if cmos(u8(STATUS_A)) & A_UPDATE == 0:
            return True
    return False


@machine
def number(value: u8, binary: bool) -> u64:
    """Return a register's number: binary, or two decimal digits."""
    return u64(value) if binary else u64(value >> 4) * 10 + u64(value & 15)


@machine
def hour_number(value: u8, binary: bool, whole_day: bool) -> u64:
    """Return the hour of the day, of a 24-hour or a 12-hour clock."""
    if whole_day:
        return number(value, binary)
    hour = number(value & ~u8(PM), binary) % 12
    return hour + 12 if value & PM != 0 else hour


@machine
def read_calendar(reading: Reading) -> None:
    """Read the registers once. A century register that makes no year after 1970 counts as 20."""
    status = cmos(u8(STATUS_B))
    binary = status & B_BINARY != 0
    reading.second = number(cmos(u8(SECONDS)), binary)
    reading.minute = number(cmos(u8(MINUTES)), binary)
    reading.hour = hour_number(cmos(u8(HOURS)), binary, status & B_24_HOURS != 0)
    reading.day = number(cmos(u8(DAY)), binary)
    reading.month = number(cmos(u8(MONTH)), binary)
    year = number(cmos(u8(YEAR)), binary)
    whole = number(cmos(u8(CENTURY)), binary) * 100 + year
    reading.year = whole if whole >= OLDEST_YEAR and whole < OLDEST_YEAR + 1000 else year + 2000


@machine
def unix_seconds(reading: Reading) -> u64:
    """Return a reading as Unix time; 0 for what is no date."""
    if reading.month == 0 or reading.month > 12 or reading.day == 0:
        return u64(0)
    days = days_before(reading.year, reading.month, reading.day)
    return days * SECONDS_A_DAY + reading.hour * 3600 + reading.minute * 60 + reading.second


@machine
def read_wall_clock() -> u64:
    """Return the machine's time as Unix seconds; 0 when it has no clock or none that runs. Takes at most some milliseconds."""
    last = u64(0)
    for _ in upto(u64(TRIES)):
        if not wait_for_quiet():
            return u64(0)
        reading = Reading()
        read_calendar(reading)
        time = unix_seconds(reading)
        if time == last:
            return time
        last = time
    return u64(0)
