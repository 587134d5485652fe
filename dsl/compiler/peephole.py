"""Small improvements on instructions whose registers are known."""

from __future__ import annotations

from collections import defaultdict

from dsl.compiler.forms import FORMS
from dsl.compiler.machine import RSP, Instruction, MachineBlock, Memory, Register, named

Content = int | tuple[int] | Memory  # the register that a register is a copy of, a number, or what has an address
Contents = dict[int, Content]


def drop_repeated(blocks: list[MachineBlock]) -> None:
    """Drop moves that give a register what it holds already. What is known at a block's end holds in a block that nothing else enters."""
    sources: defaultdict[MachineBlock, set[MachineBlock]] = defaultdict(set)
    for block in blocks:
        for successor in block.successors:
            sources[successor].add(block)
    ends: dict[MachineBlock, Contents] = {}
    for block in blocks:
        source = sources[block].pop() if len(sources[block]) == 1 else None
        held = ends[block] = dict(ends.get(source, {})) if source else {}
        block.instructions = [instruction for instruction in block.instructions if not _is_held(instruction, held)]


def _is_held(instruction: Instruction, held: Contents) -> bool:
    """Whether an instruction would change nothing; if not, note what it does."""
    known = _content(instruction, held)
    operand = instruction.operands[0] if known is not None else None
    target = operand.number if isinstance(operand, Register) else None
    if target is not None and held.get(target, target) == known:
        return True
    written = {number for number, role in named(instruction) if role in "wb"} | set(instruction.clobbers)
    for number in [*written, *(other for other, content in held.items() if content in written)]:
        held.pop(number, None)
    if target is not None and known is not None:
        held[target] = known
    return False


def _content(instruction: Instruction, held: Contents) -> Content | None:
    """What an instruction puts into its first operand, if that is a whole register and it is known."""
    match instruction.mnemonic, instruction.operands:
        case "mov", (Register(_, 64), Register(source, 64)) if source != RSP:  # which pushes and calls change
            return held.get(source, source)
        case "mov", (Register(_, 32 | 64 as width), int(number)):
            return (number & ((1 << width) - 1),)
        case "lea", (Register(_, 64), Memory(base=None, index=None, place=None) as place):
            return place
    return None


def tidy(block: MachineBlock) -> None:
    """Clear registers by xor, and join a copy and a sum into lea; the last two only where flags are dead."""
    made: list[Instruction] = []
    flags_live = bool(block.condition)
    instructions = block.instructions
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
