"""DWARF 4 call frame information (.debug_frame): how to get from any instruction to its caller, for a debugger's backtrace."""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.frames import WORD, Frame, frames
from dsl.compiler.leb128 import signed, unsigned
from dsl.compiler.link import Linked

ADVANCE4, UNDEFINED, DEF_CFA, DEF_CFA_OFFSET, NOP = 0x04, 0x07, 0x0C, 0x0E, 0x00
OFFSET, RESTORE = 0x80, 0xC0
RETURN_ADDRESS: Final = 16
STACK_POINTER: Final = 7
NUMBERS: Final = {"rbx": 3, "rbp": 6, "r12": 12, "r13": 13, "r14": 14, "r15": 15}  # System V ABI, figure 3.36
COMMON: Final = 0xFFFFFFFF  # identifies a common information entry


def frame_section(linked: Linked) -> bytes:
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
    padded = content + bytes(-(len(content) + 4) % WORD)
    return struct.pack("<I", len(padded)) + padded


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
