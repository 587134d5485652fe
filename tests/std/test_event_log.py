"""The event log as emitted code: begun, taken over, and continued by what a TPM answers (TCG PC Client Platform Firmware Profile, 10)."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from dsl.std import event_log
from dsl.std.tpm import TpmFault
from tests.std.ported import MEMORY, Ported
from tests.std.test_firmware_tables import EVENTS, NAMED, SIZES, event
from tests.std.tpm_driver import Driver

pytestmark = pytest.mark.t1
CAPACITY: Final = 131072
LOG, DATA = 0x10000, 0x400  # offsets in MEMORY, at whose beginning the log's description lies
EMPTY: Final = bytes(0x40 | index * 7 & 0x3F for index in range(CAPACITY + 64))
CONTENT, FULL = int(TpmFault.ANSWER_CONTENT.value), int(TpmFault.LOG_FULL.value)


class Log:
    """A log of which so many bytes are used, before a function works on it. content: its first bytes; the others are noise."""

    def __init__(self, world: Ported, used: int, content: bytes = b"") -> None:
        self.world, self.before = world, content + EMPTY[len(content) :]
        world.write(LOG, self.before)
        world.write(0, struct.pack("<QQ", MEMORY + LOG, used))

    def call(self, *arguments: int | bytes) -> int:
        """Call the function with the log and these arguments, of which bytes are an array of bytes."""
        given: list[int] = []
        for value in arguments:
            given += [value] if isinstance(value, int) else [self.world.write(DATA, value), len(value)]
        return self.world.call(MEMORY, *given)

    def events(self, scratch: int = 0) -> bytes:
        """What there is now. The rest of the memory is as it was, but for what was begun behind the events: so many bytes at most."""
        base, used = struct.unpack("<QQ", self.world.get(0, 16))
        assert base == MEMORY + LOG
        now = self.world.get(LOG, len(EMPTY))
        end = min(used + scratch, CAPACITY)
        assert now[end:] == self.before[end:]
        return now[:used]


def first_event(banks: list[int]) -> bytes:
    """The event that says which banks' digests the others have (PFP 10.4.5.1, TCG_EfiSpecIDEvent)."""
    rows = b"".join(struct.pack("<HH", bank, SIZES[bank]) for bank in banks)
    content = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 105, 2, len(banks)) + rows + b"\0"
    return struct.pack("<II20sI", 0, 3, b"", len(content)) + content


@pytest.mark.parametrize("banks", [[0xB], [4, 0xB], [0xD, 0xC, 0xB, 4], [*SIZES]])
def test_a_log_of_our_own_begins(banks: list[int]) -> None:
    """With the event that names its banks and their digests' sizes; what the memory held before is not in it."""
    world = Driver(event_log.log_begin)
    log = Log(world, 0)
    log.call(world.write(DATA, struct.pack(f"<{len(banks)}H", *banks)), len(banks))
    assert log.events() == first_event(banks)


def digests(algorithms: list[int], count: int | None = None) -> bytes:
    """TPML_DIGEST_VALUES (part 2, 10.9.6)."""
    rows = [struct.pack(">H", algorithm) + digest_of(algorithm) for algorithm in algorithms]
    return struct.pack(">I", len(rows) if count is None else count) + b"".join(rows)


def digest_of(algorithm: int) -> bytes:
    """Some digest of an algorithm; of one that nobody knows, of 32 bytes."""
    return bytes(algorithm * 3 + index & 0xFF for index in range(SIZES.get(algorithm, 32)))


def log_event(world: Driver, banks: list[int], answered: bytes, data: bytes = b"", used: int = 0) -> tuple[int, Log]:
    """Append an event to a log with these banks, of which so many bytes are used: the fault, and the log."""
    begun = first_event(banks)
    world.set("end", 14 + len(answered))
    world.set("answer", bytes(14) + answered)
    log = Log(world, used or len(begun), begun)
    return log.call(9, 0x80000006, data), log


@pytest.mark.parametrize("banks", [[0xB], [4, 0xB], [0xB, 0xC, 0xD], [*SIZES]])
@pytest.mark.parametrize("answered", [[0xB], [4, 0xB, 0xD], [*SIZES], [0xB] * 8, [0xC]])
def test_an_event_has_the_digests_of_the_log_s_banks(banks: list[int], answered: list[int]) -> None:
    """Of what the TPM extended, in the TPM's order; then the data; and the log is so much longer."""
    world = Driver(event_log.log_event, offset=14)
    for data in (b"", b"x", bytes(range(200))):
        found, log = log_event(world, banks, digests(answered), data)
        assert found == 0
        logged = [algorithm for algorithm in answered if algorithm in banks]
        rows = b"".join(struct.pack("<H", algorithm) + digest_of(algorithm) for algorithm in logged)
        appended = struct.pack("<III", 9, 0x80000006, len(logged)) + rows + struct.pack("<I", len(data)) + data
        assert log.events() == first_event(banks) + appended


