"""The rules of the IR, executable: what ir.verify promises. Runs between passes in tests and once after the last in a build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsl.compiler import ir
from dsl.compiler.graph import Dominators
from dsl.compiler.machine import RESULTS

WIDTHS: Final = (1, 8, 16, 32, 64)
MEMORY_WIDTHS: Final = WIDTHS[1:]
SUCCESSORS: Final = {"jump": 1, "branch": 2, "return": 0, "stop": 0}
RULES: Final[dict[str, tuple[str, Callable[[int, list[int]], bool]]]] = {
    # the widths of an operation: what they must be; the same of (its width, its arguments' widths)
    "": ("any", lambda w, of: True),
    "none": ("no width", lambda w, of: w == 0),
    "a width": ("a width", lambda w, of: w in WIDTHS),
    "one": ("all of one width", lambda w, of: w in WIDTHS and all(each == w for each in of)),
    "only 64": ("width 64", lambda w, of: [w, *of] == [64, 64, 64]),
    "address": ("width 64", lambda w, of: w == 64),
    "compared": ("width 1 of two equal ones", lambda w, of: w == 1 and of[0] == of[1] in WIDTHS),
    "larger": ("a larger width", lambda w, of: w in WIDTHS and 0 < of[0] < w),
    "smaller": ("a smaller width", lambda w, of: 0 < w < of[0] and w in WIDTHS),
    "condition": ("a condition of width 1", lambda w, of: of == [1]),
    "selected": ("a condition, then two of its width", lambda w, of: of == [1, w, w]),
    "loaded": ("an address, and 8 to 64 bits", lambda w, of: of[0] == 64 and w in MEMORY_WIDTHS),
    "stored": ("an address, and 8 to 64 bits", lambda w, of: of[0] == 64 and of[1] in MEMORY_WIDTHS),
}


class Verifier:
    """One function under check, and the block and value that are looked at."""

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.block: ir.Block | None = None
        self.value: ir.Value | None = None

    def need(self, condition: bool, text: str) -> None:
        """Raise IllegalIR with the place, unless the condition holds."""
        if not condition:
            block, value = self.block, self.value
            where = self.function.symbol + (f", {block.label}" if block else "")
            what = f", {value.name} = {value.operation} (width {value.width}, data {value.data})" if value else ""
            raise ir.IllegalIR(f"{where}{what}: {text}")

    def check(self) -> None:
        """Check every rule; raise IllegalIR."""
        blocks = self.function.blocks
        self.need(bool(blocks) == (self.function.assembly is None), "blocks or assembly, and not both")
        self.need(not blocks or not blocks[0].predecessors, "the entry has predecessors")
        place: dict[ir.Value, int] = {}
        for block in blocks:
            self.block, self.value = block, None
            self.check_edges(block, set(blocks))
            leading = True
            for index, value in enumerate(block.values):
                self.value = value
                self.need(value not in place, "stands twice")
                self.need(value.block is block, "value.block is another block")
                place[value] = index
                self.check_position(block, value, leading)
                leading = value.operation == "phi"
                self.check_value(value, block)
        if blocks:
            self.check_uses(place)

    def check_edges(self, block: ir.Block, known: set[ir.Block]) -> None:
        """A terminator with its successors; edges recorded at both ends."""
        self.need(bool(block.values), "empty block")
        last = block.terminator.operation
        self.need(last in ir.TERMINATORS, f"the last value, {last}, is no terminator")
        self.need(len(block.successors) == SUCCESSORS[last], f"{last} with {len(block.successors)} successors")
        for other in (*block.successors, *block.predecessors):
            self.need(other in known, f"edge to or from {other.label}, which is not in the function")
        for successor in block.successors:
            recorded = successor.predecessors.count(block) == block.successors.count(successor)
            self.need(recorded, f"edge to {successor.label} not recorded")
        for predecessor in block.predecessors:
            self.need(block in predecessor.successors, f"no edge from {predecessor.label}")

    def check_position(self, block: ir.Block, value: ir.Value, leading: bool) -> None:
        """Phis first, parameters in the entry, the terminator last. leading: there are only phis before."""
        self.need(value.operation not in ir.TERMINATORS or value is block.terminator, "terminator inside a block")
        self.need(value.operation != "phi" or leading, "phi after another operation")
        self.need(value.operation != "parameter" or block is self.function.blocks[0], "parameter outside the entry")

    def check_value(self, value: ir.Value, block: ir.Block) -> None:
        """Operation known, arity, widths, data."""
        name = value.operation
        self.need(name in ir.OPERATIONS, "unknown operation")
        operation = ir.OPERATIONS[name]
        self.need(operation.arity in (None, len(value.arguments)), f"takes {operation.arity} arguments")
        widths = [argument.width for argument in value.arguments]
        text, holds = RULES[operation.widths]
        self.need(holds(value.width, widths), f"argument widths {widths}, expected {text}")
        kind = operation.kind
        self.need(kind is None or isinstance(value.data, kind), f"expected data of type {kind}")
        match name:
            case "phi":
                self.need(len(widths) == len(block.predecessors), f"{len(block.predecessors)} predecessors")
            case "const":
                self.need(0 <= value.integer < 1 << value.width, "constant out of its width")
            case "parameter":
                parameters = self.function.parameters
                self.need(value.width in parameters[value.integer : value.integer + 1], f"parameters are {parameters}")
            case "extract":
                source = value.arguments[0]
                self.need(source.operation in ("call", "intrinsic"), "extracts from a call or intrinsic")
                self.need(source.block is block, "in another block than its call")
                if source.operation == "call":
                    self.need(source.callee.results[value.integer] == value.width, "width of the call's result")
            case "call":
                self.need(len(value.callee.results) <= len(RESULTS), f"at most {len(RESULTS)} results")
            case "return":
                self.need(len(widths) <= len(RESULTS), f"at most {len(RESULTS)} results")
                self.need(tuple(widths) == self.function.results, f"returns {widths}, not {self.function.results}")

    def check_uses(self, place: dict[ir.Value, int]) -> None:
        """Every use is dominated by its definition."""
        dominators = Dominators(self.function)
        reachable = set(dominators.order)
        for block in dominators.order:
            for index, value in enumerate(block.values):
                self.block, self.value = block, value
                for number, argument in enumerate(value.arguments):
                    self.need(argument in place, f"uses {argument.name} ({argument.operation}), which is gone")
                    if value.operation == "phi":
                        source = block.predecessors[number]
                        fine = source not in reachable or dominators.dominates(argument.block, source)
                    elif argument.block is block:
                        fine = place[argument] < index
                    else:
                        fine = argument.block in reachable and dominators.dominates(argument.block, block)
                    self.need(fine, f"use of {argument.name} is not dominated by its definition")
