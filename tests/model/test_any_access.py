"""What the monitor does for an access to absent memory, as machine code and as the source under CPython: alike from any state of a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from boot.handoff import DIRECT_MAP, MONITOR_BASE
from dsl.hw import vmx
from dsl.lang import Failure, HostVirtual, array_at, size_of, u8, u64, untrusted
from dsl.lang.model import Machine, current_machine
from tests.model.any_access import (
    BOX,
    BYTES,
    FRAME,
    LINK,
    Case,
    Writes,
    any_access,
    any_box,
    box,
    host,
    map_world,
    memory,
)
from tests.model.machine import REACHED
from tests.model.random_source import Source
from tests.model.start import machine_for
from tests.model.vmcs import Vmcs
from tests.vmm.images import monitor
from vmm.box import Box
from vmm.decoder import Move
from vmm.exits.absent_memory import decode_current, handle_ept_violation
from vmm.guest_memory import copy_in, copy_out
from vmm.vmx.information import EPT_WRITE

pytestmark = pytest.mark.t1
ACCESSES: Final = 2500
COPIES: Final = 400
STACK_TOP: Final = DIRECT_MAP + 0x18_0000
NOISE: Final = b"\xdb" * 8  # what lies below the stack pointer
KEPT: Final = ("rbx", "rbp", "r12", "r13", "r14", "r15")  # registers that a function gives back as they were
RETURN: Final = MONITOR_BASE + 32  # inside the monitor's header, which nothing runs
DECODE, HANDLE = "vmm.exits.absent_memory.decode_current", "vmm.exits.absent_memory.handle_ept_violation"
LONGEST: Final = 64  # bytes of a copy, beside its frame


@dataclass(frozen=True)
class Expected:
    """A case with what the source does. parts: of memory after it, by physical address."""

    case: Case
    calls: list[tuple[str, list[int], int]]  # function, arguments, the answer
    fields: dict[int, int]
    parts: Writes


RUNS: Final[
    dict[str, tuple[Writes, list[Expected]]]
] = {}  # no emitted code is in it, so that tests/mutation.py need not forget it


class Emitted:
    """The monitor on the model, whose functions are called one by one."""

    def __init__(self, content: Writes) -> None:
        self.machine = machine_for([])
        self.vmcs = Vmcs(1)
        self.machine.vmxon_region, self.machine.current, self.machine.regions = 0, 1, {1: self.vmcs}
        for place, data in content:
            self.machine.write_physical(place, data)

    def call(self, symbol: str, arguments: list[int]) -> int:
        """Call a function; all of rax."""
        machine = self.machine
        stack = NOISE * 256 + RETURN.to_bytes(8, "little")
        machine.write_physical(STACK_TOP - len(stack) - DIRECT_MAP, stack)
        for number, register in enumerate(KEPT):
            machine[register] = RETURN - number
        machine["rsp"], machine.rip = STACK_TOP - 8, monitor().symbols[symbol][0]
        for register, argument in zip(("rdi", "rsi", "rdx", "rcx"), arguments, strict=False):
            machine[register] = argument
        assert machine.run(RETURN) == REACHED
        assert machine["rsp"] == STACK_TOP
        assert [machine[register] for register in KEPT] == [RETURN - number for number in range(len(KEPT))], symbol
        return machine["rax"]

    def check(self, expected: Expected) -> None:
        """Do the same: answers, fields and memory are the same."""
        for place, data in expected.case.writes:
            self.machine.write_physical(place, data)
        self.vmcs.fields = dict(expected.case.fields)
        for symbol, arguments, answer in expected.calls:
            mask = 0xFF if symbol == HANDLE else -1
            assert self.call(symbol, arguments) & mask == answer, (symbol, arguments)
        assert self.vmcs.fields == expected.fields
        for place, data in expected.parts:
            assert self.machine.read_physical(place, len(data)) == data, hex(place)


def read(place: int, size: int) -> tuple[int, bytes]:
    """A part of memory under CPython."""
    return place, current_machine().memory.read(DIRECT_MAP + place, size)


def code_of(result: Failure | None) -> int:
    """What rax says of a function that may fail."""
    return 0 if result is None else int(result.code)


def access_under_python(source: Source) -> Expected:
    """Decode the instruction, then carry it out."""
    case = any_access(source)
    case.write(LINK, bytes(size_of(Move)))
    current_machine().cpu.vmx.structures[0] = case.fields
    move = Move.at(HostVirtual(DIRECT_MAP + LINK))
    decoded = code_of(decode_current(box(), move))
    if source.randrange(8):  # so that most exits say of the access what the instruction says
        case.fields[vmx.EXIT_QUALIFICATION.encoding] &= ~EPT_WRITE
        case.fields[vmx.EXIT_QUALIFICATION.encoding] |= EPT_WRITE if move.is_write else 0
    current_machine().cpu.vmx.structures[0] = fields = dict(case.fields)
    handled = int(handle_ept_violation(box()).value)
    there = DIRECT_MAP + BOX
    calls = [(DECODE, [there, DIRECT_MAP + LINK], decoded), (HANDLE, [there], handled)]
    return Expected(case, calls, fields, [read(LINK, size_of(Move)), read(BOX, size_of(Box))])


def copy_under_python(source: Source) -> Expected:
    """Copy in or out, at most a frame, about a frame's end or the memory's."""
    case = Case([], {})
    any_box(source, case)
    size = source.choice((0, 1, 8, 15, source.randint(1, LONGEST), source.randint(1, LONGEST)))
    end = source.choice((int(memory().size), FRAME * source.randint(1, 6), 0, 2**64))
    start = (end + source.randint(-LONGEST - 2, 2)) % 2**64
    case.write(BYTES - LONGEST, source.randbytes(3 * LONGEST))
    content = array_at(u8, HostVirtual(DIRECT_MAP + BYTES), size)
    is_in = bool(source.getrandbits(1))
    result = (copy_in if is_in else copy_out)(memory(), untrusted(u64(start)), content)
    symbol = f"vmm.guest_memory.copy_{'in' if is_in else 'out'}"
    arguments = [int(memory()._address), start, DIRECT_MAP + BYTES, size]
    about = [host(place) for place in range(start - LONGEST, start + 2 * LONGEST) if 0 <= place < int(memory().size)]
    parts = [read(BYTES - LONGEST, 3 * LONGEST), *(read(place, 1) for place in about)]
    return Expected(case, [(symbol, arguments, code_of(result))], {}, parts)


def run(name: str, count: int, make: Any) -> None:
    """Compare both worlds, case by case; memory stays as the cases before left it."""
    if name not in RUNS:
        source = Source(name)
        with Machine() as machine:
            RUNS[name] = map_world(machine), [make(source) for _ in range(count)]
    content, rows = RUNS[name]
    emitted = Emitted(content)
    for expected in rows:
        emitted.check(expected)


def test_any_access() -> None:
    """Any instruction in any mode, through any page tables, from memory of any size: decoded, refused or carried out alike."""
    run("access", ACCESSES, access_under_python)


def test_any_copy() -> None:
    """Bytes in and out of a guest's memory: the same ones, in both directions, and none beside them."""
    run("copy", COPIES, copy_under_python)
