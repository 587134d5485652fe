"""Unrolling: an innermost loop whose few turns are known becomes its turns, one behind the other."""

from __future__ import annotations

from typing import Final

from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, Loops, copy_blocks, relabel, step_of
from dsl.compiler.inline import COSTS
from dsl.compiler.ir import COMPARISONS, Block, Function, Value
from dsl.compiler.number import number
from dsl.lang.operations import BINARY, UNARY, evaluate

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
    """How often the loop turns, if its test compares a counter with a constant; 0: that is not known, or too often."""
    test = header.terminator.arguments[0]
    if test.operation not in COMPARISONS:
        return 0
    known = [counter for argument in test.arguments if (counter := _counter(argument, header, before))]
    if len(known) < 2:
        return 0
    goes_on = int(header.successors[0] in body)
    width = test.arguments[0].width
    values = [start for start, _ in known]
    for turn in range(TURNS + 1):
        if evaluate(test.operation, 1, values, width) != goes_on:
            return turn
        values = [(value + step) % (1 << width) for value, (_, step) in zip(values, known, strict=True)]
    return 0


def _counter(value: Value, header: Block, before: Block) -> tuple[int, int] | None:
    """Start and step of a value of the loop's test: a constant, or a phi to which every turn adds a constant."""
    if value.constant is not None:
        return value.constant, 0
    if value.operation != "phi" or value.block is not header:
        return None
    start, step = value.arguments[header.predecessors.index(before)].constant, step_of(value, before)
    return None if start is None or step is None else (start, step)


def _peel(function: Function, header: Block, body: list[Block], before: Block, turns: int) -> None:
    """Put copies of a loop's turns before it; what is left of it leaves at once."""
    inside = next(successor for successor in header.successors if successor in body)
    edge = header.predecessors.index(before)
    latch = header.predecessors[1 - edge]
    place = function.blocks.index(body[0])
    for turn in range(turns):
        values: dict[Value, Value] = {phi: phi.arguments[edge] for phi in header.phis()}
        copies = copy_blocks(body, values, f"turn{turn}")
        first, last = copies[header], copies[latch]
        first.predecessors, first.successors = [before], [copies[inside]]
        first.terminator.operation, first.terminator.arguments = "jump", []
        before.successors = [first if block is header else block for block in before.successors]
        last.successors = [header if block is first else block for block in last.successors]
        header.predecessors[edge] = before = last
        for phi in header.phis():
            turned = phi.arguments[1 - edge]
            phi.arguments[edge] = values.get(turned, turned)
        function.blocks[place:place] = copies.values()
        place += len(copies)
    leaves = int(inside is header.successors[1])
    header.terminator.arguments = [Value("const", 1, [], leaves, header.terminator.span, header)]
    header.values.insert(-1, header.terminator.arguments[0])
