"""Instruction selection: IR to machine instructions on virtual registers.

Each block is walked backwards, so that a user is seen before what it uses and may fold it: constants into immediates, sums into
addressing modes, loads into operands, comparisons into jumps. What is never asked for as a register is never emitted.
Values of 8 and 16 bits live in 32-bit registers with undefined upper bits; a width-1 value is 0 or 1 in the low byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsl.compiler import ir
from dsl.compiler.graph import Dominators, Loops, split_critical_edges, users
from dsl.compiler.machine import (
    ARGUMENTS,
    RAX,
    RCX,
    RDX,
    RESULTS,
    Incoming,
    Instruction,
    MachineBlock,
    MachineFunction,
    Memory,
    Operand,
    Register,
    Source,
    Trap,
    inverse,
)
from dsl.compiler.number import writes_memory
from dsl.compiler.select_intrinsic import select_intrinsic

CONDITION_OF: Final = {"eq": "e", "ne": "ne", "ult": "b", "ule": "be", "slt": "l", "sle": "le"}
SWAPPED: Final = {"e": "e", "ne": "ne", "b": "a", "be": "ae", "l": "g", "le": "ge"}
PLAIN: Final = ("add", "sub", "and", "or", "xor")
COMMUTES: Final = ("add", "and", "or", "xor", "mul")
CLEAN_32: Final = frozenset(  # selected as 32-bit instructions, which clear the upper half
    "add sub mul and or xor not neg shl shr sar rotl rotr bswap lzcnt tzcnt popcnt load const select udiv urem sdiv srem".split()
)
CLEAN_NARROW: Final = frozenset("load const shr zext lzcnt tzcnt popcnt udiv urem".split())


def select(function: ir.Function) -> MachineFunction:
    """Turn a function's IR into machine code on virtual registers. Splits the function's critical edges."""
    split_critical_edges(function)
    return Selector(function).run()


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) & 1 else value


def fits_signed_32(value: int) -> bool:
    return -(1 << 31) <= value < 1 << 31


def machine_width(width: int) -> int:
    """The operand size that computes a value of this width."""
    return 64 if width == 64 else 32


def constant(value: ir.Value) -> int | None:
    return value.data if value.operation == "const" and isinstance(value.data, int) else None


class Selector:
    """The state of one function's selection."""

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.machine = MachineFunction(function.symbol, function.span)
        self.users = users(function)
        self.registers: dict[ir.Value, int] = {}
        self.demanded: set[ir.Value] = set()
        self.epochs: dict[ir.Value, int] = {}
        self.later: dict[ir.Value, ir.Value] = {}  # a value whose instruction also computes a later one
        self.computed_earlier: set[ir.Value] = set()
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
            made.predecessors = [blocks[predecessor] for predecessor in block.predecessors]
            made.cold = block.cold or block.terminator.operation == "stop"
            made.span = block.terminator.span
        self.machine.blocks = list(blocks.values())
        return self.machine

    def _prepare(self, block: ir.Block) -> None:
        """Count memory effects, find pairs that one instruction computes, and ask for all arguments of phis."""
        epoch = 0
        pairs: dict[tuple[object, ...], ir.Value] = {}
        for value in block.values:
            operation = value.operation
            self.epochs[value] = epoch
            volatile = isinstance(value.data, ir.Access) and value.data.volatile
            if operation == "store" or volatile or writes_memory(value):
                epoch += 1
            elif operation == "phi":
                self.demanded.add(value)
            elif operation in ("mul", "umulh", "udiv", "urem", "sdiv", "srem") and value.width >= 32:
                family = "mul" if operation in ("mul", "umulh") else operation[0]
                key = (family, value.width, *(id(argument) for argument in value.arguments))
                other = pairs.setdefault(key, value)
                if other.operation != operation and other not in self.later:
                    self.later[other] = value
                    self.computed_earlier.add(value)

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
            else:
                self._value(value)
            for instruction in self.now:
                instruction.span = instruction.span or value.span
            backwards += reversed(self.now)
        made.instructions = backwards[::-1]
        if block is self.function.blocks[0]:
            self._entry(made)

    def _wanted(self, value: ir.Value) -> bool:
        operation = value.operation
        if value in self.demanded:
            return value not in self.computed_earlier
        if operation == "load":
            return isinstance(value.data, ir.Access) and value.data.volatile
        if value in self.later:
            return self.later[value] in self.demanded
        return operation in ("store", "call", "intrinsic", "check", "branch", "jump", "return", "stop")

    def demanded_later(self, value: ir.Value) -> ir.Value | None:
        """The later value that this one's instruction computes too, if anything asks for it."""
        later = self.later.get(value)
        return later if later in self.demanded else None

    # emitting

    def emit(self, mnemonic: str, *operands: Operand, **rest: object) -> None:
        self.now.append(Instruction(mnemonic, operands, self.value.span, **rest))  # type: ignore[arg-type]

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
            return value.operation in CLEAN_32 or value.operation == "zext"
        if value.operation == "and":
            return value.width in (8, 16) and constant(value.arguments[1]) is not None
        return value.width in (8, 16) and value.operation in CLEAN_NARROW

    def register(self, value: ir.Value, width: int = 0) -> Register:
        """The value in a register, at the given operand size."""
        width = width or machine_width(value.width)
        value = self.resolve(value)
        match value.operation:
            case "const":
                target = self.new(width)
                assert isinstance(value.data, int)
                self.emit("mov", Register(target.number, 64 if value.data >> 32 else 32), value.data)
                return target
            case "symbol":
                target = self.new(64)
                assert isinstance(value.data, ir.Address)
                self.emit("lea", target, Memory(64, symbol=value.data.symbol, displacement=value.data.addend))
                return Register(target.number, width)
            case "frame" if isinstance(value.data, ir.Slot) and value.data.align <= 16:
                target = self.new(64)
                self.declare(value.data)
                self.emit("lea", target, Memory(64, place=value.data))
                return Register(target.number, width)
        self.demanded.add(value)
        return self.result(value, width)

    def source(self, value: ir.Value) -> Source:
        """The value as a parallel move can read it."""
        value = self.resolve(value) if constant(value) is None else value
        if value.operation == "const":
            assert isinstance(value.data, int)
            return value.data
        if value.operation == "symbol":
            assert isinstance(value.data, ir.Address)
            return value.data
        return self.register(value, 64)

    def immediate(self, value: ir.Value) -> int | None:
        """The value as a signed immediate of its own width, if it is a constant that an instruction can hold."""
        known = constant(value)
        if known is None:
            return None
        known = signed(known, max(value.width, 8)) if value.width > 1 else known
        return known if fits_signed_32(known) else None

    def operand(self, value: ir.Value, width: int = 0) -> Operand:
        """The value as the last operand of an instruction: an immediate, a load folded into it, or a register."""
        number = self.immediate(value)
        if number is not None:
            return number
        folded = self.folded_load(value, width or machine_width(value.width))
        return folded or self.register(value, width)

    def folded_load(self, value: ir.Value, width: int) -> Memory | None:
        """The memory operand of a load that only the current value uses, if nothing touches memory in between."""
        if value.operation != "load" or value.width != width or not self.sole_use(value) or value in self.demanded:
            return None
        assert isinstance(value.data, ir.Access)
        if value.data.volatile or value.block is not self.value.block or self.epochs[value] != self.epochs[self.value]:
            return None
        return self.address(value.arguments[0], value.data.offset, width)

    def lives_on(self, value: ir.Value) -> bool:
        """Whether a value is needed after the current one: blocks are walked backwards, so its later users have asked for it."""
        return self.resolve(value) in self.demanded

    def sole_use(self, value: ir.Value) -> bool:
        return len(self.users[value]) == 1

    # addresses

    def address(self, value: ir.Value, displacement: int, width: int) -> Memory:
        """The memory operand at a value plus a displacement."""
        value, displacement = self.peel(value, displacement)
        place: dict[str, object] = {}
        if value.operation == "add" and (self.sole_use(value) or value.block is self.value.block) and value not in self.demanded:
            base, other = value.arguments
            if self.scaled(base)[1] > 1:
                base, other = other, base
            base, displacement = self.peel(base, displacement)
            index, scale = self.scaled(other)
            if scale == 1:
                index, displacement = self.peel(index, displacement)
            place = {"index": self.register(index, 64).number, "scale": scale}
            value = base
        if value.operation == "symbol" and not place:
            assert isinstance(value.data, ir.Address)
            return Memory(width, symbol=value.data.symbol, displacement=value.data.addend + displacement)
        if value.operation == "frame":
            assert isinstance(value.data, ir.Slot)
            if value.data.align <= 16:
                self.declare(value.data)
                return Memory(width, place=value.data, displacement=displacement, **place)  # type: ignore[arg-type]
        return Memory(width, base=self.register(value, 64).number, displacement=displacement, **place)  # type: ignore[arg-type]

    def peel(self, value: ir.Value, displacement: int) -> tuple[ir.Value, int]:
        """Move constant summands into the displacement, as long as it fits."""
        while value.operation == "add":
            known = constant(value.arguments[1])
            if known is None or not fits_signed_32(displacement + signed(known, 64)):
                break
            value, displacement = value.arguments[0], displacement + signed(known, 64)
        return value, displacement

    def scaled(self, value: ir.Value) -> tuple[ir.Value, int]:
        """The value as index and scale."""
        if value.operation == "shl" and value.width == 64 and value not in self.demanded:
            count = constant(value.arguments[1])
            if count is not None and 1 <= count <= 3:
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
        if value.operation in ir.COMPARISONS and near and value.arguments[0].operation != "const":
            return self.compare(value)
        if value.operation in ir.COMPARISONS and near and value.arguments[1].operation != "const":
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
        once = self.sole_use(value) or value is self.value
        if constant(right) == 0 and condition in ("e", "ne", "l", "ge"):
            if left.operation == "and" and left.width >= 32 and self.sole_use(left) and left not in self.demanded:
                self.test(left, width)
            else:
                self.compare_zero(left, width, once)
            return condition
        first = (self.folded_load(left, width) if once else None) or self.register(left, width)
        number = self.immediate(right)
        if number is not None:
            self.emit("cmp", first, number)
        elif isinstance(first, Memory) or not once:
            self.emit("cmp", first, self.register(right, width))
        else:
            self.emit("cmp", first, self.folded_load(right, width) or self.register(right, width))
        return condition

    def compare_zero(self, left: ir.Value, width: int, once: bool) -> None:
        folded = self.folded_load(left, width) if once else None
        if folded:
            self.emit("cmp", folded, 0)
        else:
            register = self.register(left, width)
            self.emit("test", register, register)

    def test(self, value: ir.Value, width: int) -> None:
        """Set the flags from a bitwise and whose result nobody needs."""
        left, right = value.arguments
        known = constant(right)
        if known is not None and known < 1 << 31:
            width = 8 if known < 0x80 else 32
            self.emit("test", self.register(left, width), known)
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
                assert isinstance(value.data, int)
                register = self.result(value, 64)
                if value.data < len(ARGUMENTS):
                    outputs.append((register.number, ARGUMENTS[value.data]))
                else:
                    place = Memory(64, place=Incoming(value.data - len(ARGUMENTS)))
                    loads.append(Instruction("mov", (register, place), value.span))
        entry = Instruction("MOVES", span=self.function.span, outputs=tuple(outputs))
        made.instructions[:0] = [entry, *loads]

    # one value

    def _value(self, value: ir.Value) -> None:
        handler: Callable[[Selector, ir.Value], None] | None = HANDLERS.get(value.operation)
        if handler is not None:
            handler(self, value)
        elif value.operation == "intrinsic":
            select_intrinsic(self, value)

    def trap(self, value: ir.Value) -> Trap:
        span = value.span or self.function.span
        return Trap(span.file, span.line)


