"""Register allocation: each virtual register gets a processor register or a place in the frame.

Registers are coloured in order of weight per length over their live masks; what finds no register is spilled (see spill.py), and
everything is tried again. Each round spills some of those that the function began with, so this ends.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.liveness import Ranges, ranges
from dsl.compiler.machine import CALLEE_SAVED, CALLER_SAVED, POOL, MachineFunction, Spill
from dsl.compiler.spill import spill

Location = int | Spill
PREFERENCE: Final = (*CALLER_SAVED, *CALLEE_SAVED)


class AllocationError(Exception):
    """No allocation exists: an instruction needs more registers at once than the pool has."""


def allocate(function: MachineFunction, pool: int | None = None) -> dict[int, Location]:
    """Decide where each virtual register lives, adding spill code to the function. pool: how many registers may be used."""
    allowed = tuple(register for register in PREFERENCE if register in POOL[:pool])
    places: dict[int, Spill] = {}
    first_temporary = function.next_register
    while True:
        found = ranges(function)
        colours, failed = _colour(found, allowed, places, first_temporary)
        if not failed:
            return colours | dict(sorted(places.items()))
        if failed[0] >= first_temporary:
            raise AllocationError(f"{function.symbol}: one instruction needs more than {len(allowed)} registers")
        places.update({number: Spill(number) for number in failed})
        spill(function, places)


def _colour(
    found: Ranges, allowed: tuple[int, ...], spilled: dict[int, Spill], first_temporary: int
) -> tuple[dict[int, Location], list[int]]:
    """Assign registers, temporaries first, then the heaviest; those that found none."""
    occupied = {register: found.fixed.get(register, 0) for register in allowed}
    colours: dict[int, Location] = {}
    failed: list[int] = []

    def priority(members: list[int]) -> tuple[int, float, int]:
        if members[0] >= first_temporary:
            return 0, 0.0, members[0]
        length = sum(found.masks[number].bit_count() for number in members)
        return 1, -sum(found.weights[number] for number in members) / length, members[0]

    def place(members: list[int]) -> bool:
        mask = 0
        for number in members:
            mask |= found.masks[number]
        free = [register for register in allowed if not occupied[register] & mask]
        if free:
            chosen = _choose(members, free, found, occupied)
            occupied[chosen] |= mask
            colours.update(dict.fromkeys(members, chosen))
        return bool(free)

    wanted = [number for number in found.masks if number not in spilled]
    for members in sorted(_coalesce(wanted, found, occupied, first_temporary), key=priority):
        if not place(members):
            alone = sorted(members, key=lambda number: priority([number]))
            failed += [number for number in alone if len(members) == 1 or not place([number])]
    return colours, failed


def _choose(members: list[int], free: list[int], found: Ranges, occupied: dict[int, int]) -> int:
    """The free register that saves most moves; else a caller-saved one, else one that is in use already."""

    def score(register: int) -> tuple[float, bool]:
        saved = sum(found.hints.get((number, register), 0.0) for number in members)
        return saved, register in CALLER_SAVED or occupied[register] != 0

    return max(free, key=score)


# coalescing: registers that a copy joins and that never live at once are given one processor register together


def _coalesce(numbers: list[int], found: Ranges, occupied: dict[int, int], first_temporary: int) -> list[list[int]]:
    """Partition the registers, most frequent copies first. A class must leave a register free; temporaries stay alone."""
    classes = {number: [number] for number in numbers}
    masks = {number: found.masks[number] for number in numbers}
    leader = {number: number for number in numbers}
    joined = [pair for pair in found.copies if all(number in leader and number < first_temporary for number in pair)]
    for first, second in sorted(joined, key=lambda pair: (-found.copies[pair], pair)):
        left, right = leader[first], leader[second]
        if left == right or masks[left] & masks[right]:
            continue
        together = masks[left] | masks[right]
        if all(mask & together for mask in occupied.values()):
            continue
        masks[left] = together
        for number in classes[right]:
            leader[number] = left
        classes[left] += classes.pop(right)
    return list(classes.values())
