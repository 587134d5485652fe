"""The devices as machine code do, step by step and to the last byte of their state, what they do under CPython."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from random import Random
from types import ModuleType
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.compiler.pipeline import compile_function
from dsl.lang import size_of, u64
from dsl.lang.model import Machine
from tests.devices import box_program, replay_program
from tests.devices.any_board import PARTS, Operation, any_box, any_devices, any_operations, any_time
from tests.devices.box_program import BOX
from tests.devices.replay_program import ACKNOWLEDGE, ADVANCE, BOARD, DRAIN, READ, RESET, TAKE_RESET, TYPE, WRITE, step
from tests.devices.scripts import SCRIPTS, Step
from tests.execution import native as native_world
from tests.worlds import Native
from vmm.box import Box
from vmm.descriptor import DEVICES_KNOWN
from vmm.devices.board import LOW_PORTS, REGIONS, Board, low_row, low_rows

pytestmark = pytest.mark.t1
BOARDS: Final = 1000  # of each part
STEPS: Final = 6  # with each board


class Emitted:
    """A compiled program in this process, and its object between two operations."""

    def __init__(self, program: ModuleType, name: str) -> None:
        self.world = native_world.Native(compile_function(program.step))
        self.symbol = f"{program.__name__}.step"
        self.address = self.world.program.symbols[f"{program.__name__}.{name}"][0]
        self.size = size_of(type(getattr(program, name)))
        self.state = bytes(self.size)

    def step(self, operation: Operation) -> int:
        """Do one operation on the object; its answer."""
        results = self.world.call(self.symbol, list(operation), {self.address: self.state})
        assert not isinstance(results, str), f"{operation}: a check failed"
        self.state = self.world.read(self.address, self.size)
        return results[0]

    def run(self, operations: list[Operation]) -> tuple[list[int], bytes]:
        """Run operations on a zeroed object; return the answers and its bytes."""
        self.state = bytes(self.size)
        return [self.step(operation) for operation in operations], self.state


@cache
def emitted() -> Emitted:
    """The program of a board, compiled once."""
    return Emitted(replay_program, "BOARD")


@cache
def emitted_with_box() -> Emitted:
    """The program of a box, compiled once."""
    return Emitted(box_program, "BOX")


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


Run = tuple[
    bytes, list[tuple[Operation, int, bytes]]
]  # a board or box; each operation, the answer, the digest after it
EXPECTED: Final[
    dict[str, list[Run]]
] = {}  # by part; no emitted code is in it, so that tests/mutation.py need not forget it


def under_python(part: str, source: Random) -> Run:
    """What the source does with a board or box in any state."""
    now = any_time(source)
    run = box_program.step if PARTS[part].of_box else step
    with Machine() as machine:
        if PARTS[part].of_box:
            any_box(BOX, source, now)
        else:
            any_devices(BOARD, source, now)
        place = (BOX._address, size_of(Box)) if PARTS[part].of_box else (BOARD._address, size_of(Board))
        before, rows = machine.memory.read(*place), []
        for operation in any_operations(part, source, now, STEPS):
            answer = int(run(*(u64(word) for word in operation)))
            rows.append((operation, answer, sha256(machine.memory.read(*place)).digest()))
        return before, rows


@pytest.mark.parametrize("part", PARTS)
def test_any_state(part: str) -> None:
    """Whatever state a board is in, each operation gives the same answer and leaves the same state, to the last byte."""
    if part not in EXPECTED:
        source = Random(part)
        EXPECTED[part] = [under_python(part, source) for _ in range(BOARDS)]
    world = emitted_with_box() if PARTS[part].of_box else emitted()
    for world.state, rows in EXPECTED[part]:
        for operation, answer, after in rows:
            before = world.state
            assert world.step(operation) == answer, (operation, before)
            assert sha256(world.state).digest() == after, (operation, before, world.state)


def test_no_port_leads_beyond_the_table_of_low_ports(native: Native) -> None:
    """The one look-up that a guest's port decides, called as speculation may: with every port, of which the low byte alone counts."""
    found = [native(low_row, port) for port in range(1 << 16)]
    assert found == low_rows() * (len(found) // LOW_PORTS)
