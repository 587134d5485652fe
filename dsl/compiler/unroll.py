"""Unrolling: an innermost loop whose few turns are known becomes its turns, one behind the other."""

from __future__ import annotations

from typing import Final

from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, Loops, constant_of, copy_blocks, decide, redirect, relabel
from dsl.compiler.inline import COSTS
from dsl.compiler.ir import Block, Function
from dsl.compiler.number import number
from dsl.lang.operations import BINARY, UNARY

TURNS: Final = 16
LARGEST: Final = 96  # instructions of all turns together


def unroll(function: Function) -> None:
    """Unroll until no loop is left that is small enough; the loops around come after those inside."""
    while _unroll_one(function):
        relabel(function)
        fold(function)
        number(function)


def _unroll_one(function: Function) -> bool:
    loops = Loops(Dominators(function))
    for header, inside in loops.bodies.items():
        body = [block for block in function.blocks if block in inside]
        before = loops.entrance(header)
        innermost = not any(other in inside for other in loops.bodies if other is not header)
        exits = [block for block in body for successor in block.successors if successor not in inside]
        if innermost and exits == [header] and before and len(header.predecessors) == 2:
            turns = _turns(header, inside, before)
            if turns and turns * _size(header, body) <= LARGEST:
                _peel(function, header, body, before, turns)
                return True
    return False


def _size(header: Block, body: list[Block]) -> int:
    """About how many instructions a turn leaves: what comes of counters and constants alone becomes a constant."""
    known = {phi for phi in header.phis() if any(argument.constant is not None for argument in phi.arguments)}
    size = 0
    for value in (value for block in body for value in block.values):
        arguments = [argument for argument in value.arguments if argument.constant is None and argument not in known]
        if not arguments and (value.operation in BINARY or value.operation in UNARY):
            known.add(value)
        else:
            size += COSTS.get(value.operation, 1)
    return size


def _turns(header: Block, body: set[Block], before: Block) -> int:
    """How often the loop turns, if constants alone decide that; 0: they do not, or it is too often."""
    test, edge = header.terminator.arguments[0], header.predecessors.index(before)
    goes_on = int(header.successors[0] in body)
    given = {phi: phi.arguments[edge].constant for phi in header.phis()}
    for turn in range(TURNS + 1):
        found = constant_of(test, given)
        if found != goes_on:
            return turn if found is not None else 0
        given = {phi: constant_of(phi.arguments[1 - edge], given) for phi in header.phis()}
    return 0


def _peel(function: Function, header: Block, body: list[Block], before: Block, turns: int) -> None:
    """Put copies of a loop's turns before it; what is left of it leaves at once."""
    goes_on = 0 if header.successors[0] in body else 1
    latch = header.predecessors[1 - header.predecessors.index(before)]
    place = function.blocks.index(body[0])
    for turn in range(turns):
        copies = copy_blocks(body, {}, f"turn{turn}", heads=(header,))
        redirect(before, header, copies[header])
        decide(copies[header], goes_on)
        before = copies[latch]
        function.blocks[place:place] = copies.values()
        place += len(copies)
    decide(header, 1 - goes_on)
