"""Strength reduction: in an innermost loop, what costs a product and grows alike with each turn becomes a sum that grows along."""

from __future__ import annotations

from typing import Final

from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, Loops, replace, users
from dsl.compiler.ir import Block, Function, Value

MOST: Final = 3  # sums a loop: each takes a register
SCALED: Final = 3  # bits that an address shifts its index by for nothing
Growth = dict[
    Value, int | Value
]  # by how much a value grows with each turn: a constant, or a value from outside of the loop


def reduce_strength(function: Function) -> None:
    """Replace products by sums in every innermost loop that is entered from one place."""
    dominators = Dominators(function)
    loops = Loops(dominators)
    replaced: dict[Value, Value] = {}
    used = users(function)
    for header, body in loops.bodies.items():
        outside = [block for block in header.predecessors if block not in body]
        innermost = not any(other in body for other in loops.bodies if other is not header)
        if innermost and len(outside) == 1 and outside[0].terminator.operation == "jump":
            latches = [block for block in header.predecessors if block in body]
            always = [
                block for block in dominators.order if all(dominators.dominates(block, latch) for latch in latches)
            ]
            values = [value for block in always if block in body for value in block.values]
            _reduce_loop(header, body, values, outside[0], replaced, used)
    if replaced:
        replace(function, replaced)
        fold(function)


def _reduce_loop(
    header: Block,
    body: set[Block],
    values: list[Value],
    before: Block,
    replaced: dict[Value, Value],
    used: dict[Value, list[Value]],
) -> None:
    """Replace some of the values, which every turn computes."""
    room = MOST
    for phi in list(header.phis()):
        step = step_of(phi, before)
        growth: Growth = {} if step is None else {phi: step}
        costly: set[Value] = set()
        for value in values:
            grown = growth_of(value, growth, body)
            if grown is None:
                continue
            growth[value] = grown
            if not isinstance(grown, int) or not costly.isdisjoint(value.arguments) or _is_scaled(value):
                costly.add(value)
        for value in values:
            # the last of a chain: a constant more is part of an address
            ends = any(user not in growth or _adds_constant(user) for user in used[value])
            sum_or_product = value.operation == "add" or not isinstance(growth.get(value, 0), int)
            last = ends and not any(_adds_constant(part) or part in replaced for part in (value, *value.arguments))
            if room and value in costly and last and sum_or_product:
                room -= 1
                replaced[value] = _counter(phi, value, growth, before)


def growth_of(value: Value, growth: Growth, body: set[Block]) -> int | Value | None:
    """By how much a value grows with each turn, in terms of what is known of others; None: it stays, or that is not so simple."""
    grown = [growth[argument] for argument in value.arguments if argument in growth]
    stays = [argument for argument in value.arguments if argument not in growth]
    if len(grown) != 1 or len(stays) != 1 or (stays[0].block in body and stays[0].constant is None):
        return None
    (by,), (other,) = grown, stays
    if value.operation == "add" or (value.operation == "sub" and other is value.arguments[1]):
        return by
    if value.operation == "mul" and isinstance(by, int):
        return by * other.constant if other.constant is not None else other if by == 1 else None
    if value.operation == "shl" and isinstance(by, int) and other is value.arguments[1] and other.constant is not None:
        return by << other.constant
    return None


def _is_scaled(value: Value) -> bool:
    """Whether a constant multiple is more than an address takes in passing."""
    return value.operation == "mul" or (value.operation == "shl" and value.arguments[1].integer > SCALED)


def _adds_constant(value: Value) -> bool:
    return value.operation == "add" and value.arguments[1].constant is not None


def step_of(phi: Value, before: Block) -> int | None:
    """What every turn adds to a counter; None if the phi is none."""
    turns = {value for value, source in zip(phi.arguments, phi.block.predecessors, strict=True) if source is not before}
    turn = turns.pop()
    return turn.arguments[1].constant if not turns and turn.operation == "add" and turn.arguments[0] is phi else None


def at_first(value: Value, first: dict[Value, Value], growth: Growth, before: Block) -> Value:
    """What a value is on the first turn, made before the loop; first: the same for the counters, and for what was made so."""
    if value in growth and value not in first:
        arguments = [at_first(argument, first, growth, before) for argument in value.arguments]
        first[value] = Value(value.operation, value.width, arguments, None, value.span, before)
        before.values.insert(-1, first[value])
    return first.get(value, value)


def _counter(phi: Value, total: Value, growth: Growth, before: Block) -> Value:
    """A phi that is the total on every turn: computed before the loop for the first one, then a sum."""
    header = phi.block
    edge = header.predecessors.index(before)
    start, step = at_first(total, {phi: phi.arguments[edge]}, growth, before), growth[total]
    turned = next(argument for index, argument in enumerate(phi.arguments) if index != edge)
    place = turned.block
    more = (
        [Value("const", total.width, [], step % (1 << total.width), total.span, place)] if isinstance(step, int) else []
    )
    counter = Value("phi", total.width, [], None, total.span, header)
    grown = Value(
        "add", total.width, [counter, *more] if isinstance(step, int) else [counter, step], None, turned.span, place
    )
    counter.arguments = [start if source is before else grown for source in header.predecessors]
    header.values.insert(0, counter)
    at = place.values.index(turned) + 1
    place.values[at:at] = [*more, grown]
    return counter
