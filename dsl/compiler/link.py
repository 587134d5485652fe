"""The linker: code and objects become a flat program (docs/formats.md, `Flat program`).

Order in memory: header, functions, read-only objects with the check table, data, BSS; each group on pages of its own. Every mention of a
symbol is relative to the instruction's end. After linking, the whole text is decoded once more and compared with what was asked for.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Final

from dsl.compiler.capstone import EncodingError, decode, same
from dsl.compiler.code import Code
from dsl.compiler.ir import DataObject, Span
from dsl.compiler.machine import Trap
from dsl.compiler.spelling import spell_displacement

MAGIC: Final = b"TRNFLAT1"
HEADER: Final = struct.Struct("<8sIIIIIIQ24x")
PAGE: Final = 4096
FUNCTION_ALIGN: Final = 16
LINE: Final = 64  # bytes of a cache line
CHECK_ROW: Final = struct.Struct("<IHH")
FILE_NAME: Final = 32  # bytes of a row of the check table's file names
LARGEST: Final = (1 << 31) - 1  # bytes of memory that 32-bit distances span
INT3: Final = 0xCC  # fills the gaps between functions
TARGET: Final = re.compile(r"(?:call|jmp|j\w+|loop\w*) (0x[0-9a-f]+)")
MENTION: Final = re.compile(r"<([^<>]+)\+(-?\d+)>")
Place = tuple[str, int]  # file and line


class LinkError(ValueError):
    """The program does not fit its format: a symbol or a table's bytes are missing, one is too far, or a table overflows."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function ("function"), read-only object ("constant"), zeroed object ("object") or linker symbol ("linker")."""

    address: int
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction where it lies. place: what it stands for, which for a failed check's ud2 is the check; span: where it came from."""

    address: int
    end: int
    text: str
    span: Span | None = None
    place: Place | None = None

    @property
    def mnemonic(self) -> str:
        return self.text.partition(" ")[0]

    @property
    def target(self) -> int | None:
        """Where a direct call or jump goes."""
        match = TARGET.fullmatch(self.text)
        return int(match[1], 16) if match else None


@dataclass(slots=True)
class Linked:
    """A linked program. functions: the instructions of each, by address; checks: offsets of ud2 and the checks that they stand for;
    hot: bytes of compiled functions before their cold blocks.
    """

    base: int
    image: bytes
    memory_size: int
    symbols: dict[str, Symbol]
    text_end: int
    checks: list[tuple[int, Trap]]
    hot: int
    functions: dict[str, list[Step]] = field(default_factory=dict)

    @property
    def lines(self) -> list[tuple[int, Step]]:
        """Every instruction by its address."""
        return [(step.address, step) for steps in self.functions.values() for step in steps]

    def places(self) -> list[tuple[int, Place]]:
        """File and line of each instruction that has any, by address."""
        return [(address, step.place) for address, step in self.lines if step.place]

    def code(self, step: Step) -> bytes:
        """The bytes of an instruction."""
        return self.image[step.address - self.base : step.end - self.base]


