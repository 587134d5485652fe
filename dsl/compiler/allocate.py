"""Register allocation: each virtual register gets a processor register or a place in the frame.

Registers are coloured in order of weight per length over their live masks; what finds no register is spilled (see spill.py), and
everything is tried again. Spill code only ever makes live ranges shorter, so this ends.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.liveness import Ranges, ranges
from dsl.compiler.machine import CALLEE_SAVED, CALLER_SAVED, FIRST_VIRTUAL, POOL, MachineFunction, Spill
from dsl.compiler.spill import Spiller, drop_unread_stores

Location = int | Spill
PREFERENCE: Final = (*CALLER_SAVED, *CALLEE_SAVED)
ROUNDS: Final = 40


class AllocationError(Exception):
    """No allocation exists: an instruction needs more registers at once than the pool has."""


def allocate(function: MachineFunction, pool: int | None = None) -> dict[int, Location]:
    """Decide where each virtual register lives, adding spill code to the function. pool: how many registers may be used."""
    allowed = tuple(register for register in PREFERENCE if register in POOL[:pool])
    spiller = Spiller(function)
    for _ in range(ROUNDS):
        found = ranges(function)
        colours, failed = _colour(function, found, allowed, spiller.places, spiller.temporary)
        if not failed:
            drop_unread_stores(function)
            return colours | _share_spills(found, sorted(spiller.places))
        spiller.spill(failed)
    raise AllocationError(f"{function.symbol}: registers were still missing after {ROUNDS} rounds of spilling")


def _colour(
    function: MachineFunction, found: Ranges, allowed: tuple[int, ...], spilled: dict[int, Spill], temporary: set[int]
) -> tuple[dict[int, Location], list[int]]:
    """Assign registers, heaviest first; those that found none."""
    occupied = {register: found.fixed.get(register, 0) for register in allowed}
    colours: dict[int, Location] = {}
    failed: list[int] = []

    def priority(members: list[int]) -> tuple[int, float, int]:
        if members[0] in temporary:
            return 0, 0.0, members[0]
        length = sum(found.masks[number].bit_count() for number in members)
        return 1, -sum(found.weights[number] for number in members) / length, members[0]

    def place(members: list[int]) -> bool:
        mask = 0
        for number in members:
            mask |= found.masks[number]
        free = [register for register in allowed if not occupied[register] & mask]
        if free:
            chosen = _choose(members, free, found, colours, occupied)
            occupied[chosen] |= mask
            colours.update(dict.fromkeys(members, chosen))
        return bool(free)

    wanted = [number for number in found.masks if number not in spilled]
    for members in sorted(_coalesce(wanted, found, occupied, temporary), key=priority):
        if place(members):
            continue
        if members[0] in temporary:
            raise AllocationError(f"{function.symbol}: one instruction needs more than {len(allowed)} registers")
        for number in sorted(members, key=lambda number: priority([number])):
            if len(members) == 1 or not place([number]):
                failed.append(number)
    return colours, failed


def _choose(
    members: list[int], free: list[int], found: Ranges, colours: dict[int, Location], occupied: dict[int, int]
) -> int:
    """The free register that saves most moves; else a caller-saved one, else one that is in use already."""
    scores: dict[int, float] = {}
    for often, other in (hint for number in members for hint in found.hints.get(number, ())):
        wanted = other if other < FIRST_VIRTUAL else colours.get(other)
        if isinstance(wanted, int):
            scores[wanted] = scores.get(wanted, 0.0) + often
        elif wanted is None:  # not decided yet: what would it like?
            for often_too, further in found.hints.get(other, ()):
                if further < FIRST_VIRTUAL:
                    scores[further] = scores.get(further, 0.0) + min(often, often_too) / 4
    return max(
        free, key=lambda register: (scores.get(register, 0.0), register in CALLER_SAVED or occupied[register] != 0)
    )


def _share_spills(found: Ranges, spilled: list[int]) -> dict[int, Location]:
    """Give each spilled register a place in the frame; those that never live together may share one."""
    places: dict[Spill, int] = {}  # with when each is taken
    result: dict[int, Location] = {}
    for number in spilled:
        mask = found.masks.get(number, 0)
        place = next((place for place, taken in places.items() if not taken & mask), None) or Spill(number)
        places[place] = places.get(place, 0) | mask
        result[number] = place
    return result


# coalescing: registers that a copy joins and that never live at once are given one processor register together


def _coalesce(numbers: list[int], found: Ranges, occupied: dict[int, int], temporary: set[int]) -> list[list[int]]:
    """Partition the registers, most frequent copies first. A class must leave a register free; temporaries stay alone."""
    classes = {number: [number] for number in numbers}
    masks = {number: found.masks[number] for number in numbers}
    leader = {number: number for number in numbers}
    for first, second in _copies(found, leader, temporary):
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


def _copies(found: Ranges, known: dict[int, int], temporary: set[int]) -> list[tuple[int, int]]:
    """Pairs of virtual registers that a copy joins, the most frequent first."""
    weights: dict[tuple[int, int], float] = {}
    for number, hints in found.hints.items():
        if number not in known or number in temporary:
            continue
        for often, other in hints:
            if other >= FIRST_VIRTUAL and other in known and other not in temporary:
                pair = (min(number, other), max(number, other))
                weights[pair] = weights.get(pair, 0.0) + often
    return sorted(weights, key=lambda pair: (-weights[pair], pair))
