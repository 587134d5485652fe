"""SSA construction: blocks, environments of local variables, joins with phis; constants are folded on the way.

The language has no goto, so no general algorithm is needed: an environment maps each assigned local to its values; a branch copies it, a
join merges the copies with phis, a loop header gets a phi for each local that its body assigns. A local that not every path assigned
is missing from the merged environment, which is how definite assignment is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsl.compiler import ir
from dsl.compiler.evaluate import BINARY, UNARY, evaluate
from dsl.lang.types import Type

Values = tuple[ir.Value, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """A local at one place in the program: its components, what its type is known to be here, and what restricts it."""

    values: Values
    type: Type  # narrowed from the local's declared type
    in_frame: bool = False  # refers to this function's frame
    read_only: bool = False  # a loop variable


Environment = dict[str, Binding]


@dataclass(slots=True)
class Position:
    """Where control is: a block being filled and the locals' values there. A dead one is still checked, then dropped."""

    block: ir.Block
    environment: Environment
    dead: bool = False


@dataclass(slots=True)
class Loop:
    """An open loop: where break and continue have left it."""

    header: ir.Block
    phis: dict[str, Values]
    breaks: list[Position] = field(default_factory=list)
    continues: list[Position] = field(default_factory=list)


def constant_of(value: ir.Value) -> int | None:
    """The integer a value is known to be, or None."""
    return value.data if value.operation == "const" and isinstance(value.data, int) else None


class Builder:
    """Fills one ir.Function. `span` is the place that new values carry."""

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.span = function.span
        self.position = Position(self.new_block(), {})

    # blocks

    def new_block(self) -> ir.Block:
        block = ir.Block(f"b{len(self.function.blocks)}")
        self.function.blocks.append(block)
        return block

    @property
    def environment(self) -> Environment:
        return self.position.environment

    def fork(self, dead: bool) -> Position:
        """A new block, entered from here with the same locals."""
        position = self.position
        target = Position(self.new_block(), dict(position.environment), position.dead or dead)
        if not target.dead:
            connect(position.block, target.block)
        return target

    def finish(self, operation: str, arguments: list[ir.Value], data: object = None) -> None:
        """End the block here with a terminator (its edges are made by the caller); what follows is dead."""
        self.append(operation, 0, arguments, data)
        position = self.position
        self.position = Position(self.new_block(), position.environment, dead=True)

    def branch(self, condition: ir.Value) -> tuple[Position, Position]:
        """Split on a condition; a constant one makes the other side dead."""
        known = constant_of(condition)
        here = self.position
        if known is None:
            self.append("branch", 0, [condition])
            return self.fork(dead=False), self.fork(dead=False)
        self.append("jump", 0, [])
        self.position = here
        return self.fork(dead=not known), self.fork(dead=bool(known))

    def join(self, positions: list[Position], types: dict[str, Type] | None = None) -> Position:
        """One position reached from all live ones. Locals not assigned on every path are left out.

        types: the declared type of each local, which it gets back where the paths disagree on what it was narrowed to.
        """
        live = [position for position in positions if not position.dead]
        if not live:
            return Position(self.new_block(), dict(positions[0].environment) if positions else {}, dead=True)
        target = Position(self.new_block(), {})
        for position in live:
            self.position = position
            self.append("jump", 0, [])
            connect(position.block, target.block)
        for name, binding in live[0].environment.items():
            bindings = [position.environment.get(name) for position in live]
            if all(other is not None for other in bindings):
                declared = (types or {}).get(name, binding.type)
                target.environment[name] = self.merge(target.block, [b for b in bindings if b is not None], declared)
        return target

    def merge(self, block: ir.Block, bindings: list[Binding], declared: Type) -> Binding:
        first = bindings[0]
        if all(binding is first for binding in bindings):
            return first
        values = tuple(self.phi(block, [binding.values[i] for binding in bindings]) for i in range(len(first.values)))
        narrowed = first.type if all(binding.type == first.type for binding in bindings) else declared
        return Binding(values, narrowed, any(binding.in_frame for binding in bindings), first.read_only)

    def phi(self, block: ir.Block, arguments: list[ir.Value]) -> ir.Value:
        """The value that is arguments[i] when control came from the block's predecessor i."""
        if all(argument is arguments[0] for argument in arguments):
            return arguments[0]
        value = ir.Value("phi", arguments[0].width, arguments, None, self.span, block)
        block.values.insert(sum(1 for _ in block.phis()), value)
        return value

    # loops

    def open_loop(self, assigned: set[str], types: dict[str, Type]) -> Loop:
        """Start a loop header here; the locals in `assigned` may change in the loop and get phis, at their declared types."""
        before = self.position
        self.append("jump", 0, [])
        self.position = before
        header = self.fork(dead=False)
        loop = Loop(header.block, {})
        for name in sorted(assigned & header.environment.keys()):
            binding = header.environment[name]
            phis = []
            for value in binding.values:
                phi = ir.Value("phi", value.width, [value], None, self.span, header.block)
                header.block.values.append(phi)
                phis.append(phi)
            loop.phis[name] = tuple(phis)
            header.environment[name] = Binding(loop.phis[name], types.get(name, binding.type), binding.in_frame)
        self.position = header
        return loop

    def close_loop(self, loop: Loop) -> None:
        """Send control from here back to the loop's header."""
        position = self.position
        if position.dead:
            return
        self.append("jump", 0, [])
        connect(position.block, loop.header)
        for name, phis in loop.phis.items():
            for phi, value in zip(phis, position.environment[name].values, strict=True):
                phi.arguments.append(value)
        self.position = Position(self.new_block(), position.environment, dead=True)

    # values

    def append(self, operation: str, width: int, arguments: list[ir.Value], data: object = None) -> ir.Value:
        block = self.position.block
        value = ir.Value(operation, width, arguments, data, self.span, block)
        block.values.append(value)
        return value

    def emit(self, operation: str, width: int, *arguments: ir.Value, data: object = None) -> ir.Value:
        """A new value at the end of the current block; pure operations on constants become constants."""
        if operation in BINARY or operation in UNARY or operation == "select":
            constants = [constant_of(argument) for argument in arguments]
            if operation == "select" and constants[0] is not None:
                return arguments[1] if constants[0] else arguments[2]
            if all(constant is not None for constant in constants):
                known = evaluate(operation, width, [c for c in constants if c is not None], arguments[0].width)
                if known is not None:
                    return self.constant(known, width)
        return self.append(operation, width, list(arguments), data)

    def constant(self, value: int, width: int) -> ir.Value:
        """A constant, taken modulo 2**width."""
        return self.append("const", width, [], value & ((1 << width) - 1))

    def add_constant(self, value: ir.Value, addend: int) -> ir.Value:
        return value if addend == 0 else self.emit("add", value.width, value, self.constant(addend, value.width))

    def resize(self, value: ir.Value, width: int, signed: bool = False) -> ir.Value:
        """The value at another width: extended (by its sign if signed) or cut."""
        if value.width == width:
            return value
        extend = "sext" if signed else "zext"
        return self.emit(extend if width > value.width else "trunc", width, value)

    def check(self, condition: ir.Value, message: str) -> None:
        """Stop the machine here unless condition; nothing for a constant true."""
        if constant_of(condition) != 1:
            self.append("check", 0, [condition], message)


