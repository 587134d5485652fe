"""The selector: the state of one function's instruction selection, and how values are read (see select.py).

Each block is walked backwards, so that a user is seen before what it uses and may fold it: constants into immediates, sums into
addressing modes, loads into operands, comparisons into jumps. What is never asked for as a register is never emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from dsl.compiler import ir
from dsl.compiler.graph import Dominators, Loops, users
from dsl.compiler.machine import (
    ARGUMENTS,
    Incoming,
    Instruction,
    MachineBlock,
    MachineFunction,
    Memory,
    Operand,
    Register,
    Source,
    Trap,
    fits_signed_32,
    inverse,
)
from dsl.compiler.number import writes_memory
from dsl.lang.operations import as_signed

CONDITION_OF: Final = {"eq": "e", "ne": "ne", "ult": "b", "ule": "be", "slt": "l", "sle": "le"}
SWAPPED: Final = {"e": "e", "ne": "ne", "b": "a", "be": "ae", "l": "g", "le": "ge"}
# operations that one instruction computes together, on the same arguments
FAMILIES: Final = {"mul": "product", "umulh": "product", "udiv": "u", "urem": "u", "sdiv": "s", "srem": "s"}
# selected as 32-bit instructions, which clear the upper half
CLEAN_32: Final = frozenset(
    (*("add", "sub", "mul", "and", "or", "xor", "not", "neg", "shl", "shr", "sar", "rotl", "rotr", "bswap"),
     *("lzcnt", "tzcnt", "popcnt", "load", "const", "select", "zext", "udiv", "urem", "sdiv", "srem"))
)  # fmt: skip
CLEAN_NARROW: Final = frozenset(("load", "const", "shr", "zext", "lzcnt", "tzcnt", "popcnt", "udiv", "urem"))


def machine_width(width: int) -> int:
    """The operand size that computes a value of this width."""
    return 64 if width == 64 else 32


class Selector:
    """The state of one function's selection."""

    def __init__(self, function: ir.Function, handlers: Mapping[str, Handler]) -> None:
        self.function = function
        self.handlers = handlers
        self.machine = MachineFunction(function.symbol, function.span)
        self.users = users(function)
        self.registers: dict[ir.Value, int] = {}
        self.demanded: set[ir.Value] = set()
        self.flags_wanted: set[ir.Value] = set()  # sums whose carry the instruction behind them takes
        self.epochs: dict[ir.Value, int] = {}
        self.earlier: dict[ir.Value, ir.Value] = {}  # a value that the instruction of an earlier one computes too
        self.also: dict[ir.Value, ir.Value] = {}  # such an earlier one, and what was asked for
        # a store of a constant: all stores of it between two calls, which keep it in one register; the first makes it
        self.stored_often: dict[ir.Value, list[ir.Value]] = {}
        self.rewritten: set[tuple[ir.Block, ir.Value, int]] = set()  # places (base and offset) that a block stores to
        self.tail_calls: set[ir.Value] = set()  # calls that the block's return has become
        self.now: list[Instruction] = []
        self.value = function.blocks[0].values[0]

    def run(self) -> MachineFunction:
        dominators = Dominators(self.function)
        depth = Loops(dominators).depth
        blocks = {block: MachineBlock(block.label, depth=depth[block]) for block in self.function.blocks}
        for block in self.function.blocks:
            self._prepare(block)
        for block in reversed(dominators.order):
            self._block(block, blocks[block])
        for block, made in blocks.items():
            made.successors = [blocks[successor] for successor in block.successors]
            made.cold = block.cold or block.terminator.operation == "stop"
            made.span = block.terminator.span
        self.machine.blocks = list(blocks.values())
        for value, number in self.registers.items():
            if value.secret:
                self.machine.secrets.add(number)
            if value.data == ir.DECLASSIFIED:
                self.machine.declassified.add(number)
        return self.machine

    def _prepare(self, block: ir.Block) -> None:
        """Count memory effects, find pairs that one instruction computes, and ask for all arguments of phis."""
        epoch = calls = 0
        stored: dict[tuple[int, int], list[ir.Value]] = {}
        pairs: dict[tuple[object, ...], ir.Value] = {}
        for value in block.values:
            operation = value.operation
            self.epochs[value] = epoch
            calls += operation == "call"
            if operation == "store":
                self.rewritten.add((block, *self.peel(value.arguments[0], value.access.offset)))
            known = value.arguments[1].constant if operation == "store" else None
            if known is not None:
                self.stored_often[value] = stored.setdefault((calls, known), [])
                self.stored_often[value].append(value)
            if writes_memory(value):
                epoch += 1
            elif operation == "phi":
                self.demanded.add(value)
            elif operation in FAMILIES and value.width >= 32:
                key = (FAMILIES[operation], value.width, *value.arguments)
                other = pairs.setdefault(key, value)
                if other.operation != operation and other not in self.earlier.values():
                    self.earlier[value] = other

    def _block(self, block: ir.Block, made: MachineBlock) -> None:
        backwards: list[Instruction] = []
        for value in reversed(block.values):
            if value.operation == "phi":
                break
            if not self._wanted(value):
                continue
            self.now, self.value = [], value
            if value.operation == "branch":
                made.condition = self.condition(value.arguments[0])
            elif value.operation == "jump":
                self._phi_moves(block)
            elif value.operation in self.handlers:
                self.handlers[value.operation](self, value)
            for instruction in self.now:
                instruction.span = instruction.span or value.span
            backwards += reversed(self.now)
        made.instructions = backwards[::-1]
        if block is self.function.blocks[0]:
            self._entry(made)

    def _wanted(self, value: ir.Value) -> bool:
        operation = value.operation
        if value in self.tail_calls:
            return False
        if value in self.demanded:
            earlier = self.earlier.get(value)
            if earlier is not None:
                self.also[earlier] = value
            return earlier is None
        if operation == "load":
            return value.access.volatile
        return value in self.also or operation in (
            "store",
            "call",
            "intrinsic",
            "check",
            "branch",
            "jump",
            "return",
            "stop",
        )

    # emitting

    def emit(
        self,
        mnemonic: str,
        *operands: Operand,
        inputs: Iterable[tuple[int, Source]] = (),
        outputs: Iterable[tuple[int, int]] = (),
        clobbers: tuple[int, ...] = (),
    ) -> None:
        """Append an instruction to those of the current value."""
        self.now.append(Instruction(mnemonic, operands, self.value.span, tuple(inputs), tuple(outputs), clobbers))

    def load_constant(self, number: int, known: int) -> None:
        """Put a constant into a register, at its shortest."""
        self.emit("mov", Register(number, 64 if known >> 32 else 32), known)

    def copied(self, value: ir.Value, source: ir.Value | Register, width: int = 0) -> Register:
        """The register of the current value (at a width), with a copy of another in it, to be changed in place."""
        target = self.result(value, width)
        number = source.number if isinstance(source, Register) else self.register(source, 64).number
        self.emit("mov", Register(target.number, 64), Register(number, 64))
        return target

    def new(self, width: int) -> Register:
        return Register(self.machine.new_register(), width)

    def result(self, value: ir.Value, width: int = 0) -> Register:
        """The virtual register of a value, as its definition writes it."""
        number = self.registers.get(value)
        if number is None:
            number = self.registers[value] = self.machine.new_register()
        return Register(number, width or machine_width(value.width))

    # reading values

    def resolve(self, value: ir.Value) -> ir.Value:
        """The value whose register also holds this one: cuts and extensions that cost nothing are seen through."""
        while True:
            if value.operation == "trunc" and value.width > 1:
                value = value.arguments[0]
            elif value.operation == "zext" and self.clean(value.arguments[0]):
                value = value.arguments[0]
            else:
                return value

    def clean(self, value: ir.Value) -> bool:
        """Whether the value's register has zeros above the value's width."""
        if value.width == 32:
            return value.operation in CLEAN_32
        masked = value.operation == "and" and value.arguments[1].operation == "const"
        return value.width in (8, 16) and (masked or value.operation in CLEAN_NARROW)

    def register(self, value: ir.Value, width: int = 0) -> Register:
        """The value in a register, at the given operand size."""
        width = width or machine_width(value.width)
        value = self.resolve(value)
        if value.operation == "const":
            made = self.new(width)
            self.load_constant(made.number, value.integer)
        elif value.operation == "symbol" or (value.operation == "frame" and value.slot.align <= 16):
            made = self.new(64)
            self.emit("lea", made, self.address(value, 0, 64))
        else:
            self.demanded.add(value)
            made = self.result(value)
        return Register(made.number, width)

    def source(self, value: ir.Value) -> Source:
        """The value as a parallel move can read it."""
        value = self.resolve(value)
        match value.operation:
            case "const":
                return value.integer
            case "symbol":
                return value.address
        return self.register(value, 64)

    def sources(self, places: Iterable[int], values: Iterable[ir.Value]) -> list[tuple[int, Source]]:
        """What a parallel move reads for processor registers, as far as there are values."""
        return [(place, self.source(value)) for place, value in zip(places, values, strict=False)]

    def immediate(self, value: ir.Value) -> int | None:
        """The value as a signed immediate of its own width, if it is a constant that an instruction can hold."""
        known = value.constant
        if known is None:
            return None
        known = as_signed(known, value.width) if value.width > 1 else known
        return known if fits_signed_32(known) else None

    def operand(self, value: ir.Value, width: int = 0) -> Operand:
        """The value as the last operand of an instruction: an immediate, a load folded into it, or a register."""
        number = self.immediate(value)
        return number if number is not None else self.read(value, width)

    def read(self, value: ir.Value, width: int = 0) -> Register | Memory:
        """The value in memory, if it is a load that may happen in the current value's instruction, else in a register."""
        width = width or machine_width(value.width)
        if value.width == width and self.can_fold(value):
            return replace(self.address(value.arguments[0], value.access.offset, width), secret=value.secret)
        return self.register(value, width)

    def can_fold(self, value: ir.Value) -> bool:
        """Whether a value is a load that may happen as part of the current value's instruction."""
        if value.operation != "load" or not self.sole_use(value) or value in self.demanded:
            return False
        near = value.block is self.value.block and self.epochs[value] == self.epochs[self.value]
        return near and not value.access.volatile and not self._is_rewritten(value)

    def _is_rewritten(self, load: ir.Value) -> bool:
        """Whether a load's block stores to its place, too: processors hand on what was stored at once to a plain move alone."""
        base, offset = self.peel(load.arguments[0], load.access.offset)
        return base.operation != "add" and (load.block, base, offset) in self.rewritten

    def sole_use(self, value: ir.Value) -> bool:
        return len(self.users[value]) == 1

    # addresses

    def address(self, value: ir.Value, displacement: int, width: int) -> Memory:
        """The memory operand at a value plus a displacement."""
        value, displacement = self.peel(value, displacement)
        index, scale = None, 1
        near = self.sole_use(value) or value.block is self.value.block
        if value.operation == "add" and near and value not in self.demanded:
            base, other = value.arguments
            if self.scaled(base)[1] > 1:
                base, other = other, base
            value, displacement = self.peel(base, displacement)
            part, scale = self.scaled(other)
            inner, more = self.peel(part, 0)
            if fits_signed_32(displacement + more * scale):
                part, displacement = inner, displacement + more * scale
            index = self.register(part, 64).number
        if value.operation == "symbol" and index is None:
            return Memory(width, symbol=value.address.symbol, displacement=value.address.addend + displacement)
        if value.operation == "frame" and value.slot.align <= 16:
            self.declare(value.slot)
            return Memory(width, None, index, scale, displacement, place=value.slot)
        return Memory(width, self.register(value, 64).number, index, scale, displacement)

    def peel(self, value: ir.Value, displacement: int) -> tuple[ir.Value, int]:
        """Move constant summands into the displacement, as long as it fits."""
        while value.operation == "add":
            known = value.arguments[1].constant
            if known is None or not fits_signed_32(displacement + as_signed(known, 64)):
                break
            value, displacement = value.arguments[0], displacement + as_signed(known, 64)
        return value, displacement

    def scaled(self, value: ir.Value) -> tuple[ir.Value, int]:
        """The value as index and scale."""
        if value.operation == "shl" and value.width == 64 and value not in self.demanded:
            count = value.arguments[1].constant
            if count in (1, 2, 3):
                return value.arguments[0], 1 << count
        return value, 1

    def declare(self, slot: ir.Slot) -> None:
        if slot not in self.machine.slots:
            self.machine.slots.append(slot)

    # conditions

    def condition(self, value: ir.Value) -> str:
        """Set the flags from a width-1 value; the condition under which it is true."""
        if value.operation == "not":
            return inverse(self.condition(value.arguments[0]))
        near = self.sole_use(value) or value.block is self.value.block
        if value.operation in ir.COMPARISONS and near and any(part.operation != "const" for part in value.arguments):
            return self.compare(value)
        byte = self.register(value, 8)
        self.emit("test", byte, byte)
        return "ne"

    def compare(self, value: ir.Value) -> str:
        """Emit the comparison; the condition under which it holds."""
        left, right = value.arguments
        condition = CONDITION_OF[value.operation]
        if left.operation == "const":
            left, right, condition = right, left, SWAPPED[condition]
        width = max(left.width, 8)
        read = self.read if self.sole_use(value) or value is self.value else self.register
        if right.constant == 0 and condition in ("e", "ne", "l", "ge"):
            narrow = left.width < 32 and condition in ("l", "ge")  # the mask's highest bit would be no sign there
            if left.operation == "and" and not narrow and self.sole_use(left) and left not in self.demanded:
                self.test(left, width)
                return condition
            first = read(left, width)
            self.emit("cmp", first, 0) if isinstance(first, Memory) else self.emit("test", first, first)
            return condition
        first, number = read(left, width), self.immediate(right)
        if number is None and isinstance(first, Memory):
            read = self.register
        self.emit("cmp", first, number if number is not None else read(right, width))
        return condition

    def test(self, value: ir.Value, width: int) -> None:
        """Set the flags from a bitwise and whose result nobody needs."""
        left, right = value.arguments
        number = right.constant
        if number is not None and number < 1 << 31:
            width = 8 if number < 0x80 else 32
        else:
            number = self.immediate(right)
        first = self.register(left, width)
        self.emit("test", first, number if number is not None else self.register(right, width))

    # blocks' ends

    def _phi_moves(self, block: ir.Block) -> None:
        successor = block.successors[0]
        edge = successor.predecessors.index(block)
        moves = tuple((self.result(phi).number, self.source(phi.arguments[edge])) for phi in successor.phis())
        if moves:
            self.emit("MOVES", inputs=moves)

    def _entry(self, made: MachineBlock) -> None:
        """Take the parameters from where the caller put them."""
        outputs, loads = [], []
        for value in self.function.blocks[0].values:
            if value.operation == "parameter" and value in self.demanded:
                register, number = self.result(value, 64), value.integer
                if number < len(ARGUMENTS):
                    outputs.append((register.number, ARGUMENTS[number]))
                else:
                    place = Memory(64, place=Incoming(number - len(ARGUMENTS)))
                    loads.append(Instruction("mov", (register, place), value.span))
        made.instructions[:0] = [Instruction("MOVES", span=self.function.span, outputs=tuple(outputs)), *loads]

    def trap(self, value: ir.Value) -> Trap:
        span = value.span or self.function.span
        return Trap(span.file, span.line)


Handler = Callable[[Selector, ir.Value], None]
