"""Which value fits where: literals that take a type, values that a wider type includes, taints that bar the way."""

from __future__ import annotations

import ast

from dsl.compiler.diagnostics import Reported
from dsl.compiler.lower import Lowering
from dsl.compiler.operands import Integer, Nothing, Operand, Typed
from dsl.lang import types as t


def coerce(lowering: Lowering, operand: Operand, wanted: t.Type, node: ast.AST, literal: bool = False) -> Typed:
    """The operand as a value of type wanted; an error if it does not fit. literal: an int constant may take the type."""
    lowering.at(node)
    if isinstance(operand, Integer) and literal:
        fitted: Typed | None = typed_literal(lowering, operand, wanted, node)
    else:
        fitted = fit(lowering, operand, wanted)
    if fitted is None:
        text = f"expected {wanted}, found {operand}"
        raise lowering.error("type-mismatch", node, text, conversion_help(operand, wanted))
    return fitted


def fit(lowering: Lowering, operand: Operand, wanted: t.Type) -> Typed | None:
    """The value at a type that includes its own, or None."""
    builder = lowering.builder
    match operand, wanted:
        case Typed(type=found, values=values), _ if found.general == wanted.general:
            return Typed(wanted, values)
        case Nothing(), t.NoneType_():
            return Typed(wanted)
        case Nothing(), t.StructType(optional=True):
            return Typed(wanted, (builder.constant(0),))
        case Typed(type=t.StructType(python=python), values=values), t.StructType(optional=True):
            return Typed(wanted, values) if python is wanted.python else None
        case Typed(type=t.FailureType(), values=values), t.FallibleType(inner=inner):
            return Typed(wanted, (*values, *(builder.constant(0, width) for width in inner.widths)))
        case _, t.FallibleType(inner=inner):
            within = fit(lowering, operand, inner)
            return within and Typed(wanted, (builder.constant(0), *within.values))
    return None


def typed_literal(lowering: Lowering, operand: Integer, wanted: t.Type, node: ast.AST) -> Typed | None:
    """An int constant at the type of a word; it must fit."""
    word = wanted.plain
    if not isinstance(word, t.WordType):
        return None
    low, high = word.python.lowest, word.python.highest
    if not low <= operand.value <= high:
        text = f"{operand.value} does not fit in {word}"
        raise lowering.error("literal-range", node, text, f"{word} holds {low} to {high}")
    return Typed(wanted, (lowering.at(node).constant(operand.value, word.width),))


def conversion_help(operand: Operand, wanted: t.Type) -> str:
    """How to get from the operand's type to the wanted one, where the language has a way."""
    if isinstance(operand, Typed) and operand.taint and wanted.taint != operand.taint:
        return WAYS_OUT[operand.taint]
    if isinstance(operand, Typed) and wanted.taint and not operand.taint:
        return f"{wanted.taint}(x) makes one"
    match operand, wanted:
        case Integer(value=value), t.WordType() | t.AddressType():
            return f"give the literal its type: {wanted}({value})"
        case Typed(type=t.FallibleType()), _:
            return "narrow it first: if isinstance(x, Failure): return x"
        case Typed(type=t.StructType(optional=True)), _:
            return "narrow it first: if x is not None"
        case Typed(type=t.WordType() as found), t.WordType():
            if wanted.width < found.width:
                return f"drop bits with .truncate({wanted})"
            if wanted.width == found.width:
                return "as_signed() and as_unsigned() change the sign"
            widens = wanted.signed or not found.signed
            return f"widen with {wanted}(...)" if widens else "change the sign with as_unsigned()"
        case Typed(type=t.U64), t.AddressType():
            return f"{wanted}(x) makes an address"
        case Typed(type=t.AddressType()), t.U64:
            return "as_u64() gives the number"
        case Typed(type=t.EnumType(word=word)), t.WordType() if word == wanted:
            return ".value gives the word"
        case Typed(type=t.BitsType()), _:
            return ".raw() gives the word"
    return ""


WAYS_OUT = {
    "secret": 'declassify(x, "reason") is the one way out',
    "untrusted": 'x.below(limit) or x.trusted("reason")',
}


def taint_barrier(lowering: Lowering, kind: t.Type, node: ast.AST, use: str) -> Reported:
    """The error for an untrusted or secret value where only a public one may stand."""
    if kind.taint == "secret":
        return lowering.error("secret-leak", node, f"{kind} is {use}", WAYS_OUT["secret"])
    help_ = 'check it: x.below(limit), or x.trusted("reason")'
    return lowering.error("untrusted-use", node, f"{kind} is {use}", help_)


def public(lowering: Lowering, operand: Operand, node: ast.AST, use: str) -> None:
    """Raise an error unless the operand carries no taint."""
    if isinstance(operand, Typed) and operand.taint:
        raise taint_barrier(lowering, operand.type, node, use)
