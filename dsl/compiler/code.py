"""A function as bytes: instructions encoded, jumps at their shortest, and what the linker must still fill in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dsl.compiler.encode import encode
from dsl.compiler.forms import CONDITIONS
from dsl.compiler.ir import Assembly, Function, Span
from dsl.compiler.layout import Item, Jump, Label
from dsl.compiler.listing import Assembled, Relocation, assemble_naked
from dsl.compiler.machine import Trap

SHORT: Final = 2  # bytes of a jump with an 8-bit displacement


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: where it is, what was asked for ("": it was compared already), and the source it came from."""

    offset: int
    text: str
    span: Span | None


@dataclass(slots=True)
class Code:
    """A function before linking. checks: offsets of ud2 instructions and the places that they stand for."""

    symbol: str
    data: bytearray = field(default_factory=bytearray)
    relocations: list[Relocation] = field(default_factory=list)
    checks: list[tuple[int, Trap]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)  # start and end of the innermost ones

    def add(self, part: Assembled, span: Span | None) -> None:
        """Append what was assembled for one place in the source."""
        start = len(self.data)
        self.data += part.data
        self.lines += [Line(start + at, text, span) for at, text in part.rows]
        self.relocations += [Relocation(start + row.offset, row.target, start + row.end) for row in part.relocations]


def assemble_items(symbol: str, items: list[Item]) -> Code:
    """Encode a laid-out function."""
    sizes = [_size(item) for item in items]
    offsets = _relax(items, sizes)
    code = Code(symbol)
    targets = {item: offset for item, offset in zip(items, offsets, strict=True) if isinstance(item, Label)}
    for item, offset, size in zip(items, offsets, sizes, strict=True):
        if isinstance(item, Label):
            continue
        if isinstance(item, Jump):
            displacement = targets[item.target] - (offset + size)
            if displacement < 0:
                _note_loop(code.loops, targets[item.target], offset + size)
            code.data += _jump_bytes(item.condition, displacement, size)
            mnemonic = f"j{item.condition or 'mp'}"
            code.lines.append(Line(offset, f"{mnemonic} {{{targets[item.target]}}}", item.span))
        else:
            code.add(encode(item), item.span)
            code.checks += [(offset, operand) for operand in item.operands if isinstance(operand, Trap)]
    return code


def assemble_function(function: Function) -> Code:
    """The code of a function that is written in assembly."""
    assert isinstance(function.assembly, Assembly)
    code = Code(function.symbol)
    code.add(assemble_naked(function.assembly.text, dict(function.assembly.names)), function.span)
    code.lines = [Line(line.offset, "", line.span) for line in code.lines]
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
    return len(encode(item).data)


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
