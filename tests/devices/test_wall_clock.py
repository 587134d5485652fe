"""The monitor reads the machine's clock: tested against our own model of one, which test_rtc.py ties to the calendar."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import u8, u16, u64
from dsl.lang.model import Machine
from vmm.devices.rtc import Rtc, rtc_read, rtc_reset, rtc_write
from vmm.wall_clock import read_wall_clock

pytestmark = pytest.mark.t0


class Clock:
    """An RTC at ports 70h and 71h; time passes with each access."""

    def __init__(self, start: int, status_b: int, access_ns: int) -> None:
        """Start at `start` Unix seconds in the format of status B."""
        self.rtc = Rtc()
        self.rtc.start = u64(start)
        self.now = 0
        self.access_ns = access_ns
        rtc_reset(self.rtc)
        rtc_write(self.rtc, u16(0), u8(0x0B))
        rtc_write(self.rtc, u16(1), u8(status_b))

    def read(self, port: int, width: int) -> int:
        """IN."""
        self.now += self.access_ns
        return int(rtc_read(self.rtc, u16(port - 0x70), u64(self.now)))

    def write(self, port: int, width: int, value: int) -> None:
        """OUT."""
        self.now += self.access_ns
        rtc_write(self.rtc, u16(port - 0x70), u8(value))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**10), st.sampled_from([0x00, 0x02, 0x04, 0x06]), st.sampled_from([1, 1000, 1_500_000]))
def test_the_time_is_read_in_every_format(start: int, status_b: int, access_ns: int) -> None:
    """Binary or decimal, 12 or 24 hours, and a second that ends between two registers: the time is that of the clock at the end."""
    with Machine() as machine:
        clock = Clock(start, status_b, access_ns)
        machine.ports[0x70] = machine.ports[0x71] = clock
        found = int(read_wall_clock())
    now = start + clock.now // 10**9
    assert now - 1 <= found <= now


@pytest.mark.parametrize("answer", [0xFF, 0x00])
def test_no_clock_is_time_zero(answer: int) -> None:
    """Ports that nobody answers, and a clock of zeros, give 0 and do not hang."""
    with Machine() as machine:
        machine.ports[0x70] = 0
        machine.ports[0x71] = Constant(answer)
        assert int(read_wall_clock()) == 0


class Constant:
    """A port that always reads the same."""

    def __init__(self, value: int) -> None:
        """Read as `value`."""
        self.value = value

    def read(self, port: int, width: int) -> int:
        """IN."""
        return self.value

    def write(self, port: int, width: int, value: int) -> None:
        """OUT goes nowhere."""