def two_address(s: Selector, value: ir.Value, mnemonic: str, left: ir.Value, right: Operand) -> None:
    """target = left; target op= right."""
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(left, 64))
    s.emit(mnemonic, target, right)


def select_plain(s: Selector, value: ir.Value) -> None:
    """add, sub, and, or, xor."""
    left, right = value.arguments
    operation = value.operation
    if operation in COMMUTES and right.operation != "const" and (left.operation == "const" or s.lives_on(left) and not s.lives_on(right)):
        left, right = right, left
    if operation == "and" and select_mask(s, value, left, right):
        return
    if operation == "add" and select_sum(s, value):
        return
    if left.operation == "const":
        target = s.result(value)
        assert isinstance(left.data, int)
        s.emit("mov", Register(target.number, 64 if left.data >> 32 else 32), left.data)
        s.emit(operation, target, s.operand(right))
        return
    two_address(s, value, operation, left, s.operand(right))


def select_mask(s: Selector, value: ir.Value, left: ir.Value, right: ir.Value) -> bool:
    """Bitwise and with a mask that has a shorter form; with a complement."""
    known = constant(right)
    if known in (0xFF, 0xFFFF) and value.width >= 32:
        s.emit("movzx", s.result(value, 32), s.register(left, known.bit_length()))
    elif known == 0xFFFFFFFF and value.width == 64:
        s.emit("mov", s.result(value, 32), s.register(left, 32))
    elif known is not None and value.width >= 32 and known >> 32 == 0 and known:
        target = s.result(value, 32)
        s.emit("mov", Register(target.number, 64), s.register(left, 64))
        s.emit("and", target, signed(known, 32))
    elif value.width >= 32 and left.operation == "not" and s.sole_use(left) and known is None:
        s.emit("andn", s.result(value), s.register(left.arguments[0]), s.register(right))
    elif value.width >= 32 and right.operation == "not" and s.sole_use(right):
        s.emit("andn", s.result(value), s.register(right.arguments[0]), s.register(left))
    elif known is not None and value.width in (8, 16):
        target = s.result(value, 32)
        s.emit("mov", Register(target.number, 64), s.register(left, 64))
        s.emit("and", target, known)
    else:
        return False
    return True


