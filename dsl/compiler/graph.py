"""The control flow graph: orders, dominators, loops, users of values, and the few edits that passes share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import TypeVar

from dsl.compiler.ir import Block, Function, Value
from dsl.compiler.machine import MachineBlock
from dsl.lang.operations import BINARY, UNARY, as_signed, evaluate

B = TypeVar("B", Block, MachineBlock)
T = TypeVar("T", bound=Hashable)


def postorder(roots: Iterable[T], targets_of: Callable[[T], Iterable[T]]) -> list[T]:
    """What is reachable from the roots, each after its targets but for cycles."""
    order: list[T] = []
    seen: set[T] = set()
    for root in roots:
        stack = [(root, iter(targets_of(root)))] if root not in seen else []
        seen.add(root)
        while stack:
            node, rest = stack[-1]
            for target in rest:
                if target not in seen:
                    seen.add(target)
                    stack.append((target, iter(targets_of(target))))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def reverse_postorder(entry: B) -> list[B]:
    """Blocks reachable from the entry, each before its successors but for back edges."""
    return postorder([entry], lambda block: block.successors)[::-1]


class Dominators:
    """The dominator tree of a function (Cooper, Harvey, Kennedy)."""

    def __init__(self, function: Function) -> None:
        self.order = reverse_postorder(function.blocks[0])
        self.number = {block: number for number, block in enumerate(self.order)}
        self.immediate: dict[Block, Block] = {self.order[0]: self.order[0]}
        changed = True
        while changed:
            changed = False
            for block in self.order[1:]:
                known = [p for p in block.predecessors if p in self.immediate]
                dominator = known[0]
                for other in known[1:]:
                    dominator = self._common(dominator, other)
                if self.immediate.get(block) is not dominator:
                    self.immediate[block] = dominator
                    changed = True
        self.children: dict[Block, list[Block]] = {block: [] for block in self.order}
        for block in self.order[1:]:
            self.children[self.immediate[block]].append(block)
        self._number_tree()

    def _common(self, first: Block, second: Block) -> Block:
        while first is not second:
            while self.number[first] > self.number[second]:
                first = self.immediate[first]
            while self.number[second] > self.number[first]:
                second = self.immediate[second]
        return first

    def _number_tree(self) -> None:
        self._enter: dict[Block, int] = {}
        self._leave: dict[Block, int] = {}
        for clock, (block, entering) in enumerate(self.walk()):
            (self._enter if entering else self._leave)[block] = clock

    def walk(self) -> list[tuple[Block, bool]]:
        """The tree in depth-first order: (block, True) on the way in and (block, False) on the way out."""
        steps: list[tuple[Block, bool]] = []
        stack = [(self.order[0], True)]
        while stack:
            block, entering = stack.pop()
            steps.append((block, entering))
            if entering:
                stack.append((block, False))
                stack += [(child, True) for child in reversed(self.children[block])]
        return steps

    def dominates(self, first: Block, second: Block) -> bool:
        """Whether every path to second passes through first (a block dominates itself)."""
        return self._enter[first] <= self._enter[second] and self._leave[second] <= self._leave[first]


class Loops:
    """The natural loops: the blocks of each header's loop, and how deep each block is nested."""

    def __init__(self, dominators: Dominators) -> None:
        self.bodies: dict[Block, set[Block]] = {}
        for block in dominators.order:
            for successor in block.successors:
                if dominators.dominates(successor, block):
                    self._collect(self.bodies.setdefault(successor, {successor}), block)
        self.depth = dict.fromkeys(dominators.order, 0)
        for body in self.bodies.values():
            for block in body:
                self.depth[block] += 1

    def entrance(self, header: Block) -> Block | None:
        """The block outside of a loop that goes to its header and nowhere else, if the loop is entered from there alone."""
        outside = [block for block in header.predecessors if block not in self.bodies[header]]
        return outside[0] if len(outside) == 1 and len(outside[0].successors) == 1 else None

    @staticmethod
    def _collect(body: set[Block], latch: Block) -> None:
        pending = [latch]
        while pending:
            block = pending.pop()
            if block not in body:
                body.add(block)
                pending += block.predecessors


def step_of(phi: Value, before: Block) -> int | None:
    """What every turn adds to a counter; None if the phi is none."""
    turns = {value for value, source in zip(phi.arguments, phi.block.predecessors, strict=True) if source is not before}
    turn = turns.pop()
    return turn.arguments[1].constant if not turns and turn.operation == "add" and turn.arguments[0] is phi else None


def users(function: Function) -> dict[Value, list[Value]]:
    """Each value's users, once per mention, in the order of the function."""
    found: dict[Value, list[Value]] = {value: [] for value in function.values()}
    for value in function.values():
        for argument in value.arguments:
            found[argument].append(value)
    return found


