"""The page-ownership table: every transition is decided, nothing is reused before it is withdrawn and zeroed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boot.handoff import DIRECT_MAP
from dsl.lang import Failure, Machine, u8, u64
from vmm.memory import (
    BAD_FRAME,
    BAD_TRANSITION,
    FRAME_LIMIT,
    FRAME_SIZE,
    FRAME_TABLE,
    FRAMES,
    NO_MEMORY,
    FrameEvent,
    FrameState,
    apply_event,
    count_frames_owned,
    declare_free_range,
    next_state,
    release_frame,
    take_frame_for_box,
    take_monitor_pages,
    withdraw_frame,
)

pytestmark = pytest.mark.t0

ALLOWED = {
    (FrameState.OUTSIDE, FrameEvent.DECLARE_FREE): FrameState.FREE,
    (FrameState.FREE, FrameEvent.TAKE_FOR_MONITOR): FrameState.MONITOR,
    (FrameState.FREE, FrameEvent.GIVE_TO_BOX): FrameState.OWNED,
    (FrameState.OWNED, FrameEvent.SHARE): FrameState.SHARED,
    (FrameState.SHARED, FrameEvent.UNSHARE): FrameState.OWNED,
    (FrameState.OWNED, FrameEvent.WITHDRAW): FrameState.QUARANTINE,
    (FrameState.SHARED, FrameEvent.WITHDRAW): FrameState.QUARANTINE,
    (FrameState.QUARANTINE, FrameEvent.ZEROED): FrameState.FREE,
}


@pytest.fixture
def ram() -> Iterator[Machine]:
    """Four frames of RAM from 4 MiB on, dirty, three of them free; the rows of the table are the machine's."""
    with Machine() as machine:
        machine.memory.map(DIRECT_MAP + 2 * FRAME_SIZE, 4 * FRAME_SIZE, b"\xa5" * (4 * FRAME_SIZE))
        assert declare_free_range(u64(2 * FRAME_SIZE), u64(3 * FRAME_SIZE)) is None
        yield machine


@pytest.mark.parametrize("state", FrameState)
@pytest.mark.parametrize("event", FrameEvent)
def test_transition_function_is_total(state: FrameState, event: FrameEvent) -> None:
    """Each pair of state and event gives the one next state, or a refusal."""
    expected = ALLOWED.get((state, event))
    found = next_state(state, event)
    if expected is None:
        assert isinstance(found, Failure)
        assert int(found.code) == BAD_TRANSITION
    else:
        assert found is expected


def test_ranges_are_rounded_inward(model: Machine) -> None:
    """A frame that is only partly RAM is never given out."""
    assert declare_free_range(u64(FRAME_SIZE + 4096), u64(3 * FRAME_SIZE)) is None
    assert [FRAMES[number].state for number in range(5)] == [
        FrameState.OUTSIDE, FrameState.OUTSIDE, FrameState.FREE, FrameState.FREE, FrameState.OUTSIDE,
    ]  # fmt: skip
    assert int(FRAME_TABLE.free_count) == 2


def test_overlapping_and_wrapping_ranges_are_refused(model: Machine) -> None:
    """RAM that is declared twice, or whose end wraps, is an error and not a second owner."""
    assert declare_free_range(u64(0), u64(2 * FRAME_SIZE)) is None
    again = declare_free_range(u64(FRAME_SIZE), u64(FRAME_SIZE))
    assert isinstance(again, Failure)
    wrapping = declare_free_range(u64(2**64 - FRAME_SIZE), u64(2 * FRAME_SIZE))
    assert isinstance(wrapping, Failure)


def test_memory_above_the_table_is_left_out(model: Machine) -> None:
    """The last frame of the table is the last one given out."""
    assert declare_free_range(u64((FRAME_LIMIT - 1) * FRAME_SIZE), u64(5 * FRAME_SIZE)) is None
    assert int(FRAME_TABLE.free_count) == 1


def test_frames_are_zeroed_and_owned(ram: Machine) -> None:
    """A box gets a frame that is zero and its own; the fourth request finds none."""
    for box in range(3):
        number = take_frame_for_box(u8(box))
        assert not isinstance(number, Failure)
        assert FRAMES[number].state is FrameState.OWNED
        assert int(FRAMES[number].owner) == box
        content = ram.memory.read(DIRECT_MAP + int(number) * FRAME_SIZE, FRAME_SIZE)
        assert content == bytes(FRAME_SIZE)
    none = take_frame_for_box(u8(3))
    assert isinstance(none, Failure)
    assert int(none.code) == NO_MEMORY
    assert int(count_frames_owned(u8(1))) == 1


def test_reuse_takes_both_phases(ram: Machine) -> None:
    """An owned frame cannot be freed without withdrawal, and comes back zeroed."""
    number = take_frame_for_box(u8(0))
    assert not isinstance(number, Failure)
    place = DIRECT_MAP + int(number) * FRAME_SIZE
    ram.memory.write(place + 77, b"secret")
    early = release_frame(number)
    assert isinstance(early, Failure)
    assert ram.memory.read(place + 77, 6) == b"secret"
    assert withdraw_frame(number) is None
    assert FRAMES[number].state is FrameState.QUARANTINE
    again = withdraw_frame(number)
    assert isinstance(again, Failure)
    assert release_frame(number) is None
    assert FRAMES[number].state is FrameState.FREE
    assert ram.memory.read(place, FRAME_SIZE) == bytes(FRAME_SIZE)
    assert take_frame_for_box(u8(1)) == number


def test_monitor_pages_are_contiguous_and_never_a_boxs(ram: Machine) -> None:
    """The pool hands out disjoint pages of MONITOR frames; a whole frame is the most at a time."""
    first, second = take_monitor_pages(u64(3)), take_monitor_pages(u64(2))
    assert not isinstance(first, Failure)
    assert not isinstance(second, Failure)
    assert int(second.as_u64()) == int(first.as_u64()) + 3 * 4096
    assert FRAMES[int(first.as_u64()) // FRAME_SIZE].state is FrameState.MONITOR
    for count in (0, 513):
        assert isinstance(take_monitor_pages(u64(count)), Failure)
    while not isinstance(taken := take_frame_for_box(u8(0)), Failure):
        assert taken != int(first.as_u64()) // FRAME_SIZE


def test_frame_numbers_beyond_the_table(model: Machine) -> None:
    """A number that is no row is refused, not wrapped."""
    for number in (FRAME_LIMIT, 2**64 - 1):
        refused = apply_event(u64(number), FrameEvent.DECLARE_FREE, u8(0))
        assert isinstance(refused, Failure)
        assert int(refused.code) == BAD_FRAME


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(FrameEvent), st.integers(0, 3)), max_size=30))
def test_free_count_is_the_number_of_free_rows(steps: list[tuple[int, FrameEvent, int]]) -> None:
    """Whatever events come, the count and the search position agree with the rows."""
    with Machine():
        for number, event, owner in steps:
            apply_event(u64(number), event, u8(owner))
        free = [number for number in range(4) if FRAMES[number].state is FrameState.FREE]
        assert int(FRAME_TABLE.free_count) == len(free)
        assert not free or int(FRAME_TABLE.search_from) <= free[0]