def select_sum(s: Selector, value: ir.Value) -> bool:
    """A sum of three parts, or with a scaled index, in one lea."""
    left, right = value.arguments
    if value.width != 64:
        return False
    nested = any(a.operation == "add" and s.sole_use(a) and a not in s.demanded for a in (left, right))
    shifted = any(s.scaled(a)[1] > 1 and s.sole_use(a) for a in (left, right))
    framed = any(a.operation in ("frame", "symbol") for a in (left, right))
    if not (nested or shifted or framed):
        return False
    s.demanded.discard(value)
    place = s.address(value, 0, 64)
    s.demanded.add(value)
    s.emit("lea", s.result(value), place)
    return True


def select_not(s: Selector, value: ir.Value) -> None:
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(value.arguments[0], 64))
    if value.width == 1:
        s.emit("xor", target, 1)
    else:
        s.emit("not", target)


def select_unary(s: Selector, value: ir.Value) -> None:
    """neg, bswap."""
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(value.arguments[0], 64))
    if value.operation == "bswap" and value.width == 16:
        s.emit("rol", Register(target.number, 16), 8)
    else:
        s.emit(value.operation, target)


def select_mul(s: Selector, value: ir.Value) -> None:
    left, right = value.arguments
    other = s.demanded_later(value)
    if value.operation == "umulh" or other is not None:
        low, high = (value, other) if value.operation == "mul" else (other, value)
        target = s.result(high) if high is not None else s.new(64)
        below = s.result(low) if low is not None else target
        source = s.folded_load(right, 64) or s.register(right, 64)
        s.emit("mulx", target, below, source, inputs=((RDX, s.source(left)),))
        return
    if left.operation == "const" or right.operation != "const" and s.lives_on(left) and not s.lives_on(right):
        left, right = right, left
    number = s.immediate(right)
    if number is not None and left.operation != "const":
        s.emit("imul3", s.result(value), s.register(left), number)
    else:
        two_address(s, value, "imul", left, s.folded_load(right, machine_width(value.width)) or s.register(right))


