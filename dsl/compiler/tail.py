"""Calls whose results the caller returns: selection can make them jumps."""

from __future__ import annotations

from dsl.compiler.ir import Block, Callee, Value

REGISTER_ARGUMENTS = 6  # more go over the stack, whose caller must stay


def tail_call(block: Block, results: tuple[Value, ...] | list[Value]) -> Value | None:
    """The call that a block ends with (before its terminator), if `results` are exactly its results, in order."""
    position = len(block.values) - 2
    while position >= 0 and block.values[position].operation == "extract":
        position -= 1
    call = block.values[position] if position >= 0 else None
    if call is None or not isinstance(call.data, Callee) or len(call.arguments) > REGISTER_ARGUMENTS:
        return None
    if len(results) != len(call.data.results):
        return None
    fits = all(
        result.operation == "extract" and result.arguments[0] is call and result.data == number
        for number, result in enumerate(results)
    )
    return call if fits else None
