"""ACPI's tables and the event log as firmware leaves them: what is whole is found, what is not ends the search, in both worlds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import pytest

from dsl.lang import Array, CheckFailed, HostPhysical, address_of, machine, u8, u32, u64
from dsl.std import acpi, event_log
from tests.std.ported import Ported
from tests.worlds import CPython, FailedCheck, Native, rooms

SIGNATURE: Final = int.from_bytes(b"TPM2", "little")
ROOT, FIRST, SECOND, ROWS, SIZE = 0x40, 0x100, 0x200, 0x400, 0x600
BEYOND: Final = (1 << 32) - 36


@machine
def find(out: Array[u64], memory: Array[u8], root: u64, signature: u32) -> None:
    """Look for a table in memory, as if it began at physical address 0: where it is, and its size."""
    base = address_of(memory)
    found = acpi.find_table(base.as_u64(), HostPhysical(root), signature)
    out[0] = address_of(found).as_u64()
    if found.length != 0:
        out[0] = address_of(found) - base
    out[1] = found.length


def found_at(memory: bytes, root: int = ROOT, signature: int = SIGNATURE) -> tuple[int, int]:
    """Place and size of what is found, which is one in both worlds."""
    out = bytearray(b"\xee" * 16)
    CPython().call(find, out, memory, root, signature)
    answer = emitted(acpi.find_table, memory, root, signature)
    assert answer == struct.unpack("<QQ", out)
    return answer


def emitted(function: Callable[..., Any], memory: bytes, *arguments: int) -> tuple[int, int]:
    """Place and size of an array, from the emitted code; nothing is at 0."""
    loaded, _ = Native().code(acpi.find_table)
    rooms().held.clear()
    base = rooms().place(memory)
    results = loaded.call(f"{function.__module__}.{function.__name__}", [base, *arguments])
    assert not isinstance(results, str)
    place, size = results[:2]
    return place - base if size else place, size


def table(signature: bytes, content: bytes = b"", length: int | None = None, wrong: int = 0) -> bytes:
    """A table whose bytes add up to `wrong`."""
    data = bytearray(struct.pack("<4sI28s", signature, 36 + len(content) if length is None else length, b"") + content)
    data[9] = wrong - sum(data) & 0xFF
    return bytes(data)


def memory_of(
    rows: list[int],
    wide: bool = True,
    *,
    revision: int = 2,
    first: bytes = b"",
    second: bytes = b"",
    at_rows: bytes = b"",
    at_zero: bytes = b"",
) -> bytes:
    """A root pointer, which stands at 0 as well, a root table with these rows, wide or narrow, and two tables."""
    memory = bytearray(b"\xa7" * SIZE)
    content = b"".join(row.to_bytes(8 if wide else 4, "little") for row in rows)
    pointer = struct.pack(
        "<8sB6sBIIQ4s", b"RSD PTR ", 0, b"", revision, 0 if wide else ROWS, 36, ROWS if wide else 0, b"\xee" * 4
    )
    root_table = at_rows or table(b"XSDT" if wide else b"RSDT", content)
    for place, piece in (
        (0, at_zero or pointer),
        (ROOT, pointer),
        (ROWS, root_table),
        (FIRST, first),
        (SECOND, second),
    ):
        memory[place : place + len(piece)] = piece
    return bytes(memory)


@pytest.mark.t1
@pytest.mark.parametrize("wide", [False, True])
def test_a_table_is_found_by_its_signature(wide: bool) -> None:
    """The first whole one that a row names; rows of either width, and pointers of either age."""
    good, other = table(b"TPM2", bytes(range(100))), table(b"APIC", b"x")
    assert found_at(memory_of([FIRST, SECOND], wide, first=other, second=good)) == (SECOND, 136)
    assert found_at(memory_of([SECOND, FIRST], wide, first=other, second=good)) == (SECOND, 136)
    assert found_at(memory_of([FIRST, SECOND], wide, first=table(b"TPM2"), second=good)) == (FIRST, 36)
    assert found_at(memory_of([SECOND], wide, first=other, second=good)) == (SECOND, 136)
    assert found_at(
        memory_of([SECOND], wide, first=other, second=good), signature=int.from_bytes(b"APIC", "little")
    ) == (0, 0)
    assert found_at(memory_of([], wide, first=other, second=good)) == (0, 0)
    assert found_at(memory_of([0, SECOND], wide, first=other, second=good)) == (SECOND, 136)
    assert found_at(memory_of([SECOND], wide, revision=0, first=other, second=good)) == (
        (0, 0) if wide else (SECOND, 136)
    )
    assert found_at(memory_of([SECOND], wide, revision=1, first=other, second=good)) == (
        (0, 0) if wide else (SECOND, 136)
    )


@pytest.mark.t1
def test_what_is_no_table_is_passed_over() -> None:
    """Wrong sums, lengths below a head's or beyond every limit, addresses of nothing and above 4 GiB; the next row counts."""
    good = table(b"TPM2", bytes(28))
    spoilt = {
        "sum": table(b"TPM2", b"\x35" * 28, wrong=1),
        "high sum": table(b"TPM2", b"\x35" * 28, wrong=0x80),
        "short": table(b"TPM2", b"", length=35),
        "long": table(b"TPM2", b"", length=(1 << 20) + 1),
        "very long": table(b"TPM2", b"", length=(1 << 32) - 1),
        "empty": table(b"TPM2", b"", length=0),
    }
    for name, bad in spoilt.items():
        assert found_at(memory_of([FIRST, SECOND], first=bad, second=good)) == (SECOND, 64), name
        assert found_at(memory_of([FIRST], first=bad)) == (0, 0), name
        assert emitted(acpi.table_at, memory_of([], first=bad), FIRST) == (0, 0), name
    for row in (0, BEYOND + 1, 1 << 32, (1 << 32) + FIRST, 1 << 63, (1 << 64) - 1):
        memory = memory_of([row, SECOND], first=table(b"TPM2"), second=good, at_zero=table(b"TPM2"))
        assert found_at(memory) == (SECOND, 64), row
    for address in (0, BEYOND + 1, (1 << 64) - 1):
        assert emitted(acpi.table_at, memory_of([], at_zero=good), address) == (0, 0), address
    for root in (0, BEYOND + 1, 1 << 32, (1 << 64) - 1):
        assert found_at(memory_of([SECOND], second=good), root) == (0, 0), root
    for rest in range(1, 8):  # half a row at the end is none
        rows = table(b"XSDT", SECOND.to_bytes(8, "little")[:rest])
        assert found_at(memory_of([], at_rows=rows, second=good)) == (0, 0), rest


