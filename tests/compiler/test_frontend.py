"""The front end keeps the meaning of programs: each gives under CPython what its IR gives, also when it stops."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from dsl.compiler import ir
from dsl.compiler.frontend import build_module
from dsl.lang import Failure, Machine, u32
from dsl.lang.annotations import resolve
from dsl.lang.failure import CheckFailed, Stopped
from dsl.lang.types import BoolType, FallibleType
from tests.compiler import programs
from tests.ir_interpreter import Interpreter, components

PROGRAMS = [
    programs.arithmetic, programs.shifts, programs.signed, programs.narrow, programs.literals_at_edges, programs.leaves_in_time,
    programs.loops,
    programs.while_true, programs.swap, programs.place_once, programs.order, programs.elements, programs.fields,
    programs.references, programs.bit_fields, programs.to_kind, programs.fallible, programs.known_sums, programs.nothing_or_failure,
    programs.narrowed, programs.specialisations, programs.dispatched, programs.frame_objects, programs.bytes_and_words,
    programs.layout, programs.addresses, programs.secrets, programs.checked_input, programs.stops, programs.fibonacci,
    programs.observed,
]  # fmt: skip


def kinds_of(function: Callable[..., Any]) -> tuple[list[Any], Any]:
    annotations = {name: resolve(text, function.__globals__) for name, text in function.__annotations__.items()}
    result = annotations.pop("return")
    return list(annotations.values()), result


def raw_result(kind: Any, result: Any) -> tuple[int, ...]:
    """A CPython result as IR gives it."""
    if isinstance(kind, FallibleType):
        if isinstance(result, Failure):
            return (int(result.code),)
        return (0, *raw_result(kind.inner, result))
    return components(kind, getattr(result, "value", result) if hasattr(result, "name") else result)


def outcome(run: Callable[[], tuple[int, ...]]) -> tuple[int, ...] | str:
    try:
        return run()
    except (CheckFailed, Stopped, ValueError):  # ValueError: what an Enum raises for a word of no member
        return "stopped"


def numbers(kind: Any, seed: random.Random) -> int:
    width: int = kind.widths[0]
    edges = [0, 1, 2, 5, 6, 8, 100, (1 << width) - 1, 1 << (width - 1)]
    return seed.choice([seed.randrange(1 << width), seed.randrange(min(1 << width, 128)), *edges]) & ((1 << width) - 1)


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_ir_means_what_python_means(function: Callable[..., Any]) -> None:
    """Generated inputs give one result in both worlds; every function of the module is legal IR."""
    module = build_module(function)
    for compiled in module.functions.values():
        ir.verify(compiled)
    kinds, result = kinds_of(function)
    seed = random.Random(function.__name__)
    for _ in range(60):
        raw = [numbers(kind, seed) % (16 if function is programs.fibonacci else 1 << 64) for kind in kinds]

        def python(raw: list[int] = raw) -> tuple[int, ...]:
            given = [
                bool(number) if isinstance(kind, BoolType) else kind.python._wrap(number)
                for kind, number in zip(kinds, raw, strict=True)
            ]
            with Machine():
                return raw_result(result, function(*given))

        def interpreted(raw: list[int] = raw) -> tuple[int, ...]:
            with Machine() as machine:
                found = Interpreter(module, machine).call(next(iter(module.functions)), *raw)
            failed = isinstance(result, FallibleType) and found[0] != 0
            return found[:1] if failed else found

        assert outcome(interpreted) == outcome(python), raw


def test_device_memory_is_accessed_once_a_mention() -> None:
    """The trace of accesses is the same in both worlds: kind, place in the Struct, width, value."""
    module = build_module(programs.observed)
    traces = []
    for interpreted in (False, True):
        with Machine() as machine:
            if interpreted:
                Interpreter(module, machine).call(next(iter(module.functions)), 5)
            else:
                programs.observed(u32(5))
            seen = [event for event in machine.events if event.kind in ("read", "write") and event.width == 32]
            first = seen[0].place
            traces.append([(event.kind, event.place - first, event.value) for event in seen])
    assert traces[0] == traces[1]
    assert [kind for kind, *_ in traces[0]] == ["write", "write", "read", "read", "write", "read", "read", "read"]


def test_module_lists_entry_first_and_only_what_is_reached() -> None:
    """Functions that only dead code calls are left out; specialisations have their values in their names."""
    module = build_module(programs.specialisations)
    path = programs.__name__
    assert list(module.functions) == [
        f"{path}.specialisations",
        f"{path}.specialised[0,True]",
        f"{path}.specialised[40,True]",
        f"{path}.specialised[3,False]",
    ]
    assert not module.objects


def test_objects_are_named_by_the_module_that_declares_them() -> None:
    """Symbols of memory objects and texts, with their sizes and content."""
    objects = build_module(programs.frame_objects).objects
    assert [(item.symbol, item.content) for item in objects.values()] == [
        (f"{programs.__name__}.text.0", b"hello"),
        (f"{programs.__name__}.text.1", b"elf"),
    ]
    primes = build_module(programs.elements).objects[f"{programs.__name__}.PRIMES"]
    assert (primes.size, primes.align, primes.content) == (12, 2, bytes([2, 0, 3, 0, 5, 0, 7, 0, 11, 0, 13, 0]))


def test_every_value_has_its_place() -> None:
    """Spans point into the function's own lines, in characters."""
    module = build_module(programs.order)
    for function in module.functions.values():
        for value in function.values():
            assert value.span is not None
            assert value.span.file.endswith("programs.py")
            assert function.span.line <= value.span.line <= function.span.end_line


def test_constant_checks_are_folded() -> None:
    """Indexes and shifts that are constants leave no check behind."""
    module = build_module(programs.swap)
    assert not [value for f in module.functions.values() for value in f.values() if value.operation == "check"]


def test_same_source_gives_same_ir() -> None:
    """Two compilations are equal, character by character."""
    texts = ["".join(ir.render(f) for f in build_module(programs.dispatched).functions.values()) for _ in range(2)]
    assert texts[0] == texts[1]
