"""Programs written to corner the compiler give one result, one memory and one line of a failed check in every world.

They are not what random programs are likely to be: each is aimed at one promise of the language.
"""

from __future__ import annotations

import inspect
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from dsl.compiler.pipeline import OPTIONAL
from tests.execution import corners_of_aliases, corners_of_flow, corners_of_loops, corners_of_memory, corners_of_values
from tests.execution.support import OPTIONS, load_source, name_of
from tests.random_programs.agreement import Counts, check_calls
from tests.random_programs.subject import Subject

MODULES: Final = (corners_of_flow, corners_of_values, corners_of_aliases, corners_of_memory, corners_of_loops)
CALLS: Final = 24  # of each program


def programs_of(module: ModuleType) -> list[str]:
    """The machine functions that have a docstring, in their order."""
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [function for _, function in functions if function.__module__ == module.__name__ and function.__doc__]
    return [function.__name__ for function in sorted(own, key=lambda function: function.__code__.co_firstlineno)]


def with_all(module: ModuleType, directory: Path) -> ModuleType:
    """The module with a function that names all its programs by their addresses, so that none is inlined away."""
    names = programs_of(module)
    lines = "; ".join(f"call {{{name}}}" for name in names)
    given = ", ".join(f"{name}={name}" for name in names)
    calls = f'\n\n@machine(naked=True)\ndef everything() -> None:\n    asm("{lines}; ret", {given})\n'
    source = inspect.getsource(module) + "\n\nfrom dsl.lang import asm\n" + calls
    return load_source(module.__name__.rpartition(".")[2], source, directory)


def check(module: ModuleType, directory: Path, options: dict[str, Any]) -> None:
    """Every program, on edges and at random: no world differs, and each has returned at least once."""
    loaded = with_all(module, directory)
    try:
        subject = Subject(loaded)
        source = random.Random(module.__name__)
        calls = [call for name in programs_of(module) for call in subject.calls(name, source, CALLS)]
        counts = Counts()
        difference = check_calls(subject, calls, options, counts, share=2)
        assert difference is None, difference
        assert counts.calls == len(calls)
        returned = {call.entry for call in calls if subject.python(call).stopped is None}
        assert returned == set(programs_of(module))
    finally:
        del sys.modules[loaded.__name__]


@pytest.mark.t1
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_corners_mean_one_thing(module: ModuleType, tmp_path: Path) -> None:
    """With every pass."""
    check(module, tmp_path, {})


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS[1:], ids=name_of)
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_corners_mean_it_without_a_pass(module: ModuleType, options: dict[str, Any], tmp_path: Path) -> None:
    """With few registers, without any pass, and with each pass off alone."""
    assert set(OPTIONAL) >= set(options.get("disable", ()))
    check(module, tmp_path, options)
