"""Making the boxes: descriptor checked, memory allocated, segments copied from the verified entries, key derived, virtual CPU set up."""

from __future__ import annotations

from enum import Enum
from typing import Final

from boot.handoff import EntryKind, Handoff, LoadedEntry
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import (
    Array,
    Failure,
    array_at,
    erase,
    frame_array,
    machine,
    minimum,
    size_of,
    table,
    text,
    u8,
    u32,
    u64,
    untrusted,
    upto,
)
from dsl.lang.intrinsics import rdtsc
from vmm.box import BOXES, Box, all_boxes
from vmm.box_check import Fault, check_descriptor
from vmm.chain import certify_box
from vmm.clock import CLOCK
from vmm.console import (
    BOX_LIMIT,
    console_attach,
    console_decimal,
    console_line,
    console_newline,
    console_padded,
    console_text,
)
from vmm.descriptor import FLAG_CLOSED, FLAG_QUIET, BoxDescriptor, BoxSegment, SegmentKind
from vmm.devices.board import board_reset, board_set_clock
from vmm.engine import Start, create_virtual_cpu
from vmm.entropy import random_bytes
from vmm.guest_memory import copy_out
from vmm.memory import FRAME_SHIFT, FRAME_SIZE, take_frame_for_box, take_monitor_pages, to_host_virtual
from vmm.switch import reset_state
from vmm.wall_clock import read_wall_clock

FAULT_SIZE: Final = 16  # bytes of a name in FAULT_NAMES
FAULT_NAMES: Final = table(
    u8, b"".join(fault.name.lower().replace("_", " ").encode().ljust(FAULT_SIZE, b"\0") for fault in Fault)
)
MXCSR_OFFSET: Final = 24  # in the XSAVE area
MXCSR_AT_RESET: Final = 0x1F80
FILL_PIECE: Final = 256  # bytes of random fill made at a time


class StartFault(Enum):
    """Why a box could not be made, beyond its descriptor."""

    NO_MEMORY = u64(101)
    NO_SEGMENT = u64(102)
    SEGMENT_SIZE = u64(103)
    NO_ENTROPY = u64(104)
    SAME_LABEL = u64(105)
    ENGINE = u64(106)


@machine
def say_fault(code: u64) -> None:
    """Say what a fault code means."""
    if code <= Fault.FILL_SIZE.value:
        console_text(text("its descriptor breaks the rule for "))
        console_padded(FAULT_NAMES.slice((code - 1) * FAULT_SIZE, u64(FAULT_SIZE)))
    elif code == StartFault.NO_MEMORY.value:
        console_text(text("the machine has too little free memory for it"))
    elif code == StartFault.NO_SEGMENT.value:
        console_text(text("the image has no entry with a segment's SHA-256"))
    elif code == StartFault.SEGMENT_SIZE.value:
        console_text(text("a segment's size is not its entry's"))
    elif code == StartFault.NO_ENTROPY.value:
        console_text(text("it wants random bytes, and this processor has no working RDRAND or RDSEED"))
    elif code == StartFault.SAME_LABEL.value:
        console_text(text("another box has its label"))
    else:
        console_text(text("its virtual CPU could not be made"))


@machine
def say_refused_box(index: u64, code: u64) -> None:
    """Say that a box is not started, and why."""
    console_text(text("refused: box "))
    console_decimal(index)
    console_text(text(": "))
    say_fault(code)
    console_newline()


@machine
def entry_bytes(entry: LoadedEntry) -> Array[u8]:
    """The bytes of an entry that the loader copied and verified."""
    # Safe because the handoff's entries name memory that was taken out of the map, and the direct map covers it.
    return array_at(u8, to_host_virtual(entry.physical), entry.size)


@machine
def descriptor_of(entry: LoadedEntry) -> BoxDescriptor:
    """The descriptor that an entry holds."""
    # Safe because the loader checked that a descriptor entry is exactly one page.
    return BoxDescriptor.at(to_host_virtual(entry.physical))


@machine
def count_descriptors(handoff: Handoff) -> u64:
    """How many boxes the image has."""
    count = u64(0)
    for index in upto(u64(handoff.entry_count)):
        if handoff.entries[index].kind == EntryKind.DESCRIPTOR.value:
            count += 1
    return count


