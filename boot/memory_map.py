"""Which RAM there is: the firmware's map made safe, ranges taken out of it, memory allocated from its top.

A map is a sorted list of disjoint, page-aligned ranges that do not touch. Wherever there is doubt memory is lost, never won: whatever
is not RAM wins an overlap, RAM is rounded inward, and when the list is full its smallest range is dropped.
"""

from __future__ import annotations

from typing import Final

from boot.parameters import RAM, RANGE_ATTRIBUTES_RAM, RANGE_VALID, BootParameters, FirmwareRange
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import Array, Failure, Struct, array, machine, maximum, minimum, u64, upto

MAP_CAPACITY: Final = 128
PAGE_MASK: Final = 0xFFFFFFFFFFFFF000
HIGHEST: Final = 0xFFFFFFFFFFFFFFFF


class Range(Struct, size=16):
    """Bytes base to end - 1."""

    base: u64
    end: u64


class MemoryMap(Struct, size=2056):
    """Ranges 0 to count - 1, sorted, disjoint, with gaps between them."""

    count: u64
    ranges: Array[Range] = array(128)


@machine
def map_clear(memory: MemoryMap) -> None:
    """Start again with no memory at all."""
    memory.count = u64(0)


@machine
def map_total(memory: MemoryMap) -> u64:
    """How many bytes the map holds."""
    total = u64(0)
    for index in upto(memory.count, at_most=MAP_CAPACITY):
        total += memory.ranges[index].end - memory.ranges[index].base
    return total


@machine
def map_top(memory: MemoryMap) -> u64:
    """The end of the highest range; 0 for an empty map."""
    if memory.count == 0:
        return u64(0)
    return memory.ranges[memory.count - 1].end


@machine
def map_add(memory: MemoryMap, base: u64, end: u64) -> None:
    """Add the page-aligned range base to end, merged with those that it overlaps or touches. Nothing if it is empty."""
    if base >= end:
        return
    low = base
    high = end
    kept = u64(0)
    for index in upto(memory.count, at_most=MAP_CAPACITY):
        item = memory.ranges[index]
        if item.end < low or item.base > high:
            put_range(memory, kept, item.base, item.end)
            kept += 1
        else:
            low = minimum(low, item.base)
            high = maximum(high, item.end)
    memory.count = kept
    map_insert(memory, low, high)


@machine
def map_remove(memory: MemoryMap, base: u64, end: u64) -> None:
    """Take the page-aligned range base to end out of the map."""
    if base >= end:
        return
    rest_base = u64(0)  # the upper part of a range that is cut in two
    rest_end = u64(0)
    kept = u64(0)
    for index in upto(memory.count, at_most=MAP_CAPACITY):
        item_base = memory.ranges[index].base
        item_end = memory.ranges[index].end
        if item_base < base:
            if item_end > end:
                rest_base = end
                rest_end = item_end
            put_range(memory, kept, item_base, minimum(item_end, base))
            kept += 1
        elif item_end > end:
            put_range(memory, kept, maximum(item_base, end), item_end)
            kept += 1
    memory.count = kept
    if rest_base < rest_end:
        map_insert(memory, rest_base, rest_end)


@machine
def put_range(memory: MemoryMap, index: u64, base: u64, end: u64) -> None:
    """Write one place of the list."""
    memory.ranges[index].base = base
    memory.ranges[index].end = end


@machine
def map_insert(memory: MemoryMap, base: u64, end: u64) -> None:
    """Put a range that touches no other into its place; in a full list the smallest of all is dropped."""
    if memory.count == MAP_CAPACITY:
        smallest = smallest_range(memory)
        victim = memory.ranges[smallest]
        if victim.end - victim.base >= end - base:
            return
        close_gap(memory, smallest)
    index = memory.count
    while index > 0 and memory.ranges[index - 1].base > base:
        put_range(memory, index, memory.ranges[index - 1].base, memory.ranges[index - 1].end)
        index -= 1
    put_range(memory, index, base, end)
    memory.count += 1


@machine
def smallest_range(memory: MemoryMap) -> u64:
    """The index of the smallest range of a map that is not empty."""
    smallest = u64(0)
    for index in upto(memory.count, at_most=MAP_CAPACITY):
        if (
            memory.ranges[index].end - memory.ranges[index].base
            < memory.ranges[smallest].end - memory.ranges[smallest].base
        ):
            smallest = index
    return smallest


