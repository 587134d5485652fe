"""Branches around little work become selections: both sides are computed, and the condition picks.

A side that only computes a few pure values costs less than a branch that is guessed wrong now and then; but not where a load decides
which address comes next: processors guess that, and load ahead.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.fold import fold
from dsl.compiler.inline import COSTS
from dsl.compiler.ir import OPERATIONS, Block, Function, Value

WORK: Final = 3  # instructions that both sides together may have
COMPUTES: Final = ("add", "sub", "mul", "shl", "zext", "phi", "select")  # what indexes and addresses are made by
CHOICES: Final = 2  # values that differ
WEIGHTS: Final = COSTS | {"mul": 3, "umulh": 3}


def choose(function: Function) -> None:
    """Turn every fitting branch into selections; those around come after those inside."""
    addresses = _addresses(function)
    while sum(_choose(block, addresses) for block in function.blocks if block.terminator.operation == "branch"):
        fold(function)


def _addresses(function: Function) -> set[Value]:
    """The values that addresses of loads and stores come from."""
    pending = [value.arguments[0] for value in function.values() if value.operation in ("load", "store")]
    found = set(pending)
    while pending:
        for argument in pending.pop().arguments:
            if argument.operation in COMPUTES and argument not in found:
                found.add(argument)
                pending.append(argument)
    return found


def _choose(block: Block, addresses: set[Value]) -> bool:
    """Compute both sides of a branch in the block and select there, if they come together at once; leaves the branch constant."""
    branch, (first, second) = block.terminator, block.successors
    join, other = (side.successors[0] if _is_side(side, block) else side for side in (first, second))
    if join is not other or first is second or branch.arguments[0].constant is not None or first.cold or second.cold:
        return False
    sides = [side for side in (first, second) if side is not join]
    edges = [join.predecessors.index(block if side is join else side) for side in (first, second)]
    work = [value for side in sides for value in side.values[:-1]]
    choices = [phi for phi in join.phis() if phi.arguments[edges[0]] is not phi.arguments[edges[1]]]
    if len(choices) > CHOICES or sum(WEIGHTS.get(value.operation, 1) for value in work) > WORK:
        return False
    awaited = any(argument.operation == "load" for argument in branch.arguments[0].arguments)
    if awaited and not addresses.isdisjoint(choices):
        return False
    for side in sides:
        del side.values[:-1]
    for value in work:
        value.block = block
    chosen = []
    for phi in choices:
        arguments = [branch.arguments[0], *(phi.arguments[edge] for edge in edges)]
        chosen.append(Value("select", phi.width, arguments, None, phi.span, block))
        phi.arguments[edges[0]] = phi.arguments[edges[1]] = chosen[-1]
    branch.arguments = [Value("const", 1, [], 1, branch.span, block)]
    block.values[-1:] = [*work, *chosen, *branch.arguments, branch]
    return True


def _is_side(side: Block, block: Block) -> bool:
    """Whether a block is entered from there alone, goes on to one place, and only computes."""
    return (
        side.predecessors == [block]
        and side.terminator.operation == "jump"
        and all(OPERATIONS[value.operation].pure and value.operation != "phi" for value in side.values[:-1])
    )
