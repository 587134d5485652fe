"""DWARF 4 for gdb and addr2line: which source line each instruction came from, and how to get from it to its caller.

One sequence of rows a function. An inlined callee's instructions carry the callee's own lines.
"""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.frames import WORD, Frame, frames
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
# external, name, low and high address, frame base
FUNCTION_ATTRIBUTES: Final = {0x3F: PRESENT, 0x03: STRING, 0x11: ADDRESS, 0x12: DATA8, 0x40: EXPRESSION}
# call frame information
ADVANCE4, UNDEFINED, DEF_CFA, DEF_CFA_OFFSET, NOP = 0x04, 0x07, 0x0C, 0x0E, 0x00
OFFSET, RESTORE = 0x80, 0xC0
RETURN_ADDRESS: Final = 16
STACK_POINTER: Final = 7
NUMBERS: Final = {"rbx": 3, "rbp": 6, "r12": 12, "r13": 13, "r14": 14, "r15": 15}  # System V ABI, figure 3.36
COMMON: Final = 0xFFFFFFFF  # identifies a common information entry


def debug_sections(linked: Linked) -> list[tuple[str, bytes]]:
    """The sections that a debugger reads."""
    return [
        (".debug_line", _line_table(linked)),
        (".debug_abbrev", _abbreviations()),
        (".debug_info", _information(linked)),
        (".debug_frame", _frame_section(linked)),
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
    return _sized(body)


def _line_table(linked: Linked) -> bytes:
    files: dict[str, int] = {}
    for _, (file, _) in linked.places():
        files.setdefault(file, len(files) + 1)
    names = b"".join(name.encode() + b"\0\0\0\0" for name in files)
    header = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + STANDARD_LENGTHS + b"\0" + names + b"\0"
    program = b"".join(_sequence(steps, files) for steps in linked.functions.values())
    return _sized(struct.pack("<H", 4) + _sized(header) + program)


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


def _frame_section(linked: Linked) -> bytes:
    """One common entry, then one entry a function. A function that sets its own stack has no caller from there on."""
    entry_rules = bytes((DEF_CFA, STACK_POINTER, WORD, OFFSET | RETURN_ADDRESS, 1))
    common = struct.pack("<IBBBB", COMMON, 4, 0, 8, 0) + unsigned(1) + signed(-WORD) + unsigned(RETURN_ADDRESS)
    out = _entry(common + entry_rules)
    for name, steps in linked.functions.items():
        symbol = linked.symbols[name]
        known = frames(steps)
        rules = _rules(symbol.address, [(step.address, known.get(step.address, Frame(None))) for step in steps])
        out += _entry(struct.pack("<IQQ", 0, symbol.address, symbol.size) + rules)
    return out


def _entry(content: bytes) -> bytes:
    """A length, the content, and padding to whole words."""
    return _sized(content + bytes(-(len(content) + 4) % WORD))


def _rules(start: int, rows: list[tuple[int, Frame]]) -> bytes:
    """The changes of rule from one instruction to the next."""
    out = bytearray()
    before, place = Frame(), start
    for address, frame in rows:
        change = _change(before, frame)
        if change:
            if address != place:
                out += bytes((ADVANCE4,)) + struct.pack("<I", address - place)
            out += change
            before, place = frame, address
    return bytes(out)


def _change(before: Frame, after: Frame) -> bytes:
    if after == before:
        return b""
    out = bytearray()
    if after.depth is None:
        out += bytes((UNDEFINED, RETURN_ADDRESS))
    elif before.depth is None:
        out += bytes((DEF_CFA, STACK_POINTER)) + unsigned(after.depth) + bytes((OFFSET | RETURN_ADDRESS, 1))
    elif after.depth != before.depth:
        out += bytes((DEF_CFA_OFFSET,)) + unsigned(after.depth)
    for name, distance in after.saved:
        if (name, distance) not in before.saved:
            out += bytes((OFFSET | NUMBERS[name],)) + unsigned(distance // WORD)
    for name, _ in before.saved:
        if all(name != other for other, _ in after.saved):
            out += bytes((RESTORE | NUMBERS[name],))
    return bytes(out)


def _sized(content: bytes) -> bytes:
    """A length in 32 bits, and the content."""
    return struct.pack("<I", len(content)) + content


def unsigned(value: int) -> bytes:
    """ULEB128: seven bits a byte, the lowest first; the top bit says that more follow."""
    low, rest = value & 0x7F, value >> 7
    return bytes((low | 0x80,)) + unsigned(rest) if rest else bytes((low,))


def signed(value: int) -> bytes:
    """SLEB128: the same, and the last byte's bit 6 is the sign."""
    low, rest = value & 0x7F, value >> 7
    return bytes((low,)) if rest == -(low >> 6) else bytes((low | 0x80,)) + signed(rest)