def replace(function: Function, replaced: dict[Value, Value]) -> None:
    """Make every use of a key a use of its replacement (chains followed), and drop the keys from their blocks."""
    if not replaced:
        return
    for block in function.blocks:
        block.values = [value for value in block.values if value not in replaced]
        for value in block.values:
            if value.arguments:
                value.arguments = [final(argument, replaced) for argument in value.arguments]


def final(value: Value, replaced: dict[Value, Value]) -> Value:
    """What stands for a value at the end of a chain of replacements."""
    while value in replaced:
        value = replaced[value]
    return value


def constant_of(value: Value, given: dict[Value, int | None]) -> int | None:
    """What a value is if some are as given, where these and constants decide it; `given` gets what is found out on the way."""
    if value not in given:
        given[value] = value.constant
        if value.operation in BINARY or value.operation in UNARY:
            constants = [part for argument in value.arguments if (part := constant_of(argument, given)) is not None]
            if len(constants) == len(value.arguments):
                given[value] = evaluate(value.operation, value.width, constants, value.arguments[0].width)
    return given[value]


def copy_blocks(
    blocks: Collection[Block], values: dict[Value, Value], prefix: str, heads: Collection[Block] = ()
) -> dict[Block, Block]:
    """Copies of blocks in terms of `values`, which already has what stands for some values (these are not copied) and gets the others.

    Edges among the blocks lead among the copies; those to heads and to other blocks lead there still, and their phis take what is copied.
    Nothing leads to the copies from elsewhere.
    """
    copies = {block: Block(f"{prefix}.{block.label}", cold=block.cold) for block in blocks}
    for block, copy in copies.items():
        for old in block.values:
            if old not in values:
                arguments = [] if old.operation == "phi" else old.arguments
                values[old] = Value(old.operation, old.width, arguments, old.data, old.span, copy, secret=old.secret)
                copy.values.append(values[old])
    for copy in copies.values():
        for value in copy.values:
            value.arguments = [values.get(argument, argument) for argument in value.arguments]
    for block, copy in copies.items():
        copy.successors = [other if other in heads else copies.get(other, other) for other in block.successors]
        for original, target in dict(zip(block.successors, copy.successors, strict=True)).items():
            _enter(target, copy, original, block, values)
    return copies


def _enter(target: Block, source: Block, original: Block, came: Block, values: dict[Value, Value]) -> None:
    """Let control come into a block, or a copy of it, with what the original's phis take where it comes from `came`."""
    for edge in [edge for edge, block in enumerate(original.predecessors) if block is came]:
        target.predecessors.append(source)
        for phi, model in zip(target.phis(), original.phis(), strict=True):
            phi.arguments.append(values.get(model.arguments[edge], model.arguments[edge]))


def redirect(source: Block, block: Block, copy: Block) -> None:
    """Send the one edge from a source to a block to a copy of that block."""
    place = source.successors.index(block)
    _enter(copy, source, block, source, {})
    remove_edge(source, block)
    source.successors.insert(place, copy)


def decide(block: Block, taken: int) -> None:
    """Make a branch a jump to successor number `taken`."""
    remove_edge(block, block.successors[1 - taken])
    block.terminator.operation, block.terminator.arguments = "jump", []


def remove_edge(source: Block, target: Block) -> None:
    """Take one edge away, with the arguments of the target's phis that came along it."""
    index = target.predecessors.index(source)
    del target.predecessors[index]
    for phi in target.phis():
        del phi.arguments[index]
    source.successors.remove(target)


def drop_unreachable(function: Function) -> bool:
    """Remove the blocks that the entry does not reach; whether there were any."""
    order = reverse_postorder(function.blocks[0])
    if len(order) == len(function.blocks):
        return False
    kept = set(order)
    for block in function.blocks:
        if block not in kept:
            for successor in list(block.successors):
                remove_edge(block, successor)
    function.blocks = [block for block in function.blocks if block in kept]
    return True


def split_critical_edges(function: Function) -> None:
    """Put an empty block on each edge from a block with two successors to one with several predecessors and phis."""
    for block in list(function.blocks):
        if len(block.successors) < 2:
            continue
        for index, successor in enumerate(block.successors):
            if len(successor.predecessors) > 1 and next(successor.phis(), None) is not None:
                middle = Block(f"{block.label}.{index}", predecessors=[block], successors=[successor])
                middle.cold = block.cold or successor.cold
                middle.values.append(Value("jump", 0, [], None, block.terminator.span, middle))
                block.successors[index] = middle
                successor.predecessors[successor.predecessors.index(block)] = middle  # of two edges, in turn
                function.blocks.insert(function.blocks.index(block) + 1, middle)


def relabel(function: Function) -> None:
    """Name the blocks b0, b1, ... in order."""
    for number, block in enumerate(function.blocks):
        block.label = f"b{number}"


def parts(value: Value) -> tuple[Value, int]:
    """A value as another one and a constant more."""
    more = 0
    while value.operation == "add" and value.arguments[1].constant is not None:
        more += as_signed(value.arguments[1].constant, value.width)
        value = value.arguments[0]
    return value, more
