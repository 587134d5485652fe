"""What a descriptor must obey. Its bytes were verified before, but a signer's mistake must not become the monitor's."""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import Array, Failure, machine, table, u8, u64, upto
from vmm.descriptor import (
    DESCRIPTOR_MAGIC,
    DESCRIPTOR_SIZE,
    DESCRIPTOR_VERSION,
    DEVICES_KNOWN,
    FLAGS_KNOWN,
    LABEL_SIZE,
    MEMORY_GRANULE,
    MONITOR_LABEL,
    SEGMENT_LIMIT,
    WEIGHT_LIMIT,
    BoxDescriptor,
    BoxSegment,
    SegmentKind,
    StartMode,
)

RESERVED_LABEL: Final = table(u8, MONITOR_LABEL.ljust(LABEL_SIZE, b"\0"))


class Fault(Enum):
    """Which rule a descriptor breaks; the names are what the monitor says."""

    MAGIC = u64(1)
    VERSION = u64(2)
    SIZE = u64(3)
    LABEL = u64(4)
    FLAGS = u64(5)
    MEMORY_SIZE = u64(6)
    CPU_COUNT = u64(7)
    WEIGHT = u64(8)
    START_MODE = u64(9)
    SEGMENT_COUNT = u64(10)
    DEVICES = u64(11)
    RESERVED = u64(12)
    SEGMENT_KIND = u64(13)
    SEGMENT_RANGE = u64(14)
    SEGMENT_OVERLAP = u64(15)
    UNUSED_SEGMENT = u64(16)
    START_ADDRESS = u64(17)
    FILL_SIZE = u64(18)


@machine
def is_label_byte(byte: u8) -> bool:
    """Say whether a byte may stand in a label: a-z, 0-9, hyphen."""
    return (byte >= 0x61 and byte <= 0x7A) or (byte >= 0x30 and byte <= 0x39) or byte == 0x2D


@machine
def is_label(label: Array[u8]) -> bool:
    """At least one label byte, then zeros to the end, at least one."""
    size = u64(0)
    while size < LABEL_SIZE and label[size] != 0:
        if not is_label_byte(label[size]):
            return False
        size += 1
    return size != 0 and size != LABEL_SIZE and is_zero(label.slice(size, LABEL_SIZE - size))


@machine
def is_zero(data: Array[u8]) -> bool:
    """Say whether all bytes are zero."""
    for index in upto(data.length):
        if data[index] != 0:
            return False
    return True


@machine
def check_head(descriptor: BoxDescriptor) -> Failure | None:
    """Check the fields before the segments."""
    if descriptor.magic != DESCRIPTOR_MAGIC:
        return Failure(Fault.MAGIC.value)
    if descriptor.version != DESCRIPTOR_VERSION:
        return Failure(Fault.VERSION.value)
    if descriptor.size != DESCRIPTOR_SIZE:
        return Failure(Fault.SIZE.value)
    if not is_label(descriptor.label) or descriptor.label.equals(RESERVED_LABEL):
        return Failure(Fault.LABEL.value)
    if descriptor.flags & ~u64(FLAGS_KNOWN) != 0:
        return Failure(Fault.FLAGS.value)
    if descriptor.memory_size == 0 or descriptor.memory_size % MEMORY_GRANULE != 0:
        return Failure(Fault.MEMORY_SIZE.value)
    if descriptor.cpu_count != 1:
        return Failure(Fault.CPU_COUNT.value)
    if descriptor.weight == 0 or descriptor.weight > WEIGHT_LIMIT:
        return Failure(Fault.WEIGHT.value)
    if descriptor.devices & ~u64(DEVICES_KNOWN) != 0:
        return Failure(Fault.DEVICES.value)
    if descriptor.policy_label != 0 or not is_zero(descriptor.reserved) or not is_zero(descriptor.reserved_end):
        return Failure(Fault.RESERVED.value)
    return check_start(descriptor)


@machine
def check_start(descriptor: BoxDescriptor) -> Failure | None:
    """Check the first instruction's mode and place."""
    mode = descriptor.start_mode
    if mode != StartMode.PROTECTED.value and mode != StartMode.REAL.value and mode != StartMode.LONG.value:
        return Failure(Fault.START_MODE.value)
    if descriptor.rip >= descriptor.memory_size:
        return Failure(Fault.START_ADDRESS.value)
    if mode == StartMode.REAL.value and descriptor.rip > 0xFFFF:
        return Failure(Fault.START_ADDRESS.value)
    if mode == StartMode.LONG.value:
        if descriptor.cr3 % 4096 != 0 or descriptor.cr3 >= descriptor.memory_size:
            return Failure(Fault.START_ADDRESS.value)
    elif descriptor.cr3 != 0:
        return Failure(Fault.START_ADDRESS.value)
    return None


@machine
def check_segment(segment: BoxSegment, memory_size: u64) -> Failure | None:
    """Check one segment by itself."""
    kind = segment.kind
    if kind == 0 or kind > SegmentKind.FILL_TSC_KHZ.value:
        return Failure(Fault.SEGMENT_KIND.value)
    if segment.reserved_kind != 0 or segment.reserved != 0:
        return Failure(Fault.RESERVED.value)
    if kind != SegmentKind.DATA.value and not is_zero(segment.sha256):
        return Failure(Fault.RESERVED.value)
    if kind == SegmentKind.FILL_TSC_KHZ.value and segment.size != 4:
        return Failure(Fault.FILL_SIZE.value)
    start = segment.guest_physical.as_u64()
    if segment.size == 0 or segment.size > memory_size or start > memory_size - segment.size:
        return Failure(Fault.SEGMENT_RANGE.value)
    return None


@machine
def is_overlapping(first: BoxSegment, second: BoxSegment) -> bool:
    """Say whether two segments, each within memory, share a byte."""
    first_start = first.guest_physical.as_u64()
    second_start = second.guest_physical.as_u64()
    return first_start < second_start + second.size and second_start < first_start + first.size


@machine
def check_segments(descriptor: BoxDescriptor) -> Failure | None:
    """Check all segments, each against those before it."""
    count = u64(descriptor.segment_count)
    if count > SEGMENT_LIMIT:
        return Failure(Fault.SEGMENT_COUNT.value)
    for index in upto(SEGMENT_LIMIT):
        segment = descriptor.segments[index]
        if index >= count:
            if segment.kind != 0 or segment.size != 0 or segment.guest_physical.as_u64() != 0:
                return Failure(Fault.UNUSED_SEGMENT.value)
        else:
            checked = check_segment(segment, descriptor.memory_size)
            if isinstance(checked, Failure):
                return checked
            for earlier in upto(index):
                if is_overlapping(segment, descriptor.segments[earlier]):
                    return Failure(Fault.SEGMENT_OVERLAP.value)
    return None


@machine
def check_descriptor(descriptor: BoxDescriptor) -> Failure | None:
    """Check every field of a descriptor. The failure's code is a Fault."""
    head = check_head(descriptor)
    if isinstance(head, Failure):
        return head
    return check_segments(descriptor)
