"""Bounds of loops: a check whose index grows by one with each turn becomes part of the loop's own bound.

The loop then turns at most as often as all such checks hold. Where it ends early for that, its next turn begins once more outside of it,
with its checks, one of which fails: so only checks before a turn's first effect are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dsl.compiler.dead import is_removable, remove_dead
from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, Loops, parts, step_of
from dsl.compiler.ir import Block, Function, Value
from dsl.lang.array import LONGEST

MOST: Final = 4  # rooms that are computed before a loop
Index = tuple[Value, Value, int]  # an array's length, and an index as a value and a constant more


def limit_loops(function: Function) -> None:
    """Take the checks of every loop's turn that has no calls."""
    loops = Loops(Dominators(function))
    changed = False
    for header, body in loops.bodies.items():
        before = loops.entrance(header)
        calls = any(value.operation in ("call", "intrinsic") for block in body for value in block.values)
        if before and not calls and header.terminator.operation == "branch":
            changed = _limit(function, header, body, before) or changed
    if changed:
        fold(function)
        remove_dead(function)  # conditions, which would count as uses of indexes


def _limit(function: Function, header: Block, body: set[Block], before: Block) -> bool:
    first, after = header.successors
    test, edge = header.terminator.arguments[0], header.predecessors.index(before)
    if test.operation != "ult" or first not in body or after in body or len(first.predecessors) > 1:
        return False
    counter, bound = test.arguments
    growing = {phi for phi in header.phis() if phi.width == 64 and step_of(phi, before) == 1}
    if counter not in growing or bound.block in body:
        return False
    taken = _taken(header, first, body, growing)
    ranges = _ranges(taken.values())
    if not 0 < len(ranges) <= MOST:
        return False

    def make(operation: str, *arguments: Value, width: int = 64, data: int | None = None) -> Value:
        value = Value(operation, width, list(arguments), data, header.terminator.span, before)
        before.values.insert(-1, value)
        return value

    def room(start: Value, end: Value) -> Value:
        if start.constant == 0:
            return end
        return make("select", make("ult", start, end, width=1), make("sub", end, start), zero)

    zero, first_of = make("const", data=0), {phi: phi.arguments[edge] for phi in header.phis()}
    turns = room(first_of[counter], bound)
    for (length, value), (least, most) in ranges.items():
        start = _at_first(value, first_of, growing, before)
        index = make("add", start, make("const", data=least % (1 << 64))) if least else start
        less = room(index, room(make("const", data=most - least), length))
        turns = make("select", make("ult", less, turns, width=1), less, turns)
    _leave(function, header, test, make("add", first_of[counter], turns), [*taken])
    return True


def _taken(header: Block, first: Block, body: set[Block], growing: set[Value]) -> dict[Value, Index]:
    """The checks before a turn's first effect that limit an index which grows by one; `growing` gets what else does."""
    taken: dict[Value, Index] = {}
    for value in (*header.values, *first.values):
        if _grows(value, growing, body):
            growing.add(value)
        elif value.operation == "check" and value.block is first:
            index, length = value.arguments[0].arguments if value.arguments[0].operation == "ult" else (value, value)
            if index not in growing or value.data != "index" or length.block in body:
                break
            taken[value] = (length, *parts(index))
        elif value.block is first and not is_removable(value):
            break
    return taken


def _grows(value: Value, growing: set[Value], body: set[Block]) -> bool:
    """Whether a value is a growing one and what stays, or less what stays."""
    stays = [part for part in value.arguments if part not in growing]
    alone = len(stays) == 1 and (stays[0].block not in body or stays[0].constant is not None)
    return alone and (value.operation == "add" or (value.operation == "sub" and stays[0] is value.arguments[1]))


def _at_first(value: Value, first: dict[Value, Value], growing: set[Value], before: Block) -> Value:
    """What a value is on the first turn, made before the loop; first: the same for the counters, and for what was made so."""
    if value in growing and value not in first:
        arguments = [_at_first(argument, first, growing, before) for argument in value.arguments]
        first[value] = Value(value.operation, value.width, arguments, None, value.span, before)
        before.values.insert(-1, first[value])
    return first.get(value, value)


def _ranges(indexes: Iterable[Index]) -> dict[tuple[Value, Value], tuple[int, int]]:
    """The least and the most that is added to each value for an index of each array: what lies between is inside where they are."""
    ranges: dict[tuple[Value, Value], tuple[int, int]] = {}
    for length, value, more in indexes:
        least, most = ranges.get((length, value), (more, more))
        if max(most, more) - min(least, more) < LONGEST:
            ranges[length, value] = min(least, more), max(most, more)
        else:
            return {}
    return ranges


def _leave(function: Function, header: Block, test: Value, limit: Value, checks: list[Value]) -> None:
    """Turn while the counter is below the limit; behind that, begin the turn that fails if it is below the old bound."""
    first, after = header.successors
    span = header.terminator.span
    left = Block(f"{header.label}.left", predecessors=[header], successors=[after])
    after.predecessors[after.predecessors.index(header)] = left
    header.successors[1] = left
    done = Value("ule", 1, test.arguments[::-1], None, span, left)
    if len(set(map(_place, checks))) == 1:  # whichever it is that fails
        check = Value("check", 0, [done], checks[0].data, checks[0].span, left)
        left.values = [done, check, Value("jump", 0, [], None, span, left)]
    else:
        failing = Block(f"{first.label}.failing", predecessors=[left], cold=True)
        left.values = [done, Value("branch", 0, [done], None, span, left)]
        left.successors.append(failing)
        copied: dict[Value, Value] = {}
        for old in first.values[: first.values.index(checks[-1])]:
            arguments = [copied.get(argument, argument) for argument in old.arguments]
            copied[old] = Value(old.operation, old.width, arguments, old.data, old.span, failing, secret=old.secret)
        failing.values = [*copied.values(), Value("stop", 0, [], checks[-1].data, checks[-1].span, failing)]
        function.blocks.append(failing)
    below = Value("ult", 1, [test.arguments[0], limit], None, span, header)
    header.values.insert(-1, below)
    header.terminator.arguments = [below]
    function.blocks.insert(function.blocks.index(header) + 1, left)
    first.values = [value for value in first.values if value not in checks]


def _place(check: Value) -> tuple[str, int] | None:
    return (check.span.file, check.span.line) if check.span else None
