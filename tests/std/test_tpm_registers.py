"""The TPM's FIFO and CRB drivers as emitted code: every access to a register in its order (PTP 1.05, 6.5), every wait to its last tick."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

import pytest

from dsl.std import tpm_command
from dsl.std.tpm import TpmFault
from tests.boot.tpm_device import Behaviour, Crb, Fifo
from tests.std.tpm_driver import LOOKS, Access, Driver, Stuck, answer

pytestmark = pytest.mark.t1
ACCESS, STATUS, DATA = 0, 0x18, 0x24
VALID, READY, GO, AVAILABLE, EXPECT = 0x80, 0x40, 0x20, 0x10, 0x08
REQUEST, STATE, CANCEL, START = 0x40, 0x44, 0x48, 0x4C
BUFFER, ANSWERS = 0x80, 0x800


def command(content: bytes) -> bytes:
    """A command: tag, size, code, and what belongs to it."""
    return b"\x80\x01" + (10 + len(content)).to_bytes(4, "big") + b"\0\0\1\x43" + content


COMMAND: Final = command(bytes(range(0x61, 0x68)))
CONTENT: Final = bytes(range(0xE0, 0xF0))


@dataclass(frozen=True)
class Wait:
    """Looks at a register until it is so, for so many milliseconds at most; else this fault."""

    register: int
    milliseconds: int
    fault: TpmFault
    is_so: Callable[[int], bool]


def all_of(bits: int) -> Callable[[int], bool]:
    """Whether these bits are set."""
    return lambda value: value & bits == bits


def none_of(bits: int, valid: int = 0) -> Callable[[int], bool]:
    """Whether these bits are clear, and those set."""
    return lambda value: value & (bits | valid) == valid


def has_burst(value: int) -> bool:
    """Whether any byte may go over."""
    return value >> 8 & 0xFFFF != 0


Step = Wait | tuple[str, int, int | None]  # or an access: a read's value is not looked at
FIFO_READY = Wait(STATUS, 2000, TpmFault.NOT_READY, all_of(READY))
TAKES = Wait(STATUS, 200, TpmFault.TAKES_TOO_FEW, has_burst)
EXPECTS = Wait(STATUS, 200, TpmFault.TAKES_TOO_FEW, all_of(VALID | EXPECT))
HAS_ALL = Wait(STATUS, 200, TpmFault.TAKES_TOO_MANY, none_of(EXPECT, VALID))
ANSWERED = Wait(STATUS, 8000, TpmFault.NO_ANSWER, all_of(VALID | AVAILABLE))
GIVES = Wait(STATUS, 200, TpmFault.ANSWER_SHORT, all_of(VALID | AVAILABLE))
GIVES_SOME = Wait(STATUS, 200, TpmFault.ANSWER_SHORT, has_burst)
GAVE_ALL = Wait(STATUS, 200, TpmFault.ANSWER_LONG, none_of(AVAILABLE, VALID))
CRB_READY = Wait(REQUEST, 200, TpmFault.NOT_READY, none_of(1))
CRB_DONE = Wait(START, 8000, TpmFault.NO_ANSWER, none_of(1))
CRB_RESTS = Wait(REQUEST, 200, TpmFault.NOT_READY, none_of(2))


def fifo_steps(command: bytes, given: bytes, burst: int) -> Iterator[Step]:
    """A command over a FIFO (PTP 6.5.2.5): its last byte by itself, so that the TPM's opinion of its length is seen before and after."""
    last = len(command) - 1
    yield from (("write", STATUS, READY), FIFO_READY)
    for at in range(0, last, burst):
        yield TAKES
        yield from (("write", DATA, byte) for byte in command[at : min(at + burst, last)])
    yield from (EXPECTS, TAKES, ("write", DATA, command[last]), HAS_ALL, ("write", STATUS, GO), ANSWERED)
    for start, end in ((0, 10), (10, len(given))):
        for at in range(start, end, burst):
            yield from (GIVES, GIVES_SOME)
            yield from (("read", DATA, None) for _ in given[at : min(at + burst, end)])
    yield from (GAVE_ALL, ("write", STATUS, READY))


def crb_steps(command: bytes, given: bytes, burst: int) -> Iterator[Step]:
    """A command over a CRB (PTP 6.5.3): out of rest, the buffer filled, started, read, to rest again."""
    yield from (("write", REQUEST, 1), CRB_READY, ("read", STATE, None), ("write", CANCEL, 0))
    yield from (("write", BUFFER + at, byte) for at, byte in enumerate(command))
    yield from (("write", START, 1), CRB_DONE, ("read", STATE, None))
    yield from (("read", BUFFER + ANSWERS + at, None) for at in range(len(given)))
    yield from (("write", REQUEST, 2), CRB_RESTS)


def width_of(offset: int) -> int:
    """The bytes of a register."""
    return 1 if offset in (ACCESS, DATA) or offset >= BUFFER else 4


