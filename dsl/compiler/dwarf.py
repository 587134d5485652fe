"""DWARF 4 line table and functions: which source line each instruction came from, for gdb and addr2line.

One sequence of rows a function. An inlined callee's instructions carry the callee's own lines.
"""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.callframes import frame_section
from dsl.compiler.leb128 import signed, unsigned
from dsl.compiler.link import Linked, Symbol

COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, EXTENDED = 1, 2, 3, 4, 0
END_SEQUENCE, SET_ADDRESS = 1, 2
STANDARD_LENGTHS: Final = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))
COMPILE_UNIT, SUBPROGRAM = 0x11, 0x2E
NAME, STATEMENTS, LOW_PC, HIGH_PC, LANGUAGE, PRODUCER, EXTERNAL, FRAME_BASE = (
    0x03,
    0x10,
    0x11,
    0x12,
    0x13,
    0x25,
    0x3F,
    0x40,
)
STRING, SECTION_OFFSET, ADDRESS, DATA8, DATA2, PRESENT, EXPRESSION = 0x08, 0x17, 0x01, 0x07, 0x05, 0x19, 0x18
CALL_FRAME_CFA: Final = 0x9C
PYTHON: Final = 0x14
UNIT_ATTRIBUTES: Final = (
    (PRODUCER, STRING), (NAME, STRING), (STATEMENTS, SECTION_OFFSET), (LOW_PC, ADDRESS), (HIGH_PC, DATA8), (LANGUAGE, DATA2),
)  # fmt: skip
FUNCTION_ATTRIBUTES: Final = (
    (EXTERNAL, PRESENT), (NAME, STRING), (LOW_PC, ADDRESS), (HIGH_PC, DATA8), (FRAME_BASE, EXPRESSION),
)  # fmt: skip
Place = tuple[str, int]  # file and line


def debug_sections(linked: Linked) -> list[tuple[str, bytes]]:
    """The sections that a debugger reads."""
    functions = _functions(linked)
    return [
        (".debug_line", _line_table(functions, linked.places())),
        (".debug_abbrev", _abbreviations()),
        (".debug_info", _information(linked, functions)),
        (".debug_frame", frame_section(linked)),
    ]


def _functions(linked: Linked) -> list[tuple[str, Symbol]]:
    found = [(name, symbol) for name, symbol in linked.symbols.items() if symbol.kind == "function" and symbol.size]
    return sorted(found, key=lambda row: row[1].address)


def _abbreviations() -> bytes:
    out = b""
    for number, tag, children, attributes in (
        (1, COMPILE_UNIT, 1, UNIT_ATTRIBUTES),
        (2, SUBPROGRAM, 0, FUNCTION_ATTRIBUTES),
    ):
        out += unsigned(number) + unsigned(tag) + bytes((children,))
        out += b"".join(unsigned(attribute) + unsigned(form) for attribute, form in attributes) + b"\0\0"
    return out + b"\0"


def _information(linked: Linked, functions: list[tuple[str, Symbol]]) -> bytes:
    body = struct.pack("<HIB", 4, 0, 8) + unsigned(1) + b"Terrane\0terrane\0"
    body += struct.pack("<IQQH", 0, linked.base, linked.text_end, PYTHON)
    for name, symbol in functions:
        body += unsigned(2) + name.encode() + b"\0" + struct.pack("<QQ", symbol.address, symbol.size)
        body += unsigned(1) + bytes((CALL_FRAME_CFA,))
    body += b"\0"
    return struct.pack("<I", len(body)) + body


def _line_table(functions: list[tuple[str, Symbol]], places: list[tuple[int, Place]]) -> bytes:
    files: dict[str, int] = {}
    for _, (file, _) in places:
        files.setdefault(file, len(files) + 1)
    names = b"".join(name.encode() + b"\0\0\0\0" for name in files)
    header = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + STANDARD_LENGTHS + b"\0" + names + b"\0"
    program = bytearray()
    first = 0
    for _, symbol in functions:
        end = symbol.address + symbol.size
        while first < len(places) and places[first][0] < symbol.address:
            first += 1
        last = first
        while last < len(places) and places[last][0] < end:
            last += 1
        program += _sequence(places[first:last], end, files)
        first = last
    rest = struct.pack("<HI", 4, len(header)) + header + program
    return struct.pack("<I", len(rest)) + rest


def _sequence(places: list[tuple[int, Place]], end: int, files: dict[str, int]) -> bytes:
    """The rows of one function: one wherever file or line changes."""
    if not places:
        return b""
    address, line, file = places[0][0], 1, 1
    out = bytearray(bytes((EXTENDED,)) + unsigned(9) + bytes((SET_ADDRESS,)) + struct.pack("<Q", address))
    shown: Place | None = None
    for at, place in places:
        if place == shown:
            continue
        shown = place
        out += bytes((ADVANCE_PC,)) + unsigned(at - address)
        if files[place[0]] != file:
            file = files[place[0]]
            out += bytes((SET_FILE,)) + unsigned(file)
        out += bytes((ADVANCE_LINE,)) + signed(place[1] - line) + bytes((COPY,))
        address, line = at, place[1]
    out += bytes((ADVANCE_PC,)) + unsigned(end - address)
    return bytes(out + bytes((EXTENDED,)) + unsigned(1) + bytes((END_SEQUENCE,)))