def align_up(value: int, to: int) -> int:
    return -(-value // to) * to


def link(codes: list[Code], objects: list[DataObject], entry: str, base: int) -> Linked:
    """Place everything from `base` on, resolve all mentions of symbols, and check the result."""
    symbols: dict[str, Symbol] = {}
    offset = HEADER.size
    for code in codes:
        offset = _start(code, align_up(offset, FUNCTION_ALIGN))
        symbols[code.symbol] = Symbol(base + offset, len(code.data), "function")
        offset += len(code.data)
    text_end = align_up(offset, PAGE)
    checks = sorted(
        ((symbols[code.symbol].address - base + at, trap) for code in codes for at, trap in code.checks),
        key=lambda row: row[0],
    )
    constants = [*(item for item in objects if item.content is not None), *_check_table(checks)]
    zeroed = [item for item in objects if item.content is None]
    data_end = align_up(_place(symbols, constants, base, text_end, "constant"), PAGE)
    memory_size = align_up(_place(symbols, zeroed, base, data_end, "object"), PAGE)
    if memory_size > LARGEST:
        size, largest = max((item.size, item.symbol) for item in objects)
        raise LinkError(
            f"the program takes {memory_size:,} bytes of memory ({largest}: {size:,}), expected less than 2 GiB"
        )
    _linker_symbols(symbols, base, memory_size)
    image = bytearray(HEADER.size) + bytes([INT3]) * (text_end - HEADER.size) + bytes(data_end - text_end)
    HEADER.pack_into(image, 0, MAGIC, symbols[entry].address - base, text_end, data_end, data_end, memory_size, 0, base)
    for code in codes:
        _patch(code, symbols)
    contents = {code.symbol: bytes(code.data) for code in codes} | {
        item.symbol: item.content or b"" for item in constants
    }
    for symbol, content in contents.items():
        start = symbols[symbol].address - base
        image[start : start + len(content)] = content
    linked = Linked(base, bytes(image), memory_size, symbols, text_end, checks, sum(code.hot for code in codes))
    linked.functions = {code.symbol: _verify(linked, code) for code in codes}
    return linked


def _start(code: Code, offset: int) -> int:
    """Where to put a function, up to a cache line further on: so that few of its small loops lie on more lines than they must.

    A processor fetches a line at a time: a turn of a loop over two of them was seen to take twice as long (Zen 4).
    """

    def lines_too_many(at: int) -> int:
        loops = [(at + start, end - start) for start, end in code.loops]
        return sum(-(-(start % LINE + size) // LINE) - -(-size // LINE) for start, size in loops)

    return min(range(offset, offset + LINE, FUNCTION_ALIGN), key=lines_too_many)


def _place(symbols: dict[str, Symbol], objects: list[DataObject], base: int, offset: int, kind: str) -> int:
    """Give each object its address; the offset behind the last."""
    for item in objects:
        offset = align_up(base + offset, max(item.align, 1)) - base
        symbols[item.symbol] = Symbol(base + offset, item.size, kind)
        offset += item.size
    return offset


def _linker_symbols(symbols: dict[str, Symbol], base: int, memory_size: int) -> None:
    """The check table's rows and file names, as byte ranges, and the image in memory (with BSS)."""
    for name in ("linker.check_places", "linker.check_files"):
        table = symbols[name]
        symbols[name] = Symbol(table.address, table.size, "linker")
        symbols[f"{name}_end"] = Symbol(table.address + table.size, 0, "linker")
    symbols["linker.image_base"] = Symbol(base, memory_size, "linker")
    symbols["linker.image_end"] = Symbol(base + memory_size, 0, "linker")


def _check_table(checks: list[tuple[int, Trap]]) -> list[DataObject]:
    """The rows (offset, file index, line) in order of offset, and the file names in order of first mention."""
    files: dict[str, int] = {}
    rows = b""
    for offset, trap in checks:
        index = files.setdefault(trap.file, len(files))
        if index > 0xFFFF or trap.line > 0xFFFF:
            raise LinkError(f"{trap.file}:{trap.line}: the check table holds files and lines up to 65535")
        rows += CHECK_ROW.pack(offset, index, trap.line)
    names = b"".join(name.encode()[-FILE_NAME:].ljust(FILE_NAME, b"\0") for name in files)
    tables = {"linker.check_places": rows, "linker.check_files": names}
    return [DataObject(name, len(content), 8, content) for name, content in tables.items()]


def _patch(code: Code, symbols: dict[str, Symbol]) -> None:
    """Fill in the displacements of one function."""
    start = symbols[code.symbol].address
    for relocation in code.relocations:
        symbol = relocation.target.symbol
        target = symbols.get(symbol)
        if target is None:
            raise LinkError(f"{code.symbol} names {symbol}, which the program does not contain")
        displacement = target.address + relocation.target.addend - (start + relocation.end)
        if not -(1 << 31) <= displacement < 1 << 31:
            raise LinkError(f"{code.symbol}: {symbol} is {displacement:#x} away, expected a 32-bit distance")
        code.data[relocation.offset : relocation.offset + 4] = displacement.to_bytes(4, "little", signed=True)


def _verify(linked: Linked, code: Code) -> list[Step]:
    """Decode a function where it lies; every instruction must be the one that was asked for."""
    start = linked.symbols[code.symbol].address
    offset = start - linked.base
    decoded = decode(linked.image[offset : offset + len(code.data)], start)
    asked = {start + line.offset: line for line in code.lines}
    checks = {start + at: (trap.file, trap.line) for at, trap in code.checks}
    steps = []
    for at, size, text in decoded:
        line = asked.pop(at, None)
        if line is None:
            raise EncodingError(f"{code.symbol}+{at - start:#x}: {text!r} decodes where no instruction was emitted")
        wanted = _resolve(line.text, linked.symbols, start, at + size)
        if wanted and not same(wanted, text):
            raise EncodingError(f"{code.symbol}+{at - start:#x}: asked for {wanted!r}, decodes to {text!r}")
        place = checks.get(at) or ((line.span.file, line.span.line) if line.span else None)
        steps.append(Step(at, at + size, text, line.span, place))
    if asked:
        raise EncodingError(f"{code.symbol}: instructions at {[hex(at) for at in asked]} are not where they were put")
    return steps


def _resolve(text: str, symbols: dict[str, Symbol], start: int, end: int) -> str:
    """The text with jump targets and symbols as the decoder prints them."""
    if "{" in text:
        head, _, offset = text.partition("{")
        return head + hex((start + int(offset.rstrip("}"))) % (1 << 64))
    match = MENTION.search(text)
    if match is None:
        return text
    target = symbols[match[1]].address + int(match[2])
    if text.startswith(("call <", "jmp <")):
        return f"{text.partition(' ')[0]} {hex(target)}"
    displacement = target - end
    return text.replace(" " + match[0], spell_displacement(displacement))
