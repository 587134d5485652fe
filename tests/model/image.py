"""Physical memory as the loader leaves it, for the monitor alone: the monitor, its page tables, the handoff, the entries."""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Sequence
from typing import Any

from boot.handoff import FREE_MEMORY, HANDOFF_MAGIC, HANDOFF_SIZE, HANDOFF_VERSION, Handoff
from dsl.lang import offset_of
from tests.boot.images import DESCRIPTOR, MONITOR, SEGMENT
from tests.vmm.images import TestBox

RAM_SIZE = 32 << 20
LARGE_PAGE = 2 << 20
MONITOR_PHYSICAL = 0x20_0000
MONITOR_MEMORY = LARGE_PAGE
TABLES = 0x40_0000
HANDOFF = 0x48_0000
ENTRIES = 0x50_0000
FREE = ((0x80_0000, 0xC0_0000), (0xE0_0000, 0x100_0000), (0x120_0000, RAM_SIZE))  # a box's frames are no neighbours
STACK = 0x7008  # where RSP points when the monitor is entered
PRESENT, WRITABLE, LARGE, NO_EXECUTE = 1, 2, 1 << 7, 1 << 63
CDI = hashlib.sha512(b"the model's monitor").digest()
SIGNER_KEY = hashlib.sha256(b"the model's signer").digest()
POSTURE_DEVELOPMENT = 9
QUOTE, QUOTE_SIGNATURE, EVENT_LOG = b"quote" * 29, b"signature" * 8, bytes(range(250)) * 5


def page_tables(image: bytes) -> bytes:
    """The monitor's address space (docs/formats.md): direct map of 4 GiB, monitor W^X, to lie at TABLES."""
    text_end, read_only_end = struct.unpack_from("<II", image, 12)
    pages: list[list[int]] = [[0] * 512 for _ in range(9)]
    root, direct, directories, high, monitor, small = pages[0], pages[1], pages[2:6], pages[6], pages[7], pages[8]

    def table(index: int) -> int:
        return TABLES + index * 4096 | PRESENT | WRITABLE

    root[256], root[511] = table(1), table(6)
    for gigabyte, directory in enumerate(directories):
        direct[gigabyte] = table(2 + gigabyte)
        for index in range(512):
            physical = gigabyte << 30 | index * LARGE_PAGE
            if physical != MONITOR_PHYSICAL:
                directory[index] = physical | PRESENT | WRITABLE | LARGE | NO_EXECUTE
    high[510] = table(7)
    monitor[0] = table(8)
    for index in range(512):
        offset = index * 4096
        entry = MONITOR_PHYSICAL + offset | PRESENT
        entry |= 0 if offset < read_only_end else WRITABLE
        small[index] = entry | (0 if offset < text_end else NO_EXECUTE)
    return b"".join(struct.pack("<512Q", *page) for page in pages)


def entry_contents(boxes: Sequence[TestBox]) -> list[tuple[int, bytes]]:
    """Kind and bytes of the descriptors and segments."""
    segments = {segment.data: None for box in boxes for segment in box.all_segments() if segment.kind == 1}
    return [*((DESCRIPTOR, box.descriptor()) for box in boxes), *((SEGMENT, data) for data in segments)]


def physical_memory(image: bytes, boxes: Sequence[TestBox]) -> mmap.mmap:
    """All of RAM at the monitor's entry. What nobody touches is never there: most of it."""
    memory = mmap.mmap(-1, RAM_SIZE)
    memory[MONITOR_PHYSICAL : MONITOR_PHYSICAL + len(image)] = image
    tables = page_tables(image)
    memory[TABLES : TABLES + len(tables)] = tables
    handoff = bytearray(HANDOFF_SIZE)
    rows, place = [], ENTRIES
    contents = [(MONITOR, image), *entry_contents(boxes)]
    for kind, content in contents:
        digest = hashlib.sha256(content).digest()
        row = struct.pack("<IIQQ32sQ", kind, 3, place, len(content), digest, 0)
        rows.append(struct.pack("<IIQQ32s64s", kind, 0, place, len(content), digest, row))
        memory[place : place + len(content)] = content
        place += -(-len(content) // 4096) * 4096
    assert place <= FREE[0][0], "the entries lie below free memory"

    def put(name: str, data: bytes) -> None:
        offset = int(offset_of(Handoff, name))
        handoff[offset : offset + len(data)] = data

    def word(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    values: list[tuple[str, Any, int]] = [
        ("magic", HANDOFF_MAGIC, 8), ("version", HANDOFF_VERSION, 4), ("size", HANDOFF_SIZE, 4), ("range_count", len(FREE), 4),
        ("entry_count", len(contents), 4), ("monitor_physical", MONITOR_PHYSICAL, 8),
        ("monitor_memory", MONITOR_MEMORY, 8), ("page_tables", TABLES, 8), ("page_tables_size", len(tables), 8),
        ("mode", 2, 4), ("posture", POSTURE_DEVELOPMENT, 8), ("security_version", 7, 8),
    ]  # fmt: skip
    for name, value, size in values:
        put(name, word(value, size))
    put("ranges", b"".join(struct.pack("<QQII", start, end - start, FREE_MEMORY, 0) for start, end in FREE))
    put("entries", b"".join(rows))
    put("cdi", CDI)
    put("signer_key", SIGNER_KEY)
    put("device_certificate", word(4, 4) + b"dev.")
    put("monitor_certificate", word(4, 4) + b"mon.")
    put("quote", word(len(QUOTE), 4) + word(len(QUOTE_SIGNATURE), 4) + QUOTE.ljust(256, b"\0") + QUOTE_SIGNATURE)
    put("event_log", word(place, 8) + word(len(EVENT_LOG), 8))
    memory[place : place + len(EVENT_LOG)] = EVENT_LOG
    assert len(rows[0]) == 120
    memory[HANDOFF : HANDOFF + HANDOFF_SIZE] = handoff
    return memory