@machine
def pages_for(size: u64) -> u64:
    """How many pages hold that many bytes."""
    return (size + (PAGE_SIZE - 1)) // PAGE_SIZE


@machine
def allocate_boxes(count: u64) -> Failure | None:
    """Take the monitor's pages for all boxes' structures."""
    pages = take_monitor_pages(pages_for(count * size_of(Box)))
    if isinstance(pages, Failure):
        return Failure(StartFault.NO_MEMORY.value)
    BOXES.first = to_host_virtual(pages)
    BOXES.count = count
    return None


@machine
def allocate_memory(box: Box, size: u64) -> Failure | None:
    """Take frames for guest-physical 0 to size, zeroed."""
    count = size >> FRAME_SHIFT
    pages = take_monitor_pages(pages_for(count * 8))
    if isinstance(pages, Failure):
        return Failure(StartFault.NO_MEMORY.value)
    memory = box.memory
    memory.frames = to_host_virtual(pages)
    memory.frame_count = count
    memory.size = size
    frames = frames_of(box)
    for index in upto(count):
        frame = take_frame_for_box(box.index.truncate(u8))
        if isinstance(frame, Failure):
            return Failure(StartFault.NO_MEMORY.value)
        frames[index] = frame
    return None


@machine
def frames_of(box: Box) -> Array[u64]:
    """The numbers of a box's frames."""
    # Safe because the pages were taken for frame_count numbers.
    return array_at(u64, box.memory.frames, box.memory.frame_count)


@machine
def find_segment(handoff: Handoff, segment: BoxSegment) -> u64 | Failure:
    """The entry that holds a segment's bytes, by SHA-256: its index plus 1."""
    for index in upto(u64(handoff.entry_count)):
        entry = handoff.entries[index]
        if entry.kind == EntryKind.SEGMENT.value and entry.digest.equals(segment.sha256):
            if entry.size != segment.size:
                return Failure(StartFault.SEGMENT_SIZE.value)
            return index
    return Failure(StartFault.NO_SEGMENT.value)


@machine
def place(box: Box, guest_physical: u64, data: Array[u8]) -> None:
    """Copy bytes into a box's memory, where the descriptor's checked segment says."""
    for piece in upto((data.length + FRAME_SIZE - 1) >> FRAME_SHIFT):
        done = piece << FRAME_SHIFT
        content = data.slice(done, minimum(data.length - done, u64(FRAME_SIZE)))
        copied = copy_out(box.memory, untrusted(guest_physical + done), content)
        assert not isinstance(copied, Failure), "segments lie in memory"


@machine
def fill_random(box: Box, start: u64, size: u64) -> Failure | None:
    """Fill a range of a box's memory with random bytes."""
    piece = frame_array(u8, FILL_PIECE)
    done = u64(0)
    while done < size:
        length = size - done if size - done < FILL_PIECE else u64(FILL_PIECE)
        filled = random_bytes(piece.slice(u64(0), length))
        if isinstance(filled, Failure):
            return Failure(StartFault.NO_ENTROPY.value)
        place(box, start + done, piece.slice(u64(0), length))
        done += length
    erase(piece)
    return None


@machine
def load_segment(box: Box, handoff: Handoff, segment: BoxSegment) -> Failure | None:
    """Put one segment into a box's memory."""
    start = segment.guest_physical.as_u64()
    if segment.kind == SegmentKind.DATA.value:
        index = find_segment(handoff, segment)
        if isinstance(index, Failure):
            return index
        place(box, start, entry_bytes(handoff.entries[index]))
    elif segment.kind == SegmentKind.FILL_RANDOM.value:
        return fill_random(box, start, segment.size)
    elif segment.kind == SegmentKind.FILL_TSC_KHZ.value:
        kilohertz = frame_array(u8, 4)
        kilohertz.store_u32(u64(0), CLOCK.tsc_khz)
        place(box, start, kilohertz)
    return None


@machine
def load_segments(box: Box, handoff: Handoff, descriptor: BoxDescriptor) -> Failure | None:
    """Put all segments into a box's memory."""
    for index in upto(u64(descriptor.segment_count)):
        loaded = load_segment(box, handoff, descriptor.segments[index])
        if isinstance(loaded, Failure):
            return loaded
    return None


