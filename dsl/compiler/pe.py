"""PE32+: a linked program as an EFI application (UEFI 2.10, 2.1.1; Microsoft PE format), for firmware to load anywhere.

The headers fill the first page, the flat program follows: what lies at an offset in the file lies there in memory too. Code is relative
to RIP, so nothing needs relocation; ImageBase is where the program was linked, less that page. No section is writable and executable.
"""

from __future__ import annotations

import struct
from typing import Final

from dsl.compiler.link import PAGE, Linked, LinkError

DOS: Final = struct.Struct("<2s58xI")  # signature, offset of the PE header
FILE: Final = struct.Struct("<4sHHIIIHH")
OPTIONAL: Final = struct.Struct("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII")
SECTION: Final = struct.Struct("<8sIIIIIIHHI")
DIRECTORIES: Final = 16  # all empty
OPTIONAL_SIZE: Final = OPTIONAL.size + 8 * DIRECTORIES
HEADER_SIZE: Final = PAGE
BASE_ALIGNMENT: Final = 0x10000  # of ImageBase
AMD64: Final = 0x8664
EXECUTABLE_LARGE_ADDRESS: Final = 0x22
PE32_PLUS: Final = 0x20B
EFI_APPLICATION: Final = 10
NX_COMPATIBLE: Final = 0x160  # with DYNAMIC_BASE and HIGH_ENTROPY_VA: it runs anywhere, and under W^X
CODE, DATA, ZEROED = 0x20, 0x40, 0x80
EXECUTE, READ, WRITE = 0x20000000, 0x40000000, 0x80000000
CHECKSUM_OFFSET: Final = DOS.size + FILE.size + 64


def write_pe(linked: Linked, entry: int) -> bytes:
    """The file. `entry`: the address of the first instruction. Raises LinkError for a base that no PE can have."""
    base = linked.base - HEADER_SIZE
    if base <= 0 or base % BASE_ALIGNMENT:
        raise LinkError(f"PE: expected a base of a multiple of {BASE_ALIGNMENT:#x} plus a page, found {linked.base:#x}")
    image, text_end = linked.image, linked.text_end
    sections = [  # name, address relative to ImageBase, bytes in memory, bytes in the file, flags
        (b".text", HEADER_SIZE, text_end, image[:text_end], CODE | EXECUTE | READ),
        (b".rdata", HEADER_SIZE + text_end, len(image) - text_end, image[text_end:], DATA | READ),
        (b".bss", HEADER_SIZE + len(image), linked.memory_size - len(image), b"", ZEROED | READ | WRITE),
    ]
    sections = [section for section in sections if section[2]]  # a flat program has no other data
    end = HEADER_SIZE + -(-linked.memory_size // PAGE) * PAGE
    out = bytearray(DOS.pack(b"MZ", DOS.size))
    out += FILE.pack(b"PE\0\0", AMD64, len(sections), 0, 0, 0, OPTIONAL_SIZE, EXECUTABLE_LARGE_ADDRESS)
    sizes = [sum(memory for _, _, memory, _, flags in sections if flags & kind) for kind in (CODE, DATA, ZEROED)]
    out += OPTIONAL.pack(
        PE32_PLUS, 0, 0, *sizes, entry - base, HEADER_SIZE, base, PAGE, PAGE, 0, 0, 0, 0, 0, 0, 0, end, HEADER_SIZE, 0,
        EFI_APPLICATION, NX_COMPATIBLE, 0, 0, 0, 0, 0, DIRECTORIES,
    )  # fmt: skip
    out += bytes(8 * DIRECTORIES)
    for name, address, memory, content, flags in sections:
        out += SECTION.pack(name, memory, address, len(content), address if content else 0, 0, 0, 0, 0, flags)
    out = out.ljust(HEADER_SIZE, b"\0") + image
    out[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = checksum(out).to_bytes(4, "little")
    return bytes(out)


def checksum(file: bytes | bytearray) -> int:
    """The checksum of a PE whose own field is zero: 16-bit words added with their carries, then the file's size."""
    total: int = sum(struct.unpack(f"<{len(file) // 2}H", bytes(file[: len(file) // 2 * 2])))
    if len(file) % 2:
        total += file[-1]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(file)