def select_divide(s: Selector, value: ir.Value) -> None:
    """udiv, urem, sdiv, srem through rdx:rax; the pair of quotient and remainder in one division."""
    left, right = value.arguments
    width = machine_width(value.width)
    other = s.demanded_later(value)
    outputs = []
    for result in (value, other):
        if result is not None and result in s.demanded:
            outputs.append((s.result(result).number, RAX if result.operation.endswith("div") else RDX))
    is_signed = value.operation.startswith("s")
    if value.width < 32:
        extend = "movsx" if is_signed else "movzx"
        sources = []
        for argument in (left, right):
            wide = s.new(32)
            s.emit(extend, wide, s.register(argument, argument.width))
            sources.append(wide)
        dividend: Source = Register(sources[0].number, 64)
        divisor = sources[1]
    else:
        dividend, divisor = s.source(left), s.register(right, width)
    inputs: tuple[tuple[int, Source], ...] = ((RAX, dividend),) if is_signed else ((RAX, dividend), (RDX, 0))
    s.emit("idiv" if is_signed else "div", divisor, inputs=inputs, outputs=tuple(outputs), clobbers=(RAX, RDX))


def extended(s: Selector, value: ir.Value, is_signed: bool) -> Register:
    """The value in a 32-bit register of its own meaning: extended from 8 or 16 bits."""
    if value.width >= 32 or not is_signed and s.clean(value):
        return s.register(value)
    wide = s.new(32)
    s.emit("movsx" if is_signed else "movzx", wide, s.register(value, value.width))
    return wide