@pytest.mark.t1
@pytest.mark.parametrize("more", [-1, 0, 1, 100, 4096])
def test_a_table_ends_below_four_gigabytes(more: int) -> None:
    """With its last byte; a longer one is none, though its sum is right and memory goes on."""
    size = 60
    place = (1 << 32) - size
    world = Ported(acpi.find_table)
    world.engine.mem_map((1 << 32) - 0x1000, 0x3000)
    world.engine.mem_write(place, table(b"TPM2", bytes(size + more - 36)))
    rows = world.write(ROWS, table(b"XSDT", place.to_bytes(8, "little")))
    root = world.write(ROOT, struct.pack("<8sB6sBIIQ4s", b"RSD PTR ", 0, b"", 2, 0, 36, rows, b""))
    found = world.call(0, root, SIGNATURE)
    assert found == (place if more <= 0 else 0)


@pytest.mark.t1
@pytest.mark.parametrize("more", [-1, 0, 1, 2, 35])
def test_a_root_pointer_ends_below_four_gigabytes(more: int) -> None:
    """With its last byte; a later one is none, though memory goes on."""
    world = Ported(acpi.find_table)
    world.engine.mem_map((1 << 32) - 0x1000, 0x3000)
    place = world.write(FIRST, table(b"TPM2"))
    rows = world.write(ROWS, table(b"XSDT", place.to_bytes(8, "little")))
    root = BEYOND + more
    world.engine.mem_write(root, struct.pack("<8sB6sBIIQ4s", b"RSD PTR ", 0, b"", 2, 0, 36, rows, b""))
    assert world.call(0, root, SIGNATURE) == (place if more <= 0 else 0)


def event(algorithms: dict[int, int], data: bytes, count: int | None = None) -> bytes:
    """An event with a digest of each algorithm and size."""
    digests = b"".join(struct.pack("<H", algorithm) + bytes(size) for algorithm, size in algorithms.items())
    head = struct.pack("<III", 7, 8, len(algorithms) if count is None else count)
    return head + digests + len(data).to_bytes(4, "little") + data


