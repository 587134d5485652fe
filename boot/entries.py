"""Each entry of the image: copied to its final place, the copy hashed and compared with the signed header, then noted in the handoff."""

from __future__ import annotations

from typing import Final

from boot.approvals import ApprovalTable
from boot.handoff import Handoff
from boot.header import SECRET_SIZE, Entry, EntryKind, ImageHeader
from boot.image import check_prologue, is_intact
from boot.monitor_space import LARGE_PAGE_SIZE, MonitorPlace
from boot.output import begin_line, put_line, put_piece, require, stop_here
from boot.places import allocate
from boot.refusal import Rule
from boot.tpm import measure_entry
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import (
    Array,
    HostPhysical,
    HostVirtual,
    address_of,
    array_at,
    erase,
    machine,
    size_of,
    static,
    static_array,
    table,
    text,
    u8,
    u64,
    upto,
)
from dsl.std.flat import PROLOGUE_SIZE, FlatPrologue
from dsl.std.print import append_decimal, append_hexadecimal, append_hexadecimal_bytes, append_padded_text, append_text

NAME_SIZE: Final = 24
KIND_NAMES: Final = table(
    u8,
    b"".join(
        name.ljust(NAME_SIZE, b"\0")
        for name in (b"", *(kind.name.lower().replace("_", " ").encode() for kind in EntryKind))
    ),
)

SECRET: Final = static_array(u8, SECRET_SIZE)  # the device secret, until it is erased
APPROVALS: Final = static(ApprovalTable)
DIGEST: Final = static_array(u8, 32)


@machine
def require_intact(data: Array[u8], entry: Entry, row: u64) -> None:
    """Return if the bytes are what the header says; otherwise name the entry, its place, both hashes, and stop."""
    if is_intact(data, entry, DIGEST):
        return
    line = begin_line()
    append_text(line, text("refused: "))
    append_padded_text(line, KIND_NAMES.slice(u64(entry.kind) * NAME_SIZE, u64(NAME_SIZE)))
    append_text(line, text(": entry "))
    append_decimal(line, row)
    append_text(line, text(", partition bytes "))
    append_hexadecimal(line, entry.offset)
    append_text(line, text(" to "))
    append_hexadecimal(line, entry.offset + entry.size - 1)
    put_piece()
    append_text(line, text(": expected SHA-256 "))
    append_hexadecimal_bytes(line, entry.digest)
    append_text(line, text(", found "))
    append_hexadecimal_bytes(line, DIGEST)
    put_line()
    stop_here()


@machine
def staged_bytes(staging: HostVirtual, entry: Entry) -> Array[u8]:
    """An entry's bytes as they were read."""
    # Safe because the header was checked: the entry lies inside what was read.
    return array_at(u8, staging + entry.offset, entry.size)


@machine
def copy_entry(place: HostVirtual, staging: HostVirtual, entry: Entry, row: u64) -> None:
    """Copy an entry's bytes to their final place and require that the copy is intact."""
    # Safe because `place` was allocated for this entry, or is SECRET, whose size the header was checked for.
    copy = array_at(u8, place, entry.size)
    copy.copy_from(staged_bytes(staging, entry))
    require_intact(copy, entry, row)


@machine
def load_monitor(monitor: MonitorPlace, staging: HostVirtual, entry: Entry, row: u64) -> HostVirtual:
    """Place the monitor, with memory for its BSS, zeroed; set `monitor` to where it lies.

    How much memory it needs stands in its first bytes, so they too are hashed where they were read, before they are looked at: once, in a
    copy of their own, which must be what the hashed copy begins with.
    """
    staged = staged_bytes(staging, entry)
    require_intact(staged, entry, row)
    program = FlatPrologue()
    # Safe because entries begin in pages of their own, and whole sectors were read: as many bytes are there.
    program.copy_from(FlatPrologue.at(address_of(staged)))
    require(check_prologue(program, entry.size))
    monitor.text_end = u64(program.text_end)
    monitor.read_only_end = u64(program.read_only_end)
    monitor.memory_size = (u64(program.memory_size) + (LARGE_PAGE_SIZE - 1)) & ~u64(LARGE_PAGE_SIZE - 1)
    place = allocate(monitor.memory_size, u64(LARGE_PAGE_SIZE), Rule.MEMORY_MONITOR, row)
    monitor.physical = place.as_u64()
    copy_entry(place, staging, entry, row)
    # Safe because both are at least that long.
    seen = array_at(u8, address_of(program), u64(PROLOGUE_SIZE))
    assert array_at(u8, place, u64(PROLOGUE_SIZE)).equals(seen), "the monitor changed while it was read"
    # Safe because the rest of what was allocated is the monitor's BSS and padding.
    array_at(u8, place + entry.size, monitor.memory_size - entry.size).fill(u8(0))
    return place


@machine
def note_entry(handoff: Handoff, entry: Entry, place: HostVirtual) -> None:
    """Append an entry to the handoff's list."""
    loaded = handoff.entries[u64(handoff.entry_count)]
    loaded.kind = entry.kind
    loaded.physical = HostPhysical(place.as_u64())
    loaded.size = entry.size
    loaded.digest.copy_from(entry.digest)
    # Safe because an Entry is exactly these bytes.
    loaded.row.copy_from(array_at(u8, address_of(entry), u64(size_of(Entry))))
    handoff.entry_count += 1


@machine
def load_entries(handoff: Handoff, header: ImageHeader, staging: HostVirtual, monitor: MonitorPlace) -> None:
    """Place and measure all entries of a checked header. The development secret goes to SECRET, and is erased where it was read."""
    for row in upto(u64(header.entry_count)):
        entry = header.entries[row]
        if entry.kind == EntryKind.DEVELOPMENT_SECRET.value:
            copy_entry(address_of(SECRET), staging, entry, row)
            erase(staged_bytes(staging, entry))
        elif entry.kind == EntryKind.APPROVALS.value:
            copy_entry(address_of(APPROVALS), staging, entry, row)
        elif entry.kind == EntryKind.MONITOR.value:
            note_entry(handoff, entry, load_monitor(monitor, staging, entry, row))
        else:
            place = allocate(entry.size, u64(PAGE_SIZE), Rule.MEMORY_ENTRY, row)
            copy_entry(place, staging, entry, row)
            note_entry(handoff, entry, place)
        measure_entry(handoff, entry)