def select_shift(s: Selector, value: ir.Value) -> None:
    left, right = value.arguments
    count = constant(right)
    target = s.result(value)
    source = s.register(left) if value.operation == "shl" else extended(s, left, value.operation == "sar")
    if count is not None:
        s.emit("mov", Register(target.number, 64), Register(source.number, 64))
        s.emit(value.operation, target, count % value.width)
        return
    counter = s.register(right)
    if value.width < 32:
        masked = s.new(32)
        s.emit("mov", Register(masked.number, 64), Register(counter.number, 64))
        s.emit("and", masked, value.width - 1)
        counter = masked
    s.emit(value.operation + "x", target, source, counter)


def select_rotate(s: Selector, value: ir.Value) -> None:
    left, right = value.arguments
    count = constant(right)
    target = s.result(value)
    right_ward = value.operation == "rotr"
    if count is not None and value.width >= 32:
        amount = (count if right_ward else -count) % value.width
        s.emit("rorx", target, s.register(left), amount)
        return
    part = Register(target.number, value.width)
    s.emit("mov", Register(target.number, 64), s.register(left, 64))
    mnemonic = "ror" if right_ward else "rol"
    if count is not None:
        s.emit(mnemonic, part, count % value.width)
    else:
        s.emit(mnemonic, part, Register(RCX, 8), inputs=((RCX, s.source(right)),))


def select_count(s: Selector, value: ir.Value) -> None:
    """lzcnt, tzcnt, popcnt: at 8 and 16 bits through 32, with what that adds taken away."""
    argument = value.arguments[0]
    target = s.result(value)
    if value.operation == "tzcnt" and value.width < 32:
        source = s.new(32)
        s.emit("mov", Register(source.number, 64), s.register(argument, 64))
        s.emit("or", source, 1 << value.width)
    else:
        source = extended(s, argument, is_signed=False)
    s.emit(value.operation, target, source)
    if value.operation == "lzcnt" and value.width < 32:
        s.emit("sub", target, 32 - value.width)


def select_comparison(s: Selector, value: ir.Value) -> None:
    if value.arguments[0].operation == "const" and value.arguments[1].operation == "const":
        left = s.register(value.arguments[0], max(value.arguments[0].width, 8))
        s.emit("cmp", left, s.operand(value.arguments[1], left.width))
        condition = CONDITION_OF[value.operation]
    else:
        condition = s.compare(value)
    s.emit(f"set{condition}", s.result(value, 8))


def select_zext(s: Selector, value: ir.Value) -> None:
    argument = value.arguments[0]
    width = max(argument.width, 8)
    source = s.folded_load(argument, width) or s.register(argument, width)
    s.emit("mov" if width == 32 else "movzx", s.result(value, 32), source)


def select_sext(s: Selector, value: ir.Value) -> None:
    argument = value.arguments[0]
    target = s.result(value)
    if argument.width == 1:
        s.emit("movzx", Register(target.number, 32), s.register(argument, 8))
        s.emit("neg", target)
        return
    source = s.folded_load(argument, argument.width) or s.register(argument, argument.width)
    s.emit("movsxd" if argument.width == 32 else "movsx", target, source)


def select_trunc(s: Selector, value: ir.Value) -> None:
    """Only to width 1; other cuts share their argument's register."""
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(value.arguments[0], 64))
    s.emit("and", target, 1)


def select_select(s: Selector, value: ir.Value) -> None:
    flag, chosen, other = value.arguments
    target = s.result(value)
    taken = s.register(chosen)
    fallback = s.source(other)
    if isinstance(fallback, int):
        s.emit("mov", Register(target.number, 64 if fallback >> 32 else 32), fallback)
    else:
        s.emit("mov", Register(target.number, 64), s.register(other, 64))
    condition = s.condition(flag)
    s.emit(f"cmov{condition}", target, taken)


def select_opaque(s: Selector, value: ir.Value) -> None:
    s.emit("mov", s.result(value, 64), s.register(value.arguments[0], 64))


def select_frame(s: Selector, value: ir.Value) -> None:
    """The address of a slot. One aligned beyond 16 bytes is found inside a larger place."""
    assert isinstance(value.data, ir.Slot)
    target = s.result(value)
    s.declare(value.data)
    if value.data.align <= 16:
        s.emit("lea", target, Memory(64, place=value.data))
    else:
        s.emit("lea", target, Memory(64, place=value.data, displacement=value.data.align - 16))
        s.emit("and", target, -value.data.align)


def select_load(s: Selector, value: ir.Value) -> None:
    assert isinstance(value.data, ir.Access)
    place = s.address(value.arguments[0], value.data.offset, value.width)
    s.emit("movzx" if value.width < 32 else "mov", s.result(value), place)


