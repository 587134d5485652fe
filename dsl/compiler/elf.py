"""ELF: the linked image with symbols, a DWARF line table and call frames that point at the Python source, for gdb and addr2line."""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.dwarf import debug_sections
from dsl.compiler.link import Linked

HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM: Final = struct.Struct("<IIQQQQQQ")
SECTION: Final = struct.Struct("<IIQQQQIIQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
IDENTITY: Final = b"\x7fELF\x02\x01\x01" + bytes(9)
PROGBITS, SYMTAB, STRTAB, NOBITS = 1, 2, 3, 8
ALLOC, EXECUTE = 2, 4
LOAD: Final = 1
FLAGS: Final = {"text": 5, "rodata": 4, "bss": 6}  # of segments: R+X, R, R+W
SYMBOL_TYPES: Final = {
    "function": 0x12,
    "constant": 0x11,
    "object": 0x11,
    "linker": 0x10,
}  # global function, object, none


def add_string(table: bytearray, text: str) -> int:
    """Append to a string table; the text's offset."""
    table += text.encode() + b"\0"
    return len(table) - len(text.encode()) - 1


def write_elf(linked: Linked, entry: int) -> bytes:
    """An executable ELF file: the image as .text, .rodata and .bss at their addresses, symbols, line table, call frames."""
    image, base = linked.image, linked.base
    names = bytearray(1)
    sections = [
        ("text", PROGBITS, ALLOC | EXECUTE, base, image[: linked.text_end], 0),
        ("rodata", PROGBITS, ALLOC, base + linked.text_end, image[linked.text_end :], 0),
        ("bss", NOBITS, ALLOC | 1, base + len(image), b"", linked.memory_size - len(image)),
    ]
    symbols, strings = _symbol_table(linked)
    out = bytearray(HEADER.size + PROGRAM.size * len(sections))
    programs, headers = [], [SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for name, kind, flags, address, content, empty in sections:
        out += bytes(-len(out) % 4096)
        size = empty or len(content)
        programs.append(PROGRAM.pack(LOAD, FLAGS[name], len(out), address, address, len(content), size, 4096))
        headers.append(SECTION.pack(add_string(names, f".{name}"), kind, flags, address, len(out), size, 0, 0, 4096, 0))
        out += content
    first_global = 1
    for name, kind, content, link_to, info, entry_size in (
        (".symtab", SYMTAB, symbols, len(headers) + 1, first_global, SYMBOL.size),
        (".strtab", STRTAB, bytes(strings), 0, 0, 0),
        *((name, PROGBITS, content, 0, 0, 0) for name, content in debug_sections(linked)),
    ):
        out += bytes(-len(out) % 8)
        headers.append(
            SECTION.pack(add_string(names, name), kind, 0, 0, len(out), len(content), link_to, info, 8, entry_size)
        )
        out += content
    own = add_string(names, ".shstrtab")
    headers.append(SECTION.pack(own, STRTAB, 0, 0, len(out), len(names), 0, 0, 1, 0))
    out += names
    out += bytes(-len(out) % 8)
    table = len(out)
    out += b"".join(headers)
    HEADER.pack_into(
        out, 0, IDENTITY, 2, 62, 1, entry, HEADER.size, table, 0, HEADER.size, PROGRAM.size, len(programs), SECTION.size, len(headers),
        len(headers) - 1,
    )  # fmt: skip
    out[HEADER.size : HEADER.size + PROGRAM.size * len(programs)] = b"".join(programs)
    return bytes(out)


def _symbol_table(linked: Linked) -> tuple[bytes, bytearray]:
    strings = bytearray(1)
    rows = [SYMBOL.pack(0, 0, 0, 0, 0, 0)]
    for name, symbol in sorted(linked.symbols.items(), key=lambda item: (item[1].address, item[0])):
        offset = symbol.address - linked.base
        index = 1 if offset < linked.text_end else 2 if offset < len(linked.image) else 3
        rows.append(
            SYMBOL.pack(add_string(strings, name), SYMBOL_TYPES[symbol.kind], 0, index, symbol.address, symbol.size)
        )
    return b"".join(rows), strings