SIZES: Final = {0x4: 20, 0xB: 32, 0xC: 48, 0xD: 64, 0x12: 32}
NAMED: Final = bytes.fromhex("53706563204944204576656e74303300") + bytes(12)
EVENTS: Final = [
    event({0xB: 32}, b""),
    event(SIZES, b"data"),
    event({0x4: 20, 0xD: 64}, bytes(300)),
    event({0xC: 48}, b"x"),
]


def same(function: Callable[..., object], *arguments: bytes | int) -> int:
    """What a routine of the log answers, in both worlds."""
    answers = {world.call(function, *arguments) for world in (CPython(), Native())}
    assert len(answers) == 1, (function, arguments)
    return answers.pop()


def end_of(events: bytes, start: int) -> int:
    """Where an event ends; a walk of one event says so, too."""
    end = same(event_log.event_end, events, start)
    assert same(event_log.events_end, events, start, 1) == (end or start)
    return end


@pytest.mark.t1
def test_events_are_walked_to_the_last_whole_one() -> None:
    """However many bytes of them there are, from wherever one begins, and not beyond a limit."""
    whole, ends = b"".join(EVENTS), [0]
    for each in EVENTS:
        ends.append(ends[-1] + len(each))
    for start, end in pairwise(ends):
        for length in {start, start + 11, start + 12, start + 13, start + 14, end - 5, end - 4, end - 1, end, end + 1}:
            if start <= length <= len(whole):
                assert end_of(whole[:length], start) == (end if length >= end else 0), (
                    start,
                    length,
                )
    for length in range(0, len(whole) + 1, 3):
        assert same(event_log.events_end, whole[:length], 0, 100) == max(end for end in ends if end <= length)
    for limit in range(6):
        assert same(event_log.events_end, whole, 0, limit) == ends[min(limit, len(EVENTS))]
        assert same(event_log.events_end, whole, ends[1], limit) == ends[min(limit + 1, len(EVENTS))]


@pytest.mark.t1
def test_what_is_no_event() -> None:
    """No digest, more than there may be, of an algorithm that nobody knows, or more data than follows."""
    head = bytes(range(8))
    digests = (struct.pack("<H", 0xB) + bytes(32)) * 9
    for count, is_event in ((0, False), (1, True), (8, True), (9, False), (1 << 31, False)):
        bytes_ = head + struct.pack("<I", count) + digests[: 34 * min(count, 9)] + struct.pack("<I", 3) + b"abc"
        assert end_of(bytes_, 0) == (len(bytes_) if is_event else 0), count
    for algorithm in {*range(72), 0x10B, 0x400} - {*SIZES}:
        assert end_of(event({algorithm: 32}, b""), 0) == 0, algorithm
    for size in (4, 5, 1 << 31, (1 << 32) - 1):
        data = event({0xB: 32}, b"")[:-4] + struct.pack("<I", size) + b"abcd"
        assert end_of(data, 0) == (len(data) if size == 4 else 0), size


@pytest.mark.t1
@pytest.mark.parametrize("beyond", [1, 2, 4, 8, 12, 100, 1 << 63])
def test_no_event_begins_beyond_the_end(beyond: int) -> None:
    """To ask for one there stops the machine."""
    events = b"".join(EVENTS)
    with pytest.raises(CheckFailed):
        CPython().call(event_log.event_end, events, len(events) + beyond)
    for function, limit in ((event_log.event_end, ()), (event_log.events_end, (1,))):
        with pytest.raises(FailedCheck):
            Native().call(function, events, len(events) + beyond, *limit)


@pytest.mark.t1
def test_the_first_event_says_what_it_is() -> None:
    """Its name counts in each byte; its data end inside."""
    for size in (16, 28, 40):
        first = struct.pack("<II20sI", 0, 3, b"", size) + NAMED.ljust(40, b"\0")
        assert same(event_log.first_end, first) == 32 + size
        for length in (0, 31, 47, 32 + size - 1, 32 + size):
            whole = length >= max(48, 32 + size)
            assert same(event_log.first_end, first[:length]) == (32 + size if whole else 0), length
        for place in range(32, 48):
            wrong = first[:place] + bytes([first[place] ^ 1]) + first[place + 1 :]
            assert same(event_log.first_end, wrong) == 0, place
    for size in (41, 1 << 31, (1 << 32) - 1):
        first = struct.pack("<II20sI", 0, 3, b"", size) + NAMED.ljust(40, b"\0")
        assert same(event_log.first_end, first) == 0
