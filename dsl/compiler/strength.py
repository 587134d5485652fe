"""Strength reduction: in an innermost loop, the product of a counter and something that stays becomes a sum that grows along."""

from __future__ import annotations

from typing import Final

from dsl.compiler.graph import Dominators, Loops, replace, users
from dsl.compiler.ir import Block, Function, Value

MOST: Final = 3  # products a loop: each takes a register


def reduce_strength(function: Function) -> None:
    """Replace products by counters in every innermost loop that is entered from one place."""
    dominators = Dominators(function)
    loops = Loops(dominators)
    replaced: dict[Value, Value] = {}
    used = users(function)
    for header, body in loops.bodies.items():
        outside = [block for block in header.predecessors if block not in body]
        innermost = not any(other in body for other in loops.bodies if other is not header)
        if innermost and len(outside) == 1 and outside[0].terminator.operation == "jump":
            blocks = [block for block in dominators.order if block in body]
            _reduce_loop(header, blocks, outside[0], replaced, used)
    replace(function, replaced)


def _reduce_loop(
    header: Block, body: list[Block], before: Block, replaced: dict[Value, Value], used: dict[Value, list[Value]]
) -> None:
    room = MOST
    for phi in list(header.phis()):
        step = _step(phi, before)
        if step is None:
            continue
        for block in body:
            for product in list(block.values):
                other = _other_factor(product, phi)
                if other is not None and room and other.block not in body and _is_one(step):
                    room -= 1
                    total, rest = _total(product, body, used)
                    replaced[total] = _counter(phi, other, rest, before, header)


def _step(phi: Value, before: Block) -> Value | None:
    """What every turn adds to a counter; None if the phi is none."""
    assert phi.block is not None
    turns = {value for value, source in zip(phi.arguments, phi.block.predecessors, strict=True) if source is not before}
    if len(turns) != 1:
        return None
    turn = turns.pop()
    return turn.arguments[1] if turn.operation == "add" and turn.arguments[0] is phi else None


def _is_one(step: Value) -> bool:
    return step.operation == "const" and step.data == 1


def _total(product: Value, body: list[Block], used: dict[Value, list[Value]]) -> tuple[Value, Value | None]:
    """The sum with something that stays which alone uses the product, and that something; else the product itself."""
    if len(used[product]) == 1 and used[product][0].operation == "add":
        total = used[product][0]
        rest = next((argument for argument in total.arguments if argument is not product), product)
        if total.block in body and rest.block not in body and rest.operation != "const":
            return total, rest
    return product, None


def _other_factor(product: Value, phi: Value) -> Value | None:
    """The factor beside the counter; none for constants, which cost little."""
    if product.operation != "mul" or phi not in product.arguments:
        return None
    left, right = product.arguments
    other = right if left is phi else left
    return None if other is phi or other.operation == "const" else other


def _counter(phi: Value, factor: Value, rest: Value | None, before: Block, header: Block) -> Value:
    """A phi that is the counter times the factor, plus the rest: it starts so, and grows by the factor."""
    edge = header.predecessors.index(before)
    start = phi.arguments[edge]
    if start.operation == "const" and start.data == 1:
        start = factor
    elif start.operation != "const" or start.data != 0:
        start = Value("mul", phi.width, [start, factor], None, phi.span, before)
        before.values.insert(-1, start)
    if rest is not None:
        if start.operation == "const" and start.data == 0:
            start = rest
        else:
            start = Value("add", phi.width, [start, rest], None, phi.span, before)
            before.values.insert(-1, start)
    grown = next(value for index, value in enumerate(phi.arguments) if index != edge)
    counter = Value("phi", phi.width, [], None, phi.span, header)
    turned = Value("add", phi.width, [counter, factor], None, grown.span, grown.block)
    counter.arguments = [start if source is before else turned for source in header.predecessors]
    header.values.insert(0, counter)
    assert grown.block is not None
    grown.block.values.insert(grown.block.values.index(grown) + 1, turned)
    return counter
