"""Memory for what the loader leaves behind: found once, given out from the top of RAM below 4 GiB, cleared by whoever needs it zero."""

from __future__ import annotations

from typing import Final

from boot.handoff import DIRECT_MAP_SPAN, FREE_MEMORY, HANDOFF_RANGES, Handoff
from boot.memory_map import (
    MemoryMap,
    map_allocate,
    map_clean,
    map_drop_smallest,
    map_holds,
    map_largest_below,
    map_remove,
)
from boot.output import require, say
from boot.parameters import BootParameters
from boot.refusal import Refusal, Rule
from dsl.lang import Failure, HostVirtual, machine, minimum, static, text, u32, u64, upto
from dsl.lang.intrinsics import cpuid

FIRST_MEGABYTE: Final = 0x100000
FOUR_GIGABYTES: Final = 1 << 32
PAGE_MASK: Final = 0xFFFFFFFFFFFFF000
ADDRESS_SIZES_LEAF: Final = u32(0x80000008)  # CPUID: eax bits 7:0 are MAXPHYADDR
HIGHEST_LEAF: Final = u32(0x80000000)
BITS_WITHOUT_LEAF: Final = 36

FREE: Final = static(MemoryMap)  # what can be allocated: the staging area is in use
REMAINING: Final = static(MemoryMap)  # what will be left for boxes: the staging area is free again


@machine
def physical_bits() -> u64:
    """MAXPHYADDR of this processor."""
    if cpuid(HIGHEST_LEAF, u32(0)).eax < ADDRESS_SIZES_LEAF:
        return u64(BITS_WITHOUT_LEAF)
    return u64(cpuid(ADDRESS_SIZES_LEAF, u32(0)).eax & 0xFF)


@machine
def find_memory(parameters: BootParameters) -> None:
    """Clean the firmware's map and take out the first MiB, the loader, and the staging area, which must be RAM; refuses otherwise."""
    limit = minimum(u64(1) << minimum(physical_bits(), u64(52)), u64(DIRECT_MAP_SPAN))
    begin = parameters.staging_base
    end = (begin + parameters.staging_size + 4095) & PAGE_MASK
    map_clean(REMAINING, parameters, limit)
    held = map_holds(REMAINING, begin, end)
    if held != end - begin:
        require(Refusal(Rule.STAGING_MEMORY, u64(0), end - begin, held))
    map_remove(REMAINING, u64(0), u64(FIRST_MEGABYTE))
    map_remove(
        REMAINING,
        parameters.loader_base & PAGE_MASK,
        (parameters.loader_base + parameters.loader_size + 4095) & PAGE_MASK,
    )
    FREE.copy_from(REMAINING)
    map_remove(FREE, begin, end)


@machine
def allocate(size: u64, alignment: u64, rule: Rule, row: u64) -> HostVirtual:
    """Take pages for good: below 4 GiB, at a multiple of alignment; refuses by `rule` if there are none."""
    place = map_allocate(FREE, size, alignment, u64(FOUR_GIGABYTES))
    if isinstance(place, Failure):
        require(Refusal(rule, row, size, map_largest_below(FREE, u64(FOUR_GIGABYTES))))
        return HostVirtual(0)  # never reached: require stopped
    map_remove(REMAINING, place, (place + size + 4095) & PAGE_MASK)
    return HostVirtual(place)


@machine
def hand_over_memory(handoff: Handoff) -> None:
    """Write what is left for boxes into the handoff; nothing may be allocated after that."""
    if REMAINING.count > HANDOFF_RANGES:
        say(text("memory: more ranges than the handoff holds; the smallest are left unused"))
        map_drop_smallest(REMAINING, u64(HANDOFF_RANGES))
    for index in upto(REMAINING.count, at_most=HANDOFF_RANGES):
        item = handoff.ranges[index]
        item.base = REMAINING.ranges[index].base
        item.size = REMAINING.ranges[index].end - REMAINING.ranges[index].base
        item.kind = u32(FREE_MEMORY)
    handoff.range_count = REMAINING.count.truncate(u32)
