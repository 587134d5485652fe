"""The image header: what the Terrane partition holds, signed (docs/formats.md, "Terrane partition"), and the rules it must obey.

`check_header` assumes nothing about the bytes but that their signature was good: a wrong signer's mistake is refused as well.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from boot.refusal import Refusal, Rule, good
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import Array, Struct, address_of, array, array_at, machine, offset_of, u8, u32, u64, upto

HEADER_MAGIC: Final = int.from_bytes(b"TERRANE1", "little")
HEADER_VERSION: Final = 1
HEADER_SIZE: Final = 8192
ENTRY_CAPACITY: Final = 120
ENTRY_SIZE: Final = 64
SIGNATURE_OFFSET: Final = 8128  # the signature covers the bytes before it
FLAG_DEBUG: Final = 1
FLAG_TPM_REQUIRED: Final = 2
FLAGS: Final = FLAG_DEBUG | FLAG_TPM_REQUIRED
DESCRIPTOR_SIZE: Final = 4096
SECRET_SIZE: Final = 32
APPROVALS_SIZE: Final = 4096


class EntryKind(Enum):
    """What an entry of the image is."""

    MONITOR = u32(1)
    DESCRIPTOR = u32(2)
    SEGMENT = u32(3)
    RELEASE_CHAIN = u32(4)
    DEVELOPMENT_SECRET = u32(5)
    APPROVALS = u32(6)


class Entry(Struct, size=64, align=8):
    """One row of the header: where an entry lies in the partition and what its bytes hash to."""

    kind: u32
    security_version: u32
    offset: u64  # from the partition's start; multiple of 4096
    size: u64  # bytes
    digest: Array[u8] = array(32)  # SHA-256
    reserved: u64


class ImageHeader(Struct, size=8192, align=4096):
    """The first 8192 bytes of the Terrane partition."""

    magic: u64
    version: u32
    header_size: u32
    entry_count: u32
    flags: u32
    security_version: u64
    image_size: u64  # bytes of the partition in use, this header included
    reserved: Array[u8] = array(24)
    entries: Array[Entry] = array(120)
    reserved_tail: Array[u8] = array(384)
    signature: Array[u8] = array(64)  # Ed25519


@machine
def first_nonzero(data: Array[u8]) -> u64:
    """The index of the first byte that is not zero; the length if all are zero."""
    for index in upto(data.length):
        if data[index] != 0:
            return index
    return data.length


@machine
def check_header(header: ImageHeader, staged: u64) -> Refusal:
    """Check every rule of the header and of its entries; `staged` is how many bytes of the partition were read."""
    refusal = check_fields(header, staged)
    if refusal.rule != Rule.GOOD:
        return refusal
    previous = u32(0)
    for row in upto(u64(header.entry_count), at_most=ENTRY_CAPACITY):
        entry = header.entries[row]
        refusal = check_entry(header, entry, row)
        if refusal.rule != Rule.GOOD:
            return refusal
        if entry.kind < previous:
            return Refusal(Rule.ENTRY_ORDER, row, u64(previous), u64(entry.kind))
        if entry.kind == previous and is_single(entry.kind):
            return Refusal(Rule.ENTRY_TWICE, row, u64(entry.kind), u64(2))
        previous = entry.kind
        other = overlapping_row(header, row)
        if other != row:
            return Refusal(Rule.ENTRY_OVERLAP, row, row, other)
    if header.entries[0].kind != EntryKind.MONITOR.value:
        return Refusal(Rule.MONITOR_MISSING, u64(0), u64(1), u64(0))
    return good()


@machine
def check_fields(header: ImageHeader, staged: u64) -> Refusal:
    """Check the header's own fields."""
    if header.magic != HEADER_MAGIC:
        return Refusal(Rule.HEADER_MAGIC, u64(0), u64(HEADER_MAGIC), header.magic)
    if header.version != HEADER_VERSION:
        return Refusal(Rule.HEADER_VERSION, u64(0), u64(HEADER_VERSION), u64(header.version))
    if header.header_size != HEADER_SIZE:
        return Refusal(Rule.HEADER_SIZE, u64(0), u64(HEADER_SIZE), u64(header.header_size))
    if header.entry_count == 0 or header.entry_count > ENTRY_CAPACITY:
        return Refusal(Rule.HEADER_COUNT, u64(0), u64(ENTRY_CAPACITY), u64(header.entry_count))
    if header.flags & ~u32(FLAGS) != 0:
        return Refusal(Rule.HEADER_FLAGS, u64(0), u64(FLAGS), u64(header.flags))
    if header.image_size > staged:
        return Refusal(Rule.HEADER_IMAGE_SIZE, u64(0), staged, header.image_size)
    stray = first_nonzero(header.reserved)
    if stray != header.reserved.length:
        return Refusal(Rule.HEADER_RESERVED, u64(0), u64(0), stray + offset_of(ImageHeader, "reserved"))
    # Safe because the view is the header itself, which is HEADER_SIZE bytes.
    after_entries = u64(header.entry_count) * ENTRY_SIZE + offset_of(ImageHeader, "entries")
    unused = array_at(u8, address_of(header) + after_entries, SIGNATURE_OFFSET - after_entries)
    stray = first_nonzero(unused)
    if stray != unused.length:
        return Refusal(Rule.HEADER_UNUSED, u64(0), u64(0), stray + after_entries)
    return good()


