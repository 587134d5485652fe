"""Who owns each 2-MiB frame of the machine: the page-ownership table and the only functions that change it.

A frame is in exactly one state. A change of owner has two phases: the frame is withdrawn (every mapping removed before, by
`engine.unmap_all`), waits in quarantine, is zeroed, and only then is free again. States change through `next_state`, which is total.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from boot.handoff import DIRECT_MAP
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import (
    Failure,
    HostPhysical,
    HostVirtual,
    Struct,
    array_at,
    machine,
    static,
    static_array,
    u8,
    u32,
    u64,
    upto,
)

FRAME_SHIFT: Final = 21
FRAME_SIZE: Final = 1 << FRAME_SHIFT
FRAME_LIMIT: Final = 32768  # frames that the table covers: 64 GiB
MEMORY_LIMIT: Final = FRAME_LIMIT * FRAME_SIZE  # bytes; what lies above is not used, and the monitor says so
NOBODY: Final = 0xFF  # the owner of a frame that no box owns

NO_MEMORY: Final = 1  # failure: not enough free frames
BAD_TRANSITION: Final = 2  # failure: the event is not allowed in the frame's state
BAD_FRAME: Final = 3  # failure: a frame number beyond the table


class FrameState(Enum):
    """What a frame is used for."""

    OUTSIDE = u8(0)  # not RAM, or taken out of the map before the monitor ran: never given to anyone
    FREE = u8(1)
    MONITOR = u8(2)
    OWNED = u8(3)  # by one box
    SHARED = u8(4)  # by a declared pair of boxes
    QUARANTINE = u8(5)  # withdrawn, not yet zeroed


class FrameEvent(Enum):
    """What happens to a frame."""

    DECLARE_FREE = u8(0)  # at start: RAM that the loader left
    TAKE_FOR_MONITOR = u8(1)
    GIVE_TO_BOX = u8(2)
    SHARE = u8(3)
    UNSHARE = u8(4)
    WITHDRAW = u8(5)  # unmapped everywhere
    ZEROED = u8(6)


class Frame(Struct, size=4):
    """One row of the ownership table."""

    state: FrameState
    owner: u8  # box index, or NOBODY
    partner: u8  # the other box of a shared frame, or NOBODY
    reserved: u8


class FrameTable(Struct):
    """What goes with the rows."""

    free_count: u64
    search_from: u64  # no frame below is free
    monitor_next: u64  # host-physical address of the next unused byte of the monitor's pool
    monitor_end: u64
    used_by_monitor: u64  # bytes handed out of the pool


FRAMES: Final = static_array(Frame, FRAME_LIMIT)
FRAME_TABLE: Final = static(FrameTable)


@machine
def to_host_virtual(address: HostPhysical) -> HostVirtual:
    """The direct map's address of a physical one."""
    return HostVirtual(address.as_u64() + DIRECT_MAP)


@machine
def next_state(state: FrameState, event: FrameEvent) -> FrameState | Failure:
    """The transition function: total, and the only place that says what may follow what."""
    if event == FrameEvent.DECLARE_FREE:
        if state == FrameState.OUTSIDE:
            return FrameState.FREE
    elif event == FrameEvent.TAKE_FOR_MONITOR:
        if state == FrameState.FREE:
            return FrameState.MONITOR
    elif event == FrameEvent.GIVE_TO_BOX:
        if state == FrameState.FREE:
            return FrameState.OWNED
    elif event == FrameEvent.SHARE:
        if state == FrameState.OWNED:
            return FrameState.SHARED
    elif event == FrameEvent.UNSHARE:
        if state == FrameState.SHARED:
            return FrameState.OWNED
    elif event == FrameEvent.WITHDRAW:
        if state == FrameState.OWNED or state == FrameState.SHARED:
            return FrameState.QUARANTINE
    else:
        if state == FrameState.QUARANTINE:
            return FrameState.FREE
    return Failure(BAD_TRANSITION)


@machine
def apply_event(frame_number: u64, event: FrameEvent, owner: u8) -> Failure | None:
    """Move a frame to its next state, with its new owner. On failure nothing has changed."""
    if frame_number >= FRAME_LIMIT:
        return Failure(BAD_FRAME)
    frame = FRAMES[frame_number]
    state = next_state(frame.state, event)
    if isinstance(state, Failure):
        return state
    if state == FrameState.FREE:
        FRAME_TABLE.free_count += 1
        FRAME_TABLE.search_from = FRAME_TABLE.search_from if FRAME_TABLE.search_from < frame_number else frame_number
    elif frame.state == FrameState.FREE:
        FRAME_TABLE.free_count -= 1
    frame.state = state
    if event == FrameEvent.SHARE:
        frame.partner = owner
    else:
        frame.owner = owner
        frame.partner = u8(NOBODY)
    return None


