"""The event log of a measured boot (TCG PC Client Platform Firmware Profile 1.05, chapter 10), and its replay into PCR values."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from pipeline.errors import PipelineError

EV_NO_ACTION, EV_SEPARATOR, EV_EVENT_TAG, EV_IPL = 0x3, 0x4, 0x6, 0xD
EV_EFI_BOOT_SERVICES_APPLICATION: Final = 0x80000003
SHA256: Final = 0x000B
HASHES: Final = {0x0004: "sha1", SHA256: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
SIGNATURE: Final = b"Spec ID Event03\0"
STARTUP_LOCALITY: Final = b"StartupLocality\0"
EVENT_LIMIT: Final = 4096
BANK_LIMIT: Final = 8
PCRS: Final = 24

# Ours (docs/evidence.md): EV_EVENT_TAG's tags
TAG_HEADER, TAG_CONFIGURATION, TAG_CODE, TAG_END = 0x54520001, 0x54520002, 0x54520003, 0x54520004


class EventLogError(PipelineError):
    """Bytes that are no event log."""


@dataclass(frozen=True)
class Event:
    """One event. `digests`: by algorithm number."""

    pcr: int
    kind: int
    digests: dict[int, bytes]
    data: bytes

    def tagged(self) -> tuple[int, bytes] | None:
        """Tag and content of an EV_EVENT_TAG; None for other events, and for one whose size is not its content's."""
        if self.kind != EV_EVENT_TAG or len(self.data) < 8:
            return None
        tag, size = struct.unpack_from("<II", self.data)
        return (tag, self.data[8:]) if size == len(self.data) - 8 else None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def take(self, size: int) -> bytes:
        left = len(self.data) - self.offset
        if left < size:
            raise EventLogError(f"event log: expected {size} bytes at byte {self.offset}, found {left}")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


def parse(data: bytes) -> list[Event]:
    """The events after the first, which names the banks. Raises EventLogError saying at which byte what was expected and found."""
    reader = _Reader(data)
    sizes = parse_banks(reader)
    events: list[Event] = []
    while reader.offset < len(data):
        if len(events) == EVENT_LIMIT:
            raise EventLogError(f"event log: expected at most {EVENT_LIMIT} events, found more")
        start = reader.offset
        pcr, kind, count = reader.number(4), reader.number(4), reader.number(4)
        if kind != EV_NO_ACTION and pcr >= PCRS:
            raise EventLogError(f"event log: event at byte {start}: expected a PCR below {PCRS}, found {pcr}")
        if count != len(sizes):
            raise EventLogError(f"event log: event at byte {start}: expected {len(sizes)} digests, found {count}")
        digests: dict[int, bytes] = {}
        for _ in range(count):
            algorithm = reader.number(2)
            if algorithm not in sizes or algorithm in digests:
                raise EventLogError(
                    f"event log: event at byte {start}: expected one digest of each bank, found {algorithm:#x}"
                )
            digests[algorithm] = reader.take(sizes[algorithm])
        events.append(Event(pcr, kind, digests, reader.take(reader.number(4))))
    return events


def parse_banks(reader: _Reader) -> dict[int, int]:
    """The first event, a TCG_PCR_EVENT with a TCG_EfiSpecIdEvent: the banks and the size of their digests."""
    reader.take(4)
    kind = reader.number(4)
    reader.take(20)
    size = reader.number(4)
    inner = _Reader(reader.take(size))
    found = inner.take(16)
    if kind != EV_NO_ACTION or found != SIGNATURE:
        raise EventLogError(f"event log: expected a first event with {SIGNATURE!r}, found {found!r}")
    inner.take(8)
    count = inner.number(4)
    if not 1 <= count <= BANK_LIMIT:
        raise EventLogError(f"event log: expected 1 to {BANK_LIMIT} banks, found {count}")
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm = inner.number(2)
        sizes[algorithm] = inner.number(2)
    return sizes


def extend(value: bytes, digest: bytes, algorithm: int = SHA256) -> bytes:
    """A PCR after an extend."""
    return hashlib.new(HASHES[algorithm], value + digest).digest()


def replay(events: list[Event], algorithm: int = SHA256) -> dict[int, bytes]:
    """The PCRs of a bank after these events. Raises EventLogError for a log without that bank."""
    size = hashlib.new(HASHES[algorithm]).digest_size
    values = {index: (b"\xff" if 17 <= index <= 22 else b"\0") * size for index in range(PCRS)}
    for event in events:
        if event.kind == EV_NO_ACTION:
            if event.data.startswith(STARTUP_LOCALITY) and len(event.data) == len(STARTUP_LOCALITY) + 1:
                values[0] = bytes(size - 1) + event.data[-1:]
            continue
        if len(event.digests.get(algorithm, b"")) != size:
            raise EventLogError(f"event log: expected a {HASHES[algorithm]} digest in every event, found one without")
        values[event.pcr] = extend(values[event.pcr], event.digests[algorithm], algorithm)
    return values


def before_end(log: bytes, events: list[Event]) -> list[Event]:
    """The events before the loader's end event, which seals the log: it holds the SHA-256 of all bytes before it.

    Raises EventLogError unless it is there once, in PCR 4, as the last, with that hash, and with a digest that is its data's.
    """
    ends = [index for index, event in enumerate(events) if (event.tagged() or (0,))[0] == TAG_END]
    if ends != [len(events) - 1] or events[-1].pcr != 4:
        raise EventLogError(f"event log: expected the loader's end event once, as the last event, found it at {ends}")
    end = events[-1]
    digests = sum(2 + len(digest) for digest in end.digests.values())
    sealed = hashlib.sha256(log[: len(log) - 12 - digests - 4 - len(end.data)]).digest()
    if end.data[8:] != sealed:
        raise EventLogError(f"event log: expected an end event with {sealed.hex()}, found {end.data[8:].hex()}")
    if end.digests.get(SHA256) != hashlib.sha256(end.data).digest():
        raise EventLogError("event log: end event: expected the digest of its data, found another")
    return events[:-1]
