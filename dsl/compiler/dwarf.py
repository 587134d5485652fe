"""DWARF 4 line table: which source line each instruction came from, and the one compilation unit that refers to it."""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.link import Linked

COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, EXTENDED = 1, 2, 3, 4, 0
END_SEQUENCE, SET_ADDRESS = 1, 2
STANDARD_LENGTHS: Final = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))
COMPILE_UNIT: Final = 0x11
NAME, STATEMENTS, LOW_PC, HIGH_PC, LANGUAGE = 0x03, 0x10, 0x11, 0x12, 0x13
STRING, SECTION_OFFSET, ADDRESS, DATA8, DATA2 = 0x08, 0x17, 0x01, 0x07, 0x05
PYTHON: Final = 0x14


def unsigned(value: int) -> bytes:
    """ULEB128."""
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def signed(value: int) -> bytes:
    """SLEB128."""
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        done = (value == 0 and not low & 0x40) or (value == -1 and low & 0x40)
        out.append(low | (0 if done else 0x80))
        if done:
            return bytes(out)


def line_sections(linked: Linked) -> list[tuple[str, bytes]]:
    """The sections .debug_line, .debug_abbrev and .debug_info."""
    abbreviation = unsigned(1) + unsigned(COMPILE_UNIT) + b"\0"
    for attribute, form in (
        (NAME, STRING),
        (STATEMENTS, SECTION_OFFSET),
        (LOW_PC, ADDRESS),
        (HIGH_PC, DATA8),
        (LANGUAGE, DATA2),
    ):
        abbreviation += unsigned(attribute) + unsigned(form)
    abbreviation += b"\0\0\0"
    body = struct.pack("<HIB", 4, 0, 8) + unsigned(1) + b"terrane\0"
    body += struct.pack("<IQQH", 0, linked.base, linked.text_end, PYTHON) + b"\0"
    info = struct.pack("<I", len(body)) + body
    return [(".debug_line", _line_table(linked)), (".debug_abbrev", abbreviation), (".debug_info", info)]


def _line_table(linked: Linked) -> bytes:
    files: dict[str, int] = {}
    for _, line in linked.lines:
        if line.span:
            files.setdefault(line.span.file, len(files) + 1)
    names = b"".join(name.encode() + b"\0\0\0\0" for name in files)
    header = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + STANDARD_LENGTHS + b"\0" + names + b"\0"
    program = _line_program(linked, files)
    rest = struct.pack("<HI", 4, len(header)) + header + program
    return struct.pack("<I", len(rest)) + rest


def _line_program(linked: Linked, files: dict[str, int]) -> bytes:
    """One sequence over the whole text; a row wherever file or line changes."""
    out = bytearray(bytes((EXTENDED,)) + unsigned(9) + bytes((SET_ADDRESS,)) + struct.pack("<Q", linked.base))
    address, line, file = linked.base, 1, 1
    shown = None
    for at, item in sorted(linked.lines, key=lambda row: row[0]):
        if item.span is None or (item.span.file, item.span.line) == shown:
            continue
        shown = (item.span.file, item.span.line)
        out += bytes((ADVANCE_PC,)) + unsigned(at - address)
        if files[item.span.file] != file:
            file = files[item.span.file]
            out += bytes((SET_FILE,)) + unsigned(file)
        out += bytes((ADVANCE_LINE,)) + signed(item.span.line - line) + bytes((COPY,))
        address, line = at, item.span.line
    out += bytes((ADVANCE_PC,)) + unsigned(linked.base + linked.text_end - address)
    out += bytes((EXTENDED,)) + unsigned(1) + bytes((END_SEQUENCE,))
    return bytes(out)