def connect(source: ir.Block, target: ir.Block) -> None:
    source.successors.append(target)
    target.predecessors.append(source)


def clean(function: ir.Function) -> None:
    """Drop dead blocks, phis that choose between one value and themselves, and merge each block into a sole predecessor's jump."""
    reachable = reach(function.blocks[0])
    function.blocks = [block for block in function.blocks if block in reachable]
    remove_trivial_phis(function)
    merge_straight_lines(function)
    remove_unused(function)
    for number, block in enumerate(function.blocks):
        block.label = f"b{number}"


def reach(entry: ir.Block) -> set[ir.Block]:
    seen, pending = {entry}, [entry]
    while pending:
        for successor in pending.pop().successors:
            if successor not in seen:
                seen.add(successor)
                pending.append(successor)
    return seen


def remove_trivial_phis(function: ir.Function) -> None:
    replaced: dict[ir.Value, ir.Value] = {}

    def final(value: ir.Value) -> ir.Value:
        while value in replaced:
            value = replaced[value]
        return value

    phis = [phi for block in function.blocks for phi in block.phis()]
    changed = True
    while changed:
        changed = False
        for phi in phis:
            if phi not in replaced:
                others = {final(argument) for argument in phi.arguments} - {phi}
                if len(others) == 1:
                    replaced[phi] = others.pop()
                    changed = True
    for block in function.blocks:
        block.values = [value for value in block.values if value not in replaced]
        for value in block.values:
            value.arguments = [final(argument) for argument in value.arguments]


def merge_straight_lines(function: ir.Function) -> None:
    kept: list[ir.Block] = []
    gone: set[ir.Block] = set()
    for block in function.blocks:
        if block in gone:
            continue
        while len(block.successors) == 1 and block.terminator.operation == "jump":
            follower = block.successors[0]
            if len(follower.predecessors) != 1 or follower is block or next(follower.phis(), None) is not None:
                break
            block.values.pop()
            for value in follower.values:
                value.block = block
            block.values += follower.values
            block.successors = follower.successors
            for successor in block.successors:
                successor.predecessors = [block if p is follower else p for p in successor.predecessors]
            gone.add(follower)
        kept.append(block)
    function.blocks = [block for block in kept if block not in gone]


def remove_unused(function: ir.Function) -> None:
    """Drop pure values that nothing uses, such as the operands of folded operations."""
    used: set[ir.Value] = set()
    pending = [value for value in function.values() if not ir.OPERATIONS[value.operation].pure]
    used.update(pending)
    while pending:
        for argument in pending.pop().arguments:
            if argument not in used:
                used.add(argument)
                pending.append(argument)
    for block in function.blocks:
        block.values = [value for value in block.values if value in used]
