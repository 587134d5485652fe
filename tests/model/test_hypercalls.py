"""Hypercalls with arguments at every boundary, in the emitted monitor: the right status, each guest byte read at most once, nothing else
touched, no fault. The expected status comes from docs/formats.md, written down here a second time.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import unicorn as uc

from boot.handoff import DIRECT_MAP, MONITOR_BASE
from dsl.compiler.pipeline import Program, compile_program
from dsl.hw import vmx
from dsl.lang import Array, Failure, Untrusted, machine, u8, u64
from tests.model.image import EVENT_LOG, QUOTE, QUOTE_SIGNATURE
from tests.model.machine import ModelFailure, RandomWords
from tests.model.start import machine_for, play
from tests.model.vmx_operation import GENERAL, Exit, Guest, Script, VmxMachine
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode
from vmm.guest_memory import GuestMemory
from vmm.guest_memory import copy_in as copy_in_once

pytestmark = pytest.mark.t1
MEMORY = 2 << 20
VERSION, GET_ID, ENDORSE, RANDOM, LOG, YIELD, EVIDENCE = range(7)
ITEMS = {7: QUOTE, 8: QUOTE_SIGNATURE, 9: EVENT_LOG}
OK, UNKNOWN_CALL, BAD_ADDRESS, BAD_SIZE, NOT_PERMITTED, AGAIN, NO_ENTROPY = range(7)
IDENTITY_SIZE, REQUEST_SIZE, ENDORSEMENT_SIZE, TRANSFER_LIMIT = 3184, 328, 1028, 256
REQUEST = 0x12_0000  # where a good request lies; all other memory is 0xFF, whose data size is too large
WORD = 2**64 - 1
SIZES = (0, 1, TRANSFER_LIMIT, IDENTITY_SIZE, REQUEST_SIZE, ENDORSEMENT_SIZE, MEMORY)
ARGUMENTS = ("rax", "rdi", "rsi", "rdx", "r10", "r8")
EXAMPLES = 3000
GOOD_REQUEST = bytes(64) + struct.pack("<II", 200, 0) + bytes(256)
GOOD_ENDORSE = {"rax": ENDORSE, "rdi": REQUEST, "rsi": REQUEST_SIZE, "rdx": 0x8_0000, "r10": ENDORSEMENT_SIZE, "r8": 0}


@dataclass
class Watch:
    """The monitor's accesses to guest memory since the last `clear`, as guest-physical addresses of single bytes."""

    reads: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)  # physical addresses in free RAM or the other box
    is_on: bool = False

    def clear(self) -> None:
        """Forget."""
        self.reads.clear()
        self.writes.clear()


def watch_memory(engine: Any, frame: int, others: list[tuple[int, int]]) -> Watch:
    """Record what touches the frame of the box, and what touches the frames of others."""
    watch = Watch()

    def own(_: Any, access: int, address: int, size: int, __: int, ___: Any) -> None:
        if watch.is_on:
            start = (address & 2**47 - 1) - frame
            (watch.writes if access == uc.UC_MEM_WRITE else watch.reads).extend(range(start, start + size))

    def other(_: Any, __: int, address: int, ___: int, ____: int, _____: Any) -> None:
        if watch.is_on:
            watch.foreign.append(address)

    both = uc.UC_HOOK_MEM_READ | uc.UC_HOOK_MEM_WRITE
    for base in (0, DIRECT_MAP):  # the engine reports the address as used, or the physical one
        engine.hook_add(both, own, None, base + frame, base + frame + MEMORY - 1)
        for first, last in others:
            engine.hook_add(both, other, None, base + first, base + last)
    engine.ctl_flush_tb()
    return watch


def boundary(source: random.Random) -> int:
    """A word near a boundary: powers of two, pages, the end of memory, the sizes in use; or anything."""
    kind = source.randrange(8)
    offset = source.randint(-16, 16)
    if kind == 0:
        return (1 << source.randrange(65)) + offset & WORD
    if kind == 1:
        return source.randrange(MEMORY >> 12) * 4096 + offset & WORD
    if kind == 2:
        return MEMORY - source.choice(SIZES) + offset & WORD
    if kind == 3:
        return -source.choice(SIZES) + offset & WORD
    if kind == 4:
        return source.choice(SIZES) + offset & WORD
    if kind == 5:
        return REQUEST
    return source.choice(SIZES) if kind == 6 else source.getrandbits(64)


def in_memory(start: int, size: int) -> bool:
    """Whether a range lies in the box."""
    return size > 0 and start + size <= MEMORY


