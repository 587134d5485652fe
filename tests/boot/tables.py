"""A walk through 4-level page tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Leaf = tuple[int, bool, bool]  # physical address, writable, executable


def walk(
    load: Callable[[int, int], int],
    table: int,
    level: int = 3,
    address: int = 0,
    writable: bool = True,
    executable: bool = True,
) -> Iterator[tuple[int, Leaf]]:
    """All leaves below a table, as (address, leaf); load(physical address, size) reads memory."""
    for index in range(512):
        entry = load(table + index * 8, 8)
        if not entry & 1:
            continue
        may_write, may_run = writable and bool(entry & 2), executable and not entry >> 63
        place = address + (index << 12 + 9 * level)
        if level == 3 and index >= 256:
            place |= 0xFFFF000000000000
        physical = entry & 0xFFFFFFFFFF000
        if level == 0 or entry & 0x80:
            yield place, (physical, may_write, may_run)
        else:
            yield from walk(load, physical, level - 1, place, may_write, may_run)
