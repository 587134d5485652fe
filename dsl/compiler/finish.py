"""After allocation: virtual registers become processor registers and frame addresses; moves become instructions; the frame is set up."""

from __future__ import annotations

from dataclasses import replace

from dsl.compiler.allocate import Location
from dsl.compiler.ir import Address, Slot
from dsl.compiler.machine import (
    CALLEE_SAVED,
    FIRST_VIRTUAL,
    RSP,
    Incoming,
    Instruction,
    MachineFunction,
    Memory,
    Operand,
    Register,
    Source,
    Spill,
)
from dsl.compiler.moves import Place, Value, parallel
from dsl.compiler.peephole import tidy


def finish(function: MachineFunction, locations: dict[int, Location]) -> None:
    """Replace virtual registers, lay out the frame, expand moves, add prologue and epilogues; then tidy each block."""
    function.saved = _saved(function, locations)
    frame = _Frame(function, locations)
    for block in function.blocks:
        made: list[Instruction] = []
        for instruction in block.instructions:
            for expanded in frame.expand(instruction):
                expanded.span = expanded.span or instruction.span
                made.append(expanded)
        block.instructions = made
    function.blocks[0].instructions[:0] = frame.prologue()
    for block in function.blocks:
        tidy(block)


def _saved(function: MachineFunction, locations: dict[int, Location]) -> list[int]:
    """The callee-saved registers that the function writes."""
    written = {place for place in locations.values() if isinstance(place, int)}
    for block in function.blocks:
        for instruction in block.instructions:
            if instruction.mnemonic != "MOVES":
                written.update(target for target, _ in instruction.inputs)
            written.update(place for _, place in instruction.outputs)
            written.update(instruction.clobbers)
    return [register for register in CALLEE_SAVED if register in written]


def _has_tail_calls(function: MachineFunction) -> bool:
    return any(instruction.mnemonic == "tail" for block in function.blocks for instruction in block.instructions)


class _Frame:
    """Where everything in the frame is, from rsp up: outgoing arguments, spills, slots, saved registers, return address, incoming."""

    def __init__(self, function: MachineFunction, locations: dict[int, Location]) -> None:
        self.function = function
        self.locations = locations
        self.offsets: dict[object, int] = {}
        offset = function.outgoing
        for location in locations.values():
            if isinstance(location, Spill) and location not in self.offsets:
                self.offsets[location] = offset
                offset += 8
        for slot in function.slots:
            align = min(max(slot.align, 1), 16)
            offset = -(-offset // align) * align
            self.offsets[slot] = offset
            offset += slot.size + (slot.align - 16 if slot.align > 16 else 0)
        # A jump to another function leaves no frame behind: with slots, which the callee may have an address of, it stays a call.
        self.jumps = not function.slots
        called = function.calls or (not self.jumps and _has_tail_calls(function))
        aligned = called or any(slot.align >= 16 for slot in function.slots)
        pushed = 8 + 8 * len(function.saved)
        size = -(-offset // 8) * 8
        if aligned and (size + pushed) % 16:
            size += 8
        function.frame_size = size

    def prologue(self) -> list[Instruction]:
        made = [Instruction("push", (Register(register, 64),)) for register in self.function.saved]
        if self.function.frame_size:
            made.append(Instruction("sub", (Register(RSP, 64), self.function.frame_size)))
        for instruction in made:
            instruction.span = self.function.span
        return made

    def epilogue(self) -> list[Instruction]:
        made = []
        if self.function.frame_size:
            made.append(Instruction("add", (Register(RSP, 64), self.function.frame_size)))
        return made + [Instruction("pop", (Register(register, 64),)) for register in reversed(self.function.saved)]

    def number(self, register: int) -> int:
        if register < FIRST_VIRTUAL:
            return register
        location = self.locations[register]
        assert isinstance(location, int), (
            f"{self.function.symbol}: v{register} is spilled but an operand needs a register"
        )
        return location

    def operand(self, operand: Operand) -> Operand:
        if isinstance(operand, Register):
            return Register(self.number(operand.number), operand.width)
        if isinstance(operand, Memory):
            return self.memory(operand)
        return operand

    def memory(self, operand: Memory) -> Memory:
        base = None if operand.base is None else self.number(operand.base)
        index = None if operand.index is None else self.number(operand.index)
        displacement = operand.displacement
        match operand.place:
            case Spill(number):
                base, displacement = RSP, displacement + self.offsets[self.locations[number]]
            case Slot():
                base, displacement = RSP, displacement + self.offsets[operand.place]
            case Incoming(position):
                entry = self.function.frame_size + 8 * len(self.function.saved) + 8
                base, displacement = RSP, displacement + entry + 8 * position
        return replace(operand, base=base, index=index, displacement=displacement, place=None)

    def place(self, register: int) -> Place:
        """A register as a place that a parallel move reads or writes."""
        location = register if register < FIRST_VIRTUAL else self.locations[register]
        return location if isinstance(location, int) else Memory(64, base=RSP, displacement=self.offsets[location])

    def source(self, source: Source) -> Value:
        if isinstance(source, Register):
            return self.place(source.number)
        return source if isinstance(source, Address) else (source,)

    def expand(self, instruction: Instruction) -> list[Instruction]:
        """One instruction with its moves before and after."""
        made = parallel([(self.place(to), self.source(source)) for to, source in instruction.inputs])
        if instruction.mnemonic != "MOVES":
            if instruction.mnemonic == "idiv":
                divisor = instruction.operands[0]
                assert isinstance(divisor, Register)
                made.append(Instruction("cqo" if divisor.width == 64 else "cdq"))
            if instruction.mnemonic == "tail" and not self.jumps:
                return [*made, Instruction("call", instruction.operands), *self.epilogue(), Instruction("ret")]
            if instruction.mnemonic in ("ret", "tail"):
                made += self.epilogue()
            operands = tuple(self.operand(operand) for operand in instruction.operands)
            made.append(Instruction(instruction.mnemonic, operands, instruction.span, template=instruction.template))
        outputs: list[tuple[Place, Value]] = []
        for target, place in instruction.outputs:
            if target in self.locations:
                outputs.append((self.place(target), place))
        return made + parallel(outputs)
