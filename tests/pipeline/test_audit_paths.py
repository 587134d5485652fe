"""The longest path is an upper bound on what any run executes, near to it, and names the loops that have no bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from dsl.compiler.pipeline import Program, compile_function
from dsl.lang import Array, asm, machine, rounds, static_array, stop, u8, u64, upto
from pipeline.audit import bounds
from pipeline.audit.code import Finding, code_of
from pipeline.audit.exits import Exits, check_exits
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
def leaves(a: u64) -> u64:
    """A loop that must be left."""
    for _ in rounds(9):
        if a >= 200:
            break
        a = a * 2 + 1
    return a


@machine
def stops_with_words(a: u64) -> u64:
    """A loop without a bound, on a way that never comes back."""
    if a == 1:
        while a != 0:
            a = a * 3 + GRID[2]
        stop("done")
    return a


@machine(naked=True)
def turns() -> None:
    """A loop in assembly."""
    asm("mov ecx, 8\n again:\n dec ecx\n jnz again\n ret")


@machine
def turns_twice() -> u64:
    """Calls it."""
    turns()
    turns()
    return GRID[0]


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
    [
        (branches, (0, 1, 2, 3), 1.0),
        (nested, (0, 1, 3, 4), 1.6),
        (caller, (0, 2, 5), 2.0),
        (gives_up, (1, 100), 1.0),
        (leaves, (0, 1, 300), 1.5),
        (stops_with_words, (0, 2), 1.0),
    ],
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
    assert found == {ROWS, 4, 5, 9, 50, None}


def test_components_come_after_what_they_lead_to() -> None:
    graph = {1: (2,), 2: (3, 5), 3: (4,), 4: (3, 6), 5: (6,), 6: ()}
    found = components(graph, set(graph))
    assert sorted(map(sorted, found)) == [[1], [2], [3, 4], [5], [6]]
    order = {node: place for place, component in enumerate(found) for node in component}
    assert all(order[target] <= order[node] for node, targets in graph.items() for target in targets)


def exit_findings(exits: Exits, *handlers: Any) -> list[Finding]:
    """What check_exits says of a program whose entry is the first handler."""
    return check_exits(code_of("planted", compile_function(handlers[0], disable=("inline",))), exits, handlers)[0]


def symbols(**budgets: int) -> dict[str, int]:
    return {f"{HERE}.{name}": budget for name, budget in budgets.items()}


def test_handlers_within_their_budgets_are_fine_and_listed() -> None:
    """One that is emitted in the program, one that is not."""
    exits = Exits(symbols(nested=1000), symbols(caller=10_000, branches=20))
    code = code_of("planted", compile_function(caller, disable=("inline",)))
    findings, lines = check_exits(code, exits, (caller, branches))
    assert findings == []
    assert [line.split()[0].rpartition(".")[2] for line in lines[1:]] == ["nested", "caller", "branches"]


@pytest.mark.parametrize(
    ("exits", "handlers", "rule", "text"),
    [
        (Exits({}, symbols(searching=1000)), (searching,), "loop", "searching"),
        (Exits({}, symbols(caller=1000, unbounded=1000)), (caller, unbounded), "loop", "unbounded"),
        (Exits(symbols(searching=1000), {}), (searching,), "exit", "expected a budget of"),
        (Exits({}, symbols(nested=10)), (nested,), "exit", f"{HERE}.nested: expected at most 10 instructions, found "),
        (Exits(symbols(nested=10), symbols(caller=10_000)), (caller,), "exit", "expected at most 10 instructions"),
        (Exits({}, symbols(nested=1000, gone=10)), (nested,), "exit", f"a handler of the budget's row {HERE}.gone"),
        (Exits(symbols(gone=10), symbols(nested=1000)), (nested,), "exit", f"expected a function {HERE}.gone"),
        (Exits({}, symbols(turns_twice=100)), (turns_twice,), "loop", "expected a loop with a bound"),
        (Exits({}, symbols(turns_twice=30), symbols(turns=8)), (turns_twice,), "exit", "at most 30"),
    ],
)  # fmt: skip
def test_a_planted_exit_is_found(exits: Exits, handlers: tuple[Any, ...], rule: str, text: str) -> None:
    """A loop without a bound in a handler; a path over its budget; a handler without a row, and a row without one."""
    found = [finding for finding in exit_findings(exits, *handlers) if finding.rule == rule]
    assert len(found) == 1, found
    lines = Path(__file__).read_text().splitlines()
    if rule == "loop" and text != "expected a loop with a bound":
        first = lines.index(next(line for line in lines if line.startswith(f"def {text}(")))
        loop = next(
            n for n, line in enumerate(lines[first:], first + 1) if line.lstrip().startswith(("for ", "while "))
        )
        text = f"planted: {FILE}:{loop}: expected a loop with a bound"
    assert text in found[0].text


def test_a_listing_s_rounds_count() -> None:
    """Eight rounds and the one that ends them, twice."""
    exits = Exits({}, symbols(turns_twice=60), symbols(turns=8))
    assert exit_findings(exits, turns_twice) == []
