"""Spilling: a register that found no place lives in the frame, in two steps.

First it is split: each stretch of a block that mentions it more than once works on a register of its own (a piece), loaded at the
first read and stored after the last write. A piece that finds no register either is dissolved: each instruction then uses memory
directly, or goes through a register that lives for that instruction only (a temporary). Fixed inputs and outputs and the moves of
phis use the frame in place.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections import defaultdict
from typing import Final

from dsl.compiler.liveness import mentions
from dsl.compiler.machine import (
    Instruction,
    MachineBlock,
    MachineFunction,
    Memory,
    Register,
    Source,
    Spill,
    change_registers,
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
        before: defaultdict[int, list[Instruction]] = defaultdict(list)
        after: defaultdict[int, list[Instruction]] = defaultdict(list)
        for number, mentioned in events.items():
            for stretch in _stretches(mentioned, calls):
                self._make_piece([(index, block.instructions[index]) for index in stretch], number, before, after)
        if before or after:
            parts = [[*before[index], item, *after[index]] for index, item in enumerate(block.instructions)]
            block.instructions = [item for part in parts for item in part]

    def _make_piece(
        self,
        stretch: list[tuple[int, Instruction]],
        number: int,
        before: defaultdict[int, list[Instruction]],
        after: defaultdict[int, list[Instruction]],
    ) -> None:
        """Rename a register in a stretch; note the load before its first read and the store after its last write."""
        piece = self.function.new_register(number)
        self.origins[piece] = self.places[number]
        register, memory = Register(piece, 64), Memory(64, place=self.places[number])
        roles = [(index, instruction, _rename(instruction, number, piece)) for index, instruction in stretch]
        first, opening, role = roles[0]
        if "r" in role:
            before[first].append(Instruction("mov", (register, memory), opening.span))
        written = [(index, instruction) for index, instruction, role in roles if "w" in role]
        if written:
            last, closing = written[-1]
            after[last].append(Instruction("mov", (memory, register), closing.span))

    # dissolving

    def _rewrite_block(self, block: MachineBlock) -> None:
        rewritten: list[Instruction] = []
        for instruction in block.instructions:
            if self._is_dissolved_copy(instruction):
                continue
            instruction.inputs = tuple((target, self._origin(source)) for target, source in instruction.inputs)
            self._fold(instruction)
            before, after = self._through_temporaries(instruction)
            rewritten += [*before, instruction, *after]
        block.instructions = rewritten

    def _is_dissolved_copy(self, instruction: Instruction) -> bool:
        """Whether an instruction only moves a dissolved piece from or to its own place."""
        match instruction.mnemonic, instruction.operands:
            case "mov", (Register(number, _), Memory(place=Spill() as place)) | (
                Memory(place=Spill() as place),
                Register(number, _),
            ):
                return number in self.origins and self.places.get(number) is place
        return False

    def _origin(self, source: Source) -> Source:
        """What a fixed input reads: for a dissolved piece, the register that it stood for."""
        if isinstance(source, Register) and source.number in self.origins and source.number in self.places:
            return Register(self.origins[source.number].number, source.width)
        return source

    def _fold(self, instruction: Instruction) -> None:
        """Make one spilled operand a memory operand, if the instruction has none yet and its form exists.

        A write must be of 64 bits: the upper half of a narrower one would keep old bits.
        """
        places = self.places
        match instruction.mnemonic, instruction.operands:
            case _, (Register(left, _), Register(right, _)) if left == right:
                return
            case mnemonic, (Register() as target, Register(number, width)) if number in places and (
                mnemonic in MEMORY_SOURCE or mnemonic.startswith("cmov")
            ):
                instruction.operands = (target, Memory(width, place=places[number]))
            case mnemonic, (Register(number, width), (Register() | int()) as source) if (
                number in places and mnemonic in MEMORY_TARGET
            ):
                small = not isinstance(source, int) or -(1 << 31) <= source < 1 << 31
                if small and (width == 64 or mnemonic == "cmp"):
                    instruction.operands = (Memory(width, place=places[number]), source)

    def _through_temporaries(self, instruction: Instruction) -> tuple[list[Instruction], list[Instruction]]:
        """Replace the remaining spilled registers of an instruction by short-lived ones; the loads before and stores after."""
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


def _rename(instruction: Instruction, number: int, piece: int) -> set[str]:
    """Put a piece in place of a register; the roles that it has (b: read and written)."""
    found: set[str] = set()

    def change(register: int, role: str) -> int:
        if register != number:
            return register
        found.update("rw" if role == "b" else role)
        return piece

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
