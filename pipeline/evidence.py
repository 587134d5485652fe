"""The evidence bundle: a list of typed items (docs/formats.md, "Evidence bundle"). Also the form of the image's release chain."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from pipeline.errors import PipelineError, UsageError

MAGIC = b"TRNEVID1"
VERSION = 1
ITEM_LIMIT = 64
SIZE_LIMIT = 1 << 20  # bytes of a whole bundle


class Kind(IntEnum):
    """What an item is: 1 to 5 and 10 are DER X.509, 7, 8 and 11 TPM structures (docs/evidence.md)."""

    DEVICE = 1
    MONITOR = 2
    BOX = 3
    ENDORSEMENT = 4
    RELEASE = 5
    WITNESS_DATA = 6
    QUOTE = 7
    QUOTE_SIGNATURE = 8
    EVENT_LOG = 9
    DEVICE_CERTIFICATE = 10
    ATTESTATION_KEY = 11

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return self.name.lower().replace("_", " ")


class EvidenceError(PipelineError):
    """Bytes that are no evidence bundle."""


@dataclass(frozen=True)
class Item:
    """One item of a bundle."""

    kind: Kind
    data: bytes


def pack(items: list[Item]) -> bytes:
    """The bytes of a bundle."""
    body = b"".join(struct.pack("<II", item.kind, len(item.data)) + item.data for item in items)
    return MAGIC + struct.pack("<II", VERSION, len(items)) + body


def parse(data: bytes) -> list[Item]:
    """The items of a bundle. Raises EvidenceError saying at which byte what was expected and found."""
    if data[:8] != MAGIC:
        raise EvidenceError(f"evidence: expected the magic {MAGIC!r}, found {data[:8]!r}")
    if len(data) < 16:
        raise EvidenceError(f"evidence: expected a head of 16 bytes, found {len(data)}")
    if len(data) > SIZE_LIMIT:
        raise EvidenceError(f"evidence: expected at most {SIZE_LIMIT} bytes, found {len(data)}")
    version, count = struct.unpack_from("<II", data, 8)
    if version != VERSION:
        raise EvidenceError(f"evidence: expected version {VERSION}, found {version}")
    if count > ITEM_LIMIT:
        raise EvidenceError(f"evidence: expected at most {ITEM_LIMIT} items, found {count}")
    items, offset = [], 16
    for index in range(count):
        if len(data) < offset + 8:
            raise EvidenceError(
                f"evidence: item {index} at byte {offset}: expected 8 bytes of head, found {len(data) - offset}"
            )
        kind, size = struct.unpack_from("<II", data, offset)
        offset += 8
        if kind not in set(Kind):
            raise EvidenceError(
                f"evidence: item {index} at byte {offset - 8}: expected a kind from 1 to {max(Kind)}, found {kind}"
            )
        if len(data) < offset + size:
            raise EvidenceError(
                f"evidence: item {index} at byte {offset}: expected {size} bytes, found {len(data) - offset}"
            )
        items.append(Item(Kind(kind), data[offset : offset + size]))
        offset += size
    if offset != len(data):
        raise EvidenceError(f"evidence: expected the end at byte {offset}, found {len(data) - offset} bytes more")
    return items


def load(path: Path) -> bytes:
    """The bundle in a file. Raises UsageError for a file that cannot be read, EvidenceError for one that holds none; both name it."""
    try:
        bundle = from_text_or_bytes(path.read_bytes())
        parse(bundle)
    except OSError as error:
        raise UsageError(f"{path}: expected an evidence file, cannot read it: {error.strerror}") from None
    except EvidenceError as error:
        raise EvidenceError(f"{path}: {error}") from None
    return bundle


def from_text_or_bytes(data: bytes) -> bytes:
    """A bundle from a file: as it is, or hex digits in lines as a box prints them. Raises EvidenceError."""
    if data[:8] == MAGIC:
        return data
    try:
        text = b"".join(data.split()).decode("ascii")
        return bytes.fromhex(text)
    except ValueError:
        raise EvidenceError(f"evidence: expected the magic {MAGIC!r} or hex digits, found {data[:8]!r}") from None
