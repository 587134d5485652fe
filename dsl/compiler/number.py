"""Global value numbering: one value for equal pure computations where one dominates the other; loads within a block until the next effect.

A store makes what it stored known to the loads of the same place that follow it.
"""

from __future__ import annotations

from dsl.compiler.graph import Dominators, replace
from dsl.compiler.ir import OPERATIONS, Access, Block, Function, Value

COMMUTATIVE = frozenset(("add", "mul", "umulh", "and", "or", "xor", "eq", "ne"))
DIVISIONS = ("udiv", "urem", "sdiv", "srem")
Key = tuple[object, ...]


def number(function: Function) -> None:
    """Replace values by earlier equal ones."""
    dominators = Dominators(function)
    replaced: dict[Value, Value] = {}
    identity = {value: index for index, value in enumerate(function.values())}
    table: dict[Key, Value] = {}
    added: list[list[Key]] = []
    for block, entering in dominators.walk():
        if entering:
            added.append([])
            _number_block(block, table, added[-1], replaced, identity)
        else:
            for key in added.pop():
                del table[key]
    replace(function, replaced)


def _final(value: Value, replaced: dict[Value, Value]) -> Value:
    while value in replaced:
        value = replaced[value]
    return value


def _number_block(
    block: Block, table: dict[Key, Value], added: list[Key], replaced: dict[Value, Value], identity: dict[Value, int]
) -> None:
    memory: dict[Key, Value] = {}
    for value in block.values:
        arguments = [_final(argument, replaced) for argument in value.arguments]
        operation = value.operation
        if operation in ("load", "store"):
            _memory_access(value, arguments, memory, replaced, identity)
        elif writes_memory(value):
            memory.clear()
        if operation == "phi":
            _trivial_phi(value, arguments, replaced)
        elif (OPERATIONS[operation].pure or operation in DIVISIONS) and operation != "opaque":
            key = _key(value, arguments, identity)
            known = table.get(key)
            if known is None:
                table[key] = value
                added.append(key)
            else:
                replaced[value] = known


def writes_memory(value: Value) -> bool:
    """Whether loads before and after a call or intrinsic may give different values."""
    return value.operation == "call" or (
        value.operation == "intrinsic" and bool(getattr(value.data, "writes_memory", True))
    )


def _trivial_phi(value: Value, arguments: list[Value], replaced: dict[Value, Value]) -> None:
    others = {argument for argument in arguments if argument is not value}
    if len(others) == 1:
        replaced[value] = others.pop()


def _key(value: Value, arguments: list[Value], identity: dict[Value, int]) -> Key:
    numbers = [identity[argument] for argument in arguments]
    if value.operation in COMMUTATIVE:
        numbers.sort()
    data = value.data if not isinstance(value.data, list) else None
    if value.operation == "frame":
        data = id(value.data)  # slots are equal only to themselves
    return (value.operation, value.width, data, *numbers)


def _memory_access(
    value: Value,
    arguments: list[Value],
    memory: dict[Key, Value],
    replaced: dict[Value, Value],
    identity: dict[Value, int],
) -> None:
    assert isinstance(value.data, Access)
    if value.data.volatile:
        memory.clear()
        return
    stored = value.operation == "store"
    width = arguments[1].width if stored else value.width
    key = (identity[arguments[0]], value.data.offset, width)
    if stored:
        _forget(memory, key)
        memory[key] = arguments[1]
    elif key in memory:
        replaced[value] = memory[key]
    else:
        memory[key] = value


def _forget(memory: dict[Key, Value], written: Key) -> None:
    """Drop what a store may have changed: everything but places of the same base that do not overlap it."""
    base, offset, width = written
    assert isinstance(offset, int)
    assert isinstance(width, int)
    for key in list(memory):
        other_base, other, other_width = key
        assert isinstance(other, int)
        assert isinstance(other_width, int)
        apart = other_base == base and (other + other_width // 8 <= offset or offset + width // 8 <= other)
        if not apart:
            del memory[key]
