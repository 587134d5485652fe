"""Returns what a call returned directly after the call, so that selection can make it a jump."""

from __future__ import annotations

from dsl.compiler.ir import Block, Callee, Function, Value

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


def expose_tail_calls(function: Function) -> None:
    """Give each block that ends with a call, and jumps to a block that only returns its results, a return of its own."""
    for target in list(function.blocks):
        last = target.terminator
        if last.operation != "return" or any(value.operation != "phi" for value in target.values[:-1]):
            continue
        for source in list(target.predecessors):
            if source.terminator.operation != "jump" or len(target.predecessors) < 2:
                continue
            edge = target.predecessors.index(source)
            results = [_along(argument, target, edge) for argument in last.arguments]
            if tail_call(source, results) is not None:
                source.values[-1] = Value("return", 0, results, None, last.span, source)
                source.successors = []
                del target.predecessors[edge]
                for phi in target.phis():
                    del phi.arguments[edge]


def _along(value: Value, block: Block, edge: int) -> Value:
    """What a value of a block is when control comes along one edge."""
    return value.arguments[edge] if value.operation == "phi" and value.block is block else value