@machine
def set_registers(box: Box, descriptor: BoxDescriptor) -> None:
    """The general registers at the first instruction; all others are zero."""
    registers = box.vcpu.registers
    registers.rsi = descriptor.rsi
    registers.rdi = descriptor.rdi
    registers.rbx = descriptor.rbx


@machine
def make_switch_state(box: Box) -> Failure | None:
    """Give a box its XSAVE area, in the initial state."""
    pages = take_monitor_pages(u64(1))
    if isinstance(pages, Failure):
        return Failure(StartFault.NO_MEMORY.value)
    area = to_host_virtual(pages)
    box.vcpu.switch.xsave_area = area
    # Safe because the page was just taken for this.
    array_at(u8, area, u64(PAGE_SIZE)).store_u32(u64(MXCSR_OFFSET), u32(MXCSR_AT_RESET))
    reset_state(box.vcpu.switch)
    return None


@machine
def is_label_taken(box: Box) -> bool:
    """Say whether an earlier box has the same label."""
    boxes = all_boxes()
    for index in upto(u64(box.index)):
        if boxes[index].label.equals(box.label):
            return True
    return False


@machine
def make_box(box: Box, index: u64, handoff: Handoff, entry: LoadedEntry) -> Failure | None:
    """Make one box from its descriptor's entry. On failure its frames stay its own, and it is never started."""
    descriptor = descriptor_of(entry)
    checked = check_descriptor(descriptor)
    if isinstance(checked, Failure):
        return checked
    box.index = index.truncate(u32)
    box.vcpu.box_index = box.index
    box.label.copy_from(descriptor.label)
    if is_label_taken(box):
        return Failure(StartFault.SAME_LABEL.value)
    box.identity.copy_from(entry.digest)
    box.flags = descriptor.flags
    box.weight = descriptor.weight
    allocated = allocate_memory(box, descriptor.memory_size)
    if isinstance(allocated, Failure):
        return allocated
    loaded = load_segments(box, handoff, descriptor)
    if isinstance(loaded, Failure):
        return loaded
    certify_box(box, entry)
    prepared = make_switch_state(box)
    if isinstance(prepared, Failure):
        return prepared
    return start_box(box, descriptor)


@machine
def start_box(box: Box, descriptor: BoxDescriptor) -> Failure | None:
    """Make the virtual CPU and the devices, and begin the box's time."""
    set_registers(box, descriptor)
    box.started_tsc = rdtsc()
    box.vcpu.tsc_offset = u64(0) - box.started_tsc
    start = Start(descriptor.start_mode, descriptor.rip, descriptor.rsp, descriptor.cr3)
    created = create_virtual_cpu(box.vcpu, box.index.truncate(u8), frames_of(box), start)
    if isinstance(created, Failure):
        return Failure(StartFault.ENGINE.value)
    board_reset(box.board, descriptor.devices, u64(0))
    board_set_clock(box.board, read_wall_clock())
    box.board.needs_advance = True
    console_attach(u64(box.index), box.label, box.board.output, box.board.input)
    if box.flags & FLAG_QUIET == 0:
        announce_box(box, descriptor)
    return None


@machine
def announce_box(box: Box, descriptor: BoxDescriptor) -> None:
    """Say what was made."""
    console_text(text("box "))
    console_decimal(u64(box.index))
    console_text(text(" "))
    console_padded(box.label)
    console_text(text(": closed, ") if box.flags & FLAG_CLOSED != 0 else text(": open, "))
    console_decimal(descriptor.memory_size >> 20)
    console_line(text(" MiB"))


@machine
def make_boxes(handoff: Handoff) -> bool:
    """Make all boxes of the image. False: one was refused, a message has said which and why, and nothing may be started."""
    count = count_descriptors(handoff)
    if count == 0 or count > BOX_LIMIT:
        console_text(text("refused: the image has to have 1 to 16 boxes; found "))
        console_decimal(count)
        console_newline()
        return False
    allocated = allocate_boxes(count)
    if isinstance(allocated, Failure):
        say_refused_box(u64(0), allocated.code)
        return False
    made = u64(0)
    for index in upto(u64(handoff.entry_count)):
        entry = handoff.entries[index]
        if entry.kind == EntryKind.DESCRIPTOR.value:
            result = make_box(all_boxes()[made], made, handoff, entry)
            if isinstance(result, Failure):
                say_refused_box(made, result.code)
                return False
            made += 1
    return True
