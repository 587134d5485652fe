"""Nothing of a flat program is writable and executable: what is code, constant and zeroed lies on pages of its own (docs/formats.md)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from pipeline.audit.code import Finding

PAGE: Final = 4096
HEADER: Final = struct.Struct("<8sIIIIIIQ")
PROGRAM: Final = struct.Struct("<IIQQQQQQ")
EXECUTE, WRITE = 1, 2


def check_sections(name: str, program: Any) -> list[Finding]:
    """The flat head, every symbol's place, and the ELF file's segments agree on what may be written and what may be run."""
    return [
        Finding("sections", f"{name}: {text}") for text in (*head_problems(program), *segment_problems(program.elf()))
    ]


def head_problems(program: Any) -> Iterator[str]:
    """The flat head's ends, and where the symbols lie between them."""
    _, entry, text_end, read_only_end, data_end, memory_size, _, base = HEADER.unpack_from(program.image)
    ends = (text_end, read_only_end, data_end, memory_size)
    if any(end % PAGE for end in ends) or sorted(ends) != list(ends) or base != program.base:
        yield f"expected ends in order, multiples of {PAGE}, from {program.base:#x}, found {[hex(end) for end in ends]} from {base:#x}"
    if not HEADER.size <= entry < text_end:
        yield f"expected the entry inside the text, found {entry:#x}"
    ranges = {"function": (0, text_end), "constant": (text_end, read_only_end), "object": (read_only_end, memory_size)}
    for symbol, (address, size, kind) in program.symbols.items():
        if kind in ranges:
            low, high = ranges[kind]
            if not low <= address - base <= address - base + size <= high:
                yield f"expected the {kind} {symbol} from {base + low:#x} to {base + high:#x}, found it at {address:#x}, {size} bytes"


def segment_problems(elf: bytes) -> Iterator[str]:
    """No segment is both, and no two share a page."""
    offset, count = struct.unpack_from("<Q", elf, 32)[0], struct.unpack_from("<H", elf, 56)[0]
    taken: dict[int, int] = {}
    for index in range(count):
        _, flags, _, address, _, _, size, _ = PROGRAM.unpack_from(elf, offset + index * PROGRAM.size)
        if flags & EXECUTE and flags & WRITE:
            yield f"expected no segment both writable and executable, found that of {address:#x}"
        for page in range(address // PAGE, -(-(address + size) // PAGE)):
            if page in taken and taken[page] != flags:
                yield f"expected page {page * PAGE:#x} with one set of rights, found two"
            taken[page] = flags
