"""The clock shows the right day, in every format that status B can ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import u8, u16, u64
from dsl.lang.model import Machine
from vmm.devices.rtc import Rtc, date_of, days_before, rtc_read, rtc_reset, rtc_write

pytestmark = pytest.mark.t0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def register(rtc: Rtc, number: int, now: int = 0) -> int:
    """Read a register."""
    rtc_write(rtc, u16(0), u8(number))
    return int(rtc_read(rtc, u16(1), u64(now)))


def set_register(rtc: Rtc, number: int, value: int) -> None:
    """Write a register."""
    rtc_write(rtc, u16(0), u8(number))
    rtc_write(rtc, u16(1), u8(value))


@given(st.integers(0, 365 * 500))
def test_dates_are_the_calendars(days: int) -> None:
    """A number of days gives the date that Python's calendar gives, and back."""
    date = date_of(u64(days))
    expected = EPOCH + timedelta(days=days)
    assert (int(date.year), int(date.month), int(date.day)) == (expected.year, expected.month, expected.day)
    assert int(days_before(date.year, date.month, date.day)) == days


def decimal(value: int) -> int:
    """Return a number as two decimal digits in a byte."""
    return value // 10 << 4 | value % 10


@settings(deadline=None)
@given(st.integers(0, 8 * 10**9), st.integers(0, 10**9), st.booleans())
def test_registers_show_the_time(start: int, seconds: int, binary: bool) -> None:
    """Start plus now is shown in the registers, in binary or decimal, with weekday and century."""
    moment = EPOCH + timedelta(seconds=start + seconds)
    with Machine():
        rtc = Rtc()
        rtc.start = u64(start)
        rtc_reset(rtc)
        set_register(rtc, 0x0B, 0x06 if binary else 0x02)
        found = [register(rtc, number, seconds * 10**9) for number in (0, 2, 4, 6, 7, 8, 9, 0x32)]
    expected = [moment.second, moment.minute, moment.hour, moment.isoweekday() % 7 + 1, moment.day, moment.month]
    expected += [moment.year % 100, moment.year // 100]
    assert found == [value if binary else decimal(value) for value in expected]


@pytest.mark.parametrize(("hour", "shown"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)])
def test_twelve_hour_clock(hour: int, shown: int) -> None:
    """Without the 24-hour bit, hours are 12, 1 to 11, with bit 7 after noon."""
    with Machine():
        rtc = Rtc()
        rtc_reset(rtc)
        set_register(rtc, 0x0B, 0)
        assert register(rtc, 4, hour * 3600 * 10**9) == shown


def test_update_in_progress_warns_before_the_second() -> None:
    """UIP is set for the last 244 us of each second and at no other time."""
    with Machine():
        rtc = Rtc()
        rtc_reset(rtc)
        assert register(rtc, 0x0A, 5 * 10**9 - 244_000) == 0xA6
        assert register(rtc, 0x0A, 5 * 10**9 - 244_001) == 0x26
        assert register(rtc, 0x0A, 5 * 10**9) == 0x26


def test_a_box_cannot_set_the_clock_or_get_interrupts() -> None:
    """Writes to time registers change nothing; interrupt enables read back as zero."""
    with Machine():
        rtc = Rtc()
        rtc_reset(rtc)
        for number in (0, 2, 4, 6, 7, 8, 9, 0x32):
            before = register(rtc, number)
            set_register(rtc, number, 0x11)
            assert register(rtc, number) == before
        set_register(rtc, 0x0B, 0x72)
        assert register(rtc, 0x0B) == 0x02
