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
    change_registers,
)
from dsl.compiler.moves import Place, Value, parallel
from dsl.compiler.peephole import drop_repeated, tidy


def finish(function: MachineFunction, locations: dict[int, Location]) -> None:
    """Replace virtual registers, lay out the frame, expand moves, add prologue and epilogues; then tidy each block."""
    frame = Frame(function, locations)
    for block in function.blocks:
        block.instructions = [made for instruction in block.instructions for made in frame.expand(instruction)]
    drop_repeated(function.blocks, {frame.offsets[place] for place in locations.values() if isinstance(place, Spill)})
    function.blocks[0].instructions[:0] = frame.prologue()
    for block in function.blocks:
        tidy(block)


class Frame:
    """Where everything in the frame is, from rsp up: outgoing arguments, spills, slots, saved registers, return address, incoming."""

    def __init__(self, function: MachineFunction, locations: dict[int, Location]) -> None:
        self.function = function
        self.locations = locations
        instructions = [instruction for block in function.blocks for instruction in block.instructions]
        written = {place for place in locations.values() if isinstance(place, int)}
        for instruction in instructions:
            written.update(target for target, _ in instruction.inputs if target < FIRST_VIRTUAL)
            written.update(place for _, place in instruction.outputs)
            written.update(instruction.clobbers)
        self.saved = [register for register in CALLEE_SAVED if register in written]
        self.offsets: dict[Location | Slot, int] = {}
        offset = function.outgoing
        for place in locations.values():
            if isinstance(place, Spill) and place not in self.offsets:
                self.offsets[place] = offset
                offset += 8
        for slot in function.slots:
            align = min(max(slot.align, 1), 16)
            offset = self.offsets[slot] = -(-offset // align) * align
            offset += slot.size + max(slot.align - 16, 0)
        # A jump to another function leaves no frame behind: with slots, which the callee may have an address of, it stays a call.
        self.jumps = not function.slots
        called = function.calls or (not self.jumps and any(item.mnemonic == "tail" for item in instructions))
        aligned = called or any(slot.align >= 16 for slot in function.slots)
        self.size = -(-offset // 8) * 8
        if aligned and (self.size + 8 + 8 * len(self.saved)) % 16:
            self.size += 8

    def prologue(self) -> list[Instruction]:
        made = [Instruction("push", (Register(register, 64),), self.function.span) for register in self.saved]
        return made + self.move_stack("sub")

    def epilogue(self) -> list[Instruction]:
        return self.move_stack("add") + [
            Instruction("pop", (Register(register, 64),)) for register in reversed(self.saved)
        ]

    def move_stack(self, mnemonic: str) -> list[Instruction]:
        return [Instruction(mnemonic, (Register(RSP, 64), self.size), self.function.span)] if self.size else []

    def number(self, register: int, role: str) -> int:
        location = register if register < FIRST_VIRTUAL else self.locations[register]
        assert isinstance(location, int), (
            f"{self.function.symbol}: v{register} is spilled but an operand needs a register"
        )
        return location

    def operand(self, operand: Operand) -> Operand:
        """An operand in the frame as an address."""
        if not isinstance(operand, Memory) or operand.place is None:
            return operand
        match operand.place:
            case Spill(number):
                offset = self.offsets[self.locations[number]]
            case Slot():
                offset = self.offsets[operand.place]
            case Incoming(position):
                offset = self.size + 8 * len(self.saved) + 8 + 8 * position
        return replace(operand, base=RSP, displacement=operand.displacement + offset, place=None)

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
        match instruction.mnemonic, instruction.operands:
            case "idiv", (Register(_, width),):
                made.append(Instruction("cqo" if width == 64 else "cdq"))
            case "tail", target if not self.jumps:
                made += [Instruction("call", target), *self.epilogue(), Instruction("ret")]
            case "ret" | "tail", _:
                made += self.epilogue()
        if instruction.mnemonic != "MOVES" and (self.jumps or instruction.mnemonic != "tail"):
            change_registers(instruction, self.number)
            operands = tuple(self.operand(operand) for operand in instruction.operands)
            destroyed = (*instruction.clobbers, *(place for _, place in instruction.outputs))
            made.append(replace(instruction, operands=operands, inputs=(), outputs=(), clobbers=destroyed))
        made += parallel(
            [(self.place(target), place) for target, place in instruction.outputs if target in self.locations]
        )
        for part in made:
            part.span = instruction.span
        return made
