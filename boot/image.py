"""Taking an image apart: its signature, then each entry copied to where it stays, the copy hashed, compared, and only then used."""

from __future__ import annotations

from typing import Final

from boot.handoff import MONITOR_BASE, MONITOR_SPAN
from boot.header import SIGNATURE_OFFSET, Entry, ImageHeader, first_nonzero
from boot.refusal import Refusal, Rule, good
from dsl.lang import Array, address_of, array_at, machine, offset_of, u8, u64
from dsl.std.ed25519 import ed25519_verify
from dsl.std.flat import FLAT_MAGIC, PROLOGUE_SIZE, FlatPrologue
from dsl.std.sha256_bulk import sha256_bulk

PAGE_MASK: Final = 4095


@machine
def check_signature(header: ImageHeader, key: Array[u8]) -> Refusal:
    """Check that the key signed the header, all of it but the signature. To be asked before any field is believed."""
    # Safe because the view is the beginning of the header itself.
    signed = array_at(u8, address_of(header), u64(SIGNATURE_OFFSET))
    if ed25519_verify(key, signed, header.signature):
        return good()
    return Refusal(Rule.HEADER_SIGNATURE, u64(0), u64(0), u64(0))


@machine
def is_intact(data: Array[u8], entry: Entry, found: Array[u8]) -> bool:
    """Hash an entry's bytes into `found` (32 bytes), and say whether the hash is the one that the header gives."""
    sha256_bulk(found, data)
    return found.equals(entry.digest)


@machine
def check_prologue(program: FlatPrologue, size: u64) -> Refusal:
    """Check that the monitor, whose bytes are known to be good, is a flat program of `size` bytes for this address space."""
    if size < PROLOGUE_SIZE or program.magic != FLAT_MAGIC:
        return Refusal(Rule.PROLOGUE_MAGIC, u64(0), u64(FLAT_MAGIC), program.magic)
    if program.base != MONITOR_BASE:
        return Refusal(Rule.PROLOGUE_BASE, u64(0), u64(MONITOR_BASE), program.base)
    if u64(program.data_end) != size:
        return Refusal(Rule.PROLOGUE_DATA, u64(0), size, u64(program.data_end))
    if u64(program.memory_size) < size or program.memory_size > MONITOR_SPAN:
        return Refusal(Rule.PROLOGUE_MEMORY, u64(0), size, u64(program.memory_size))
    if program.read_only_end > program.data_end or program.read_only_end & PAGE_MASK != 0:
        return Refusal(Rule.PROLOGUE_READ_ONLY, u64(0), u64(program.data_end), u64(program.read_only_end))
    if program.text_end > program.read_only_end or program.text_end & PAGE_MASK != 0:
        return Refusal(Rule.PROLOGUE_TEXT, u64(0), u64(program.read_only_end), u64(program.text_end))
    if program.entry < PROLOGUE_SIZE or program.entry >= program.text_end:
        return Refusal(Rule.PROLOGUE_ENTRY, u64(0), u64(program.text_end), u64(program.entry))
    stray = first_nonzero(program.reserved_tail)
    if program.reserved != 0 or stray != program.reserved_tail.length:
        return Refusal(Rule.PROLOGUE_RESERVED, u64(0), u64(0), stray + offset_of(FlatPrologue, "reserved_tail"))
    return good()
