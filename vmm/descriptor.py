"""The box descriptor: one page that says everything about a box (docs/formats.md, "Box descriptor").

Its SHA-256 is the box's identity. The pipeline packs through `BoxDescriptor`'s layout; the monitor reads the verified page through it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import Array, GuestPhysical, Struct, array, u8, u32, u64

DESCRIPTOR_MAGIC: Final = int.from_bytes(b"TRNBOX01", "little")
DESCRIPTOR_VERSION: Final = 1
DESCRIPTOR_SIZE: Final = 4096  # bytes
SEGMENT_LIMIT: Final = 48
LABEL_SIZE: Final = 32  # bytes, zero padded
MONITOR_LABEL: Final = b"terrane"  # leads the loader's and the monitor's lines: no box may have it

FLAG_CLOSED: Final = 1 << 0
FLAG_HYPERCALLS_FROM_ANY_RING: Final = 1 << 1
FLAG_QUIET: Final = 1 << 2
FLAGS_KNOWN: Final = FLAG_CLOSED | FLAG_HYPERCALLS_FROM_ANY_RING | FLAG_QUIET

DEVICE_SERIAL: Final = 1 << 0  # 16550
DEVICE_INTERRUPTS_AND_TIMER: Final = 1 << 1  # PIC and PIT
DEVICE_CLOCK: Final = 1 << 2  # RTC
DEVICE_KEYBOARD: Final = 1 << 3  # i8042
DEVICE_PCI: Final = 1 << 4  # configuration ports that answer "nothing here"
DEVICES_KNOWN: Final = DEVICE_SERIAL | DEVICE_INTERRUPTS_AND_TIMER | DEVICE_CLOCK | DEVICE_KEYBOARD | DEVICE_PCI

WEIGHT_LIMIT: Final = 1000
MEMORY_GRANULE: Final = 2 << 20  # bytes: box memory is a multiple of this


class StartMode(Enum):
    """In which mode the first instruction runs."""

    PROTECTED = u32(1)  # flat 32-bit segments, paging off
    REAL = u32(2)  # at rip, with cs base 0
    LONG = u32(3)  # flat 64-bit segments, paging on with the descriptor's cr3


class SegmentKind(Enum):
    """Where a segment's bytes come from."""

    DATA = u32(1)  # an entry of the image, found by its SHA-256
    FILL_RANDOM = u32(2)  # random bytes, made at start
    FILL_TSC_KHZ = u32(3)  # the TSC frequency in kHz as u32, made at start


class BoxSegment(Struct, size=64):
    """A range of guest-physical memory and what it holds at start. Bytes; need not be page-aligned."""

    guest_physical: GuestPhysical
    size: u64
    kind: u32
    reserved_kind: u32
    sha256: Array[u8] = array(32)
    reserved: u64


class BoxDescriptor(Struct, size=4096, align=4096):
    """A box as signed. Read-only for everyone."""

    magic: u64
    version: u32
    size: u32
    label: Array[u8] = array(LABEL_SIZE)
    flags: u64
    memory_size: u64  # bytes from guest-physical 0
    cpu_count: u32
    weight: u32
    start_mode: u32
    segment_count: u32
    rip: u64
    rsp: u64
    rsi: u64
    rdi: u64
    rbx: u64
    cr3: u64
    devices: u64
    policy_label: u64
    reserved: Array[u8] = array(512 - 144)
    segments: Array[BoxSegment] = array(SEGMENT_LIMIT)
    reserved_end: Array[u8] = array(4096 - 512 - SEGMENT_LIMIT * 64)
