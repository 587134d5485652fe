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
WRITE, ALLOC, EXECUTE = 1, 2, 4
LOAD: Final = 1
PLAIN: Final = (0, 0, 0)
SEGMENTS: Final = {".text": 5, ".rodata": 4, ".bss": 6}  # R+X, R, R+W
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
    image, base, text_end, names = linked.image, linked.base, linked.text_end, bytearray(1)
    symbols, strings = _symbol_table(linked)
    rows: list[tuple[str, int, int, int, bytes | bytearray, int, tuple[int, int, int]]] = [
        # name, kind, flags, address, content, size if it is not the content's, (section referred to, first global symbol, size of an entry)
        (".text", PROGBITS, ALLOC | EXECUTE, base, image[:text_end], 0, PLAIN),
        (".rodata", PROGBITS, ALLOC, base + text_end, image[text_end:], 0, PLAIN),
        (".bss", NOBITS, ALLOC | WRITE, base + len(image), b"", linked.memory_size - len(image), PLAIN),
        (".symtab", SYMTAB, 0, 0, symbols, 0, (5, 1, SYMBOL.size)),
        (".strtab", STRTAB, 0, 0, strings, 0, PLAIN),
        *((name, PROGBITS, 0, 0, content, 0, PLAIN) for name, content in debug_sections(linked)),
        (".shstrtab", STRTAB, 0, 0, names, 0, PLAIN),
    ]
    out = bytearray(HEADER.size + PROGRAM.size * len(SEGMENTS))
    programs, headers = b"", [bytes(SECTION.size)]
    for name, kind, flags, address, content, given, (link, first, each) in rows:
        own, align = add_string(names, name), 4096 if flags else 8
        size = given or len(content)
        out += bytes(-len(out) % align)
        if flags:
            programs += PROGRAM.pack(LOAD, SEGMENTS[name], len(out), address, address, len(content), size, align)
        headers.append(SECTION.pack(own, kind, flags, address, len(out), size, link, first, align, each))
        out += content
    out += bytes(-len(out) % 8)
    table, count = len(out), len(headers)
    out += b"".join(headers)
    out[: HEADER.size] = HEADER.pack(
        IDENTITY, 2, 62, 1, entry, HEADER.size, table, 0, HEADER.size, PROGRAM.size, len(SEGMENTS), SECTION.size, count, count - 1,
    )  # fmt: skip
    out[HEADER.size : HEADER.size + len(programs)] = programs
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
