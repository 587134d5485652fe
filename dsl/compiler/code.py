"""A function as bytes: instructions encoded, jumps at their shortest, and what the linker must still fill in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dsl.compiler.encode import encode, spell
from dsl.compiler.ir import Address, Span
from dsl.compiler.layout import Item, Jump, Label
from dsl.compiler.machine import CONDITIONS, Instruction, Memory, Trap
from dsl.compiler.template import expand_template

SHORT: Final = 2  # bytes of a jump with an 8-bit displacement


@dataclass(frozen=True, slots=True)
class Relocation:
    """Four bytes at `offset` that become (symbol + addend) minus the address of the instruction's end."""

    offset: int
    symbol: str
    addend: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: where it is, what was asked for, and the source it came from. text is "" if another decoder checks it."""

    offset: int
    text: str
    width: int
    span: Span | None


@dataclass(slots=True)
class Code:
    """A function before linking. checks: offsets of ud2 instructions and the places that they stand for."""

    symbol: str
    data: bytearray = field(default_factory=bytearray)
    relocations: list[Relocation] = field(default_factory=list)
    checks: list[tuple[int, Trap]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    loops: list[tuple[int, int]] = field(default_factory=list)  # start and end of the innermost ones


def assemble_items(symbol: str, items: list[Item]) -> Code:
    """Encode a laid-out function."""
    sizes = [_size(item) for item in items]
    offsets = _relax(items, sizes)
    code = Code(symbol)
    targets = {item: offset for item, offset in zip(items, offsets, strict=True) if isinstance(item, Label)}
    for item, offset, size in zip(items, offsets, sizes, strict=True):
        if isinstance(item, Label):
            code.labels[offset] = item.name
        elif isinstance(item, Jump):
            displacement = targets[item.target] - (offset + size)
            if displacement < 0:
                _note_loop(code.loops, targets[item.target], offset + size)
            code.data += _jump_bytes(item.condition, displacement, size)
            mnemonic = f"j{item.condition or 'mp'}"
            code.lines.append(Line(offset, f"{mnemonic} {{{targets[item.target]}}}", 64, item.span))
        else:
            _instruction(code, item, offset)
    return code


def _note_loop(loops: list[tuple[int, int]], start: int, end: int) -> None:
    """Take in a jump back, which comes after those inside of what it jumps over; one that holds another is no innermost loop."""
    if loops and loops[-1][0] == start:
        loops.pop()
    if not loops or loops[-1][0] < start:
        loops.append((start, end))


def _size(item: Item) -> int:
    if isinstance(item, Label):
        return 0
    if isinstance(item, Jump):
        return SHORT
    if item.mnemonic in ("call", "tail"):
        return 5
    if item.mnemonic == "ud2":
        return 2
    if item.template:
        return len(expand_template(item)[0])
    return len(encode(item).code)


def _relax(items: list[Item], sizes: list[int]) -> list[int]:
    """Offsets of the items, with each jump that does not reach in one byte grown (a grown one never shrinks, so this ends)."""
    while True:
        offsets = []
        offset = 0
        for size in sizes:
            offsets.append(offset)
            offset += size
        targets = {item: offset for item, offset in zip(items, offsets, strict=True) if isinstance(item, Label)}
        grown = False
        for index, item in enumerate(items):
            if isinstance(item, Jump) and sizes[index] == SHORT:
                displacement = targets[item.target] - (offsets[index] + SHORT)
                if not -128 <= displacement <= 127:
                    sizes[index] = 6 if item.condition else 5
                    grown = True
        if not grown:
            return offsets


def _jump_bytes(condition: str, displacement: int, size: int) -> bytes:
    """The only instructions encoded here: their length depends on where things end up. Capstone checks them in the linked image."""
    number = CONDITIONS.index(condition) if condition else 0
    if size == SHORT:
        return bytes([0x70 + number if condition else 0xEB]) + displacement.to_bytes(1, "little", signed=True)
    opcode = bytes([0x0F, 0x80 + number]) if condition else b"\xe9"
    return opcode + displacement.to_bytes(4, "little", signed=True)


def _instruction(code: Code, instruction: Instruction, offset: int) -> None:
    first = instruction.operands[0] if instruction.operands else None
    if instruction.mnemonic in ("call", "tail"):
        assert isinstance(first, Address)
        jumps = instruction.mnemonic == "tail"
        code.data += b"\xe9\0\0\0\0" if jumps else b"\xe8\0\0\0\0"
        code.relocations.append(Relocation(offset + 1, first.symbol, first.addend, offset + 5))
        code.lines.append(
            Line(offset, f"{'jmp' if jumps else 'call'} <{first.symbol}+{first.addend}>", 64, instruction.span)
        )
        return
    if instruction.template:
        data, texts = expand_template(instruction)
        code.data += data
        code.lines += [Line(offset + at, text, 64, instruction.span) for at, text in texts]
        return
    if isinstance(first, Trap):
        code.checks.append((offset, first))
        instruction = Instruction("ud2", (), instruction.span)
    encoded = encode(instruction)
    code.data += encoded.code
    width = next(
        (operand.width for operand in instruction.operands if not isinstance(operand, int | Address | Trap)), 64
    )
    named = next(
        (operand for operand in instruction.operands if isinstance(operand, Memory) and operand.symbol is not None),
        None,
    )
    if named is not None and encoded.symbol_offset is not None:
        assert named.symbol is not None
        end = offset + len(encoded.code)
        code.relocations.append(Relocation(offset + encoded.symbol_offset, named.symbol, named.displacement, end))
    code.lines.append(Line(offset, spell(instruction.mnemonic, instruction.operands), width, instruction.span))
