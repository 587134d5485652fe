"""The front end's programs give one result under CPython, natively and in Unicorn, whatever the passes and the pool."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang.types import BoolType, FallibleType
from tests.compiler import programs
from tests.compiler.test_frontend import PROGRAMS, kinds_of, numbers, raw_result
from tests.execution.support import OPTIONS, Worlds, name_of, python_outcome

JUNK = 0xDEAD << 48


def dirty(raw: int, width: int) -> int:
    """A narrow argument with something in the bits above it, which nobody may look at."""
    return raw if width in (1, 64) else raw | JUNK


@pytest.mark.t1
@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_program_means_one_thing(function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Generated inputs; narrow arguments carry junk above their width."""
    program = compile_function(function, verify=True, **options)
    worlds = Worlds(program)
    kinds, result = kinds_of(function)
    seed = random.Random(function.__name__)
    for _ in range(30):
        raw = [numbers(kind, seed) % (16 if function is programs.fibonacci else 1 << 64) for kind in kinds]

        def python(raw: list[int] = raw) -> tuple[int, ...]:
            given = [
                bool(number) if isinstance(kind, BoolType) else kind.python._wrap(number)
                for kind, number in zip(kinds, raw, strict=True)
            ]
            return raw_result(result, function(*given))

        expected = python_outcome(python)
        given = [dirty(number, kind.widths[0]) for kind, number in zip(kinds, raw, strict=True)]
        for found in worlds.outcomes(program.entry, given, result.widths):
            failed = isinstance(result, FallibleType) and found != "stopped" and found[0] != 0
            assert (found[:1] if failed else found) == expected, raw
