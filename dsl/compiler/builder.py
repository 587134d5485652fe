"""SSA construction: blocks, environments of local variables, joins with phis; constants are folded on the way.

The language has no goto, so no general algorithm is needed: an environment maps each assigned local to its values; a branch copies it, a
join merges the copies with phis, a loop header gets a phi for each local that its body assigns. A local that not every path assigned
is missing from the merged environment, which is how definite assignment is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsl.compiler import ir
from dsl.compiler.operands import Typed
from dsl.lang.operations import evaluate
from dsl.lang.types import Type

Values = tuple[ir.Value, ...]


Environment = dict[str, Typed]  # the locals at one place in the program, at the types that they are known to have there


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


class Builder:
    """Fills one ir.Function. `span` is the place that new values carry."""

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.span = function.span
        self.declared: dict[str, Type] = {}  # the one type of each local
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
        self.leave()

    def leave(self) -> None:
        """What follows here is not reached."""
        self.position = Position(self.new_block(), dict(self.environment), dead=True)

    def stop(self, position: Position, message: str) -> Position:
        """Stop the machine at a position that is hardly ever reached; where control would go on."""
        position.block.cold = True
        self.position = position
        self.finish("stop", [], message)
        return self.position

    def branch(self, condition: ir.Value) -> tuple[Position, Position]:
        """Split on a condition; a constant one makes the other side dead."""
        known = condition.constant
        here = self.position
        if known is None:
            self.append("branch", 0, [condition])
            return self.fork(dead=False), self.fork(dead=False)
        self.append("jump", 0, [])
        self.position = here
        return self.fork(dead=not known), self.fork(dead=bool(known))

    def join(self, positions: list[Position]) -> Position:
        """One position reached from all live ones. Locals not assigned on every path are left out.

        Where the paths disagree on what a local was narrowed to, it gets its declared type back.
        """
        live = [position for position in positions if not position.dead]
        if not live:
            return Position(self.new_block(), dict(positions[0].environment) if positions else {}, dead=True)
        target = Position(self.new_block(), {})
        for position in live:
            self.position = position
            self.jump(target.block)
        for name in live[0].environment:
            bindings = [position.environment[name] for position in live if name in position.environment]
            if len(bindings) == len(live):
                target.environment[name] = self.merge(target.block, name, bindings)
        return target

    def merge(self, block: ir.Block, name: str, bindings: list[Typed]) -> Typed:
        first = bindings[0]
        if all(binding is first for binding in bindings):
            return first
        values = tuple(self.phi(block, [binding.values[i] for binding in bindings]) for i in range(len(first.values)))
        agree = all(binding.type == first.type for binding in bindings)
        kind = first.type if agree else self.declared.get(name, first.type)
        return Typed(kind, values)

    def phi(self, block: ir.Block, arguments: list[ir.Value]) -> ir.Value:
        """The value that is arguments[i] when control came from the block's predecessor i."""
        if all(argument is arguments[0] for argument in arguments):
            return arguments[0]
        value = ir.Value("phi", arguments[0].width, arguments, None, self.span, block)
        block.values.insert(sum(1 for _ in block.phis()), value)
        return value

    # loops

    def open_loop(self, assigned: set[str]) -> Loop:
        """Start a loop header here; the locals in `assigned` may change in the loop and get phis, at their declared types."""
        self.append("jump", 0, [])
        header = self.fork(dead=False)
        loop = Loop(header.block, {})
        for name in sorted(assigned & header.environment.keys()):
            binding = header.environment[name]
            phis = tuple(
                ir.Value("phi", value.width, [value], None, self.span, header.block) for value in binding.values
            )
            header.block.values += phis
            loop.phis[name] = phis
            header.environment[name] = Typed(self.declared.get(name, binding.type), phis)
        self.position = header
        return loop

    def close_loop(self, loop: Loop) -> None:
        """Send control from here back to the loop's header."""
        position = self.position
        if position.dead:
            return
        self.jump(loop.header)
        for name, phis in loop.phis.items():
            for phi, value in zip(phis, position.environment[name].values, strict=True):
                phi.arguments.append(value)
        self.leave()

    def jump(self, target: ir.Block) -> None:
        """End the block here with a jump."""
        self.append("jump", 0, [])
        connect(self.position.block, target)

    # values

    def append(self, operation: str, width: int, arguments: list[ir.Value], data: object = None) -> ir.Value:
        block = self.position.block
        value = ir.Value(operation, width, arguments, data, self.span, block)
        block.values.append(value)
        return value

    def emit(
        self, operation: str, *operands: ir.Value | int, width: int | None = None, data: object = None
    ) -> ir.Value:
        """A new value at the end of the current block; pure operations on constants become constants.

        An int stands for a constant as wide as the last value among the operands, and so is the result, if no width is given; that of
        a comparison has width 1.
        """
        like = next((operand.width for operand in reversed(operands) if isinstance(operand, ir.Value)), 64)
        values = [self.constant(each, like) if isinstance(each, int) else each for each in operands]
        if width is None:
            width = 1 if operation in ir.COMPARISONS else like
        known = self.known(operation, width, values)
        return self.append(operation, width, values, data) if known is None else known

    def known(self, operation: str, width: int, values: list[ir.Value]) -> ir.Value | None:
        """What a pure operation gives, if its operands say so."""
        constants = [value.constant for value in values if value.constant is not None]
        if not values or len(constants) < len(values):
            return None
        number = evaluate(operation, width, constants, values[0].width)
        return None if number is None else self.constant(number, width)

    def constant(self, value: int, width: int = 64) -> ir.Value:
        """A constant, taken modulo 2**width."""
        return self.append("const", width, [], value & ((1 << width) - 1))

    def symbol(self, name: str) -> ir.Value:
        """The address of a symbol."""
        return self.append("symbol", 64, [], ir.Address(name))

    def load(self, address: ir.Value, width: int, access: ir.Access | None = None) -> ir.Value:
        """What is in memory at an address."""
        return self.append("load", width, [address], access or ir.Access())

    def store(self, address: ir.Value, value: ir.Value, access: ir.Access | None = None) -> None:
        """Put a value into memory at an address."""
        self.append("store", 0, [address, value], access or ir.Access())

    def results(self, made: ir.Value, widths: tuple[int, ...]) -> tuple[ir.Value, ...]:
        """The results of a call or intrinsic."""
        return tuple(self.append("extract", width, [made], index) for index, width in enumerate(widths))

    def add_constant(self, value: ir.Value, addend: int) -> ir.Value:
        return value if addend == 0 else self.emit("add", value, addend)

    def resize(self, value: ir.Value, width: int, signed: bool = False) -> ir.Value:
        """The value at another width: extended (by its sign if signed) or cut."""
        if value.width == width:
            return value
        extend = "sext" if signed else "zext"
        return self.emit(extend if width > value.width else "trunc", value, width=width)

    def check(self, condition: ir.Value, message: str) -> None:
        """Stop the machine here unless condition; nothing for a constant true."""
        if condition.constant != 1:
            self.append("check", 0, [condition], message)


def connect(source: ir.Block, target: ir.Block) -> None:
    source.successors.append(target)
    target.predecessors.append(source)