@machine
def close_gap(memory: MemoryMap, removed: u64) -> None:
    """Drop one range of the list."""
    memory.count -= 1
    index = removed
    while index < memory.count:
        put_range(memory, index, memory.ranges[index + 1].base, memory.ranges[index + 1].end)
        index += 1


@machine
def map_drop_smallest(memory: MemoryMap, capacity: u64) -> None:
    """Drop the smallest ranges until at most `capacity` are left."""
    while memory.count > capacity:
        close_gap(memory, smallest_range(memory))


@machine
def map_holds(memory: MemoryMap, base: u64, end: u64) -> u64:
    """How many bytes from base on, up to end, are in the map without a gap."""
    for index in upto(memory.count, at_most=MAP_CAPACITY):
        item = memory.ranges[index]
        if item.base <= base and item.end > base:
            return minimum(item.end, end) - base
    return u64(0)


@machine
def map_largest_below(memory: MemoryMap, limit: u64) -> u64:
    """The size of the largest piece of one range that lies below limit."""
    largest = u64(0)
    for index in upto(memory.count, at_most=MAP_CAPACITY):
        item = memory.ranges[index]
        if item.base < limit:
            largest = maximum(largest, minimum(item.end, limit) - item.base)
    return largest


@machine
def map_allocate(memory: MemoryMap, size: u64, alignment: u64, limit: u64) -> u64 | Failure:
    """Take the highest `size` bytes (not 0; rounded up to pages) that end at or below limit and begin at a multiple of alignment.

    Alignment is a power of two, at least a page. Failure(1): there is no such place; the map is as it was.
    """
    if size > HIGHEST - PAGE_SIZE:
        return Failure(1)
    pages = (size + (PAGE_SIZE - 1)) & PAGE_MASK
    index = memory.count
    while index > 0:
        index -= 1
        item = memory.ranges[index]
        end = minimum(item.end, limit & PAGE_MASK)
        if end >= pages:
            base = (end - pages) & ~(alignment - 1)
            if base >= item.base:
                map_remove(memory, base, base + pages)
                return base
    return Failure(1)


@machine
def map_clean(memory: MemoryMap, parameters: BootParameters, limit: u64) -> None:
    """Set the map to the RAM below `limit` that firmware's ranges agree on; parameters.range_count was checked."""
    map_clear(memory)
    for index in upto(u64(parameters.range_count)):
        item = parameters.ranges[index]
        if is_ram(item):
            add_ram(memory, item.base, item.size, limit)
    for index in upto(u64(parameters.range_count)):
        item = parameters.ranges[index]
        if item.kind != RAM or item.attributes & RANGE_ATTRIBUTES_RAM == RANGE_ATTRIBUTES_RAM:
            remove_other(memory, item.base, item.size)


@machine
def is_ram(item: FirmwareRange) -> bool:
    """Whether a range says of itself that it is ordinary memory: valid, and volatile."""
    return item.kind == RAM and item.attributes & RANGE_ATTRIBUTES_RAM == RANGE_VALID


@machine
def add_ram(memory: MemoryMap, base: u64, size: u64, limit: u64) -> None:
    """Add a range of RAM, rounded inward and clipped to limit."""
    if base >= limit:
        return
    end = minimum(limit, saturating_end(base, size)) & PAGE_MASK
    map_add(memory, (base + (PAGE_SIZE - 1)) & PAGE_MASK, end)


@machine
def remove_other(memory: MemoryMap, base: u64, size: u64) -> None:
    """Take out a range that is not RAM, rounded outward."""
    if size == 0:
        return
    end = saturating_end(base, size)
    if end > PAGE_MASK:  # its last page ends at 2**64
        map_remove(memory, base & PAGE_MASK, u64(HIGHEST))
    else:
        map_remove(memory, base & PAGE_MASK, (end + (PAGE_SIZE - 1)) & PAGE_MASK)


@machine
def saturating_end(base: u64, size: u64) -> u64:
    """Base + size, or 2**64 - 1 if that does not fit."""
    if size > HIGHEST - base:
        return u64(HIGHEST)
    return base + size
