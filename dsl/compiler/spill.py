"""Spilling: a register that found no place lives in the frame, in two steps.

First it is split: each stretch of a block that mentions it more than once works on a register of its own (a piece), loaded at the
first read and stored after the last write. A piece that finds no register either is dissolved: each instruction then uses memory
directly, or goes through a register that lives for that instruction only (a temporary). Fixed inputs and outputs and the moves of
phis use the frame in place.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from dataclasses import replace
from typing import Final

from dsl.compiler.liveness import mentions
from dsl.compiler.machine import (
    Instruction,
    MachineBlock,
    MachineFunction,
    Memory,
    Operand,
    Register,
    Source,
    Spill,
    roles,
)

MEMORY_SOURCE: Final = frozenset(
    ["add", "sub", "and", "or", "xor", "cmp", "mov", "imul", "movzx", "movsx", "movsxd", "lzcnt", "tzcnt", "popcnt"]
)  # op reg, mem
MEMORY_TARGET: Final = frozenset(["add", "sub", "and", "or", "xor", "cmp", "mov"])  # op mem, reg or imm
REACH: Final = 48  # instructions between two mentions that one piece may span


class Spiller:
    """What was spilled in one function: the frame places of registers and pieces, and the temporaries."""

    def __init__(self, function: MachineFunction) -> None:
        self.function = function
        self.places: dict[int, Spill] = {}  # spilled register -> its place; a dissolved piece -> its origin's place
        self.origins: dict[int, Spill] = {}  # piece -> place of the register that it stands for
        self.temporary: set[int] = set()

    def spill(self, numbers: list[int]) -> None:
        """Split registers, and dissolve pieces."""
        whole = [number for number in numbers if number not in self.origins]
        self.places.update({number: Spill(number) for number in whole})
        for block in self.function.blocks:
            self._split_block(block, frozenset(whole))
        for number in numbers:
            if number in self.origins:
                self.places[number] = self.origins[number]
        for block in self.function.blocks:
            self._rewrite_block(block)

    # splitting

    def _split_block(self, block: MachineBlock, whole: frozenset[int]) -> None:
        """Give the stretches of a block that mention registers pieces; single mentions are left to be rewritten."""
        events: dict[int, list[tuple[int, bool]]] = {}
        calls: list[int] = []
        for index, instruction in enumerate(block.instructions):
            if instruction.mnemonic == "call":
                calls.append(index)
            for number, written_in_place in _mentions(instruction, whole).items():
                events.setdefault(number, []).append((index, written_in_place))
        stores: dict[int, list[Instruction]] = {}
        loads: dict[int, list[Instruction]] = {}
        for number, mentioned in events.items():
            for stretch in _stretches(mentioned, calls):
                self._make_piece(block, number, stretch, loads, stores)
        if loads or stores:
            rebuilt: list[Instruction] = []
            for index, instruction in enumerate(block.instructions):
                rebuilt += [*loads.get(index, ()), instruction, *stores.get(index, ())]
            block.instructions = rebuilt

    def _make_piece(
        self,
        block: MachineBlock,
        number: int,
        stretch: list[int],
        loads: dict[int, list[Instruction]],
        stores: dict[int, list[Instruction]],
    ) -> None:
        """Rename a register in a stretch; note the load before its first read and the store after its last write."""
        place = self.places[number]
        piece = self.function.new_register(number)
        self.origins[piece] = place
        register, memory = Register(piece, 64), Memory(64, place=place)
        last_write = -1
        for index in stretch:
            instruction = block.instructions[index]
            reads, writes = _rename(instruction, number, piece)
            if index == stretch[0] and reads:
                loads.setdefault(index, []).append(Instruction("mov", (register, memory), instruction.span))
            if writes:
                last_write = index
        if last_write >= 0:
            store = Instruction("mov", (memory, register), block.instructions[last_write].span)
            stores.setdefault(last_write, []).append(store)

    # dissolving

    def _rewrite_block(self, block: MachineBlock) -> None:
        rewritten: list[Instruction] = []
        for instruction in block.instructions:
            if self._is_dissolved_copy(instruction):
                continue
            instruction.inputs = tuple((target, self._origin(source)) for target, source in instruction.inputs)
            if not self._mentions_spilled(instruction):
                rewritten.append(instruction)
                continue
            self._fold(instruction)
            before, after = self._through_temporaries(instruction)
            rewritten += [*before, instruction, *after]
        block.instructions = rewritten

    def _is_dissolved_copy(self, instruction: Instruction) -> bool:
        """Whether an instruction only moves a dissolved piece from or to its own place."""
        if instruction.mnemonic != "mov":
            return False
        left, right = instruction.operands
        if isinstance(left, Memory):
            left, right = right, left
        if not isinstance(left, Register) or not isinstance(right, Memory) or right.place is None:
            return False
        return left.number in self.origins and self.places.get(left.number) is right.place

    def _origin(self, source: Source) -> Source:
        """What a fixed input reads: for a dissolved piece, the register that it stood for."""
        if isinstance(source, Register) and source.number in self.origins and source.number in self.places:
            return Register(self.origins[source.number].number, source.width)
        return source

    def _mentions_spilled(self, instruction: Instruction) -> bool:
        for operand in instruction.operands:
            if isinstance(operand, Register):
                if operand.number in self.places:
                    return True
            elif isinstance(operand, Memory) and (operand.base in self.places or operand.index in self.places):
                return True
        return False

    def _fold(self, instruction: Instruction) -> None:
        """Make one spilled operand a memory operand, if the instruction has none yet and its form exists.

        A write must be of 64 bits: the upper half of a narrower one would keep old bits.
        """
        operands = instruction.operands
        if len(operands) != 2 or any(isinstance(operand, Memory) for operand in operands):
            return
        left, right = operands
        mnemonic, places = instruction.mnemonic, self.places
        if isinstance(left, Register) and isinstance(right, Register) and left.number == right.number:
            return
        if (
            isinstance(right, Register)
            and right.number in places
            and (mnemonic in MEMORY_SOURCE or mnemonic.startswith("cmov"))
        ):
            instruction.operands = (left, Memory(right.width, place=places[right.number]))
        elif isinstance(left, Register) and left.number in places and mnemonic in MEMORY_TARGET:
            small = not isinstance(right, int) or -(1 << 31) <= right < 1 << 31
            if small and (left.width == 64 or mnemonic == "cmp"):
                instruction.operands = (Memory(left.width, place=places[left.number]), right)

    def _through_temporaries(self, instruction: Instruction) -> tuple[list[Instruction], list[Instruction]]:
        """Replace the remaining spilled registers of an instruction by short-lived ones; the loads before and stores after."""
        before: dict[int, Instruction] = {}
        after: dict[int, Instruction] = {}
        renamed: dict[int, int] = {}

        def rename(number: int, role: str) -> int:
            if number not in self.places:
                return number
            fresh = renamed.get(number)
            if fresh is None:
                fresh = renamed[number] = self.function.new_register(number)
                self.temporary.add(fresh)
            target, place = Register(fresh, 64), Memory(64, place=self.places[number])
            if role != "w":
                before.setdefault(fresh, Instruction("mov", (target, place), instruction.span))
            if role != "r":
                after.setdefault(fresh, Instruction("mov", (place, target), instruction.span))
            return fresh

        operands: list[Operand] = []
        for operand, role in zip(instruction.operands, roles(instruction), strict=False):
            if isinstance(operand, Register):
                operands.append(Register(rename(operand.number, role), operand.width))
            elif isinstance(operand, Memory):
                base = None if operand.base is None else rename(operand.base, "r")
                index = None if operand.index is None else rename(operand.index, "r")
                operands.append(replace(operand, base=base, index=index))
            else:
                operands.append(operand)
        instruction.operands = tuple(operands)
        return list(before.values()), list(after.values())


def _mentions(instruction: Instruction, wanted: frozenset[int]) -> dict[int, bool]:
    """Which of some registers an instruction mentions, and whether its fixed moves write them in place."""
    found = mentions(instruction)
    result = dict.fromkeys(
        (number for number in (*found.first, *found.middle, *found.early) if number in wanted), False
    )
    in_place = [target for target, _ in instruction.outputs] + [target for target, _ in instruction.inputs]
    for number in found.late:
        if number in wanted:
            result[number] = result.get(number, False) or number in in_place
    return result


def _stretches(mentioned: list[tuple[int, bool]], calls: list[int]) -> list[list[int]]:
    """Runs of two or more mentions that one piece may serve: near each other, with no call and no write in place in between."""
    stretches: list[list[int]] = [[]]
    for index, written_in_place in mentioned:
        stretch = stretches[-1]
        if written_in_place:
            stretches.append([])
            continue
        if stretch and (index - stretch[-1] > REACH or bisect(calls, stretch[-1]) != bisect_left(calls, index)):
            stretch = []
            stretches.append(stretch)
        stretch.append(index)
    return [stretch for stretch in stretches if len(stretch) > 1]


def _rename(instruction: Instruction, number: int, piece: int) -> tuple[bool, bool]:
    """Put a piece in place of a register; whether it is read, and whether it is written."""
    reads = writes = False
    operands: list[Operand] = []
    for operand, role in zip(instruction.operands, roles(instruction), strict=False):
        if isinstance(operand, Register) and operand.number == number:
            operand = Register(piece, operand.width)
            reads, writes = reads or role != "w", writes or role != "r"
        elif isinstance(operand, Memory) and number in (operand.base, operand.index):
            base, index = (piece if part == number else part for part in (operand.base, operand.index))
            operand = replace(operand, base=base, index=index)
            reads = True
        operands.append(operand)
    instruction.operands = tuple(operands) + instruction.operands[len(operands) :]
    inputs: list[tuple[int, Source]] = []
    for target, source in instruction.inputs:
        if isinstance(source, Register) and source.number == number:
            source, reads = Register(piece, source.width), True
        inputs.append((target, source))
    instruction.inputs = tuple(inputs)
    return reads, writes


def drop_unread_stores(function: MachineFunction) -> None:
    """Remove the stores of pieces to places that nothing reads: all mentions were served by pieces."""
    read: set[int] = set()
    for block in function.blocks:
        for instruction in block.instructions:
            found = mentions(instruction)
            read.update(found.first)
            read.update(found.middle)
    for block in function.blocks:
        block.instructions = [item for item in block.instructions if not _is_store_to_unread(item, read)]


def _is_store_to_unread(instruction: Instruction, read: set[int]) -> bool:
    target = instruction.operands[0] if instruction.mnemonic == "mov" else None
    return isinstance(target, Memory) and isinstance(target.place, Spill) and target.place.number not in read
