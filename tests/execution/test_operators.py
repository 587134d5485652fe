"""Every operator at every width: the CPython model against machine code, natively and in Unicorn, at edges and at random."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from dsl.compiler.pipeline import Program, compile_function
from tests.execution.support import EDGES, Worlds, load_source, python_outcome, word

UNSIGNED: Final = ("u8", "u16", "u32", "u64")
SIGNED: Final = ("i8", "i16", "i32", "i64")
BINARY: Final = ("+", "-", "*", "&", "|", "^")
COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
HEADER: Final = '"""Generated."""\nfrom __future__ import annotations\nfrom dsl.lang import *\n'

Row = tuple[str, list[str], str, str]  # name, parameter types, result type, expression


def rows(kind: str) -> list[Row]:
    """Every operation on a type, and again with constant operands."""
    width, is_signed = int(kind[1:]), kind[0] == "i"
    other = ("u" if is_signed else "i") + kind[1:]
    found: list[Row] = []

    def add(result: str, expression: str, *kinds: str) -> None:
        found.append((f"{kind}_{len(found)}", list(kinds or (kind, kind)), result, expression))

    for operator in BINARY:
        add(kind, f"a {operator} b")
    for comparison in COMPARISONS:
        add("bool", f"a {comparison} b")
        add(kind, f"a if a {comparison} b else b + 1")
    add(kind, "~a", kind)
    add(other, f"a.{'as_unsigned' if is_signed else 'as_signed'}()", kind)
    add(kind, "minimum(a, b)")
    add(kind, "maximum(a, b)")
    for count in UNSIGNED:
        add(kind, "(a << b) ^ (a >> b)", kind, count)
    for wider in (f"{kind[0]}{bits}" for bits in (16, 32, 64) if bits > width):
        add(wider, f"{wider}(a)", kind)
        if not is_signed:
            add(kind, f"a.truncate({kind})", wider)
            add(kind, f"(a + b).truncate({kind})", wider, wider)
    if is_signed:
        add(kind, "-a", kind)
        add(kind, "divide_truncating(a, b)")
        add(kind, "remainder_truncating(a, b)")
        add(kind, "divide_truncating(a, b) ^ remainder_truncating(a, b)")
    else:
        add(kind, f"{kind}(a)", "bool")
        add(kind, "a // b")
        add(kind, "a % b")
        add(kind, "a // b ^ a % b")
        for name in ("rotate_left", "rotate_right", "shift_left_wrapping", "shift_right_wrapping"):
            add(kind, f"{name}(a, b)", kind, "u8")
            for amount in (0, 1, 3, width - 1):
                add(kind, f"{name}(a, {amount})", kind)
        for name in (
            "count_leading_zeros",
            "count_trailing_zeros",
            "population_count",
            *(["byte_swap"] if width > 8 else []),
        ):
            add(kind, f"{name}(a)", kind)
    return found + constant_rows(kind, width, is_signed)


def constant_rows(kind: str, width: int, is_signed: bool) -> list[Row]:
    """The same with literals, which take other paths through selection and folding."""
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if is_signed else (0, (1 << width) - 1)
    small = (1, 2, 3, 4, 8, 10, 100, 127, *(min(high, number) for number in (128, 200, 255)))
    literals = sorted({low, low + 1, high, high - 1, high // 2, *small})
    found: list[Row] = []

    def add(result: str, expression: str) -> None:
        found.append((f"{kind}_constant{len(found)}", [kind], result, expression))

    for literal in literals:
        for operator in (*BINARY, *COMPARISONS):
            add("bool" if operator in COMPARISONS else kind, f"a {operator} {literal}")
        add(kind, f"{literal} - a")
        if not is_signed and literal:
            add(kind, f"a // {literal}")
            add(kind, f"a % {literal}")
        if is_signed and literal:
            add(kind, f"divide_truncating(a, {kind}({literal}))")
    for amount in sorted({0, 1, 2, 3, width // 2, width - 1}):
        add(kind, f"a << {amount}")
        add(kind, f"a >> {amount}")
        add(kind, f"(a << {amount}) >> {amount}")
    return found


WIDE: Final[list[Row]] = [
    ("wide_low", ["u64", "u64"], "u64", "multiply_wide(a, b).low"),
    ("wide_high", ["u64", "u64"], "u64", "multiply_wide(a, b).high"),
    ("wide_both", ["u64", "u64"], "u64", "multiply_wide(a, b).low ^ multiply_wide(a, b).high"),
    ("high", ["u64", "u64"], "u64", "multiply_high(a, b)"),
    ("carry", ["u64", "u64", "u64"], "u64", "add_with_carry(a, b, c & 1).carry"),
    ("sum", ["u64", "u64", "u64"], "u64", "add_with_carry(a, b, c & 1).value"),
    ("borrow", ["u64", "u64", "u64"], "u64", "subtract_with_borrow(a, b, c & 1).carry"),
    ("difference", ["u64", "u64", "u64"], "u64", "subtract_with_borrow(a, b, c & 1).value"),
    ("logic", ["bool", "bool", "bool"], "bool", "a and not b or c and b"),
    ("negated", ["bool"], "bool", "not a"),
    ("chosen", ["bool", "u64", "u64"], "u64", "b if a else c"),
    ("chosen_narrow", ["bool", "u8", "u8"], "u8", "b if a else c"),
]


def source(table: list[Row]) -> str:
    """A module with one function a row, and an entry that names them all."""
    parts = [HEADER]
    for name, kinds, result, expression in table:
        parameters = ", ".join(f"{letter}: {kind}" for letter, kind in zip("abc", kinds, strict=False))
        parts.append(f"@machine\ndef {name}({parameters}) -> {result}:\n    return {expression}\n")
    parts.append("@machine\ndef entry(which: u64) -> u64:")
    for number, (name, kinds, _, _) in enumerate(table):
        given = ", ".join("True" if kind == "bool" else f"{kind}(1)" for kind in kinds)
        parts.append(f"    if which == {number} and {name}({given}) == {name}({given}):\n        return u64({number})")
    return "\n".join([*parts, "    return u64(0)", ""])


def inputs(kinds: list[str], seed: random.Random) -> list[list[int]]:
    """Pairs of edges, and random ones; junk above each width is added later."""
    bits = [1 if kind == "bool" else int(kind[1:]) for kind in kinds]
    edges = [sorted({edge & ((1 << width) - 1) for edge in EDGES} | {((1 << width) - 1) // 3}) for width in bits]
    found = [[seed.choice(column) for column in edges] for _ in range(24)]
    found += [[word(seed) & ((1 << width) - 1) for width in bits] for _ in range(16)]
    if len(bits) == 1:
        found += [[edge] for edge in edges[0]]
    return found


def value(kind: str, raw: int, module: ModuleType) -> Any:
    return bool(raw) if kind == "bool" else getattr(module, kind)._wrap(raw)


def dirty(kind: str, number: int) -> int:
    """A narrow argument with junk above its width."""
    return number if kind in ("bool", "u64", "i64") else number | 0xABCD << 48 | 1 << 33


def check_table(name: str, table: list[Row], directory: Path, **options: Any) -> None:
    """Run every row in all worlds."""
    module = load_source(name, source(table), directory)
    program: Program = compile_function(
        module.entry, disable=("inline", *options.pop("disable", ())), verify=True, **options
    )
    worlds = Worlds(program)
    seed = random.Random(name)
    stopped = 0
    for label, kinds, result, expression in table:
        width = 1 if result == "bool" else int(result[1:])
        for number, raw in enumerate(inputs(kinds, seed)):

            def python(
                label: str = label, kinds: list[str] = kinds, raw: list[int] = raw, width: int = width
            ) -> tuple[int, ...]:
                given = [value(kind, number, module) for kind, number in zip(kinds, raw, strict=True)]
                return (int(getattr(module, label)(*given)) & ((1 << width) - 1),)

            expected = python_outcome(python)
            stopped += expected == "stopped"
            given = [dirty(kind, number) for kind, number in zip(kinds, raw, strict=True)]
            for found in worlds.outcomes(f"{name}.{label}", given, (width,), emulate=number % 8 == 0):
                assert found == expected, f"{expression} ({kinds}) of {[hex(number) for number in raw]}"
    if any("//" in row[3] for row in table):
        assert stopped, "no division by zero was tried"


@pytest.mark.t1
@pytest.mark.parametrize("kind", [*UNSIGNED, *SIGNED])
def test_operators_at_every_width(kind: str, tmp_path: Path) -> None:
    """All operators on one type, variables and constants."""
    check_table(f"operators_{kind}", rows(kind), tmp_path)


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("kind", [*UNSIGNED, *SIGNED])
@pytest.mark.parametrize("disable", ["fold", "number"])
def test_operators_without_a_pass(kind: str, disable: str, tmp_path: Path) -> None:
    """The same where constants are left as they are, and with the smallest pool."""
    check_table(f"operators_{kind}_{disable}", rows(kind), tmp_path, disable=(disable,), pool=4)


@pytest.mark.t1
def test_wide_operators(tmp_path: Path) -> None:
    """Operations on two or three words, and on bool."""
    check_table("wide_operators", WIDE, tmp_path)