def accesses(steps: list[Step], trace: list[Access]) -> list[Access]:
    """The accesses that steps ask for, each wait over at its first look; what reads give is taken from a trace."""
    expected: list[Access] = []
    for number, step in enumerate(steps):
        kind, offset, value = ("read", step.register, None) if isinstance(step, Wait) else step
        seen = trace[number][3] if number < len(trace) else 0
        expected.append((kind, offset, width_of(offset), seen if value is None else value))
    return expected


class Exchange:
    """A command and its answer over one of the interfaces."""

    def __init__(self, kind: str, command: bytes = COMMAND, given: bytes | None = None, burst: int = 8) -> None:
        self.command, self.given = command, answer(CONTENT) if given is None else given
        self.asked: list[bytes] = []
        self.steps = list({"fifo": fifo_steps, "crb": crb_steps}[kind](command, self.given, burst))
        self.device: Fifo | Crb = (
            Fifo(self.backend, Behaviour(burst=burst)) if kind == "fifo" else Crb(self.backend, None, ANSWERS)
        )
        self.driver = Driver(tpm_command.transmit, self.device, size=len(command), command=command)

    def backend(self, command: bytes) -> bytes:
        """The TPM behind the registers."""
        self.asked.append(command)
        return self.given

    def fault(self) -> int:
        """Transmit: the failure's code, or 0."""
        self.asked.clear()
        return self.driver.results()[0]

    def check_answered(self) -> None:
        """The command went over once, as it was; the answer is there, and nothing else of TPM is changed."""
        assert self.asked == [self.command]
        assert self.driver.changed() == {"end": len(self.given)}
        kept = bytes(self.driver.before)[576 + len(self.given) : 1600]
        assert self.driver.field("answer") == self.given + kept
        assert self.driver.field("command") == bytes(self.driver.before)[64:576]


KINDS: Final = ("fifo", "crb")
SIZES: Final = ((10, 10), (11, 11), (12, 18), (19, 19), (26, 30), (27, 27), (511, 1023), (512, 1024))
BURSTS: Final = (1, 2, 7, 8, 9, 10, 64, 1024, 4096, 0xFFFF)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "answered"), SIZES)
def test_commands_and_answers_of_all_sizes(kind: str, size: int, answered: int) -> None:
    """Every access in its order, and every byte as it was."""
    source = random.Random(size)
    exchange = Exchange(kind, command(source.randbytes(size - 10)), answer(source.randbytes(answered - 10)))
    assert exchange.fault() == 0
    exchange.check_answered()
    assert exchange.driver.trace == accesses(exchange.steps, exchange.driver.trace)


@pytest.mark.parametrize("burst", BURSTS)
def test_no_more_goes_over_than_the_burst_count_says(burst: int) -> None:
    """Between two looks at it; and a burst count is no promise of data."""
    exchange = Exchange("fifo", COMMAND, answer(bytes(range(64))), burst)
    assert exchange.fault() == 0
    exchange.check_answered()
    assert exchange.driver.trace == accesses(exchange.steps, exchange.driver.trace)


@pytest.mark.parametrize("seed", range(8))
def test_burst_counts_that_change(seed: int) -> None:
    """With each look, and to 0 now and then."""
    source = random.Random(seed)
    exchange = Exchange("fifo", command(source.randbytes(70)), answer(source.randbytes(300)))
    left = 0

    def changing(number: int, offset: int, value: int) -> int:
        nonlocal left
        if offset == STATUS:
            left = source.choice((0, 1, 1, 2, 3, 10, 25)) if value >> 8 else 0
            return value & 0xFF | left << 8
        return value

    exchange.driver.look = changing
    assert exchange.fault() == 0
    exchange.check_answered()
    for kind, offset, _, value in exchange.driver.trace:
        left = value >> 8 if (kind, offset) == ("read", STATUS) else left - (offset == DATA)
        assert left >= 0


def place_of(value: object) -> str | None:
    """A wait's place in a test's name."""
    return "" if isinstance(value, Wait) else None


WAITS: Final = [
    (kind, number, step)
    for kind in KINDS
    for number, step in enumerate(Exchange(kind, burst=16).steps)
    if isinstance(step, Wait)
]


@pytest.mark.parametrize(("kind", "number", "wait"), [row for row in WAITS if row[2] is not CRB_DONE], ids=place_of)
def test_a_wait_ends_with_its_last_tick(kind: str, number: int, wait: Wait) -> None:
    """A register that stays as it should not: looked at for as long as the standard says, to the tick; then a fault of its own name."""
    exchange = Exchange(kind, burst=16)
    wrong = 0xFF if wait.is_so(0) else 0
    stuck = exchange.driver.look = Stuck(exchange.driver, wait.register, wrong, wait.milliseconds, since=number)
    assert exchange.fault() == int(wait.fault.value)
    good = accesses(exchange.steps, exchange.driver.trace)[:number]
    ends = [("write", STATUS, 4, READY)] if kind == "fifo" else []  # it is to forget command and answer
    assert exchange.driver.trace == [*good, *stuck.looks(), *ends]


