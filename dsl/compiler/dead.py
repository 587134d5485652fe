"""Removes what nobody uses: pure values and plain loads."""

from __future__ import annotations

from collections.abc import Callable

from dsl.compiler.ir import OPERATIONS, Function, Value
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
