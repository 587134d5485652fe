"""Which value fits where: literals that take a type, values that a wider type includes, taints that bar the way."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from dsl.compiler import ir
from dsl.compiler.diagnostics import Reported
from dsl.compiler.operands import Integer, Nothing, Operand, Typed
from dsl.compiler.shapes import U64, describe, general, literal_range, strip, taint_of, widths
from dsl.lang.types import (
    AddressType,
    BitsType,
    EnumType,
    FailureType,
    FallibleType,
    NoneType_,
    StructType,
    Type,
    WordType,
)

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


def coerce(lowering: Lowering, operand: Operand, wanted: Type, node: ast.AST, literal: bool = False) -> Typed:
    """The operand as a value of type wanted; an error if it does not fit. literal: an int constant may take the type."""
    builder = lowering.at(node)
    if isinstance(operand, Integer) and literal:
        return typed_literal(lowering, operand, wanted, node)
    if isinstance(operand, Nothing):
        inner = wanted.inner if isinstance(wanted, FallibleType) else wanted
        if isinstance(inner, NoneType_):
            values: tuple[ir.Value, ...] = ()
        elif isinstance(inner, StructType) and inner.optional:
            values = (builder.constant(0, 64),)
        else:
            raise mismatch(lowering, operand, wanted, node)
        return Typed(wanted, (builder.constant(0, 64), *values) if isinstance(wanted, FallibleType) else values)
    if isinstance(operand, Typed):
        fitted = fit(lowering, operand, wanted)
        if fitted is not None:
            return fitted
    raise mismatch(lowering, operand, wanted, node)


def fit(lowering: Lowering, operand: Typed, wanted: Type) -> Typed | None:
    """The value at a type that includes its own, or None."""
    found = operand.type
    builder = lowering.builder
    if general(found) == general(wanted):
        return Typed(wanted, operand.values, operand.in_frame)
    if (
        isinstance(wanted, StructType)
        and isinstance(found, StructType)
        and found.python is wanted.python
        and wanted.optional
    ):
        return Typed(wanted, operand.values, operand.in_frame)
    if isinstance(wanted, FallibleType):
        if isinstance(found, FailureType):
            empty = tuple(builder.constant(0, width) for width in widths(wanted.inner))
            return Typed(wanted, (operand.value, *empty))
        inner = fit(lowering, operand, wanted.inner)
        if inner is not None:
            return Typed(wanted, (builder.constant(0, 64), *inner.values), inner.in_frame)
    return None


def mismatch(lowering: Lowering, operand: Operand, wanted: Type, node: ast.AST) -> Reported:
    text = f"expected {describe(wanted)}, found {lowering.spell(operand)}"
    return lowering.error("type-mismatch", node, text, conversion_help(operand, wanted))


def conversion_help(operand: Operand, wanted: Type) -> str:
    """How to get from the operand's type to the wanted one, where the language has a way."""
    if isinstance(operand, Integer):
        return (
            f"give the literal its type: {describe(wanted)}({operand.value})"
            if isinstance(wanted, WordType | AddressType)
            else ""
        )
    if not isinstance(operand, Typed):
        return ""
    found = operand.type
    taint = taint_of(found)
    if taint and taint_of(wanted) != taint:
        return {
            "secret": 'declassify(x, "reason") is the one way out',
            "untrusted": 'x.below(limit) or x.trusted("reason")',
        }[taint]
    if taint_of(wanted) and not taint:
        return f"{taint_of(wanted)}(x) makes one"
    if isinstance(found, FallibleType):
        return "narrow it first: if isinstance(x, Failure): return x"
    if isinstance(found, StructType) and found.optional:
        return "narrow it first: if x is not None"
    if isinstance(found, WordType) and isinstance(wanted, WordType):
        if wanted.width < found.width:
            return f"drop bits with .truncate({describe(wanted)})"
        if wanted.width == found.width:
            return "as_signed() and as_unsigned() change the sign"
        return (
            f"widen with {describe(wanted)}(...)"
            if wanted.signed or not found.signed
            else "change the sign with as_unsigned()"
        )
    if isinstance(wanted, AddressType) and found == U64:
        return f"{describe(wanted)}(x) makes an address"
    if isinstance(found, AddressType) and wanted == U64:
        return "as_u64() gives the number"
    if isinstance(found, EnumType) and found.word == wanted:
        return ".value gives the word"
    if isinstance(found, BitsType):
        return ".raw() gives the word"
    return ""


def typed_literal(lowering: Lowering, operand: Integer, wanted: Type, node: ast.AST) -> Typed:
    """An int constant at the type of a word; it must fit."""
    word = strip(wanted)
    if not isinstance(word, WordType):
        raise mismatch(lowering, operand, wanted, node)
    low, high = literal_range(word)
    if not low <= operand.value <= high:
        text = f"{operand.value} does not fit in {describe(word)}"
        raise lowering.error("literal-range", node, text, f"{describe(word)} holds {low} to {high}")
    return Typed(wanted, (lowering.at(node).constant(operand.value, word.width),))


def taint_barrier(lowering: Lowering, kind: Type, node: ast.AST, use: str) -> Reported:
    """The error for an untrusted or secret value where only a public one may stand."""
    taint = taint_of(kind)
    if taint == "secret":
        return lowering.error(
            "secret-leak", node, f"{describe(kind)} is {use}", 'declassify(x, "reason") is the one way out'
        )
    return lowering.error(
        "untrusted-use", node, f"{describe(kind)} is {use}", 'check it: x.below(limit), or x.trusted("reason")'
    )


def public(lowering: Lowering, operand: Operand, node: ast.AST, use: str) -> Operand:
    """The operand, which must carry no taint."""
    if isinstance(operand, Typed) and taint_of(operand.type):
        raise taint_barrier(lowering, operand.type, node, use)
    return operand
