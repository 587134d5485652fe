"""Small improvements on instructions whose registers are known."""

from __future__ import annotations

from dsl.compiler.forms import FORMS
from dsl.compiler.machine import Instruction, MachineBlock, Memory, Register


def tidy(block: MachineBlock) -> None:
    """Drop moves to itself, clear registers by xor, and join a copy and a sum into lea; the last two only where flags are dead."""
    made: list[Instruction] = []
    flags_live = bool(block.condition)
    instructions = [instruction for instruction in block.instructions if not _moves_nothing(instruction)]
    position = len(instructions)
    while position:
        position -= 1
        instruction = instructions[position]
        if not flags_live:
            instruction = _clear(instruction)
            previous = instructions[position - 1] if position else None
            joined = _join(previous, instruction) if previous else None
            if joined is not None:
                made.append(joined)
                position -= 1
                continue
        made.append(instruction)
        flags = FORMS[instruction.mnemonic].flags
        flags_live = "r" in flags or (flags_live and "w" not in flags)
    made.reverse()
    block.instructions = made


def _moves_nothing(instruction: Instruction) -> bool:
    if instruction.mnemonic != "mov":
        return False
    target, source = instruction.operands
    return isinstance(target, Register) and target.width == 64 and target == source


def _clear(instruction: Instruction) -> Instruction:
    """Mov register, 0 as xor: shorter, but it sets flags."""
    if instruction.mnemonic == "mov" and instruction.operands[1] == 0 and isinstance(instruction.operands[0], Register):
        register = Register(instruction.operands[0].number, 32)
        return Instruction("xor", (register, register), instruction.span)
    return instruction


def _join(copy: Instruction, work: Instruction) -> Instruction | None:
    """Mov t, a; add t, b as lea t, [a + b]; the same for constants and small shifts. None if they are no such pair."""
    if copy.mnemonic != "mov" or work.mnemonic not in ("add", "sub", "shl"):
        return None
    target, source = copy.operands
    left, right = work.operands
    if not (isinstance(target, Register) and isinstance(source, Register) and isinstance(left, Register)):
        return None
    if target.width != 64 or left.number != target.number or left.width < 32:
        return None
    place = _sum(work.mnemonic, source.number, target.number, right)
    return None if place is None else Instruction("lea", (left, place), work.span)


def _sum(mnemonic: str, source: int, target: int, right: object) -> Memory | None:
    match mnemonic, right:
        case "add", Register(number, _) if number != target:
            return Memory(64, base=source, index=number)
        case "add", int(number) if -(1 << 31) <= number < 1 << 31:
            return Memory(64, base=source, displacement=number)
        case "sub", int(number) if -(1 << 31) < number <= 1 << 31:
            return Memory(64, base=source, displacement=-number)
        case "shl", 1:
            return Memory(64, base=source, index=source)
    return None