def is_good_request(start: int, memory: bytes) -> bool:
    """Whether an EndorseRequest stands there."""
    size, reserved = map(int, struct.unpack_from("<II", memory, start + 64))
    return size <= 256 and reserved == 0


@dataclass(frozen=True)
class Expected:
    """What a call must answer, and the ranges that it may read and write."""

    status: int
    read: range = range(0)
    write: range = range(0)


def expected_answer(call: dict[str, int], ring: int, memory: bytes) -> Expected:
    """The answer by docs/formats.md."""
    number, first, size, second, second_size = (call[name] for name in ("rax", "rdi", "rsi", "rdx", "r10"))
    if ring:
        return Expected(NOT_PERMITTED)
    if number in (VERSION, YIELD):
        return Expected(OK)
    if number == GET_ID:
        if size < IDENTITY_SIZE:
            return Expected(BAD_SIZE)
        good = in_memory(first, IDENTITY_SIZE)
        return Expected(OK, write=range(first, first + IDENTITY_SIZE)) if good else Expected(BAD_ADDRESS)
    if number in (RANDOM, LOG):
        if not 0 < size <= TRANSFER_LIMIT:
            return Expected(BAD_SIZE)
        if not in_memory(first, size):
            return Expected(BAD_ADDRESS)
        place = range(first, first + size)
        return Expected(OK, write=place) if number == RANDOM else Expected(OK, read=place)
    if number == EVIDENCE:
        content = ITEMS.get(second, b"")
        if size > TRANSFER_LIMIT or second_size > len(content):
            return Expected(BAD_SIZE)
        count = min(size, len(content) - second_size)
        if count and not in_memory(first, count):
            return Expected(BAD_ADDRESS)
        return Expected(OK, write=range(first, first + count))
    if number != ENDORSE:
        return Expected(UNKNOWN_CALL)
    if size != REQUEST_SIZE or second_size < ENDORSEMENT_SIZE:
        return Expected(BAD_SIZE)
    if not in_memory(second, ENDORSEMENT_SIZE) or not in_memory(first, REQUEST_SIZE):
        return Expected(BAD_ADDRESS)
    request = range(first, first + REQUEST_SIZE)
    if not is_good_request(first, memory):
        return Expected(BAD_SIZE, read=request)
    return Expected(OK, request, range(second, second + ENDORSEMENT_SIZE))


def random_call(source: random.Random) -> dict[str, int]:
    """A call: a known number mostly; sizes are often right, so that addresses are looked at."""
    call = {name: boundary(source) for name in ARGUMENTS}
    call["rax"] = source.choice([*range(8), GET_ID, ENDORSE, RANDOM, LOG, EVIDENCE, boundary(source)])
    if call["rax"] == ENDORSE and source.random() < 0.7:
        call |= {"rsi": REQUEST_SIZE, "r10": ENDORSEMENT_SIZE}
    elif call["rax"] == GET_ID and source.random() < 0.5:
        call["rsi"] = IDENTITY_SIZE
    elif call["rax"] == EVIDENCE and source.random() < 0.9:
        call |= {
            "rdx": source.choice([6, 7, 8, 9, 9, 10]),
            "r10": source.choice([0, 0, 1, 40, 71, 72, 144, 145, 1000, 1249, 1250, 1251]),
        }
        call["rsi"] = source.choice([0, 1, 72, 255, 256, 256, 257])
    elif call["rax"] in (RANDOM, LOG) and source.random() < 0.7:
        call["rsi"] = source.choice([1, 2, 16, 255, 256])
    return call


@dataclass
class Tally:
    """What a run saw."""

    statuses: dict[tuple[int, int], int] = field(default_factory=dict)
    examples: int = 0

    def count(self, number: int, status: int) -> None:
        """One more."""
        self.examples += 1
        self.statuses[number, status] = self.statuses.get((number, status), 0) + 1


