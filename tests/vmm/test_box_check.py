"""Descriptors: the one that the pipeline would write is taken; every rule, broken alone, is refused by its name."""

from __future__ import annotations

import hashlib
import struct

import pytest

from dsl.lang import Failure, Machine
from dsl.lang.addresses import HostVirtual
from tests.vmm.images import CODE, Segment, TestBox
from vmm.box_check import Fault, check_descriptor
from vmm.descriptor import BoxDescriptor, StartMode

pytestmark = pytest.mark.t0
PLACE = 0x10000
SEGMENTS = 512
ROW = 64

GOOD = TestBox(
    "box-1", b"\xf4", memory_size=4 << 20, segments=(Segment(0x200000, b"x" * 5000), Segment(0x3000, kind=2, size=32))
)


def check(page: bytes) -> Fault | None:
    with Machine() as machine:
        machine.memory.map(PLACE, 4096, page)
        result = check_descriptor(BoxDescriptor.at(HostVirtual(PLACE)))
        return Fault(result.code) if isinstance(result, Failure) else None


def changed(offset: int, data: bytes) -> bytes:
    page = bytearray(GOOD.descriptor())
    page[offset : offset + len(data)] = data
    return bytes(page)


def row_field(row: int, offset: int) -> int:
    return SEGMENTS + row * ROW + offset


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


@pytest.mark.parametrize("mode", StartMode)
def test_good_descriptors_are_taken(mode: StartMode) -> None:
    """A descriptor in each start mode passes."""
    assert check(TestBox("a", b"\xf4", mode).descriptor()) is None
    assert check(GOOD.descriptor()) is None


BROKEN = [
    ("magic", 0, b"TRNBOX02", Fault.MAGIC),
    ("version", 8, u32(2), Fault.VERSION),
    ("size", 12, u32(4095), Fault.SIZE),
    ("no label", 16, bytes(32), Fault.LABEL),
    ("capital in label", 16, b"Box", Fault.LABEL),
    ("control character in label", 16, b"bo\x1b", Fault.LABEL),
    ("label without an end", 16, b"a" * 32, Fault.LABEL),
    ("byte after the label's end", 16 + 31, b"x", Fault.LABEL),
    ("unknown flag", 48, u64(8), Fault.FLAGS),
    ("no memory", 56, u64(0), Fault.MEMORY_SIZE),
    ("odd memory", 56, u64((4 << 20) + 4096), Fault.MEMORY_SIZE),
    ("two CPUs", 64, u32(2), Fault.CPU_COUNT),
    ("no CPU", 64, u32(0), Fault.CPU_COUNT),
    ("no weight", 68, u32(0), Fault.WEIGHT),
    ("too much weight", 68, u32(1001), Fault.WEIGHT),
    ("start mode 0", 72, u32(0), Fault.START_MODE),
    ("start mode 4", 72, u32(4), Fault.START_MODE),
    ("too many segments", 76, u32(49), Fault.SEGMENT_COUNT),
    ("fewer segments than rows", 76, u32(2), Fault.UNUSED_SEGMENT),
    ("start beyond memory", 80, u64(4 << 20), Fault.START_ADDRESS),
    ("start beyond real mode", 80, u64(0x10000), Fault.START_ADDRESS),
    ("tables outside long mode", 120, u64(0x10000), Fault.START_ADDRESS),
    ("unknown device", 128, u64(32), Fault.DEVICES),
    ("policy label", 136, u64(1), Fault.RESERVED),
    ("reserved byte", 144, b"\x01", Fault.RESERVED),
    ("last reserved byte before segments", 511, b"\x01", Fault.RESERVED),
    ("last byte", 4095, b"\x01", Fault.RESERVED),
    ("segment kind 0", row_field(0, 16), u32(0), Fault.SEGMENT_KIND),
    ("segment kind 5", row_field(0, 16), u32(5), Fault.SEGMENT_KIND),
    ("segment's reserved word", row_field(0, 20), u32(1), Fault.RESERVED),
    ("segment's reserved end", row_field(0, 56), u64(1), Fault.RESERVED),
    ("hash of a fill", row_field(2, 24), b"\x01", Fault.RESERVED),
    ("empty segment", row_field(0, 8), u64(0), Fault.SEGMENT_RANGE),
    ("segment past the end", row_field(1, 0), u64((4 << 20) - 4999), Fault.SEGMENT_RANGE),
    ("segment that wraps", row_field(1, 0), u64(2**64 - 4096), Fault.SEGMENT_RANGE),
    ("segment larger than memory", row_field(1, 8), u64(2**64 - 1), Fault.SEGMENT_RANGE),
    ("segments that overlap by a byte", row_field(2, 0), u64(0x200000 + 4999), Fault.SEGMENT_OVERLAP),
    ("segment around another", row_field(2, 0), u64(CODE - 16), Fault.SEGMENT_OVERLAP),
    ("row after the last segment", row_field(3, 8), u64(1), Fault.UNUSED_SEGMENT),
]


@pytest.mark.parametrize(("name", "offset", "data", "fault"), BROKEN, ids=[row[0] for row in BROKEN])
def test_each_broken_rule_is_refused(name: str, offset: int, data: bytes, fault: Fault) -> None:
    """One wrong field, one refusal, and the right one."""
    assert check(changed(offset, data)) is fault


def test_fill_of_the_tsc_is_four_bytes() -> None:
    """A TSC fill of another size is refused."""
    box = TestBox("a", b"\xf4", segments=(Segment(0x3000, kind=3, size=8),))
    assert check(box.descriptor()) is Fault.FILL_SIZE
    assert check(TestBox("a", b"\xf4", segments=(Segment(0x3000, kind=3, size=4),)).descriptor()) is None


def test_neighbours_are_no_overlap() -> None:
    """Segments may touch."""
    box = TestBox("a", b"\xf4", segments=(Segment(CODE + 1, b"y" * 15), Segment(CODE - 16, b"z" * 16)))
    assert check(box.descriptor()) is None


def test_descriptor_hash_covers_every_field() -> None:
    """The identity is that of the page: two boxes that differ in a register differ in it."""
    digests = {hashlib.sha256(TestBox("a", b"\xf4", rsi=value).descriptor()).hexdigest() for value in range(4)}
    assert len(digests) == 4
