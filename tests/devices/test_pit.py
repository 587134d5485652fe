"""The timer: conversions between ticks and time, and when channel 0 raises its line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import u8, u16, u64
from dsl.lang.model import Machine
from vmm.devices.pit import (
    FREQUENCY,
    NANOSECONDS,
    NEVER,
    Pit,
    pit_deadline,
    pit_reset,
    pit_take_edge,
    pit_write,
    ticks_at,
    time_of_tick,
)

pytestmark = pytest.mark.t0
times = st.integers(0, 2**63) | st.integers(0, 10**12)


@given(times)
def test_ticks_are_exact_to_one(now: int) -> None:
    """Ticks are now * 1193182 / 10**9, rounded down, at most one less: no drift."""
    exact = now * FREQUENCY // NANOSECONDS
    assert exact - 1 <= int(ticks_at(u64(now))) <= exact


@given(times, st.integers(0, 10**9))
def test_ticks_never_go_back(now: int, later: int) -> None:
    """A later time has no fewer ticks."""
    assert int(ticks_at(u64(now + later))) >= int(ticks_at(u64(now)))


@given(st.integers(0, 2**53))
def test_the_time_of_a_tick_has_reached_it(tick: int) -> None:
    """At the time of a tick the tick has come, and one microsecond before it has not."""
    when = int(time_of_tick(u64(tick)))
    assert int(ticks_at(u64(when))) >= tick
    if tick > 2 and when > 1000:
        assert int(ticks_at(u64(when - 1000))) < tick


def test_the_time_of_never_is_never() -> None:
    """A channel that does not fire has no deadline."""
    assert int(time_of_tick(u64(NEVER))) == NEVER


def program(pit: Pit, mode: int, count: int, now: int) -> None:
    """Load channel 0."""
    pit_write(pit, u16(3), u8(0x30 | mode << 1), u64(now))
    pit_write(pit, u16(0), u8(count & 0xFF), u64(now))
    pit_write(pit, u16(0), u8(count >> 8), u64(now))


def edges(pit: Pit, start: int, end: int) -> list[int]:
    """Follow the deadlines and return the times of the edges."""
    found: list[int] = []
    now = start
    while (now := int(pit_deadline(pit))) <= end and now != NEVER:
        assert pit_take_edge(pit, u64(now)), "a deadline without an edge"
        found.append(now)
        assert len(found) < 10_000
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 0xFFFF), st.integers(0, 10**15))
def test_one_shot_modes_fire_once_after_count(count: int, start: int) -> None:
    """Modes 0 and 4 raise the line once, count (mode 4: one more) ticks after the load, within two ticks."""
    for mode, extra in ((0, 0), (4, 1)):
        with Machine():
            pit = Pit()
            pit_reset(pit, u64(start))
            program(pit, mode, count, start)
            found = edges(pit, start, start + NANOSECONDS)
        assert len(found) == 1
        expected = start + (count + extra) * NANOSECONDS / FREQUENCY
        assert abs(found[0] - expected) <= 2 * NANOSECONDS / FREQUENCY


@settings(max_examples=30, deadline=None)
@given(st.integers(2000, 0x10000), st.integers(0, 10**15), st.sampled_from([2, 3]))
def test_periodic_modes_keep_their_rate(count: int, start: int, mode: int) -> None:
    """Modes 2 and 3 raise the line at the rate 1193182 / count Hz, for a second, without drift."""
    with Machine():
        pit = Pit()
        pit_reset(pit, u64(start))
        program(pit, mode, count & 0xFFFF, start)
        found = edges(pit, start, start + NANOSECONDS)
    assert abs(len(found) - FREQUENCY // count) <= 1
    for index, when in enumerate(found):
        assert abs(when - start - (index + 1) * count * NANOSECONDS / FREQUENCY) <= 2 * NANOSECONDS / FREQUENCY


def test_missed_ticks_are_one_edge() -> None:
    """An edge that nobody looked at in time is not made up for."""
    with Machine():
        pit = Pit()
        pit_reset(pit, u64(0))
        program(pit, 2, 1000, 0)
        assert pit_take_edge(pit, u64(NANOSECONDS))
        assert not pit_take_edge(pit, u64(NANOSECONDS))
        assert pit_take_edge(pit, u64(2 * NANOSECONDS))


def test_a_control_word_stops_the_channel() -> None:
    """Between a control word and its count no edge comes."""
    with Machine():
        pit = Pit()
        pit_reset(pit, u64(0))
        pit_write(pit, u16(3), u8(0x34), u64(5))
        assert int(pit_deadline(pit)) == NEVER
        assert not pit_take_edge(pit, u64(10 * NANOSECONDS))
