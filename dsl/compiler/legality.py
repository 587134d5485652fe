"""The rules of the IR, executable: what ir.verify promises. Runs between passes in tests and once after the last in a build."""

from __future__ import annotations

from dsl.compiler.graph import Dominators
from dsl.compiler.ir import (
    COMPARISONS,
    OPERATIONS,
    TERMINATORS,
    Access,
    Address,
    Block,
    Callee,
    Function,
    IllegalIR,
    Slot,
    Value,
)

WIDTHS = (1, 8, 16, 32, 64)
SAME_WIDTH = (
    "add", "sub", "mul", "udiv", "urem", "sdiv", "srem", "and", "or", "xor", "not", "neg", "shl", "shr", "sar", "rotl", "rotr",
    "bswap", "lzcnt", "tzcnt", "popcnt", "opaque", "phi",
)  # fmt: skip
SUCCESSORS = {"jump": 1, "branch": 2, "return": 0, "stop": 0}


def verify_function(function: Function) -> None:
    """Check every rule of the IR; raise IllegalIR naming function, block and value."""
    if function.assembly is not None:
        _require(not function.blocks, function, None, None, "a naked function has no blocks")
        return
    _require(bool(function.blocks), function, None, None, "no blocks")
    entry = function.blocks[0]
    _require(not entry.predecessors, function, entry, None, "the entry has predecessors")
    place: dict[Value, int] = {}
    for block in function.blocks:
        _verify_block(function, block)
        for index, value in enumerate(block.values):
            _require(value not in place, function, block, value, "stands twice")
            place[value] = index
            _verify_value(function, block, value)
    _verify_uses(function, place)


def _require(condition: bool, function: Function, block: Block | None, value: Value | None, text: str) -> None:
    if not condition:
        where = function.symbol + (f", {block.label}" if block else "")
        what = "" if value is None else f", {value.name} = {value.operation} (width {value.width}, data {value.data})"
        raise IllegalIR(f"{where}{what}: {text}")


def _verify_block(function: Function, block: Block) -> None:
    """One terminator, last; phis first; edges recorded at both ends."""
    _require(bool(block.values), function, block, None, "empty block")
    last = block.values[-1]
    _require(last.operation in TERMINATORS, function, block, last, "the last value is no terminator")
    _require(len(block.successors) == SUCCESSORS[last.operation], function, block, last, "wrong number of successors")
    known = set(function.blocks)
    for successor in block.successors:
        _require(successor in known, function, block, None, f"successor {successor.label} is not in the function")
        expected = block.successors.count(successor)
        _require(
            successor.predecessors.count(block) == expected,
            function,
            block,
            None,
            f"edge to {successor.label} not recorded",
        )
    for predecessor in block.predecessors:
        _require(predecessor in known, function, block, None, f"predecessor {predecessor.label} is not in the function")
        _require(block in predecessor.successors, function, block, None, f"no edge from {predecessor.label}")
    leading = True
    for value in block.values:
        _require(
            value.operation not in TERMINATORS or value is last, function, block, value, "terminator inside a block"
        )
        _require(value.operation != "phi" or leading, function, block, value, "phi after another operation")
        leading = leading and value.operation == "phi"
        parameters = value.operation == "parameter"
        _require(not parameters or block is function.blocks[0], function, block, value, "parameter outside the entry")


def _verify_value(function: Function, block: Block, value: Value) -> None:
    """Operation known, arity, widths, data."""

    def need(condition: bool, text: str) -> None:
        _require(condition, function, block, value, text)

    operation = OPERATIONS.get(value.operation)
    need(operation is not None, "unknown operation")
    assert operation is not None
    need(value.block is block, "value.block is another block")
    need(operation.arity is None or operation.arity == len(value.arguments), f"takes {operation.arity} arguments")
    widths = [argument.width for argument in value.arguments]
    name = value.operation
    if name in SAME_WIDTH:
        need(value.width in WIDTHS and all(width == value.width for width in widths), f"argument widths {widths}")
    if name == "phi":
        need(len(widths) == len(block.predecessors), f"{len(block.predecessors)} predecessors")
    elif name in COMPARISONS:
        need(value.width == 1 and widths[0] == widths[1] and widths[0] in WIDTHS, f"argument widths {widths}")
    elif name in ("zext", "sext", "trunc"):
        need(value.width in WIDTHS, "width")
        grows = value.width > widths[0] > 0
        need(grows if name != "trunc" else 0 < value.width < widths[0], f"from {widths[0]} to {value.width}")
    elif name == "select":
        need(widths == [1, value.width, value.width], f"argument widths {widths}")
    elif name == "umulh":
        need(widths == [64, 64] and value.width == 64, f"argument widths {widths}")
    elif name == "const":
        need(value.width in WIDTHS and isinstance(value.data, int) and 0 <= value.data < 1 << value.width, "constant")
    elif name == "parameter":
        need(isinstance(value.data, int) and value.data < len(function.parameters), "parameter number")
        assert isinstance(value.data, int)
        need(function.parameters[value.data] == value.width, "parameter width")
    else:
        _verify_effect(function, value, widths, need)


def _verify_effect(function: Function, value: Value, widths: list[int], need: object) -> None:
    """Memory, calls, checks and terminators."""
    assert callable(need)
    name, data = value.operation, value.data
    if name in ("load", "store"):
        need(isinstance(data, Access) and widths[0] == 64, "address of width 64, data an Access")
        need((value.width if name == "load" else widths[1]) in WIDTHS[1:], "accesses 8 to 64 bits")
    elif name == "symbol":
        need(isinstance(data, Address) and value.width == 64, "data an Address, width 64")
    elif name == "frame":
        need(isinstance(data, Slot) and value.width == 64, "data a Slot, width 64")
    elif name == "call":
        need(isinstance(data, Callee) and value.width == 0, "data a Callee, no width")
    elif name == "extract":
        source = value.arguments[0]
        need(source.operation in ("call", "intrinsic"), "extracts from a call or intrinsic")
        need(source.block is value.block, "in another block than its call")
        need(isinstance(data, int), "result number")
        if isinstance(source.data, Callee):
            need(isinstance(data, int) and source.data.results[data] == value.width, "width of the call's result")
    elif name in ("check", "branch"):
        need(widths == [1], "condition of width 1")
    elif name == "return":
        need(tuple(widths) == function.results, f"returns {widths}, function {function.results}")


def _verify_uses(function: Function, place: dict[Value, int]) -> None:
    """Every use is dominated by its definition."""
    dominators = Dominators(function)
    reachable = set(dominators.order)
    for block in dominators.order:
        for index, value in enumerate(block.values):
            for number, argument in enumerate(value.arguments):
                _require(
                    argument in place,
                    function,
                    block,
                    value,
                    f"uses {argument.name} ({argument.operation}), which is gone",
                )
                if value.operation == "phi":
                    source = block.predecessors[number]
                    fine = source not in reachable or dominators.dominates(argument.block, source)
                elif argument.block is block:
                    fine = place[argument] < index
                else:
                    fine = argument.block in reachable and dominators.dominates(argument.block, block)
                _require(fine, function, block, value, f"use of {argument.name} is not dominated by its definition")
