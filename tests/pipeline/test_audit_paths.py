"""The longest path is an upper bound on what any run executes, near to it, and names the loops that have no bound."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dsl.compiler.pipeline import Program, compile_function
from dsl.lang import Array, machine, static_array, stop, u8, u64, upto
from pipeline.audit import bounds
from pipeline.audit.code import code_of
from pipeline.audit.longest import NEVER, Longest, components
from tests.execution.emulated import Emulated

pytestmark = pytest.mark.t1
HERE: Final = __name__
FILE: Final = "tests/pipeline/test_audit_paths.py"
ROWS: Final = 6
GRID: Final = static_array(u64, ROWS * 4)


@machine
def branches(a: u64) -> u64:
    """One way is longer."""
    if a == 0:
        return u64(0)
    if a & 1 != 0:
        a = (a ^ (a << 7)) * 3
        a = (a ^ (a >> 9)) * 5
    return a


@machine
def nested(a: u64) -> u64:
    """Bounded loops, one inside another."""
    total = u64(0)
    for row in upto(u64(ROWS)):
        for column in upto(a, at_most=4):
            total += GRID[row * 4 + column] ^ total
            GRID[row * 4 + column] = total
    return total


@machine
def caller(a: u64) -> u64:
    """Calls in a bounded loop."""
    total = u64(0)
    for _ in upto(a, at_most=5):
        total += nested(u64(4)) + nested(u64(3))
    return total


@machine
def unbounded(data: Array[u8]) -> u64:
    """As long as the data."""
    total = u64(0)
    for index in upto(data.length):
        total += u64(data[index])
    return total


@machine
def searching(a: u64) -> u64:
    """A while loop."""
    while a % 7 != 3:
        a += 1
    return a


@machine
def gives_up(a: u64) -> u64:
    """A long way that never comes back."""
    if a > 100:
        for _ in upto(u64(50)):
            GRID[0] += a
        stop("too large")
    return a


def longest_of(program: Program) -> Longest:
    return Longest(code_of("planted", program))


def executed(program: Program, name: str, argument: int) -> int:
    emulated = Emulated(program, record=True)
    assert emulated.call(f"{HERE}.{name}", [argument]) != "stopped"
    return emulated.instructions


@pytest.mark.parametrize(
    ("function", "arguments", "slack"),
    [(branches, (0, 1, 2, 3), 1.0), (nested, (0, 1, 3, 4), 1.6), (caller, (0, 2, 5), 2.0), (gives_up, (1, 100), 1.0)],
)
def test_no_run_is_longer_and_one_is_near(function: object, arguments: tuple[int, ...], slack: float) -> None:
    name = function.__name__  # type: ignore[attr-defined]
    for left_out in ((), ("inline",)):
        program = compile_function(function, disable=left_out)
        longest = longest_of(program)
        bound = longest.of(f"{HERE}.{name}")
        assert longest.unbounded[f"{HERE}.{name}"] == set()
        counts = [executed(program, name, argument) for argument in arguments]
        assert max(counts) <= bound <= max(counts) * slack


@pytest.mark.parametrize(
    ("function", "text"),
    [(unbounded, "    for index in upto(data.length):"), (searching, "    while a % 7 != 3:")],
)
def test_a_loop_without_a_bound_is_named(function: object, text: str) -> None:
    name = f"{HERE}.{function.__name__}"  # type: ignore[attr-defined]
    longest = longest_of(compile_function(function))
    assert longest.of(name) > 0
    line = Path(__file__).read_text().splitlines().index(text) + 1
    assert longest.unbounded[name] == {(FILE, line)}


def test_what_never_returns_has_no_length() -> None:
    program = compile_function(endless)
    assert longest_of(program).of(f"{HERE}.endless") == NEVER


@machine
def endless() -> None:
    """Goes round for ever."""
    while True:
        GRID[1] += 1


def test_bounds_are_read_from_the_source() -> None:
    found = {loop.bound for loop in bounds.loops_of(FILE).values()}
    assert found == {ROWS, 4, 5, 50, None}


def test_components_come_after_what_they_lead_to() -> None:
    graph = {1: (2,), 2: (3, 5), 3: (4,), 4: (3, 6), 5: (6,), 6: ()}
    found = components(graph, set(graph))
    assert sorted(map(sorted, found)) == [[1], [2], [3, 4], [5], [6]]
    order = {node: place for place, component in enumerate(found) for node in component}
    assert all(order[target] <= order[node] for node, targets in graph.items() for target in targets)