@pytest.mark.parametrize(("kind", "number", "wait"), WAITS, ids=place_of)
def test_what_a_wait_waits_for(kind: str, number: int, wait: Wait) -> None:
    """For certain bits, whatever the others say: a look that does not have them is one look more."""
    exchange = Exchange(kind, burst=16)
    wrong = 0xFF if wait.is_so(0) else 0
    for bit in range(26):
        for before, value in product((0, 1), (1 << bit, 0x1FF & ~(1 << bit), 0xFFFFFFFF & ~(1 << bit))):
            if wait in (TAKES, GIVES_SOME) and 0 < value >> 8 & 0xFFFF < 16:
                continue  # another burst is another exchange
            looks = {number: wrong, number + before: value}
            exchange.driver.look = lambda at, offset, good, looks=looks: looks.get(at, good)  # type: ignore[misc]
            assert exchange.fault() == 0, hex(value)
            exchange.check_answered()
            assert len(exchange.driver.trace) == len(exchange.steps) + before + (not wait.is_so(value)), hex(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 9, 10, 11, 1023, 1024, 1025, 1 << 16, (1 << 31) + 10, (1 << 32) - 1])
def test_the_size_that_an_answer_says_it_has(kind: str, size: int) -> None:
    """A head's at least, and no more than there is room for; nothing beyond the head is read of any other."""
    given = answer(bytes(range(250)) * 5, size=size)
    exchange = Exchange(kind, given=given[: max(10, size)])
    is_good = 10 <= size <= 1024
    assert exchange.fault() == (0 if is_good else int(TpmFault.ANSWER_SIZE.value))
    read = sum(row[:2] == ("read", DATA) or (row[0] == "read" and row[1] >= BUFFER) for row in exchange.driver.trace)
    assert read == (size if is_good else 10)
    assert exchange.driver.changed() == ({"end": size} if is_good else {})
    assert exchange.driver.trace[-1][:2] == (("write", STATUS) if kind == "fifo" else ("read", REQUEST))


@pytest.mark.parametrize("size", [1023, 1024, 1025, 1024 + 8, 2048])
def test_no_more_is_taken_than_there_is_memory_for(size: int) -> None:
    """However much room the TPM has for its answers."""
    exchange = Exchange("crb", given=answer(bytes(size - 10)))
    exchange.driver.set("answer_room", 0x10000)
    assert exchange.fault() == (0 if size <= 1024 else int(TpmFault.ANSWER_SIZE.value))


@pytest.mark.parametrize("room", [10, 29, 30, 31, 500])
def test_a_crb_has_as_much_room_as_it_said(room: int) -> None:
    """For answers, and for commands: what is longer is not written."""
    exchange = Exchange("crb", given=answer(bytes(20)))
    exchange.driver.set("answer_room", room)
    assert exchange.fault() == (0 if room >= 30 else int(TpmFault.ANSWER_SIZE.value))
    exchange = Exchange("crb", command(bytes(20)))
    exchange.driver.set("command_room", room)
    assert exchange.fault() == (0 if room >= 30 else int(TpmFault.TAKES_TOO_FEW.value))
    assert len(exchange.driver.trace) == (len(exchange.steps) if room >= 30 else 3)


@pytest.mark.parametrize("value", [0, 1, 2, 3, 0x80000000, 0xFFFFFFFE])
def test_a_crb_that_says_it_failed(value: int) -> None:
    """By bit 0 of its status: nothing is sent, or nothing is read and it rests; whatever else the status says."""
    failed = value & 1 != 0
    for fault in (TpmFault.NOT_READY, TpmFault.DEVICE_FAILED):
        exchange = Exchange("crb")
        states = [number for number, step in enumerate(exchange.steps) if step == ("read", STATE, None)]
        number = states[fault == TpmFault.DEVICE_FAILED]
        exchange.driver.look = lambda at, offset, good, number=number: value if at == number else good  # type: ignore[misc]
        assert exchange.fault() == (int(fault.value) if failed else 0)
        rest: list[Step] = [] if number == states[0] else exchange.steps[-2:]
        steps = [*exchange.steps[: number + 1], *rest] if failed else exchange.steps
        assert exchange.driver.trace == accesses(steps, exchange.driver.trace)


@pytest.mark.parametrize("is_sooner", [False, True])
def test_a_crb_is_told_to_stop_and_given_time_for_it(is_sooner: bool) -> None:
    """Two seconds, to the tick, unless it stops before; its answer is not read."""
    exchange = Exchange("crb")
    at = exchange.steps.index(CRB_DONE)
    runs = Stuck(exchange.driver, START, 1, 8000, since=at)
    stops = Stuck(exchange.driver, START, 1, 2000, since=at + LOOKS + 1, last=0 if is_sooner else 1)
    exchange.driver.look = lambda number, offset, value: stops(number, offset, runs(number, offset, value))
    assert exchange.fault() == int(TpmFault.NO_ANSWER.value)
    good = accesses(exchange.steps, exchange.driver.trace)[:at]
    assert exchange.driver.trace == [*good, *runs.looks(), ("write", CANCEL, 4, 1), *stops.looks()]