def select_store(s: Selector, value: ir.Value) -> None:
    address, stored = value.arguments
    assert isinstance(value.data, ir.Access)
    if select_update(s, value):
        return
    place = s.address(address, value.data.offset, stored.width)
    number = s.immediate(stored)
    s.emit("mov", place, number if number is not None else s.register(stored, stored.width))


def select_update(s: Selector, value: ir.Value) -> bool:
    """memory op= operand, when the stored value was loaded from the same place and is used for nothing else."""
    address, stored = value.arguments
    if stored.operation not in PLAIN or not s.sole_use(stored) or stored.block is not value.block or stored in s.demanded:
        return False
    loaded, other = stored.arguments
    if loaded.operation != "load" or loaded.arguments[0] is not address or loaded.data != value.data or value.data.volatile:  # type: ignore[attr-defined]
        return False
    if not s.sole_use(loaded) or loaded in s.demanded or loaded.block is not value.block:
        return False
    if s.epochs[loaded] != s.epochs[value] or loaded.width != stored.width:
        return False
    assert isinstance(value.data, ir.Access)
    place = s.address(address, value.data.offset, stored.width)
    number = s.immediate(other)
    s.emit(stored.operation, place, number if number is not None else s.register(other, stored.width))
    return True


def select_call(s: Selector, value: ir.Value) -> None:
    assert isinstance(value.data, ir.Callee)
    s.machine.calls = True
    for position, argument in enumerate(value.arguments[len(ARGUMENTS) :]):
        place = Memory(64, base=4, displacement=8 * position)
        s.machine.outgoing = max(s.machine.outgoing, 8 * position + 8)
        number = s.immediate(argument) if argument.width == 64 else constant(argument)
        fitting = number is not None and fits_signed_32(number)
        s.emit("mov", place, number if fitting and number is not None else s.register(argument, 64))
    inputs = tuple((to, s.source(argument)) for to, argument in zip(ARGUMENTS, value.arguments, strict=False))
    if len(value.data.results) > len(RESULTS):
        raise ir.IllegalIR(f"{s.function.symbol}: a call of {value.data.symbol} with {len(value.data.results)} results")
    s.emit(
        "call", ir.Address(value.data.symbol), inputs=inputs, outputs=extract_outputs(s, value, RESULTS), clobbers=CALL_CLOBBERS
    )


def extract_outputs(s: Selector, value: ir.Value, places: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Which virtual register takes each processor register's result; the first extract of a number defines it."""
    outputs = []
    for user in s.users[value]:
        if user.operation == "extract" and user in s.demanded:
            assert isinstance(user.data, int)
            outputs.append((s.result(user).number, places[user.data]))
    return tuple(outputs)


def select_return(s: Selector, value: ir.Value) -> None:
    if len(value.arguments) > len(RESULTS):
        raise ir.IllegalIR(f"{s.function.symbol}: {len(value.arguments)} results")
    s.emit("ret", inputs=tuple((to, s.source(argument)) for to, argument in zip(RESULTS, value.arguments, strict=False)))


def select_check(s: Selector, value: ir.Value) -> None:
    known = constant(value.arguments[0])
    if known == 1:
        return
    condition = s.condition(value.arguments[0])
    s.emit(f"j{inverse(condition)}", s.trap(value))


def select_stop(s: Selector, value: ir.Value) -> None:
    s.emit("ud2", s.trap(value))


CALL_CLOBBERS: Final = (0, 1, 2, 6, 7, 8, 9, 10, 11)
HANDLERS: Final[dict[str, Callable[[Selector, ir.Value], None]]] = {
    **dict.fromkeys(PLAIN, select_plain),
    **dict.fromkeys(("neg", "bswap"), select_unary),
    **dict.fromkeys(("mul", "umulh"), select_mul),
    **dict.fromkeys(("udiv", "urem", "sdiv", "srem"), select_divide),
    **dict.fromkeys(("shl", "shr", "sar"), select_shift),
    **dict.fromkeys(("rotl", "rotr"), select_rotate),
    **dict.fromkeys(("lzcnt", "tzcnt", "popcnt"), select_count),
    **dict.fromkeys(ir.COMPARISONS, select_comparison),
    "not": select_not,
    "zext": select_zext,
    "sext": select_sext,
    "trunc": select_trunc,
    "select": select_select,
    "opaque": select_opaque,
    "frame": select_frame,
    "load": select_load,
    "store": select_store,
    "call": select_call,
    "return": select_return,
    "check": select_check,
    "stop": select_stop,
}