@machine
def check_entry(header: ImageHeader, entry: Entry, row: u64) -> Refusal:
    """Check what can be said of one entry alone."""
    if entry.kind == 0 or entry.kind > EntryKind.APPROVALS.value:
        return Refusal(Rule.ENTRY_KIND, row, u64(EntryKind.APPROVALS.value), u64(entry.kind))
    if entry.offset & (PAGE_SIZE - 1) != 0:
        return Refusal(Rule.ENTRY_ALIGNMENT, row, u64(PAGE_SIZE), entry.offset)
    if entry.offset < HEADER_SIZE:
        return Refusal(Rule.ENTRY_BEGIN, row, u64(HEADER_SIZE), entry.offset)
    if entry.size == 0:
        return Refusal(Rule.ENTRY_EMPTY, row, u64(1), entry.size)
    if entry.offset >= header.image_size:
        return Refusal(Rule.ENTRY_END, row, u64(0), entry.size)
    if entry.size > header.image_size - entry.offset:
        return Refusal(Rule.ENTRY_END, row, header.image_size - entry.offset, entry.size)
    if entry.reserved != 0:
        return Refusal(Rule.ENTRY_RESERVED, row, u64(0), entry.reserved)
    if entry.kind == EntryKind.DESCRIPTOR.value and entry.size != DESCRIPTOR_SIZE:
        return Refusal(Rule.DESCRIPTOR_SIZE, row, u64(DESCRIPTOR_SIZE), entry.size)
    if entry.kind == EntryKind.APPROVALS.value and entry.size != APPROVALS_SIZE:
        return Refusal(Rule.APPROVALS_SIZE, row, u64(APPROVALS_SIZE), entry.size)
    if entry.kind == EntryKind.DEVELOPMENT_SECRET.value:
        if entry.size != SECRET_SIZE:
            return Refusal(Rule.SECRET_SIZE, row, u64(SECRET_SIZE), entry.size)
        if header.flags & FLAG_DEBUG == 0:
            return Refusal(Rule.SECRET_NOT_DEBUG, row, u64(FLAG_DEBUG), u64(header.flags))
    return good()


@machine
def is_single(kind: u32) -> bool:
    """Whether an image has at most one entry of this kind."""
    return kind != EntryKind.DESCRIPTOR.value and kind != EntryKind.SEGMENT.value


@machine
def overlapping_row(header: ImageHeader, row: u64) -> u64:
    """The first earlier entry that shares a byte with this one; the row itself if there is none.

    Both were checked by check_entry: their ends do not wrap.
    """
    entry = header.entries[row]
    for other_row in upto(row, at_most=ENTRY_CAPACITY):
        other = header.entries[other_row]
        if entry.offset < other.offset + other.size and other.offset < entry.offset + entry.size:
            return other_row
    return row
