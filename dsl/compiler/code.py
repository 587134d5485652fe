"""A function as bytes: instructions encoded, jumps at their shortest, and what the linker must still fill in."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from dsl.compiler.diagnostics import CompileError, Diagnostic
from dsl.compiler.encode import encode
from dsl.compiler.forms import CONDITIONS
from dsl.compiler.ir import Assembly, Function, Span
from dsl.compiler.keystone import AssemblyError
from dsl.compiler.layout import Item, Jump, Label
from dsl.compiler.listing import Assembled, Relocation, assemble_naked
from dsl.compiler.machine import Instruction, Trap

SHORT: Final = 2  # bytes of a jump with an 8-bit displacement


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: where it is, what was asked for ("": it was compared already), and the source it came from."""

    offset: int
    text: str
    span: Span | None


@dataclass(slots=True)
class Code:
    """A function before linking. checks: offsets of ud2 instructions and the places that they stand for; hot: bytes before cold blocks."""

    symbol: str
    data: bytearray = field(default_factory=bytearray)
    relocations: list[Relocation] = field(default_factory=list)
    checks: list[tuple[int, Trap]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)  # start and end of the innermost ones
    hot: int = 0

    def add(self, part: Assembled, span: Span | None) -> None:
        """Append what was assembled for one place in the source."""
        start = len(self.data)
        self.data += part.data
        self.lines += [Line(start + at, text, span) for at, text in part.rows]
        self.relocations += [Relocation(start + row.offset, row.target, start + row.end) for row in part.relocations]


def assemble_items(symbol: str, items: list[Item]) -> Code:
    """Encode a laid-out function."""
    parts = [encode(item) if isinstance(item, Instruction) else None for item in items]
    sizes = [
        len(part.data) if part else SHORT if isinstance(item, Jump) else 0
        for item, part in zip(items, parts, strict=True)
    ]
    offsets, targets = _relax(items, sizes)
    code = Code(symbol, hot=min((at for label, at in targets.items() if label.cold), default=sum(sizes)))
    for item, part, offset, size in zip(items, parts, offsets, sizes, strict=True):
        if isinstance(item, Instruction) and part:
            code.add(part, item.span)
            code.checks += [(offset, operand) for operand in item.operands if isinstance(operand, Trap)]
        elif isinstance(item, Jump):
            target, end = targets[item.target], offset + size
            if target < end:
                _note_loop(code.loops, target, end)
            code.data += _jump_bytes(item.condition, target - end, size)
            code.lines.append(Line(offset, f"j{item.condition or 'mp'} {{{target}}}", item.span))
    return code


def assemble_function(function: Function) -> Code:
    """The code of a function that is written in assembly."""
    assert isinstance(function.assembly, Assembly)
    code = Code(function.symbol)
    try:
        code.add(assemble_naked(function.assembly.text, dict(function.assembly.names)), function.span)
    except AssemblyError as problem:
        assert function.assembly.place is not None
        text = f"the assembler does not take this: {problem}"
        raise CompileError([Diagnostic("naked-body", text, *function.assembly.place)]) from None
    code.lines = [Line(line.offset, "", line.span) for line in code.lines]
    return code


def _note_loop(loops: list[tuple[int, int]], start: int, end: int) -> None:
    """Take in a jump back, which comes after those inside of what it jumps over; one that holds another is no innermost loop."""
    if loops and loops[-1][0] == start:
        loops.pop()
    if not loops or loops[-1][0] < start:
        loops.append((start, end))


def _relax(items: list[Item], sizes: list[int]) -> tuple[list[int], dict[Label, int]]:
    """Offsets of all items, and of labels, with each jump that does not reach in one byte grown (none ever shrinks, so this ends)."""
    while True:
        ends = list(accumulate(sizes))
        offsets = [end - size for end, size in zip(ends, sizes, strict=True)]
        targets = {item: offset for item, offset in zip(items, offsets, strict=True) if isinstance(item, Label)}
        grown = False
        for index, item in enumerate(items):
            if (
                isinstance(item, Jump)
                and sizes[index] == SHORT
                and not -128 <= targets[item.target] - ends[index] <= 127
            ):
                sizes[index] = 6 if item.condition else 5
                grown = True
        if not grown:
            return offsets, targets


def _jump_bytes(condition: str, displacement: int, size: int) -> bytes:
    """The only instructions encoded here: their length depends on where things end up. Capstone checks them in the linked image."""
    number = CONDITIONS.index(condition) if condition else 0
    if size == SHORT:
        return bytes([0x70 + number if condition else 0xEB]) + displacement.to_bytes(1, "little", signed=True)
    opcode = bytes([0x0F, 0x80 + number]) if condition else b"\xe9"
    return opcode + displacement.to_bytes(4, "little", signed=True)
