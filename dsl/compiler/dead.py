"""Removes what nobody uses: pure values and plain loads, and stores that others overwrite before anything could see them."""

from __future__ import annotations

from collections.abc import Callable

from dsl.compiler.ir import OPERATIONS, Block, Function, Value
from dsl.compiler.number import place_of
from dsl.lang.operations import DIVISIONS

REMOVABLE = (*DIVISIONS, "parameter")  # their conditions were checked before


def is_removable(value: Value) -> bool:
    """Whether a value may go when nothing uses it."""
    if value.operation == "load":
        return not value.access.volatile
    return OPERATIONS[value.operation].pure or value.operation in REMOVABLE


def remove_dead(function: Function, removable: Callable[[Value], bool] = is_removable) -> None:
    """Keep what has an effect, and what that needs."""
    needed = {value for value in function.values() if not removable(value)}
    pending = list(needed)
    while pending:
        for argument in pending.pop().arguments:
            if argument not in needed:
                needed.add(argument)
                pending.append(argument)
    for block in function.blocks:
        block.values = [value for value in block.values if value in needed]


def remove_unseen(function: Function) -> None:
    """The pass."""
    for block in function.blocks:
        _remove_overwritten(block)
    remove_dead(function)


def _remove_overwritten(block: Block) -> None:
    """Keep a plain store if anything between it and the next one over all of its bytes may see it: another base's load, a check, a call."""
    kept: list[Value] = []
    later: list[tuple[Value, int, int]] = []  # a base, where what is stored to begins there, and where it ends
    for value in reversed(block.values):
        if value.operation in ("load", "store") and not value.access.volatile:
            base, start = place_of(value, value.arguments[0])
            end = start + (value if value.operation == "load" else value.arguments[1]).width // 8
            if value.operation == "load":
                later = [place for place in later if place[0] is base and (place[2] <= start or end <= place[1])]
            elif any(place[0] is base and place[1] <= start and end <= place[2] for place in later):
                continue
            else:
                later.append((base, start, end))
        elif not OPERATIONS[value.operation].pure and value.operation not in DIVISIONS:
            later = []
        kept.append(value)
    block.values = kept[::-1]