def check_call(
    guest: Guest, watch: Watch, call: dict[str, int], ring: int, before: dict[str, int], memory: bytes
) -> int:
    """Compare one answer with what it must be; returns the status."""
    expected = expected_answer(call, ring, memory)
    status = guest["rax"]
    name = " ".join(f"{register}={value:#x}" for register, value in call.items())
    wanted = {expected.status} | ({AGAIN} if call["rax"] == LOG and expected.status == OK else set())
    assert status in wanted, f"{name}: status {status}, expected {expected.status}"
    assert len(watch.reads) == len(set(watch.reads)), f"{name}: a guest byte was read twice"
    assert set(watch.reads) <= set(expected.read), f"{name}: read outside its argument"
    assert set(watch.writes) <= set(expected.write), f"{name}: wrote outside its answer"
    if status == OK:
        assert set(watch.reads) == set(expected.read), f"{name}: not all of the argument was read"
        assert set(watch.writes) == set(expected.write), f"{name}: not all of the answer was written"
    if call["rax"] == EVIDENCE and status == OK:
        assert guest["rdi"] == len(ITEMS.get(call["rdx"], b"")), f"{name}: the item's size"
    changed = {"rax"} | ({"rdi"} if call["rax"] in (VERSION, EVIDENCE) and status == OK else set())
    assert {register for register in GENERAL if guest[register] != before[register]} <= changed, name
    return status


def hypercall_script(examples: int, seed: int, tally: Tally) -> Callable[[Guest], Script]:
    """A guest that makes random calls and checks each."""

    def script(guest: Guest) -> Script:
        source = random.Random(seed)
        engine = guest.machine.engine
        frame = guest.place(0)
        guest.machine.time_limit = 2**62
        engine.mem_write(frame, b"\xff" * MEMORY)
        engine.mem_write(frame + REQUEST, GOOD_REQUEST)
        watch = watch_memory(engine, frame, [(frame + MEMORY, 32 << 20)])
        good_requests = 0
        for example in range(examples):
            call, ring = random_call(source), source.choice((0, 0, 0, 0, 0, 0, 0, 1, 2, 3))
            if example == examples // 2:
                call, ring = dict(GOOD_ENDORSE), 0
            memory = bytes(engine.mem_read(frame, MEMORY)) if call["rax"] == ENDORSE else b""
            if call["rax"] == ENDORSE and expected_answer(call, ring, memory).status == OK:
                good_requests += 1
                if good_requests > 2:  # a signature takes millions of instructions
                    call["rsi"] += 1
            before = {name: source.getrandbits(64) for name in GENERAL} | call
            rip = guest.rip
            rights = {vmx.GUEST_SS_ACCESS_RIGHTS: 0xC093 | ring << 5, vmx.GUEST_CS_ACCESS_RIGHTS: 0xA09B | ring << 5}
            watch.clear()
            watch.is_on = True
            yield Exit(vmx.ExitReason.VMCALL, length=3, registers=before, fields=rights | {vmx.GUEST_RIP: rip & 0xFFF})
            watch.is_on = False
            assert guest.event == 0
            assert guest.rip == (rip & 0xFFF) + 3
            if call["rax"] == EVIDENCE and guest["rax"] == OK and watch.writes:
                written = bytes(engine.mem_read(frame + call["rdi"], len(watch.writes)))
                assert written == ITEMS[call["rdx"]][call["r10"] :][: len(written)]
            tally.count(call["rax"], check_call(guest, watch, call, ring, before, memory))
            assert not watch.foreign, f"memory of nobody or of another box was touched: {watch.foreign[0]:#x}"
            for place in {*watch.writes[:1], *watch.writes[-1:]}:
                engine.mem_write(frame + min(max(place - 4096, 0), MEMORY - 8192), b"\xff" * 8192)
                engine.mem_write(frame + REQUEST, GOOD_REQUEST)

    return script


def run_fuzz(examples: int, seed: int, program: Program | None = None) -> tuple[VmxMachine, Tally]:
    """One machine, one box, many calls."""
    tally = Tally()
    machine = machine_for(
        [TestBox("a", b"\xf4", StartMode.LONG)], [hypercall_script(examples, seed, tally)], program=program
    )
    machine.run()
    return machine, tally


def test_thousands_of_calls_at_the_boundaries() -> None:
    """Every answer as written down, every byte read once, nothing outside touched, no fault; and all kinds of answers were seen."""
    machine, tally = run_fuzz(EXAMPLES, seed=20)
    assert not machine.exceptions, machine.serial_text()[-300:]
    assert tally.examples == EXAMPLES
    for number, status in (
        (VERSION, OK), (GET_ID, OK), (GET_ID, BAD_ADDRESS), (GET_ID, BAD_SIZE), (ENDORSE, OK), (ENDORSE, BAD_ADDRESS),
        (ENDORSE, BAD_SIZE), (RANDOM, OK), (RANDOM, BAD_ADDRESS), (RANDOM, BAD_SIZE), (LOG, OK), (LOG, BAD_ADDRESS),
        (LOG, BAD_SIZE), (YIELD, OK), (EVIDENCE, OK), (EVIDENCE, BAD_SIZE), (EVIDENCE, BAD_ADDRESS), (7, UNKNOWN_CALL),
        (LOG, NOT_PERMITTED),
    ):  # fmt: skip
        assert tally.statuses.get((number, status), 0) > 0, (number, status)


