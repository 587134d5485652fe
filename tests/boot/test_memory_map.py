"""The memory map: whatever firmware says, no byte that is not RAM is ever given out, and none twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from boot import memory_map as tested
from boot.parameters import BootParameters
from dsl.lang import Failure, u32, u64
from dsl.lang.model import Machine

pytestmark = pytest.mark.t0
PAGE = 4096
TOP = 1 << 64
LIMIT = 1 << 39
Row = tuple[int, int, int, int]  # base, size, kind, attributes


@pytest.fixture(autouse=True)
def machine() -> Iterator[Machine]:
    with Machine() as model:
        yield model


def clean(rows: list[Row], limit: int = LIMIT) -> tested.MemoryMap:
    parameters = BootParameters()
    parameters.range_count = u32(len(rows))
    for index, (base, size, kind, attributes) in enumerate(rows):
        item = parameters.ranges[index]
        item.base, item.size, item.kind, item.attributes = u64(base), u64(size), u32(kind), u32(attributes)
    memory = tested.MemoryMap()
    tested.map_clean(memory, parameters, u64(limit))
    return memory


def ranges(memory: tested.MemoryMap) -> list[tuple[int, int]]:
    count = int(memory.count)
    return [(int(memory.ranges[index].base), int(memory.ranges[index].end)) for index in range(count)]


def expected(rows: list[Row], limit: int) -> list[tuple[int, int]]:
    """The same by sorting all edges: slower, and written another way."""
    ram, other = [], []
    for base, size, kind, attributes in rows:
        end = min(base + size, TOP - 1)
        if kind == 1 and attributes & 3 == 1:
            ram.append((-(-base // PAGE) * PAGE, min(end, limit) // PAGE * PAGE))
        elif size and (kind != 1 or attributes & 3 == 3):
            other.append((base // PAGE * PAGE, -(-end // PAGE) * PAGE))
    edges = sorted({edge for low, high in ram + other if low < high for edge in (low, high)})
    found: list[tuple[int, int]] = []
    for low, high in itertools.pairwise(edges):
        inside = any(begin <= low and high <= end for begin, end in ram)
        if inside and not any(begin < high and low < end for begin, end in other):
            if found and found[-1][1] == low:
                found[-1] = (found[-1][0], high)
            else:
                found.append((low, high))
    return found


addresses = some.one_of(
    some.integers(0, 40 * PAGE),
    some.integers(0, 40).map(lambda page: page * PAGE),
    some.sampled_from([LIMIT - PAGE, LIMIT - 1, LIMIT, LIMIT + PAGE, TOP - PAGE, TOP - PAGE + 1, TOP - 1, 1 << 63]),
)
sizes = some.one_of(
    some.integers(0, 20 * PAGE),
    some.integers(0, 20).map(lambda page: page * PAGE),
    some.sampled_from([LIMIT, TOP - PAGE, TOP - 1]),
)
rows = some.lists(
    some.tuples(addresses, sizes, some.sampled_from([0, 1, 1, 1, 2, 3, 5, 77]), some.sampled_from([0, 1, 1, 1, 3])),
    max_size=24,
)


@settings(max_examples=400, deadline=None)
@given(rows)
def test_a_cleaned_map_is_exactly_the_ram_that_nothing_contradicts(rows: list[Row]) -> None:
    with Machine():
        assert ranges(clean(rows)) == expected(rows, LIMIT)


@settings(max_examples=150, deadline=None)
@given(
    rows,
    some.lists(some.tuples(some.integers(1, 6 * PAGE), some.sampled_from([PAGE, 4 * PAGE, 16 * PAGE])), max_size=8),
)
def test_allocations_are_aligned_apart_and_from_the_map(rows: list[Row], requests: list[tuple[int, int]]) -> None:
    with Machine():
        memory = clean(rows)
        before = ranges(memory)
        taken: list[tuple[int, int]] = []
        for size, alignment in requests:
            place = tested.map_allocate(memory, u64(size), u64(alignment), u64(32 * PAGE))
            if isinstance(place, Failure):
                continue
            base, end = int(place), int(place) + -(-size // PAGE) * PAGE
            assert base % alignment == 0
            assert end <= 32 * PAGE
            assert any(low <= base and end <= high for low, high in before)
            assert all(end <= low or high <= base for low, high in taken)
            taken.append((base, end))
        after = ranges(memory)
        assert all(end <= low or high <= base for low, high in after for base, end in taken)
        assert sum(high - low for low, high in before) == sum(high - low for low, high in after + taken)


def test_allocation_takes_the_highest_place_and_fails_without_change() -> None:
    memory = clean([(0x100000, 0x100000, 1, 1), (0x400000, 0x200000, 1, 1)])
    assert tested.map_allocate(memory, u64(PAGE), u64(PAGE), u64(1 << 32)) == u64(0x5FF000)
    assert tested.map_allocate(memory, u64(0x100000), u64(0x200000), u64(1 << 32)) == u64(0x400000)
    before = ranges(memory)
    for size in (0x101000, 1 << 40, TOP - 1):
        failure = tested.map_allocate(memory, u64(size), u64(PAGE), u64(1 << 32))
        assert isinstance(failure, Failure)
        assert int(failure.code) == 1
    assert ranges(memory) == before


def test_a_full_map_drops_its_smallest_range_and_never_gives_what_was_taken_out() -> None:
    memory = tested.MemoryMap()
    for index in range(128):
        tested.map_add(memory, u64(index * 8 * PAGE), u64((index * 8 + 4) * PAGE))
    assert int(memory.count) == 128
    tested.map_add(memory, u64(2000 * PAGE), u64(2003 * PAGE))  # smaller than all: dropped
    assert ranges(memory)[-1] == (127 * 8 * PAGE, (127 * 8 + 4) * PAGE)
    tested.map_add(memory, u64(2000 * PAGE), u64(2009 * PAGE))  # larger: one of the others goes
    assert ranges(memory)[-1] == (2000 * PAGE, 2009 * PAGE)
    assert int(memory.count) == 128
    tested.map_remove(memory, u64(2004 * PAGE), u64(2005 * PAGE))  # cut in two: one piece has no room
    assert all(end <= 2004 * PAGE or base >= 2005 * PAGE for base, end in ranges(memory))
    assert int(memory.count) == 128


def test_dropping_to_a_capacity_keeps_the_largest() -> None:
    memory = clean([(0, PAGE, 1, 1), (4 * PAGE, 3 * PAGE, 1, 1), (16 * PAGE, 2 * PAGE, 1, 1)])
    tested.map_drop_smallest(memory, u64(2))
    assert ranges(memory) == [(4 * PAGE, 7 * PAGE), (16 * PAGE, 18 * PAGE)]


def test_how_much_a_map_holds() -> None:
    memory = clean([(0x100000, 0x100000, 1, 1), (0x300000, 0x100000, 1, 1)])
    assert int(tested.map_holds(memory, u64(0x180000), u64(0x190000))) == 0x10000
    assert int(tested.map_holds(memory, u64(0x180000), u64(0x390000))) == 0x80000
    assert int(tested.map_holds(memory, u64(0x200000), u64(0x210000))) == 0
    assert int(tested.map_total(memory)) == 0x200000
    assert int(tested.map_top(memory)) == 0x400000
    assert int(tested.map_largest_below(memory, u64(0x310000))) == 0x100000
    assert int(tested.map_largest_below(memory, u64(0x180000))) == 0x80000
    tested.map_clear(memory)
    assert int(tested.map_top(memory)) == 0