def test_digests_that_are_none() -> None:
    """No digest, too many, cut off, of an algorithm that nobody knows, or with something behind them: the log stays as it was."""
    good = digests([4, 0xB])
    cut = [good[:size] for size in range(len(good))]
    unknown = [digests([0xB, algorithm]) for algorithm in {*range(72), 0x10B, 0x400} - {*SIZES}]
    counts = [digests([0xB] * 9, count) for count in (0, 8, 9, 1 << 31)] + [digests([0xB], 2), digests([0xB, 4], 1)]
    world = Driver(event_log.log_event, offset=14)
    for answered in (digests([]), *cut, *unknown, *counts, good + b"\0"):
        found, log = log_event(world, [4, 0xB], answered)
        assert found == CONTENT, answered.hex()
        assert log.events(CAPACITY) == first_event([4, 0xB])


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_log_that_is_full(size: int) -> None:
    """Whatever the digests may be, they must fit: eight of the largest, and the data."""
    needed = 12 + 8 * (64 + 2) + 4 + size
    world = Driver(event_log.log_event, offset=14)
    for left in (needed + 1, needed, needed - 1, needed - 2, 1, 0):
        found, log = log_event(world, [0xB], digests([0xB]), bytes(size), used=CAPACITY - left)
        assert found == (0 if left >= needed else FULL)
        assert len(log.events()) == CAPACITY - left + (12 + 34 + 4 + size if left >= needed else 0)


@pytest.mark.parametrize("count", [0, 1, 5, 7, 8, 9, 100, 1 << 31, (1 << 32) - 1])
def test_the_banks_that_a_log_has(count: int) -> None:
    """As many as its first event says, eight at most: what follows is none of them."""
    rows = [0x100 + index for index in range(12)]
    begun = bytearray(first_event([0xB]))
    begun[56:60] = count.to_bytes(4, "little")
    content = bytes(begun[:60]) + b"".join(struct.pack("<HH", row, 0x300 + row) for row in rows)
    log = Log(Driver(event_log.has_bank), len(content), content)
    for index, row in enumerate(rows):
        assert log.call(row) & 0xFF == (index < min(count, 8))
        assert log.call(row + 0x300) & 0xFF == 0


def test_whole_events_are_appended() -> None:
    """As they are; where there is no room for them, none of them."""
    events = b"".join(EVENTS)
    world = Driver(event_log.log_take)
    for used in (0, 1, 77, CAPACITY - len(events) - 1, CAPACITY - len(events), CAPACITY - len(events) + 1, CAPACITY):
        log = Log(world, used)
        log.call(events)
        fits = used + len(events) <= CAPACITY
        assert log.events() == EMPTY[:used] + (events if fits else b"")


def test_a_firmware_s_log_is_taken_over() -> None:
    """Its first event and the whole ones behind it; of what does not begin as a log does, nothing."""
    first = struct.pack("<II20sI", 0, 3, b"", len(NAMED)) + NAMED
    whole = first + b"".join(EVENTS)
    odd = event({0xB: 32}, b"odd")
    world = Driver(event_log.log_take_all)
    for given, taken in (
        (whole, whole),
        (whole + bytes(100), whole),
        (whole + odd[:-1], whole),
        (first, first),
        (first[:-1], b""),
        (b"".join(EVENTS), b""),
        (bytes(100), b""),
        (b"", b""),
    ):
        log = Log(world, 0)
        log.call(given)
        assert log.events() == taken


def test_what_the_first_event_goes_on_with() -> None:
    """A log is one whatever its platform class and versions say; what lies behind its bytes is not a part of it."""
    for rest in (bytes(12), b"\xff" * 12, bytes(range(1, 13))):
        first = struct.pack("<II20sI", 0, 3, b"", 28) + NAMED[:16] + rest
        log = Log(Driver(event_log.log_take_all), 0)
        log.call(first)
        assert log.events() == first
    for size, length in ((8, 40), (0, 32), (15, 47)):
        log = Log(Driver(event_log.log_take_all), 0)
        place = log.world.write(DATA, struct.pack("<II20sI", 0, 3, b"", size) + NAMED)
        log.call(place, length)
        assert log.events() == b""
