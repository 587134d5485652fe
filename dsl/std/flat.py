"""The flat program's first 64 bytes (docs/formats.md, "Flat program"): what a loader needs to place and enter it."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, u8, u32, u64

FLAT_MAGIC: Final = int.from_bytes(b"TRNFLAT1", "little")
PROLOGUE_SIZE: Final = 64


class FlatPrologue(Struct, size=64, align=8):
    """Written by the linker. Offsets and sizes in bytes from the base; the three ends are multiples of 4096."""

    magic: u64
    entry: u32  # offset of the first instruction, inside text
    text_end: u32
    read_only_end: u32
    data_end: u32  # the size of the file
    memory_size: u32  # with BSS
    reserved: u32
    base: u64  # the linked address
    reserved_tail: Array[u8] = array(24)
