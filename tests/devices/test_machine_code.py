"""The devices as machine code do, step by step and to the last byte of their state, what they do under CPython."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.compiler.pipeline import compile_function
from dsl.lang import size_of, u64
from dsl.lang.model import Machine
from tests.devices import replay_program
from tests.devices.replay_program import ACKNOWLEDGE, ADVANCE, BOARD, DRAIN, READ, RESET, TAKE_RESET, TYPE, WRITE, step
from tests.devices.scripts import SCRIPTS, Step
from tests.worlds import Native
from vmm.descriptor import DEVICES_KNOWN
from vmm.devices.board import LOW_PORTS, REGIONS, Board, low_row, low_rows

pytestmark = pytest.mark.t1
Operation = tuple[int, int, int, int, int]  # operation, port, width, value, now


class Emitted:
    """The compiled program in this process."""

    def __init__(self) -> None:
        """Compile it and map it."""
        program = compile_function(step)
        self.memory = mmap.mmap(-1, program.memory_size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(program.image)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)
        self.step: Callable[..., int] = prototype(base + program.symbols[f"{step.__module__}.step"][0] - program.base)
        self.board = program.symbols[f"{replay_program.__name__}.BOARD"][0] - program.base

    def run(self, operations: list[Operation]) -> tuple[list[int], bytes]:
        """Run operations on a zeroed board; return the answers and the board's bytes."""
        size = size_of(Board)
        self.memory[self.board : self.board + size] = bytes(size)
        answers = [self.step(*operation) for operation in operations]
        return answers, self.memory[self.board : self.board + size]


@cache
def emitted() -> Emitted:
    """The compiled program, once."""
    return Emitted()


def under_cpython(operations: list[Operation]) -> tuple[list[int], bytes]:
    """Run the same under CPython."""
    with Machine() as machine:
        answers = [int(step(*(u64(word) for word in operation))) for operation in operations]
        return answers, machine.memory.read(BOARD._address, size_of(Board))


def check(operations: list[Operation]) -> None:
    """Both worlds give the same."""
    whole = [(RESET, 0, 0, DEVICES_KNOWN, 0), *operations]
    found, found_state = emitted().run(whole)
    expected, expected_state = under_cpython(whole)
    answers = list(zip(whole, expected, strict=True))
    assert list(zip(whole, found, strict=True)) == answers
    assert found_state == expected_state


def operations_of(script: list[Step]) -> list[Operation]:
    """Return a port script's operations."""
    operations: list[Operation] = []
    now = 0
    for kind, *rest in script:
        now += 40 + (rest[0] * 1000 if kind == "wait" else 0)
        operations.append((ADVANCE, 0, 0, 0, now))
        width = 4 if kind.endswith("4") else 1
        if kind == "inta":
            operations.append((ACKNOWLEDGE, 0, 0, 0, now))
        elif kind.startswith("in"):
            operations.append((READ, rest[0], width, 0, now))
        elif kind.startswith("out"):
            operations.append((WRITE, rest[0], width, rest[1], now))
    return operations


@pytest.mark.parametrize("name", SCRIPTS)
def test_port_scripts(name: str) -> None:
    """The recorded scripts run alike in both worlds."""
    check(operations_of(SCRIPTS[name]))


ports = [port for region in REGIONS for port in range(region.first, region.first + region.count)]
accesses = st.tuples(
    st.sampled_from([READ, WRITE, WRITE, WRITE, ADVANCE, ACKNOWLEDGE, TAKE_RESET, TYPE, DRAIN]),
    st.sampled_from(ports) | st.integers(0, 0xFFFF),
    st.sampled_from([1, 1, 1, 2, 4]),
    st.integers(0, 0xFF) | st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 10**7) | st.integers(0, 10**12),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(accesses, max_size=80))
def test_any_sequence(steps: list[Operation]) -> None:
    """Any sequence of accesses runs alike in both worlds."""
    now = 0
    operations = []
    for operation, port, width, value, passed in steps:
        now += passed
        operations.append((operation, port, width, value, now))
    check(operations)


def test_no_port_leads_beyond_the_table_of_low_ports(native: Native) -> None:
    """The one look-up that a guest's port decides, called as speculation may: with every port, of which the low byte alone counts."""
    found = [native(low_row, port) for port in range(1 << 16)]
    assert found == low_rows() * (len(found) // LOW_PORTS)