def test_endorse_looks_at_its_answer_s_place_first() -> None:
    """All of the answer must lie in memory, to the last byte; only then is the request looked at, whose data is too long here."""

    def script(guest: Guest) -> Script:
        guest.write(REQUEST + 64, b"\x01\x01")
        for place, status in ((MEMORY - ENDORSEMENT_SIZE, BAD_SIZE), (MEMORY - ENDORSEMENT_SIZE + 1, BAD_ADDRESS)):
            yield Exit(vmx.ExitReason.VMCALL, length=3, registers=GOOD_ENDORSE | {"rdx": place})
            assert guest["rax"] == status

    play(script, TestBox("a", b"\xf4", StartMode.LONG))


def test_random_bytes_stay_nowhere_else() -> None:
    """After RANDOM, RAM holds no part of the bytes but where the caller wanted them: no stack, no scratch of the monitor's."""
    place, size, part = 0x8_0000, 256, 16
    found: list[int] = []

    def script(guest: Guest) -> Script:
        yield Exit(vmx.ExitReason.VMCALL, length=3, registers={"rax": RANDOM, "rdi": place, "rsi": size})
        assert guest["rax"] == OK
        given = guest.read(place, size)
        guest.write(place, bytes(size))
        memory = bytes(guest.machine.memory)
        found.extend(start for start in range(0, size, part) if given[start : start + part] in memory)
        assert len(set(given)) > part

    machine = machine_for([TestBox("a", b"\xf4", StartMode.LONG)], [script])
    machine.run()
    assert not machine.exceptions
    assert not found


@pytest.mark.parametrize("has_started", [False, True])
def test_no_random_bytes_without_entropy(has_started: bool) -> None:
    """When the processor's generator has nothing any more, RANDOM says so and writes nothing; when it has again, RANDOM works.

    Without any at the monitor's start it never does.
    """

    def script(guest: Guest) -> Script:
        place = 0x8_0000
        for generator, status in ((lambda: None, NO_ENTROPY), (RandomWords(2), OK if has_started else NO_ENTROPY)):
            guest.machine.random = generator
            yield Exit(vmx.ExitReason.VMCALL, length=3, registers={"rax": RANDOM, "rdi": place, "rsi": 64})
            assert guest["rax"] == status
            assert any(guest.read(place, 64)) == (status == OK)

    machine = machine_for([TestBox("a", b"\xf4", StartMode.LONG)], [script])
    if not has_started:
        machine.random = lambda: None
    machine.run()
    assert not machine.exceptions
    assert machine.guests


@machine
def wrapping_check_range(memory: GuestMemory, start: Untrusted[u64], size: u64) -> u64 | Failure:
    """A planted fault: the end is computed modulo 2**64."""
    first = start.trusted("planted")
    if size == 0 or first + size > memory.size:
        return Failure(1)
    return first


@machine
def copy_in_twice(memory: GuestMemory, source: Untrusted[u64], destination: Array[u8]) -> Failure | None:
    """A planted fault: the guest's bytes are fetched a second time."""
    _ = copy_in_once(memory, source, destination)
    return copy_in_once(memory, source, destination)


def broken_monitor(monkeypatch: pytest.MonkeyPatch, places: list[str], function: Any) -> Program:
    """The monitor compiled with another function in some places."""
    from vmm.main import start

    for place in places:
        monkeypatch.setattr(place, function)
    return compile_program(start, base=MONITOR_BASE)


def test_a_planted_wrap_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a range check that wraps, the same calls end in a failed check or a wrong status."""
    places = ["vmm.guest_memory.check_range", "vmm.exits.hypercall.check_range"]
    program = broken_monitor(monkeypatch, places, wrapping_check_range)
    try:
        machine, _ = run_fuzz(EXAMPLES, 20, program)
    except (AssertionError, ModelFailure, uc.UcError):
        return
    assert machine.exceptions, "the planted wrap went unseen"


def test_a_planted_double_fetch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With arguments copied in twice, the read hook says so."""
    program = broken_monitor(monkeypatch, ["vmm.exits.hypercall.copy_in"], copy_in_twice)
    with pytest.raises(AssertionError, match="a guest byte was read twice"):
        run_fuzz(EXAMPLES, 20, program)
