"""Small improvements on instructions whose registers are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container

from dsl.compiler.forms import FORMS
from dsl.compiler.machine import RSP, Instruction, MachineBlock, Memory, Register, named, roles

Content = int | tuple[int] | Memory  # the place that a place is a copy of, a number, or what has an address
Contents = dict[int, Content]  # of places: a register's number, or a spilled one's: ~offset, below zero


def drop_repeated(blocks: list[MachineBlock], spilled: Container[int] = ()) -> None:
    """Drop moves that give a place what it holds already. What is known at a block's end holds in a block that nothing else enters.

    spilled: the offsets in the frame where spilled registers live, which nothing else reads or writes.
    """
    sources: defaultdict[MachineBlock, set[MachineBlock]] = defaultdict(set)
    for block in blocks:
        for successor in block.successors:
            sources[successor].add(block)
    ends: dict[MachineBlock, Contents] = {}
    for block in blocks:
        source = sources[block].pop() if len(sources[block]) == 1 else None
        held = ends[block] = dict(ends.get(source, {})) if source else {}
        kept = []
        for instruction in block.instructions:
            if instruction.mnemonic in ("push", "pop"):  # from here on, offsets mean other places
                _forget(held, [place for place in (*held, *held.values()) if isinstance(place, int) and place < 0])
            if not _is_held(instruction, held, spilled):
                kept.append(instruction)
        block.instructions = kept


def _forget(held: Contents, written: Collection[int]) -> None:
    """Places have changed: neither what they held nor what is a copy of them is known any more."""
    for number in [*written, *(other for other, content in held.items() if content in written)]:
        held.pop(number, None)


def _is_held(instruction: Instruction, held: Contents, spilled: Container[int]) -> bool:
    """Whether an instruction would change nothing; if not, note what it does."""
    known = _content(instruction, held, spilled)
    target = _place(instruction.operands[0], spilled) if known is not None else None
    if target is not None and held.get(target, target) == known:
        return True
    written = {number for number, role in named(instruction) if role in "wb"} | set(instruction.clobbers)
    for operand, role in zip(instruction.operands, roles(instruction), strict=False):
        place = _place(operand, spilled) if role in "wb" else None
        written |= set() if place is None else {place}
    _forget(held, written)
    if target is not None and known is not None:
        held[target] = known
    return False


def _place(operand: object, spilled: Container[int]) -> int | None:
    """What stands for a register, or for the place of a spilled one."""
    match operand:
        case Register(number, _):
            return number
        case Memory(base=base, index=None, displacement=offset) if base == RSP and offset in spilled:
            return ~offset
    return None


def _content(instruction: Instruction, held: Contents, spilled: Container[int]) -> Content | None:
    """What an instruction puts into its first operand, if that is a whole place and it is known."""
    match instruction.mnemonic, instruction.operands:
        case "mov", (Register(_, 64) | Memory(64) as target, Register(_, 64) | Memory(64) as origin):
            source = _place(origin, spilled)
            if source is None or source == RSP or _place(target, spilled) is None:  # which pushes and calls change
                return None
            known = held.get(source, source)
            if isinstance(origin, Memory) and isinstance(known, int) and known >= 0:
                instruction.operands = (target, Register(known, 64))
            return known
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
