"""Small signed images with the real monitor and boxes made of a few instructions, and what it takes to boot them."""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from boot.handoff import MONITOR_BASE
from tests.boot.images import DESCRIPTOR, DEVELOPMENT_SECRET, MONITOR, SEGMENT, Part, disk_of, partition_of
from tests.boot.keys import SECRET
from vmm.descriptor import (
    DESCRIPTOR_MAGIC,
    DEVICE_CLOCK,
    DEVICE_INTERRUPTS_AND_TIMER,
    DEVICE_KEYBOARD,
    DEVICE_PCI,
    DEVICE_SERIAL,
    StartMode,
)

if TYPE_CHECKING:
    from dsl.compiler.pipeline import Program

ALL_DEVICES = DEVICE_SERIAL | DEVICE_INTERRUPTS_AND_TIMER | DEVICE_CLOCK | DEVICE_KEYBOARD | DEVICE_PCI
CODE = 0x1000  # where a box's code begins, unless it says otherwise
TABLES = 0x10000  # page tables of a long-mode box: identity, 2-MiB pages, one GiB


@functools.cache
def monitor() -> Program:
    """The monitor, compiled once."""
    from dsl.compiler.pipeline import compile_program
    from vmm.main import start

    return compile_program(start, base=MONITOR_BASE)


def assemble(listing: str, bits: int, base: int = CODE) -> bytes:
    """Assemble a guest's code."""
    import keystone

    modes = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}
    data, _ = keystone.Ks(keystone.KS_ARCH_X86, modes[bits]).asm(listing, base)
    assert data is not None
    return bytes(data)


def page_tables() -> bytes:
    """Identity tables for one GiB in 2-MiB pages, to lie at TABLES."""
    level_4 = struct.pack("<Q", TABLES + 0x1000 | 3).ljust(4096, b"\0")
    level_3 = struct.pack("<Q", TABLES + 0x2000 | 3).ljust(4096, b"\0")
    level_2 = b"".join(struct.pack("<Q", index << 21 | 0x83) for index in range(512))
    return level_4 + level_3 + level_2


@dataclass(frozen=True)
class Segment:
    """A segment: kind 1 data, 2 random, 3 TSC kHz."""

    address: int
    data: bytes = b""
    kind: int = 1
    size: int = 0


@dataclass(frozen=True)
class TestBox:
    """A box to be: code at CODE in one of the three start modes, and what a test wants to be different."""

    __test__ = False

    name: str
    code: bytes
    mode: StartMode = StartMode.REAL
    memory_size: int = 2 << 20
    weight: int = 100
    flags: int = 0
    devices: int = ALL_DEVICES
    segments: tuple[Segment, ...] = ()
    rip: int = CODE
    rsp: int = 0x8000
    rsi: int = 0
    changes: dict[int, bytes] = field(default_factory=dict)  # bytes of the descriptor, by offset

    def all_segments(self) -> tuple[Segment, ...]:
        tables = (Segment(TABLES, page_tables()),) if self.mode is StartMode.LONG else ()
        code = (Segment(CODE, self.code),) if self.code else ()
        return (*code, *tables, *self.segments)

    def descriptor(self) -> bytes:
        """The packed page, written here a second time, apart from the pipeline's."""
        segments = self.all_segments()
        cr3 = TABLES if self.mode is StartMode.LONG else 0
        head = struct.pack(
            "<QII32sQQIIIIQQQQQQQQ",
            DESCRIPTOR_MAGIC, 1, 4096, self.name.encode(), self.flags, self.memory_size, 1, self.weight,
            int(self.mode.value), len(segments), self.rip, self.rsp, self.rsi, 0, 0, cr3, self.devices, 0,
        )  # fmt: skip
        rows = b""
        for segment in segments:
            digest = hashlib.sha256(segment.data).digest() if segment.kind == 1 else bytes(32)
            size = len(segment.data) if segment.kind == 1 else segment.size
            rows += struct.pack("<QQII32sQ", segment.address, size, segment.kind, 0, digest, 0)
        page = bytearray(head.ljust(512, b"\0") + rows.ljust(4096 - 512, b"\0"))
        for offset, data in self.changes.items():
            page[offset : offset + len(data)] = data
        return bytes(page)


def parts_of(boxes: list[TestBox]) -> list[Part]:
    """The image's entries: monitor, descriptors, segments (each once), the development secret."""
    contents = {segment.data: None for box in boxes for segment in box.all_segments() if segment.kind == 1}
    return [
        Part(MONITOR, monitor().image, 5),
        *(Part(DESCRIPTOR, box.descriptor(), 3) for box in boxes),
        *(Part(SEGMENT, data) for data in contents),
        Part(DEVELOPMENT_SECRET, SECRET),
    ]


def disk_with(*boxes: TestBox) -> bytes:
    """A bootable disk with these boxes."""
    return disk_of(partition_of(parts_of(list(boxes))))
