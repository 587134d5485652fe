"""Random whole programs mean one thing: CPython, natively, and in Unicorn, with the passes and the pool that their number picks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import u64
from tests.execution.generator import Generator
from tests.execution.support import OPTIONS, Outcome, Worlds, load_source, python_outcome, word

FUNCTIONS = 25  # in one module: compiled together, called one by one
INPUTS = 4


def cases(module: object, seed: random.Random) -> list[tuple[list[int], Outcome]]:
    """Inputs of every function of a module, and what CPython says of them."""
    found: list[tuple[list[int], Outcome]] = []
    for number in range(FUNCTIONS):
        for _ in range(INPUTS):
            given = [number, *(word(seed) for _ in range(3))]

            def python(given: list[int] = given) -> tuple[int, ...]:
                return (int(module.entry(*map(u64, given))),)  # type: ignore[attr-defined]

            found.append((given, python_outcome(python)))
    return found


def check_module(number: int, directory: Path) -> int:
    """Compile and run one generated module twice: as usual, and with one set of options. How many cases stopped."""
    name = f"random_program_{number}"
    module = load_source(name, Generator(number).module(FUNCTIONS), directory)
    expected = cases(module, random.Random(number))
    for options in (OPTIONS[0], OPTIONS[1 + number % (len(OPTIONS) - 1)]):
        program = compile_function(module.entry, verify=True, **options)
        worlds = Worlds(program)
        for position, (given, outcome) in enumerate(expected):
            for found in worlds.outcomes(program.entry, given, (64,), emulate=position % 4 == 0):
                assert found == outcome, f"module {number}, {options}, input {given}"
    return sum(outcome == "stopped" for _, outcome in expected)


@pytest.mark.t1
@pytest.mark.parametrize("batch", range(5))
def test_random_programs(batch: int, tmp_path: Path) -> None:
    """A hundred programs a batch."""
    stopped = sum(check_module(number, tmp_path) for number in range(batch * 4, batch * 4 + 4))
    assert stopped < 4 * FUNCTIONS * INPUTS // 2


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("batch", range(5, 25))
def test_more_random_programs(batch: int, tmp_path: Path) -> None:
    """Two thousand more."""
    stopped = sum(check_module(number, tmp_path) for number in range(batch * 4, batch * 4 + 4))
    assert stopped < 4 * FUNCTIONS * INPUTS // 2
