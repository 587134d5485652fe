"""Lower a Linux bzImage to segments and registers (Documentation/arch/x86/boot.rst, 32-bit boot protocol).

No boot loader runs in the box: boot parameters, command line and seed are segments like any other.

    0x10000  boot_params (one page)
    0x11000  command line (up to a page)
    0x12000  setup_data: header, then 32 random bytes that the monitor fills in
    preferred address (16 MiB)  protected-mode kernel, with init_size bytes to unpack into
    end of memory  initramfs, at most 2 GiB - 1
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipeline.errors import PipelineError

BOOT_PARAMETERS = 0x10000
COMMAND_LINE = 0x11000
SETUP_DATA = 0x12000
SEED_SIZE = 32  # bytes
PAGE = 4096

MAGIC = b"HdrS"
OLDEST_PROTOCOL = 0x020A  # the first with pref_address and init_size
HEADER_START = 0x1F1
SETUP_RNG_SEED = 9
LOADER_UNDEFINED = 0xFF
LOADED_HIGH = 1

E820_ENTRIES_COUNT = 0x1E8
E820_TABLE = 0x2D0
E820_RAM, E820_RESERVED = 1, 2
LOW_MEMORY_END = 0x9FC00
HIGH_MEMORY = 0x100000


class KernelError(PipelineError):
    """A kernel that is no bzImage, or does not fit its box."""


@dataclass(frozen=True)
class Placed:
    """Bytes at a guest-physical address."""

    address: int
    data: bytes


@dataclass(frozen=True)
class LoweredKernel:
    """What a bzImage becomes: segments, where the seed goes, and the first instruction. rsi holds the boot parameters."""

    segments: tuple[Placed, ...]
    seed_address: int
    entry: int
    boot_parameters: int = BOOT_PARAMETERS


def field(kernel: bytes, offset: int, shape: str) -> int:
    """A field of the setup header."""
    value: int = struct.unpack_from("<" + shape, kernel, offset)[0]
    return value


def check_header(kernel: bytes, name: str) -> None:
    """Refuse what is no bzImage that we can start. Raises KernelError."""
    found = kernel[0x202:0x206]
    if found != MAGIC:
        raise KernelError(f"{name}: expected a bzImage with {MAGIC!r} at offset 0x202, found {found!r}")
    version = field(kernel, 0x206, "H")
    if version < OLDEST_PROTOCOL:
        raise KernelError(f"{name}: expected boot protocol {OLDEST_PROTOCOL:#x} or later, found {version:#x}")
    if not field(kernel, 0x211, "B") & LOADED_HIGH:
        raise KernelError(f"{name}: expected a bzImage that loads high (loadflags bit 0), found a zImage")


def lower(kernel: bytes, command_line: str, initramfs: bytes | None, memory: int, name: str) -> LoweredKernel:
    """Lower a kernel for a box of `memory` bytes. Raises KernelError naming what was expected and found."""
    check_header(kernel, name)
    setup_size = ((field(kernel, 0x1F1, "B") or 4) + 1) * 512
    code = kernel[setup_size : setup_size + field(kernel, 0x1F4, "I") * 16]
    if len(code) != field(kernel, 0x1F4, "I") * 16:
        raise KernelError(
            f"{name}: expected {field(kernel, 0x1F4, 'I') * 16} bytes of kernel, found {len(code)}: the file is cut short"
        )
    load = field(kernel, 0x258, "Q")
    end = load + max(field(kernel, 0x260, "I"), len(code))
    initramfs_address = memory
    segments = []
    if initramfs is not None:
        ceiling = min(memory, field(kernel, 0x22C, "I") + 1)
        initramfs_address = (ceiling - len(initramfs)) // PAGE * PAGE
        segments.append(Placed(initramfs_address, initramfs))
    if end > initramfs_address:
        size = len(initramfs or b"")
        raise KernelError(
            f"{name}: expected memory for the kernel up to {end:#x} and {size} bytes of initramfs, found {memory:#x} bytes"
        )
    line = command_line.encode("ascii", "strict") + b"\0"
    limit = min(field(kernel, 0x238, "I"), PAGE - 1)
    if len(line) - 1 > limit:
        raise KernelError(f"{name}: expected a command line of at most {limit} bytes, found {len(line) - 1}")
    page = boot_parameters(kernel, memory, load, initramfs_address, len(initramfs or b""))
    seed_header = struct.pack("<QII", 0, SETUP_RNG_SEED, SEED_SIZE)
    low = page + line.ljust(PAGE, b"\0") + seed_header
    segments = [Placed(BOOT_PARAMETERS, low), Placed(load, code), *segments]
    return LoweredKernel(tuple(segments), SETUP_DATA + len(seed_header), load)


def boot_parameters(kernel: bytes, memory: int, load: int, initramfs_address: int, initramfs_size: int) -> bytes:
    """The page of boot parameters: the kernel's own setup header, our fields in it, and the memory map."""
    page = bytearray(PAGE)
    header_end = 0x202 + kernel[0x201]
    page[HEADER_START:header_end] = kernel[HEADER_START:header_end]
    page[0x210] = LOADER_UNDEFINED
    struct.pack_into("<I", page, 0x214, load)
    struct.pack_into("<I", page, 0x228, COMMAND_LINE)
    struct.pack_into("<Q", page, 0x250, SETUP_DATA)
    if initramfs_size:
        struct.pack_into("<II", page, 0x218, initramfs_address, initramfs_size)
    table = memory_map(memory)
    page[E820_ENTRIES_COUNT] = len(table)
    for index, row in enumerate(table):
        struct.pack_into("<QQI", page, E820_TABLE + 20 * index, *row)
    return bytes(page)


def memory_map(memory: int) -> list[tuple[int, int, int]]:
    """(base, size, type): the legacy hole is reserved, though zero pages back it because kernels scan it for tables."""
    return [
        (0, LOW_MEMORY_END, E820_RAM),
        (LOW_MEMORY_END, HIGH_MEMORY - LOW_MEMORY_END, E820_RESERVED),
        (HIGH_MEMORY, memory - HIGH_MEMORY, E820_RAM),
    ]
