"""The header: one broken field, one refusal, by its own name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from boot.header import HEADER_SIZE, ImageHeader, check_header
from boot.refusal import TEMPLATES, Rule, append_refusal
from dsl.lang import HostVirtual, u64
from dsl.lang.model import Machine
from dsl.std.print import Line

pytestmark = pytest.mark.t0
PLACE = 0x200000
STAGED = 0x100000
Entry = tuple[int, int, int, int, bytes, int]  # kind, security version, offset, size, digest, reserved
GOOD = [
    (1, 0, 0x2000, 0x3000, b"m" * 32, 0),
    (2, 0, 0x5000, 0x1000, b"d" * 32, 0),
    (2, 0, 0x6000, 0x1000, b"e" * 32, 0),
    (3, 0, 0x7000, 0x1001, b"s" * 32, 0),
    (4, 0, 0x9000, 0x10, b"r" * 32, 0),
    (5, 0, 0xA000, 0x20, b"k" * 32, 0),
]


@pytest.fixture(autouse=True)
def machine() -> Iterator[Machine]:
    with Machine() as model:
        model.memory.map(PLACE, HEADER_SIZE)
        yield model


def header(entries: list[Entry] = GOOD, **fields: int) -> bytearray:
    """A header as the pipeline would write it, with some of its fields replaced."""
    values = {
        "magic": int.from_bytes(b"TERRANE1", "little"),
        "version": 1,
        "size": HEADER_SIZE,
        "count": len(entries),
        "flags": 1,
    }
    values |= {"security": 3, "image": 0xA020} | fields
    packed = struct.pack(
        "<QIIIIQQ", *(values[name] for name in ("magic", "version", "size", "count", "flags", "security", "image"))
    )
    rows = b"".join(struct.pack("<IIQQ32sQ", *entry) for entry in entries)
    return bytearray((packed.ljust(64, b"\0") + rows).ljust(HEADER_SIZE - 64, b"\0") + b"s" * 64)


def refusal_of(machine: Machine, content: bytearray) -> tuple[Rule, int, int, int]:
    machine.memory.write(PLACE, bytes(content))
    refusal = check_header(ImageHeader.at(HostVirtual(PLACE)), u64(STAGED))
    return refusal.rule, int(refusal.row), int(refusal.expected), int(refusal.found)


def with_entry(row: int, position: int, value: int) -> list[Entry]:
    entries: list[list[object]] = [list(entry) for entry in GOOD]
    entries[row][position] = value
    return [tuple(entry) for entry in entries]  # type: ignore[misc]


def with_byte(offset: int) -> bytearray:
    content = header()
    content[offset] = 9
    return content


def test_a_good_header_is_good(machine: Machine) -> None:
    assert refusal_of(machine, header())[0] is Rule.GOOD
    assert refusal_of(machine, header(GOOD[:1], image=0x5000, flags=0))[0] is Rule.GOOD


CASES: list[tuple[Callable[[], bytearray], Rule, int, int, int]] = [
    (lambda: header(magic=5), Rule.HEADER_MAGIC, 0, int.from_bytes(b"TERRANE1", "little"), 5),
    (lambda: header(version=2), Rule.HEADER_VERSION, 0, 1, 2),
    (lambda: header(size=4096), Rule.HEADER_SIZE, 0, 8192, 4096),
    (lambda: header(count=0), Rule.HEADER_COUNT, 0, 120, 0),
    (lambda: header(count=121), Rule.HEADER_COUNT, 0, 120, 121),
    (lambda: header(count=0xFFFFFFFF), Rule.HEADER_COUNT, 0, 120, 0xFFFFFFFF),
    (lambda: header(flags=4), Rule.HEADER_FLAGS, 0, 3, 4),
    (lambda: header(image=STAGED + 1), Rule.HEADER_IMAGE_SIZE, 0, STAGED, STAGED + 1),
    (lambda: with_byte(40), Rule.HEADER_RESERVED, 0, 0, 40),
    (lambda: with_byte(63), Rule.HEADER_RESERVED, 0, 0, 63),
    (lambda: with_byte(64 + 64 * 6), Rule.HEADER_UNUSED, 0, 0, 64 + 64 * 6),
    (lambda: with_byte(8127), Rule.HEADER_UNUSED, 0, 0, 8127),
    (lambda: header(count=5), Rule.HEADER_UNUSED, 0, 0, 64 + 64 * 5),
    (lambda: header(with_entry(0, 0, 0)), Rule.ENTRY_KIND, 0, 6, 0),
    (lambda: header(with_entry(5, 0, 7)), Rule.ENTRY_KIND, 5, 6, 7),
    (lambda: header(with_entry(2, 0, 1)), Rule.ENTRY_ORDER, 2, 2, 1),
    (lambda: header(with_entry(1, 0, 1)), Rule.ENTRY_TWICE, 1, 1, 2),
    (lambda: header(with_entry(4, 0, 5), image=0xA020), Rule.SECRET_SIZE, 4, 32, 16),
    (lambda: header([*GOOD[:5], (4, 0, 0xA000, 0x20, b"", 0)]), Rule.ENTRY_TWICE, 5, 4, 2),
    (lambda: header(with_entry(3, 2, 0x7001)), Rule.ENTRY_ALIGNMENT, 3, 4096, 0x7001),
    (lambda: header(with_entry(3, 2, 0x1000)), Rule.ENTRY_BEGIN, 3, 8192, 0x1000),
    (lambda: header(with_entry(3, 3, 0)), Rule.ENTRY_EMPTY, 3, 1, 0),
    (lambda: header(with_entry(5, 2, 0xB000)), Rule.ENTRY_END, 5, 0, 0x20),
    (lambda: header(image=0xA01F), Rule.ENTRY_END, 5, 0x1F, 0x20),
    (lambda: header(with_entry(3, 3, 2**64 - 0x7000)), Rule.ENTRY_END, 3, 0x3020, 2**64 - 0x7000),
    (lambda: header(with_entry(3, 2, 2**64 - 0x1000)), Rule.ENTRY_END, 3, 0, 0x1001),
    (lambda: header(with_entry(3, 3, 0x2001)), Rule.ENTRY_OVERLAP, 4, 4, 3),
    (lambda: header(with_entry(4, 2, 0x2000)), Rule.ENTRY_OVERLAP, 4, 4, 0),
    (lambda: header(with_entry(2, 5, 1)), Rule.ENTRY_RESERVED, 2, 0, 1),
    (lambda: header(with_entry(1, 3, 0x800)), Rule.DESCRIPTOR_SIZE, 1, 4096, 0x800),
    (lambda: header(with_entry(5, 3, 0x1F)), Rule.SECRET_SIZE, 5, 32, 0x1F),
    (lambda: header(flags=0), Rule.SECRET_NOT_DEBUG, 5, 1, 0),
    (lambda: header(GOOD[1:]), Rule.MONITOR_MISSING, 0, 1, 0),
]


@pytest.mark.parametrize(("content", "rule", "row", "expected", "found"), CASES)
def test_each_broken_field_has_its_own_refusal(
    machine: Machine, content: Callable[[], bytearray], rule: Rule, row: int, expected: int, found: int
) -> None:
    refusal = refusal_of(machine, content())
    assert refusal[0] is rule
    assert refusal[2:] == (expected, found)
    assert refusal[1] == row


def test_every_header_rule_has_a_case() -> None:
    named = {rule for rule in Rule if rule.name.startswith(("HEADER_", "ENTRY_", "DESCRIPTOR_", "MONITOR_"))}
    assert named - {Rule.HEADER_SIGNATURE} <= {case[1] for case in CASES}


def test_a_refusal_says_what_was_expected_and_found(machine: Machine) -> None:
    machine.memory.write(PLACE, bytes(header(with_entry(3, 2, 0x7001))))
    line = Line()
    append_refusal(line, check_header(ImageHeader.at(HostVirtual(PLACE)), u64(STAGED)))
    said = bytes(int(line.content[index]) for index in range(int(line.length))).decode()
    assert said == "header: entry 3: offset: expected a multiple of 0x0000000000001000, found 0x0000000000007001"


def test_every_line_tells_expected_and_found() -> None:
    for rule, line in TEMPLATES.items():
        assert rule is Rule.GOOD or ("expected" in line and "found" in line)
