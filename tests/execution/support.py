"""What the execution tests share: generated modules, option sets, and one outcome per world."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from dsl.compiler.pipeline import OPTIONAL, Program
from dsl.lang import Machine
from dsl.lang.failure import CheckFailed, Stopped
from tests.execution.emulated import Emulated
from tests.execution.native import Native

Outcome = tuple[int, ...] | str
# Every pass on, the smallest pools, every pass off, each pass off alone.
OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"pool": 4},
    {"pool": 5},
    {"pool": 8},
    {"disable": OPTIONAL},
    *({"disable": (name,)} for name in OPTIONAL),
)
EDGES: Final = (
    *(0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    *(0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF),
)


def name_of(options: dict[str, Any]) -> str:
    """A test's id for an option set."""
    return (
        "-".join(f"{key}={','.join(value) if isinstance(value, tuple) else value}" for key, value in options.items())
        or "all"
    )


def load_source(name: str, source: str, directory: Path) -> ModuleType:
    """Import generated source as a module of its own."""
    path = directory / f"{name}.py"
    path.write_text(source)
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def python_outcome(run: Callable[[], tuple[int, ...]]) -> Outcome:
    """What a function gives under CPython, on a machine of its own."""
    try:
        with Machine():
            return run()
    except (CheckFailed, Stopped, ValueError):  # ValueError: what an Enum raises for a word of no member
        return "stopped"


def word(seed: random.Random) -> int:
    """A word that is often at an edge."""
    return seed.choice(EDGES) if seed.random() < 0.5 else seed.randrange(1 << seed.choice((8, 16, 32, 64)))


class Worlds:
    """A program natively and in Unicorn."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.worlds = (Native(program), Emulated(program))

    def outcomes(
        self, symbol: str, arguments: list[int], widths: tuple[int, ...], emulate: bool = True
    ) -> list[Outcome]:
        """The results, cut to their widths, in each world."""
        found: list[Outcome] = []
        for world in self.worlds if emulate else self.worlds[:1]:
            registers = world.call(symbol, arguments)
            found.append(registers if isinstance(registers, str) else cut(registers, widths))
        return found


def cut(registers: tuple[int, ...], widths: tuple[int, ...]) -> tuple[int, ...]:
    """The bits that count: of a bool, the whole low byte."""
    return tuple(register & ((1 << max(width, 8)) - 1) for register, width in zip(registers, widths, strict=False))
