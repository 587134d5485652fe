"""The MC146818 real-time clock and its CMOS memory, ports 70h and 71h.

Time of day is a start (Unix seconds) plus `now`; a box reads it and cannot set it: writes to the time registers are ignored. No interrupt
is ever raised: the enable bits for periodic, alarm and update interrupts read back as zero, so that a driver sees that they are refused.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Record, Struct, array, machine, u8, u16, u64

NANOSECONDS: Final = 1_000_000_000
SECONDS_A_DAY: Final = 86_400
UPDATE_NS: Final = 244_000  # UIP warns that long before the second changes

SECONDS: Final = 0x00
MINUTES: Final = 0x02
HOURS: Final = 0x04
WEEKDAY: Final = 0x06  # 1 is Sunday
DAY: Final = 0x07
MONTH: Final = 0x08
YEAR: Final = 0x09
STATUS_A: Final = 0x0A
STATUS_B: Final = 0x0B
STATUS_C: Final = 0x0C  # no interrupt: always 0
STATUS_D: Final = 0x0D
CENTURY: Final = 0x32
TIME_REGISTERS: Final = 0x0A  # those below: time, with the three alarms between

A_UPDATE: Final = 0x80
A_RESET: Final = 0x26  # 32768 Hz, 1024 Hz rate
B_24_HOURS: Final = 0x02
B_BINARY: Final = 0x04
B_KEPT: Final = 0x8F  # SET, square wave, binary, 24 hours, daylight saving
D_VALID: Final = 0x80
PM: Final = 0x80


class Rtc(Struct):
    """The clock's start, the register index, and 128 bytes of memory."""

    start: u64  # Unix seconds at now = 0
    index: u8
    reserved: Array[u8] = array(7)
    memory: Array[u8] = array(128)


class Date(Record):
    """A day of the Gregorian calendar."""

    year: u64
    month: u64  # from 1
    day: u64  # from 1


@machine
def rtc_reset(rtc: Rtc) -> None:
    """Put the registers into the state that firmware leaves; the clock keeps its start."""
    rtc.index = u8(0)
    rtc.memory.fill(u8(0))
    rtc.memory[STATUS_A] = u8(A_RESET)
    rtc.memory[STATUS_B] = u8(B_24_HOURS)
    rtc.memory[STATUS_D] = u8(D_VALID)


@machine
def date_of(days: u64) -> Date:
    """Return the date `days` days after 1970-01-01. Years begin in March here, so that the leap day ends one."""
    shifted = days + 719_468  # days since 0000-03-01
    era = shifted // 146_097  # 400 years
    day_of_era = shifted % 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153  # 0 is March
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = march_month + 3 if march_month < 10 else march_month - 9
    year = year_of_era + era * 400
    return Date(year=year + 1 if month <= 2 else year, month=month, day=day)


@machine
def days_before(year: u64, month: u64, day: u64) -> u64:
    """Return the days from 1970-01-01 to a date of the years 1970 and later."""
    march_year = year - 1 if month <= 2 else year
    march_month = month + 9 if month <= 2 else month - 3
    leap_days = march_year // 4 - march_year // 100 + march_year // 400
    return march_year * 365 + leap_days + (153 * march_month + 2) // 5 + day - 1 - 719_468


@machine
def encoded(rtc: Rtc, value: u64) -> u8:
    """Return a number below 100 in the format that status B chooses: binary, or two decimal digits."""
    if rtc.memory[STATUS_B] & B_BINARY != 0:
        return value.truncate(u8)
    return (((value // 10) << 4) | (value % 10)).truncate(u8)


@machine
def encoded_hour(rtc: Rtc, hour: u64) -> u8:
    """Return an hour of the day, with 12-hour clocks and PM where status B asks for them."""
    if rtc.memory[STATUS_B] & B_24_HOURS != 0:
        return encoded(rtc, hour)
    remainder = hour % 12
    shown = encoded(rtc, u64(12) if remainder == 0 else remainder)
    return shown | PM if hour >= 12 else shown


@machine
def date_register(rtc: Rtc, register: u8, days: u64) -> u8:
    """Return a register of the date."""
    if register == WEEKDAY:
        return encoded(rtc, (days + 4) % 7 + 1)  # 1970-01-01 was a Thursday
    date = date_of(days)
    if register == DAY:
        return encoded(rtc, date.day)
    if register == MONTH:
        return encoded(rtc, date.month)
    if register == YEAR:
        return encoded(rtc, date.year % 100)
    return encoded(rtc, date.year // 100)


@machine
def time_register(rtc: Rtc, register: u8, seconds: u64) -> u8:
    """Return a register of the time of day or date, at `seconds` of Unix time."""
    if register == SECONDS:
        return encoded(rtc, seconds % 60)
    if register == MINUTES:
        return encoded(rtc, seconds // 60 % 60)
    if register == HOURS:
        return encoded_hour(rtc, seconds // 3600 % 24)
    return date_register(rtc, register, seconds // SECONDS_A_DAY)


@machine
def is_time(register: u8) -> bool:
    """Tell whether a register shows the time: alarms are plain memory."""
    if register == CENTURY:
        return True
    return register < TIME_REGISTERS and (register & 1 == 0 or register > HOURS + 1)


@machine
def read_register(rtc: Rtc, register: u8, now: u64) -> u8:
    """Return a register or a byte of memory."""
    if is_time(register):
        return time_register(rtc, register, rtc.start + now // NANOSECONDS)
    if register == STATUS_A:
        updating = now % NANOSECONDS >= NANOSECONDS - UPDATE_NS
        return rtc.memory[STATUS_A] | A_UPDATE if updating else rtc.memory[STATUS_A]
    return rtc.memory[register]


@machine
def rtc_read(rtc: Rtc, offset: u16, now: u64) -> u8:
    """Read port 70h (which answers all ones) or 71h."""
    if offset == 0:
        return u8(0xFF)
    return read_register(rtc, rtc.index, now)


@machine
def rtc_write(rtc: Rtc, offset: u16, value: u8) -> None:
    """Write port 70h (index; bit 7, the NMI switch, is ignored) or 71h (what is no time and no read-only status)."""
    if offset == 0:
        rtc.index = value & 0x7F
        return
    register = rtc.index
    if register == STATUS_A:
        rtc.memory[STATUS_A] = value & 0x7F
    elif register == STATUS_B:
        rtc.memory[STATUS_B] = value & B_KEPT
    elif not is_time(register) and register != STATUS_C and register != STATUS_D:
        rtc.memory[register] = value
