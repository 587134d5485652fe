"""Coalescing: registers that a copy joins and that never live at once are given one processor register together."""

from __future__ import annotations

from dsl.compiler.liveness import Ranges
from dsl.compiler.machine import FIRST_VIRTUAL


def coalesce(numbers: list[int], found: Ranges, occupied: dict[int, int], temporary: set[int]) -> list[list[int]]:
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
