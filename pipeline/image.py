"""The signed Terrane partition: header, entries, release chain (docs/formats.md, "Terrane partition")."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from boot import header as layout
from dsl.hw import x86
from pipeline import evidence, layouts
from pipeline.disk import ImageError
from pipeline.keys import Keys

ENTRIES_OFFSET = 64
PAGE = x86.PAGE_SIZE


@dataclass(frozen=True)
class Entry:
    """Bytes that go into the partition."""

    kind: layout.EntryKind
    data: bytes
    name: str  # for reports alone


@dataclass(frozen=True)
class PlacedEntry:
    """An entry in its place, and its signed row."""

    entry: Entry
    offset: int
    row: bytes


@dataclass(frozen=True)
class Partition:
    """A whole signed partition."""

    data: bytes
    entries: tuple[PlacedEntry, ...]

    def rows(self, kind: layout.EntryKind) -> list[PlacedEntry]:
        """The entries of a kind, in image order."""
        return [placed for placed in self.entries if placed.entry.kind is kind]


def kind_number(kind: layout.EntryKind) -> int:
    """The number of a kind."""
    return layouts.plain_number(kind.value)


def collect_entries(
    monitor: bytes,
    descriptors: list[tuple[str, bytes]],
    segments: list[bytes],
    chain: list[bytes],
    secret: bytes | None,
    approvals: bytes,
) -> list[Entry]:
    """All entries, in order of kind; equal segments once."""
    entries = [Entry(layout.EntryKind.MONITOR, monitor, "monitor")]
    entries += [Entry(layout.EntryKind.DESCRIPTOR, data, name) for name, data in descriptors]
    entries += [Entry(layout.EntryKind.SEGMENT, data, "segment") for data in dict.fromkeys(segments)]
    bundle = evidence.pack([evidence.Item(evidence.Kind.RELEASE, link) for link in chain])
    entries.append(Entry(layout.EntryKind.RELEASE_CHAIN, bundle, "release chain"))
    if secret is not None:
        entries.append(Entry(layout.EntryKind.DEVELOPMENT_SECRET, secret, "development secret"))
    entries.append(Entry(layout.EntryKind.APPROVALS, approvals, "approvals"))
    return entries


def place_entries(entries: list[Entry], security_version: int) -> list[PlacedEntry]:
    """Give each entry its page-aligned offset and its row. Raises ImageError where the header has too few rows."""
    if len(entries) > layout.ENTRY_CAPACITY:
        raise ImageError(f"image: expected at most {layout.ENTRY_CAPACITY} entries, found {len(entries)}")
    placed, offset = [], layout.HEADER_SIZE
    for entry in entries:
        values: dict[str, Any] = {
            "kind": kind_number(entry.kind),
            "security_version": security_version,
            "offset": offset,
            "size": len(entry.data),
            "digest": hashlib.sha256(entry.data).digest(),
        }
        placed.append(PlacedEntry(entry, offset, layouts.pack(layout.Entry, values)))
        offset += -(-len(entry.data) // PAGE) * PAGE
    return placed


def build_partition(entries: list[Entry], security_version: int, flags: int, keys: Keys) -> Partition:
    """Lay out the entries and sign the header. `flags`: of boot.header."""
    placed = place_entries(entries, security_version)
    last = placed[-1]
    size = last.offset + len(last.entry.data)
    header = bytearray(
        layouts.pack(
            layout.ImageHeader,
            {
                "magic": layout.HEADER_MAGIC,
                "version": layout.HEADER_VERSION,
                "header_size": layout.HEADER_SIZE,
                "entry_count": len(placed),
                "flags": flags,
                "security_version": security_version,
                "image_size": size,
            },
        )
    )
    rows = b"".join(item.row for item in placed)
    header[ENTRIES_OFFSET : ENTRIES_OFFSET + len(rows)] = rows
    header[layout.SIGNATURE_OFFSET :] = keys.header.sign(bytes(header[: layout.SIGNATURE_OFFSET]))
    data = bytearray(size)
    data[: len(header)] = header
    for item in placed:
        data[item.offset : item.offset + len(item.entry.data)] = item.entry.data
    return Partition(bytes(data), tuple(placed))


def read_release_chain(partition: bytes) -> list[bytes]:
    """The release chain out of a partition's bytes, DER, root first; nothing is verified here. Empty if there is none."""
    if len(partition) < layout.HEADER_SIZE:
        raise ImageError(f"Terrane partition: expected a header of {layout.HEADER_SIZE} bytes, found {len(partition)}")
    header = layouts.unpack(layout.ImageHeader, partition)
    if header["magic"] != layout.HEADER_MAGIC:
        raise ImageError(f"Terrane partition: expected the magic {layout.HEADER_MAGIC:#x}, found {header['magic']:#x}")
    for row in header["entries"][: header["entry_count"]]:
        if row["kind"] == kind_number(layout.EntryKind.RELEASE_CHAIN):
            bundle = partition[row["offset"] : row["offset"] + row["size"]]
            return [item.data for item in evidence.parse(bundle) if item.kind is evidence.Kind.RELEASE]
    return []
