"""Moves pure values out of loops whose turns do not change them; and the addresses of objects that a loop indexes."""

from __future__ import annotations

from typing import Final

from dsl.compiler.graph import Dominators, Loops, users
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
    used = users(function)
    for header in sorted(loops.bodies, key=lambda block: -loops.depth[block]):
        body = loops.bodies[header]
        before = loops.entrance(header)
        if before:
            for block in body:
                for value in list(block.values):
                    _split_address(value, body, used)
            _hoist_loop(header, body, before, dominators)
            _keep_addresses([block for block in function.blocks if block in body], before)


def _split_address(value: Value, body: set[Block], used: dict[Value, list[Value]]) -> None:
    """Where nothing else uses an index that is a sum, add its part from outside of the loop to the base, which is from there too."""
    if value.operation != "add" or value.width != 64 or value.arguments[0].block in body:
        return
    base, offset = value.arguments
    scaled = offset.operation == "shl" and offset.arguments[1].constant is not None
    index = offset.arguments[0] if scaled else offset
    if index.operation != "add" or used[index] != [offset if scaled else value] or (scaled and used[offset] != [value]):
        return
    stays = [part for part in index.arguments if part.block not in body and part.constant is None]
    if len(stays) == 1 and index.block is value.block:
        at = value.block.values.index(value)
        (part,) = stays
        rest = index.arguments[1 - index.arguments.index(part)]
        if scaled:
            part = Value("shl", 64, [part, offset.arguments[1]], None, value.span, value.block)
            offset.arguments = [rest, offset.arguments[1]]
            value.block.values.insert(at, part)
            at += 1
        first = Value("add", 64, [base, part], None, value.span, value.block)
        value.block.values.insert(at, first)
        value.arguments = [first, offset if scaled else rest]


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
    return all(part.block not in body or part.operation in ("const", "symbol", "frame") for part in value.arguments)
