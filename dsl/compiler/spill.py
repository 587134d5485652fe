"""Spilling: a register that found no place lives in the frame, in two steps.

First it is split: each stretch of a block that mentions it more than once works on a register of its own (a piece), loaded at the
first read and stored after the last write. A piece that finds no register either is dissolved: it becomes the spilled register again, and
each instruction uses memory directly, or goes through a register that lives for that instruction only (a temporary). Fixed inputs and
outputs and the moves of phis use the frame in place.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections import defaultdict
from typing import Final

from dsl.compiler.forms import FORMS
from dsl.compiler.liveness import mentions
from dsl.compiler.machine import Instruction, MachineBlock, MachineFunction, Memory, Register, Spill, change_registers

REACH: Final = 48  # instructions between two mentions that one piece may span


class Spiller:
    """What was spilled in one function: the frame places of registers, the registers of pieces, and the temporaries."""

    def __init__(self, function: MachineFunction) -> None:
        self.function = function
        self.places: dict[int, Spill] = {}
        self.origins: dict[int, int] = {}  # piece -> the register that it stands for
        self.temporary: set[int] = set()

    def spill(self, numbers: list[int]) -> None:
        """Split registers, and dissolve pieces."""
        whole = frozenset(number for number in numbers if number not in self.origins)
        dissolved = {number: self.origins[number] for number in numbers if number in self.origins}
        self.places.update({number: Spill(number) for number in whole})
        for block in self.function.blocks:
            self._split_block(block, whole)
            for instruction in block.instructions if dissolved else ():
                _rename(instruction, dissolved)
            rewritten = [self._rewrite(item) for item in block.instructions if not self._is_own_copy(item)]
            block.instructions = [instruction for part in rewritten for instruction in part]

    # splitting

    def _split_block(self, block: MachineBlock, whole: frozenset[int]) -> None:
        """Give the stretches of a block that mention registers pieces; single mentions are left to be rewritten."""
        events: defaultdict[int, list[tuple[int, bool]]] = defaultdict(list)
        calls = [index for index, instruction in enumerate(block.instructions) if instruction.mnemonic == "call"]
        for index, instruction in enumerate(block.instructions):
            found = mentions(instruction)
            in_place = [target for target, _ in (*instruction.outputs, *instruction.inputs)]
            for number in dict.fromkeys((*found.first, *found.middle, *found.early, *found.late)):
                if number in whole:
                    events[number].append((index, number in in_place))
        parts = {instruction: [instruction] for instruction in block.instructions}
        for number, mentioned in events.items():
            for stretch in _stretches(mentioned, calls):
                self._make_piece(number, [block.instructions[index] for index in stretch], parts)
        block.instructions = [instruction for part in parts.values() for instruction in part]

    def _make_piece(self, number: int, stretch: list[Instruction], parts: dict[Instruction, list[Instruction]]) -> None:
        """Rename a register in a stretch; put a load before its first read and a store after its last write."""
        piece = self.function.new_register(number)
        self.origins[piece] = number
        register, memory = Register(piece, 64), Memory(64, place=self.places[number])
        roles = [_rename(instruction, {number: piece}) for instruction in stretch]
        if "r" in roles[0]:
            part = parts[stretch[0]]
            part.insert(part.index(stretch[0]), Instruction("mov", (register, memory), stretch[0].span))
        written = [instruction for instruction, role in zip(stretch, roles, strict=True) if "w" in role]
        if written:
            parts[written[-1]].append(Instruction("mov", (memory, register), written[-1].span))

    # dissolving

    def _is_own_copy(self, instruction: Instruction) -> bool:
        """Whether an instruction, of a dissolved piece, only moves a spilled register from or to its own place."""
        match instruction.mnemonic, instruction.operands:
            case "mov", (Register(number, _), Memory(place=Spill() as place)) | (
                Memory(place=Spill() as place),
                Register(number, _),
            ):
                return self.places.get(number) is place
        return False

    def _rewrite(self, instruction: Instruction) -> list[Instruction]:
        """An instruction with its spilled operands in memory or in temporaries, between their loads and stores."""
        self._fold(instruction)
        before: dict[int, Instruction] = {}
        after: dict[int, Instruction] = {}
        renamed: dict[int, int] = {}

        def rename(number: int, role: str) -> int:
            if number not in self.places:
                return number
            if number not in renamed:
                renamed[number] = self.function.new_register(number)
                self.temporary.add(renamed[number])
            fresh = renamed[number]
            target, place = Register(fresh, 64), Memory(64, place=self.places[number])
            if role != "w":
                before.setdefault(fresh, Instruction("mov", (target, place), instruction.span))
            if role != "r":
                after.setdefault(fresh, Instruction("mov", (place, target), instruction.span))
            return fresh

        change_registers(instruction, rename)
        return [*before.values(), instruction, *after.values()]

    def _fold(self, instruction: Instruction) -> None:
        """Make one spilled operand a memory operand, if the instruction has none yet and its form exists.

        A write must be of 64 bits: the upper half of a narrower one would keep old bits.
        """
        places = self.places
        match instruction.mnemonic, instruction.operands:
            case _, (Register(left, _), Register(right, _)) if left == right:
                return
            case mnemonic, (Register() as target, Register(number, width)) if (
                number in places and "rm" in FORMS[mnemonic].shapes
            ):
                instruction.operands = (target, Memory(width, place=places[number]))
            case mnemonic, (Register(number, width), (Register() | int()) as source) if (
                number in places and "mr" in FORMS[mnemonic].shapes
            ):
                small = not isinstance(source, int) or -(1 << 31) <= source < 1 << 31
                if small and (width == 64 or mnemonic == "cmp"):
                    instruction.operands = (Memory(width, place=places[number]), source)


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


def _rename(instruction: Instruction, names: dict[int, int]) -> set[str]:
    """Put registers in the place of others; the roles that they have (b: read and written)."""
    found: set[str] = set()

    def change(register: int, role: str) -> int:
        if register in names:
            found.update("rw" if role == "b" else role)
        return names.get(register, register)

    change_registers(instruction, change)
    instruction.inputs = tuple(
        (target, Register(change(source.number, "r"), source.width) if isinstance(source, Register) else source)
        for target, source in instruction.inputs
    )
    return found


def drop_unread_stores(function: MachineFunction) -> None:
    """Remove the stores of pieces to places that nothing reads: all mentions were served by pieces."""
    found = [mentions(instruction) for block in function.blocks for instruction in block.instructions]
    read = {number for mention in found for number in (*mention.first, *mention.middle)}
    for block in function.blocks:
        block.instructions = [item for item in block.instructions if not _is_store_to_unread(item, read)]


def _is_store_to_unread(instruction: Instruction, read: set[int]) -> bool:
    match instruction.mnemonic, instruction.operands:
        case "mov", (Memory(place=Spill(number)), _):
            return number not in read
    return False
