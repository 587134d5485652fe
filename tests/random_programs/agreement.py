"""Runs the programs of one module in every world, and says where they differ.

The worlds: the functions themselves under CPython; the IR as it was lowered and as the last pass left it, in the interpreter; machine
code on this processor and in Unicorn. Compared are results, what every writable object holds afterwards, and the line of a failed check.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dsl.compiler.frontend import build_module
from dsl.compiler.pipeline import OPTIONAL, compile_module
from tests.execution.emulated import Emulated
from tests.execution.native import Native
from tests.random_programs.subject import Call, Outcome, Subject

Options = Mapping[str, Any]
# Half of the modules are compiled as usual; the others with a small pool, with one pass off, or with some.
POOLS: Final[tuple[Options, ...]] = ({"pool": 4}, {"pool": 5}, {"pool": 6}, {"pool": 9})
SWITCHES: Final[tuple[Options, ...]] = (
    *({"disable": (name,)} for name in OPTIONAL),
    {"disable": OPTIONAL},
    {"disable": OPTIONAL, "pool": 4},
)


def options_of(seed: int) -> dict[str, Any]:
    """The way in which the module of a seed is compiled."""
    source = random.Random(f"options {seed}")
    roll = source.random()
    if roll < 0.4:
        return {}
    if roll < 0.6:
        return dict(source.choice(POOLS))
    if roll < 0.9:
        return dict(source.choice(SWITCHES))
    return {"disable": tuple(name for name in OPTIONAL if source.random() < 0.5), "pool": source.choice((4, 7, 15))}


@dataclass(frozen=True)
class Difference:
    """Two worlds do not agree, or a compiler fell over. kind names what is wrong without numbers, so that shrinking keeps to it."""

    kind: str
    detail: str
    call: Call | None = None


@dataclass
class Counts:
    """What a run did."""

    calls: int = 0
    stopped: int = 0
    emulated: int = 0
    interpreted: int = 0
    options: Counter[str] = field(default_factory=Counter)


Rows = list[tuple[Call, Outcome]]


def check_calls(
    subject: Subject, calls: list[Call], options: Options, counts: Counts, share: int = 4, verify: bool = True
) -> Difference | None:
    """Compile `everything` and run the calls; the first difference. One call of each `share` is emulated, and one interpreted.

    verify: check the IR after every pass, not only after the last.
    """
    try:
        module = build_module(subject.module.everything)
    except Exception as error:
        return Difference(f"front end: {type(error).__name__}", traceback.format_exc(limit=-3))
    rows = [(call, subject.python(call)) for call in calls]
    some, others = rows[::share], rows[share - 1 :: share]
    lowered = _first_difference("the IR as lowered", some, lambda call: subject.interpreted(module, call))
    if lowered:
        return lowered
    try:
        program = compile_module(module, verify=verify, **options)
    except Exception as error:
        return Difference(f"back end: {type(error).__name__}", traceback.format_exc(limit=-3))
    native, emulated = Native(program), Emulated(program)
    counts.calls += len(rows)
    counts.stopped += sum(outcome.stopped is not None for _, outcome in rows)
    counts.emulated += len(some)
    counts.interpreted += len(some) + len(others)
    counts.options[", ".join(f"{key} {value}" for key, value in options.items()) or "as usual"] += 1
    return (
        _first_difference("machine code", rows, lambda call: subject.machine_code(program, native, call))
        or _first_difference(
            "machine code in Unicorn", some, lambda call: subject.machine_code(program, emulated, call)
        )
        or _first_difference("the IR after the last pass", others, lambda call: subject.interpreted(module, call))
    )


def _first_difference(world: str, rows: Rows, run: Callable[[Call], Outcome]) -> Difference | None:
    for call, expected in rows:
        try:
            found = run(call)
        except Exception as error:
            return Difference(f"{world}: {type(error).__name__}", traceback.format_exc(limit=-3), call)
        # A program keeps only the objects that something in it names.
        text = found.difference(replace(expected, memory={name: expected.memory[name] for name in found.memory}))
        if text:
            how = "stopped" if found.stopped != expected.stopped else "differs"
            return Difference(f"{world} {how}", text, call)
    return None