@machine
def declare_free_range(base: u64, size: u64) -> Failure | None:
    """Make free every whole frame of a range of RAM (bytes). What lies above the table's end is left out."""
    end = base + size
    if end < base:
        return Failure(BAD_FRAME)
    number = (base + (FRAME_SIZE - 1)) >> FRAME_SHIFT
    last = end >> FRAME_SHIFT
    if last > FRAME_LIMIT:
        last = u64(FRAME_LIMIT)
    while number < last:
        declared = apply_event(number, FrameEvent.DECLARE_FREE, u8(NOBODY))
        if isinstance(declared, Failure):
            return declared
        number += 1
    return None


@machine
def zero_frame(frame_number: u64) -> None:
    """Zero all bytes of a frame."""
    # Safe because the frame lies below FRAME_LIMIT in RAM that the direct map covers, and nobody else has it mapped.
    words = array_at(u64, to_host_virtual(HostPhysical(frame_number << FRAME_SHIFT)), u64(FRAME_SIZE // 8))
    words.fill(u64(0))


@machine
def find_free_frame() -> u64 | Failure:
    """The lowest free frame's number; the frame stays free."""
    number = FRAME_TABLE.search_from
    while number < FRAME_LIMIT:
        if FRAMES[number].state == FrameState.FREE:
            FRAME_TABLE.search_from = number
            return number
        number += 1
    return Failure(NO_MEMORY)


@machine
def take_frame_for_box(owner: u8) -> u64 | Failure:
    """Give a free frame, zeroed, to a box. Returns its number."""
    number = find_free_frame()
    if isinstance(number, Failure):
        return number
    zero_frame(number)  # what it holds is the firmware's or the loader's: a box sees none of it
    given = apply_event(number, FrameEvent.GIVE_TO_BOX, owner)
    if isinstance(given, Failure):
        return given
    return number


@machine
def withdraw_frame(frame_number: u64) -> Failure | None:
    """First phase of a change of owner: the caller has removed every mapping and invalidated the translations."""
    return apply_event(frame_number, FrameEvent.WITHDRAW, u8(NOBODY))


@machine
def release_frame(frame_number: u64) -> Failure | None:
    """Second phase: zero a frame in quarantine and make it free."""
    if frame_number >= FRAME_LIMIT:
        return Failure(BAD_FRAME)
    if FRAMES[frame_number].state != FrameState.QUARANTINE:
        return Failure(BAD_TRANSITION)
    zero_frame(frame_number)
    return apply_event(frame_number, FrameEvent.ZEROED, u8(NOBODY))


@machine
def take_monitor_pages(count: u64) -> HostPhysical | Failure:
    """Hand out `count` zeroed, contiguous 4-KiB pages of the monitor's own. They are never given back."""
    size = count * PAGE_SIZE
    if count == 0 or count > FRAME_SIZE // PAGE_SIZE:
        return Failure(NO_MEMORY)
    if FRAME_TABLE.monitor_end - FRAME_TABLE.monitor_next < size:
        number = find_free_frame()
        if isinstance(number, Failure):
            return number
        zero_frame(number)
        taken = apply_event(number, FrameEvent.TAKE_FOR_MONITOR, u8(NOBODY))
        if isinstance(taken, Failure):
            return taken
        if number << FRAME_SHIFT != FRAME_TABLE.monitor_end:  # not just above the last one: start afresh there
            FRAME_TABLE.monitor_next = number << FRAME_SHIFT
        FRAME_TABLE.monitor_end = (number << FRAME_SHIFT) + FRAME_SIZE
    page = FRAME_TABLE.monitor_next
    FRAME_TABLE.monitor_next = page + size
    FRAME_TABLE.used_by_monitor += size
    return HostPhysical(page)


@machine
def count_frames_owned(owner: u8) -> u32:
    """How many frames a box owns alone."""
    count = u32(0)
    for number in upto(FRAME_LIMIT):
        frame = FRAMES[number]
        if frame.state == FrameState.OWNED and frame.owner == owner:
            count += 1
    return count
