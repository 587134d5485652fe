"""Threading: where a phi brings constants that branches behind it test, each constant gets a way of its own to where it leads.

The blocks on the way are copied once a constant, without the tests that the constant decides: states of a machine become places,
and from a function that was inlined control goes directly to what its caller does with the result.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.dead import remove_dead
from dsl.compiler.fold import fold
from dsl.compiler.graph import Dominators, constant_of, copy_blocks, decide, drop_unreachable, redirect, replace
from dsl.compiler.inline import COSTS
from dsl.compiler.ir import OPERATIONS, Block, Function, Value
from dsl.lang.operations import BINARY, UNARY

ROUNDS: Final = 64
TEST: Final = 3  # instructions of a decided test
LARGEST: Final = 64  # instructions that the copies of one phi's ways may have
# the phi of each block: the one that is tested, and those that it takes from blocks that only jump to it
Web = dict[Block, Value]


def thread(function: Function) -> None:
    """Copy the ways of constants, as long as there are some that are small enough."""
    for _ in range(ROUNDS):
        if not _thread_one(function):
            return
        fold(function)
        remove_dead(function)


def _thread_one(function: Function) -> bool:
    tested: dict[Value, list[Block]] = {}
    for block in function.blocks:
        if block.terminator.operation == "branch":
            phi = _tested_phi(block.terminator.arguments[0])
            if phi is not None:
                tested.setdefault(phi, []).append(block)
    if not tested:
        return False
    dominators = Dominators(function)
    return any(_Ways(function, phi, tests, dominators).take() for phi, tests in tested.items())


def _tested_phi(condition: Value) -> Value | None:
    """The phi that alone decides a condition, if there is one."""
    while OPERATIONS[condition.operation].pure and (condition.operation in BINARY or condition.operation in UNARY):
        unknown = [argument for argument in condition.arguments if argument.constant is None]
        if len(unknown) != 1:
            return None
        condition = unknown[0]
    return condition if condition.operation == "phi" else None


class _Ways:
    """The ways from the edges that bring constants to a phi to where the branches on it lead."""

    def __init__(self, function: Function, phi: Value, tests: list[Block], dominators: Dominators) -> None:
        self.function, self.phi, self.tests, self.dominators = function, phi, tests, dominators
        self.web: Web = {}
        self.entering: dict[int, list[tuple[Block, Block]]] = {}  # by constant, the edges that bring it
        self.learnt: list[tuple[Value, int, Value]] = []  # phi, number of an edge, and the constant that it brings
        self.copies: dict[int, dict[Block, Block]] = {}  # by constant, the copy of each block of its way
        self.constants: dict[Value, Value] = {}  # the copies of phis, and the constants that these are
        self.defined: dict[Value, dict[Block, Value]] = {}  # of what is copied: the values that stand for it, by block
        self.joined: dict[Value, dict[Block, Value]] = {}  # the same for blocks that only pass one on
        self.unfilled: list[tuple[Value, Value]] = []  # what is copied, and a new phi of its copies
        self._collect(phi)

    def _collect(self, phi: Value) -> None:
        block = phi.block
        self.web[block] = phi
        for edge, (source, argument) in enumerate(zip(block.predecessors, phi.arguments, strict=True)):
            constant = self._constant(argument, source)
            if constant is not None:
                if source.successors.count(block) == 1:
                    self.learnt.append((phi, edge, constant))
                    self.entering.setdefault(constant.integer, []).append((source, block))
            elif argument.operation == "phi" and argument.block is source and len(source.successors) == 1:
                if source not in self.web:
                    self._collect(argument)

    def _constant(self, value: Value, block: Block) -> Value | None:
        """The constant that a value is at a block's end: itself, or what a test found the phi to be."""
        if value is not self.phi:
            return None if value.constant is None else value
        for test in self.tests:
            condition = test.terminator.arguments[0]
            if condition.operation in ("eq", "ne") and condition.arguments[0] is value:
                found = test.successors[0 if condition.operation == "eq" else 1]
                if len(found.predecessors) == 1 and self.dominators.dominates(found, block):
                    return None if condition.arguments[1].constant is None else condition.arguments[1]
        return None

    def take(self) -> bool:
        """Make the copies, if there is something to gain and they are small enough; whether there was."""
        start = self.phi.block
        sources = [source for edges in self.entering.values() for source, _ in edges]
        back = [source for source in start.predecessors if self.dominators.dominates(start, source)]
        if not sources or (back and not any(self.dominators.dominates(start, source) for source in sources)):
            return False  # of a loop's counter the first turn alone would be known
        ways = {constant: self._way(constant) for constant in self.entering}
        if sum(map(self._cost, (block for way in ways.values() for block in way))) > LARGEST:
            return False
        for phi, edge, brought in self.learnt:
            phi.arguments[edge] = brought
        for constant, way in ways.items():
            self._copy(constant, way)
        self._redirect()
        replace(self.function, self.constants)
        drop_unreachable(self.function)
        self._repair()
        return True

    def _way(self, constant: int) -> list[Block]:
        """The blocks that a constant's copy has: those that lead to the phi, and on to the last test, as it decides."""
        leading: dict[Block, None] = {}
        for _, block in self.entering[constant]:
            while block is not self.phi.block:
                leading[block] = None
                block = block.successors[0]
        leading[self.phi.block] = None
        order = [self.phi.block]
        reached = set(order)
        for block in order:
            for successor in self._successors(block, constant):
                if successor not in reached and successor not in self.web:
                    reached.add(successor)
                    order.append(successor)
        useful = (set(self.tests) & reached) - {self.phi.block}
        pending = list(useful)
        while pending:
            for source in pending.pop().predecessors:
                if source in reached and source not in useful and source is not self.phi.block:
                    useful.add(source)
                    pending.append(source)
        return [*leading, *(block for block in order if block in useful and block not in leading)]

    def _successors(self, block: Block, constant: int) -> list[Block]:
        if block not in self.tests:
            return block.successors
        return [block.successors[self._taken(block, constant)]]

    def _taken(self, test: Block, constant: int) -> int:
        """The number of the successor to which a test sends a constant."""
        return 0 if constant_of(test.terminator.arguments[0], {self.phi: constant}) else 1

    def _cost(self, block: Block) -> int:
        if any(value.operation in ("call", "intrinsic") for value in block.values):
            return LARGEST + 1
        return sum(COSTS.get(value.operation, 1) for value in block.values) - TEST * (block in self.tests)

    def _copy(self, constant: int, way: list[Block]) -> None:
        """Copy the blocks of a way; their edges lead among the copies, but those to phis of the web, and to what is not copied."""
        entry = self.function.blocks[0]
        brought = Value("const", self.phi.width, [], constant, self.phi.span, entry)
        entry.values.insert(sum(value.operation == "parameter" for value in entry.values), brought)
        copies = self.copies[constant] = {}
        leading = [block for block in way if block in self.web and block is not self.phi.block]
        for part in (*([block] for block in leading), [block for block in way if block not in leading]):
            values: dict[Value, Value] = {}
            copies |= copy_blocks(part, values, str(constant), heads=self.web)
            for old, new in values.items():
                if old is self.web.get(old.block):
                    self.constants[new] = brought
                self.defined.setdefault(old, {old.block: old})[new.block] = self.constants.get(new, new)
        for test in self.tests:
            if test in copies:
                decide(copies[test], self._taken(test, constant))
        place = self.function.blocks.index(self.phi.block)
        self.function.blocks[place:place] = copies.values()

    def _redirect(self) -> None:
        """Send each edge that brings a constant to that constant's copy."""
        for block, phi in self.web.items():
            for source, argument in list(zip(block.predecessors, phi.arguments, strict=True)):
                brought = self.constants.get(argument, argument).constant
                copy = self.copies.get(brought, {}).get(block) if brought is not None else None
                if copy is not None and source.successors.count(block) == 1:
                    redirect(source, block, copy)

    # what is now defined in several places

    def _repair(self) -> None:
        """Make every use of a value with copies a use of the one that control comes from, or of a phi of several."""
        blocks = set(self.function.blocks)
        for value, places in self.defined.items():
            self.defined[value] = {block: place for block, place in places.items() if block in blocks}
        for block in self.function.blocks:
            for value in list(block.values):
                for index, argument in enumerate(value.arguments):
                    if argument not in self.defined:
                        continue
                    if value.operation == "phi":
                        value.arguments[index] = self._at_end(argument, block.predecessors[index])
                    else:
                        value.arguments[index] = self._at_end(argument, block)
        while self.unfilled:
            value, phi = self.unfilled.pop()
            phi.arguments = [self._at_end(value, source) for source in phi.block.predecessors]

    def _at_end(self, value: Value, block: Block) -> Value:
        """What stands for a value at a block's end; the value has a definition on every way there."""
        known, passed = self.joined.setdefault(value, {}), []
        found = self.defined[value].get(block) or known.get(block)
        while found is None:
            passed.append(block)
            if len(block.predecessors) > 1:
                found = Value("phi", value.width, [], None, value.span, block)
                block.values.insert(0, found)
                self.unfilled.append((value, found))
            else:
                (block,) = block.predecessors
                found = self.defined[value].get(block) or known.get(block)
        known.update(dict.fromkeys(passed, found))
        return found
