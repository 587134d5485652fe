"""Inlining: a call becomes a copy of the called function's blocks, for functions that are small, straight, or called once.

Functions are visited callees first, so that what is copied is already as small as it gets. What nobody names any more is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from dsl.compiler.checks import remove_checks
from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, Loops, copy_blocks, postorder, relabel, replace
from dsl.compiler.ir import OPERATIONS, Block, Function, Module, Slot, Value
from dsl.compiler.number import number
from dsl.compiler.reach import drop_unreached, mentions_of, reached

# Costs are counted in instructions.
SMALL: Final = 12  # about what a call, its moves and saved registers cost
STRAIGHT: Final = 40  # arithmetic without control flow gains more: its values stay in registers
CALLED_ONCE: Final = 1500
CONDITIONAL: Final = 60  # called once, but not on every path: a call then keeps the caller's frame and registers few
LARGEST: Final = 6000  # what a function may grow to
COSTS: Final = {
    **dict.fromkeys(("const", "symbol", "frame", "parameter", "extract", "phi", "jump", "return", "trunc"), 0),
    "check": 2,
    "branch": 2,
    "intrinsic": 4,
    "call": 4,
    "udiv": 3,
    "urem": 3,
    "sdiv": 3,
    "srem": 3,
}


def inline(module: Module) -> None:
    """Inline in every function of the module; then drop functions and objects that the entry does not reach."""
    mentions = {symbol: mentions_of(function) for symbol, function in module.functions.items()}
    callees = {symbol: [name for name, weight in named if weight == 1] for symbol, named in mentions.items()}
    recursive = {symbol for symbol in callees if symbol in reached(callees[symbol], lambda name: callees.get(name, ()))}
    counts = Counter({next(iter(module.functions)): 2})  # how often each symbol is called or named; the entry stays
    for named in mentions.values():
        for symbol, weight in named:
            counts[symbol] += weight
    for symbol in postorder(callees, lambda symbol: callees.get(symbol, ())):
        function = module.functions.get(symbol)
        if function and function.assembly is None:
            fold(function)
            _inline_into(function, module, counts, recursive)
            fold(function)
            if _is_straight(function):  # what is copied most should count no check or load twice
                number(function)
                remove_checks(function)
    drop_unreached(module)


def _size(function: Function, arguments: Sequence[Value] = ()) -> int:
    """About how many instructions a function becomes; with arguments, what constants among them decide is not counted."""
    size = 0
    known: set[Value] = set()
    for value in function.values():
        if value.operation == "parameter":
            decided = bool(arguments) and arguments[value.integer].operation == "const"
        else:
            pure = value.operation == "check" or OPERATIONS[value.operation].pure
            decided = pure and known.issuperset(value.arguments)
        if decided:
            known.add(value)
        else:
            size += COSTS.get(value.operation, 1)
    return size


def _inline_into(function: Function, module: Module, counts: Counter[str], recursive: set[str]) -> None:
    size = _size(function)
    always, looping = _unconditional_and_looping(function)
    replaced: dict[Value, Value] = {}
    for block in list(function.blocks):
        current = block
        for call in [value for value in block.values if value.operation == "call"]:
            callee = module.functions.get(call.callee.symbol)
            if callee is None or callee.assembly is not None or callee.symbol in recursive or callee is function:
                continue
            added = _size(callee, call.arguments)
            once = counts[callee.symbol] == 1
            limit = STRAIGHT if _is_straight(callee) else SMALL
            if once:
                limit = CALLED_ONCE if block in always or (block in looping and _is_leaf(callee)) else CONDITIONAL
            if added <= limit and size + added <= LARGEST and not block.cold:
                current = _splice(function, current, call, callee, replaced)
                size += added
                for symbol, weight in mentions_of(callee):
                    counts[symbol] += 0 if once else weight
    replace(function, replaced)
    relabel(function)


def _unconditional_and_looping(function: Function) -> tuple[set[Block], set[Block]]:
    """The blocks that every way through the function passes, and those in loops."""
    dominators = Dominators(function)
    ends = [block for block in dominators.order if block.terminator.operation == "return"]
    always = {block for block in dominators.order if all(dominators.dominates(block, end) for end in ends)}
    depth = Loops(dominators).depth
    return always, {block for block in dominators.order if depth[block]}


def _is_straight(function: Function) -> bool:
    """Whether a function is one block of arithmetic, loads and stores."""
    return len(function.blocks) == 1 and all(
        value.operation not in ("call", "intrinsic") for value in function.values()
    )


def _is_leaf(function: Function) -> bool:
    return all(value.operation != "call" for value in function.values())


def _splice(function: Function, block: Block, call: Value, callee: Function, replaced: dict[Value, Value]) -> Block:
    """Replace one call by the callee's blocks; the block that holds what came after it (unreachable if the callee never returns)."""
    index = block.values.index(call)
    after = Block(f"{block.label}.after", block.values[index + 1 :], [], block.successors, block.cold)
    for value in after.values:
        value.block = after
    for successor in after.successors:
        successor.predecessors = [after if other is block else other for other in successor.predecessors]
    blocks, returns = _copy(callee, call.arguments)
    block.values[index:] = [Value("jump", 0, [], None, call.span, block)]
    block.successors = [blocks[0]]
    blocks[0].predecessors = [block]
    results = _join_returns(after, returns, callee.results, call)
    for value in after.values:
        if value.operation == "extract" and value.arguments[0] is call:
            replaced[value] = (
                results[value.integer] if results else Value("const", value.width, [], 0, call.span, after)
            )
    position = function.blocks.index(block) + 1
    function.blocks[position:position] = [*blocks, after]
    return after


def _join_returns(
    after: Block, returns: list[tuple[Block, list[Value]]], widths: tuple[int, ...], call: Value
) -> list[Value]:
    """Send every return to `after`; the values of the results there."""
    after.predecessors = [block for block, _ in returns]
    for block, _ in returns:
        block.successors = [after]
    if len(returns) == 1:
        return returns[0][1]
    phis = []
    if returns:
        for number, width in enumerate(widths):
            phis.append(Value("phi", width, [values[number] for _, values in returns], None, call.span, after))
    after.values[:0] = phis
    return phis


def _copy(callee: Function, arguments: list[Value]) -> tuple[list[Block], list[tuple[Block, list[Value]]]]:
    """A copy of the callee's blocks with arguments for parameters; the blocks that returned, now without target, with their results."""
    values = {value: arguments[value.integer] for value in callee.values() if value.operation == "parameter"}
    copies = list(copy_blocks(callee.blocks, values, callee.symbol).values())
    slots: dict[Slot, Slot] = {}
    returns: list[tuple[Block, list[Value]]] = []
    for copied in copies:
        for value in copied.values:
            if value.operation == "frame":
                value.data = slots.setdefault(value.slot, Slot(value.slot.size, value.slot.align))
        last = copied.terminator
        if last.operation == "return":
            returns.append((copied, last.arguments))
            last.operation, last.arguments = "jump", []
    return copies, returns
