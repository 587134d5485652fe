"""Moves pure values out of loops whose turns do not change them; and the addresses of objects that a loop indexes."""

from __future__ import annotations

from typing import Final

from dsl.compiler.graph import Dominators, Loops
from dsl.compiler.ir import OPERATIONS, Block, Function, Value

# Cheap to make again where they are used, or bound to their place.
STAYS = frozenset(
    ("const", "symbol", "frame", "phi", "extract", "opaque", "eq", "ne", "ult", "ule", "slt", "sle", "zext", "trunc")
)
ADDRESSES: Final = 2  # objects a loop


def hoist(function: Function) -> None:
    """Put each invariant value before the loop, innermost loops first."""
    dominators = Dominators(function)
    loops = Loops(dominators)
    for header in sorted(loops.bodies, key=lambda block: -loops.depth[block]):
        body = loops.bodies[header]
        outside = [block for block in header.predecessors if block not in body]
        if len(outside) == 1 and len(outside[0].successors) == 1:
            _hoist_loop(header, body, outside[0], dominators)
            _keep_addresses([block for block in function.blocks if block in body], outside[0])


def _hoist_loop(header: Block, body: set[Block], before: Block, dominators: Dominators) -> None:
    moved: dict[Value, None] = {}
    for block in dominators.order:
        if block in body:
            for value in block.values:
                if _is_invariant(value, body):
                    for part in (*value.arguments, value):  # constants inside the loop go along
                        if part.block in body:
                            part.block = before
                            moved[part] = None
    for block in body:
        block.values = [value for value in block.values if value not in moved]
    before.values[-1:-1] = moved


def _keep_addresses(body: list[Block], before: Block) -> None:
    """Give the symbols that a loop without calls adds indexes to a register each; else every use makes the address again."""
    values = [value for block in body for value in block.values]
    if any(value.operation in ("call", "intrinsic") for value in values):
        return
    kept: dict[Value, Value] = {}
    for value in values:
        base = next((argument for argument in value.arguments if argument.operation == "symbol"), None)
        if (
            value.operation == "add"
            and base
            and base.block not in body
            and all(part.constant is None for part in value.arguments)
        ):
            if base not in kept and len(kept) < ADDRESSES:
                kept[base] = Value("opaque", 64, [base], None, value.span, before)
            value.arguments = [kept.get(part, part) for part in value.arguments]
    before.values[-1:-1] = kept.values()


def _is_invariant(value: Value, body: set[Block]) -> bool:
    if not OPERATIONS[value.operation].pure or value.operation in STAYS:
        return False
    for argument in value.arguments:
        if argument.block in body and argument.operation not in ("const", "symbol", "frame"):
            return False
    return True
