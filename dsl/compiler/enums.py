"""Enums in machine code: a word is a member's, or the machine stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsl.compiler import ir
from dsl.lang.types import EnumType

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


def require_member(lowering: Lowering, word: ir.Value, kind: EnumType, bits: int | None = None) -> None:
    """Stop unless the word (of which only the low `bits` can be set) is that of a member."""
    mask = (1 << kind.word.width) - 1
    values = sorted(int(member.value) & mask for member in kind.python)
    if len(values) == 1 << (bits or kind.word.width):
        return
    builder = lowering.builder
    fits: ir.Value | None = None
    for low, high in runs(values):
        distance = word if low == 0 else builder.emit("sub", word.width, word, builder.constant(low, word.width))
        inside = builder.emit("ule", 1, distance, builder.constant(high - low, word.width))
        fits = inside if fits is None else builder.emit("or", 1, fits, inside)
    assert fits is not None
    builder.check(fits, f"no member of {kind.python.__name__}")


def runs(values: list[int]) -> list[tuple[int, int]]:
    """Sorted integers as ranges (first, last) without gaps."""
    result: list[tuple[int, int]] = []
    for value in values:
        if result and result[-1][1] == value - 1:
            result[-1] = (result[-1][0], value)
        else:
            result.append((value, value))
    return result
