"""Bounds of loops: a check whose index grows by one with each turn becomes part of the loop's own bound.

The loop then turns at most as often as all such checks hold. Where it ends early for that, its next turn begins once more outside of it,
with its checks, one of which fails: so only checks before a turn's first effect are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dsl.compiler.dead import remove_dead
from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, Loops
from dsl.compiler.ir import OPERATIONS, Block, Function, Value
from dsl.compiler.strength import Growth, at_first, growth_of, step_of
from dsl.lang.array import LONGEST
from dsl.lang.operations import as_signed

MOST: Final = 4  # rooms that are computed before a loop
Index = tuple[Value, Value, int]  # an array's length, and an index as a value and a constant more


def limit_loops(function: Function) -> None:
    """Take the checks of every loop's turn that has no calls."""
    loops = Loops(Dominators(function))
    changed = False
    for header, body in loops.bodies.items():
        outside = [block for block in header.predecessors if block not in body]
        calls = any(value.operation in ("call", "intrinsic") for block in body for value in block.values)
        test = header.terminator
        if len(outside) == 1 and outside[0].terminator.operation == "jump" and not calls and test.operation == "branch":
            changed = _limit(function, header, body, outside[0]) or changed
    if changed:
        fold(function)
        remove_dead(function)  # conditions, which would count as uses of indexes


def _limit(function: Function, header: Block, body: set[Block], before: Block) -> bool:
    first, after = header.successors
    test, edge = header.terminator.arguments[0], header.predecessors.index(before)
    if test.operation != "ult" or first not in body or after in body or len(first.predecessors) > 1:
        return False
    counter, bound = test.arguments
    if counter not in header.phis() or bound.block in body or counter.width != 64 or step_of(counter, before) != 1:
        return False
    growth: Growth = {phi: 1 for phi in header.phis() if phi.width == 64 and step_of(phi, before) == 1}
    taken = _taken(header, first, body, growth)
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
        start = at_first(value, first_of, growth, before)
        index = make("add", start, make("const", data=least % (1 << 64))) if least else start
        less = room(index, room(make("const", data=most - least), length))
        turns = make("select", make("ult", less, turns, width=1), less, turns)
    _leave(function, header, test, make("add", first_of[counter], turns), taken)
    return True


def _taken(header: Block, first: Block, body: set[Block], growth: Growth) -> dict[Value, Index]:
    """The checks before a turn's first effect that limit an index which grows by one."""
    taken: dict[Value, Index] = {}
    for value in (*header.values, *first.values):
        grown = growth_of(value, growth, body)
        if value.block is header:
            growth |= {} if grown is None else {value: grown}
        elif value.operation == "check":
            index, length = value.arguments[0].arguments if value.arguments[0].operation == "ult" else (value, value)
            if growth.get(index) != 1 or value.data != "index" or length.block in body:
                break
            taken[value] = (length, *_parts(index))
        elif grown is not None:
            growth[value] = grown
        elif not OPERATIONS[value.operation].pure and (value.operation != "load" or value.access.volatile):
            break
    return taken


def _parts(index: Value) -> tuple[Value, int]:
    """A value as another one and a constant more."""
    more = 0
    while index.operation == "add" and index.arguments[1].constant is not None:
        more += as_signed(index.arguments[1].constant, index.width)
        index = index.arguments[0]
    return index, more


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


def _leave(function: Function, header: Block, test: Value, limit: Value, dropped: dict[Value, Index]) -> None:
    """Turn while the counter is below the limit; behind that, begin the turn that fails if it is below the old bound."""
    first, after = header.successors
    span, checks = header.terminator.span, [*dropped]
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
            line = [dropped[check] for check in checks if old in dropped and _place(check) == _place(old)]
            if old in dropped and dropped[old][2] not in _ranges(line)[dropped[old][:2]]:
                continue  # one of the others on its line fails, too
            arguments = [copied.get(argument, argument) for argument in old.arguments]
            copied[old] = Value(old.operation, old.width, arguments, old.data, old.span, failing, secret=old.secret)
        failing.values = [*copied.values(), Value("stop", 0, [], checks[-1].data, checks[-1].span, failing)]
        function.blocks.append(failing)
    below = Value("ult", 1, [test.arguments[0], limit], None, span, header)
    header.values.insert(-1, below)
    header.terminator.arguments = [below]
    function.blocks.insert(function.blocks.index(header) + 1, left)
    first.values = [value for value in first.values if value not in dropped]


def _place(check: Value) -> tuple[str, int] | None:
    return (check.span.file, check.span.line) if check.span else None
