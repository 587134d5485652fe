"""Register allocation: each virtual register gets a processor register or a place in the frame.

Registers are coloured in order of weight per length over their live masks; what finds no register is spilled: it lives in the frame, and each
instruction that mentions it uses memory directly or goes through a register that lives for that instruction only. Then everything is tried again.
Fixed inputs and outputs of instructions, and the moves of phis, read and write spilled registers in place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dsl.compiler.liveness import Ranges, ranges
from dsl.compiler.machine import (
    CALLEE_SAVED,
    CALLER_SAVED,
    FIRST_VIRTUAL,
    POOL,
    Instruction,
    MachineBlock,
    MachineFunction,
    Memory,
    Operand,
    Register,
    Spill,
    roles,
)

Location = int | Spill
PREFERENCE: Final = (*CALLER_SAVED, *CALLEE_SAVED)
MEMORY_SOURCE: Final = frozenset("add sub and or xor cmp mov imul movzx movsx movsxd lzcnt tzcnt popcnt".split())  # op reg, mem
MEMORY_TARGET: Final = frozenset("add sub and or xor cmp mov".split())  # op mem, reg or imm
ROUNDS: Final = 40


class AllocationError(Exception):
    """No allocation exists: an instruction needs more registers at once than the pool has."""


def allocate(function: MachineFunction, pool: int | None = None) -> dict[int, Location]:
    """Decide where each virtual register lives, adding spill code to the function. pool: how many registers may be used."""
    registers = frozenset(POOL if pool is None else POOL[:pool])
    allowed = tuple(register for register in PREFERENCE if register in registers)
    spilled: dict[int, Spill] = {}
    temporary: set[int] = set()
    for _ in range(ROUNDS):
        found = ranges(function)
        colours, failed = _colour(function, found, allowed, spilled, temporary)
        if not failed:
            return {**colours, **_share_spills(found, spilled)}
        for number in failed:
            spilled[number] = Spill(number)
        for block in function.blocks:
            _rewrite_block(function, block, spilled, temporary)
    raise AllocationError(f"{function.symbol}: registers were still missing after {ROUNDS} rounds of spilling")


def _colour(
    function: MachineFunction, found: Ranges, allowed: tuple[int, ...], spilled: dict[int, Spill], temporary: set[int]
) -> tuple[dict[int, Location], list[int]]:
    """Assign registers, heaviest first; those that found none."""
    occupied = {register: found.fixed.get(register, 0) for register in allowed}
    colours: dict[int, Location] = {}
    failed: list[int] = []

    def priority(number: int) -> tuple[int, float, int]:
        if number in temporary:
            return 0, 0.0, number
        return 1, -found.weights[number] / found.masks[number].bit_count(), number

    for number in sorted((number for number in found.masks if number not in spilled), key=priority):
        mask = found.masks[number]
        free = [register for register in allowed if not occupied[register] & mask]
        if not free:
            if number in temporary:
                raise AllocationError(f"{function.symbol}: one instruction needs more than {len(allowed)} registers")
            failed.append(number)
            continue
        chosen = _choose(number, free, found, colours, occupied)
        colours[number] = chosen
        occupied[chosen] |= mask
    return colours, failed


def _choose(number: int, free: list[int], found: Ranges, colours: dict[int, Location], occupied: dict[int, int]) -> int:
    """The free register that saves most moves; else a caller-saved one, else one that is in use already."""
    scores: dict[int, float] = {}
    for often, other in found.hints.get(number, ()):
        wanted = other if other < FIRST_VIRTUAL else colours.get(other)
        if isinstance(wanted, int):
            scores[wanted] = scores.get(wanted, 0.0) + often
        elif wanted is None:  # not decided yet: what would it like?
            for often_too, further in found.hints.get(other, ()):
                if further < FIRST_VIRTUAL:
                    scores[further] = scores.get(further, 0.0) + min(often, often_too) / 4
    best = max(free, key=lambda register: (scores.get(register, 0.0), register in CALLER_SAVED or occupied[register] != 0))
    return best


def _share_spills(found: Ranges, spilled: dict[int, Spill]) -> dict[int, Location]:
    """Give each spilled register a place in the frame; those that never live together may share one."""
    places: list[tuple[Spill, int]] = []
    result: dict[int, Location] = {}
    for number in sorted(spilled):
        mask = found.masks.get(number, 0)
        for index, (place, occupied) in enumerate(places):
            if not occupied & mask:
                places[index] = (place, occupied | mask)
                result[number] = place
                break
        else:
            place = Spill(number)
            places.append((place, mask))
            result[number] = place
    return result


def _rewrite_block(function: MachineFunction, block: MachineBlock, spilled: dict[int, Spill], temporary: set[int]) -> None:
    """Send the operands that mention spilled registers through memory."""
    rewritten: list[Instruction] = []
    for instruction in block.instructions:
        if not _mentions_spilled(instruction, spilled):
            rewritten.append(instruction)
            continue
        _fold_spill(instruction, spilled)
        before, after = _through_temporaries(function, instruction, spilled, temporary)
        rewritten += [*before, instruction, *after]
    block.instructions = rewritten


def _mentions_spilled(instruction: Instruction, spilled: dict[int, Spill]) -> bool:
    for operand in instruction.operands:
        if isinstance(operand, Register):
            if operand.number in spilled:
                return True
        elif isinstance(operand, Memory) and (operand.base in spilled or operand.index in spilled):
            return True
    return False


def _fold_spill(instruction: Instruction, spilled: dict[int, Spill]) -> None:
    """Make one spilled operand a memory operand, if the instruction has none yet and its form exists.

    A write must be of 64 bits: the upper half of a narrower one would keep old bits.
    """
    operands = instruction.operands
    if len(operands) != 2 or any(isinstance(operand, Memory) for operand in operands):
        return
    left, right = operands
    mnemonic = instruction.mnemonic
    if isinstance(right, Register) and right.number in spilled and right.width > 1:
        if mnemonic in MEMORY_SOURCE or mnemonic.startswith("cmov"):
            if not (isinstance(left, Register) and left.number == right.number):
                instruction.operands = (left, Memory(right.width, place=spilled[right.number]))
                return
    if isinstance(left, Register) and left.number in spilled and mnemonic in MEMORY_TARGET:
        same = isinstance(right, Register) and left.number == right.number
        small = not isinstance(right, int) or -(1 << 31) <= right < 1 << 31
        if not same and small and (left.width == 64 or mnemonic == "cmp"):
            instruction.operands = (Memory(left.width, place=spilled[left.number]), right)


def _through_temporaries(
    function: MachineFunction, instruction: Instruction, spilled: dict[int, Spill], temporary: set[int]
) -> tuple[list[Instruction], list[Instruction]]:
    """Replace the remaining spilled registers of an instruction by short-lived ones; the loads before and stores after."""
    before: list[Instruction] = []
    after: list[Instruction] = []
    renamed: dict[int, int] = {}

    def rename(number: int, role: str) -> int:
        if number not in spilled:
            return number
        fresh = renamed.get(number)
        if fresh is None:
            fresh = renamed[number] = function.new_register()
            temporary.add(fresh)
        place = Memory(64, place=spilled[number])
        target = Register(fresh, 64)
        if role != "w" and not any(made.operands[0] == target for made in before):
            before.append(Instruction("mov", (target, place), instruction.span))
        if role != "r" and not any(made.operands[1] == target for made in after):
            after.append(Instruction("mov", (place, target), instruction.span))
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
    return before, after
