"""Spilling: a register that found no place lives in the frame.

Each instruction uses it there as a memory operand, or goes through a register that lives for that instruction only (a temporary). Fixed
inputs and outputs and the moves of phis use the frame in place.
"""

from __future__ import annotations

from dsl.compiler.forms import FORMS
from dsl.compiler.machine import Instruction, MachineFunction, Memory, Register, Spill, change_registers, fits_signed_32

Places = dict[int, Spill]  # of spilled registers


def spill(function: MachineFunction, places: Places) -> None:
    """Put registers into their places everywhere."""
    for block in function.blocks:
        parts = [_rewrite(instruction, function, places) for instruction in block.instructions]
        block.instructions = [instruction for part in parts for instruction in part]


def _rewrite(instruction: Instruction, function: MachineFunction, places: Places) -> list[Instruction]:
    """An instruction with its spilled operands in memory or in temporaries, between their loads and stores."""
    _fold(instruction, places)
    before: dict[int, Instruction] = {}
    after: dict[int, Instruction] = {}
    renamed: dict[int, int] = {}

    def rename(number: int, role: str) -> int:
        if number not in places:
            return number
        if number not in renamed:
            renamed[number] = function.new_register(number)
        fresh = renamed[number]
        target, place = Register(fresh, 64), Memory(64, place=places[number])
        if role != "w":
            before.setdefault(fresh, Instruction("mov", (target, place), instruction.span))
        if role != "r":
            after.setdefault(fresh, Instruction("mov", (place, target), instruction.span))
        return fresh

    change_registers(instruction, rename)
    return [*before.values(), instruction, *after.values()]


def _fold(instruction: Instruction, places: Places) -> None:
    """Make one spilled operand a memory operand, if the instruction has none yet and its form exists.

    A write must be of 64 bits: the upper half of a narrower one would keep old bits.
    """
    match instruction.operands:
        case Register(left, _), Register(right, _) if left == right:
            return
        case Register() as target, Register(number, width) if (
            number in places and "rm" in FORMS[instruction.mnemonic].shapes
        ):
            instruction.operands = (target, Memory(width, place=places[number]))
        case Register(number, width), (Register() | int()) as source if (
            number in places and "mr" in FORMS[instruction.mnemonic].shapes
        ):
            fits = not isinstance(source, int) or fits_signed_32(source)
            if fits and (width == 64 or instruction.mnemonic == "cmp"):
                instruction.operands = (Memory(width, place=places[number]), source)
