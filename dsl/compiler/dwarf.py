"""DWARF 4 line table and functions: which source line each instruction came from, for gdb and addr2line.

One sequence of rows a function. An inlined callee's instructions carry the callee's own lines.
"""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.callframes import frame_section
from dsl.compiler.leb128 import signed, unsigned
from dsl.compiler.link import Linked, Place, Step

COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, EXTENDED = 1, 2, 3, 4, 0
END_SEQUENCE, SET_ADDRESS = 1, 2
STANDARD_LENGTHS: Final = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))
COMPILE_UNIT, SUBPROGRAM = 0x11, 0x2E
STRING, SECTION_OFFSET, ADDRESS, DATA8, DATA2, PRESENT, EXPRESSION = 0x08, 0x17, 0x01, 0x07, 0x05, 0x19, 0x18
CALL_FRAME_CFA: Final = 0x9C
PYTHON: Final = 0x14
# attributes with their forms: producer, name, statements, low and high address, language
UNIT_ATTRIBUTES: Final = {0x25: STRING, 0x03: STRING, 0x10: SECTION_OFFSET, 0x11: ADDRESS, 0x12: DATA8, 0x13: DATA2}
FUNCTION_ATTRIBUTES: Final = {
    0x3F: PRESENT,
    0x03: STRING,
    0x11: ADDRESS,
    0x12: DATA8,
    0x40: EXPRESSION,
}  # external, name, addresses, frame base


def debug_sections(linked: Linked) -> list[tuple[str, bytes]]:
    """The sections that a debugger reads."""
    return [
        (".debug_line", _line_table(linked)),
        (".debug_abbrev", _abbreviations()),
        (".debug_info", _information(linked)),
        (".debug_frame", frame_section(linked)),
    ]


def _abbreviations() -> bytes:
    out = b""
    for number, tag, children, attributes in (
        (1, COMPILE_UNIT, 1, UNIT_ATTRIBUTES),
        (2, SUBPROGRAM, 0, FUNCTION_ATTRIBUTES),
    ):
        out += unsigned(number) + unsigned(tag) + bytes((children,))
        out += b"".join(unsigned(attribute) + unsigned(form) for attribute, form in attributes.items()) + b"\0\0"
    return out + b"\0"


def _information(linked: Linked) -> bytes:
    body = struct.pack("<HIB", 4, 0, 8) + unsigned(1) + b"Terrane\0terrane\0"
    body += struct.pack("<IQQH", 0, linked.base, linked.text_end, PYTHON)
    for name in linked.functions:
        symbol = linked.symbols[name]
        body += unsigned(2) + name.encode() + b"\0" + struct.pack("<QQ", symbol.address, symbol.size)
        body += unsigned(1) + bytes((CALL_FRAME_CFA,))
    body += b"\0"
    return struct.pack("<I", len(body)) + body


def _line_table(linked: Linked) -> bytes:
    files: dict[str, int] = {}
    for _, (file, _) in linked.places():
        files.setdefault(file, len(files) + 1)
    names = b"".join(name.encode() + b"\0\0\0\0" for name in files)
    header = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + STANDARD_LENGTHS + b"\0" + names + b"\0"
    program = b"".join(_sequence(steps, files) for steps in linked.functions.values())
    rest = struct.pack("<HI", 4, len(header)) + header + program
    return struct.pack("<I", len(rest)) + rest


def _sequence(steps: list[Step], files: dict[str, int]) -> bytes:
    """The rows of one function: one wherever file or line changes."""
    out = bytearray()
    line, file = 1, 1
    shown: Place | None = None
    for step in steps:
        if step.place is None or step.place == shown:
            continue
        if shown is None:
            out += bytes((EXTENDED,)) + unsigned(9) + bytes((SET_ADDRESS,)) + struct.pack("<Q", step.address)
            address = step.address
        shown = step.place
        out += bytes((ADVANCE_PC,)) + unsigned(step.address - address)
        if files[shown[0]] != file:
            file = files[shown[0]]
            out += bytes((SET_FILE,)) + unsigned(file)
        out += bytes((ADVANCE_LINE,)) + signed(shown[1] - line) + bytes((COPY,))
        address, line = step.address, shown[1]
    if shown is None:
        return b""
    out += bytes((ADVANCE_PC,)) + unsigned(steps[-1].end - address)
    return bytes(out + bytes((EXTENDED,)) + unsigned(1) + bytes((END_SEQUENCE,)))
