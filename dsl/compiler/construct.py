"""Classes called as functions, and their class-level methods: words, addresses, Bits, Records, Structs, Enums, Failure."""

from __future__ import annotations

import ast
from typing import Any

from dsl.compiler import ir
from dsl.compiler.arguments import Arguments, evaluate_arguments, keyword
from dsl.compiler.diagnostics import instead, suggestion
from dsl.compiler.fitting import coerce, conversion_help, public
from dsl.compiler.lower import Lowering
from dsl.compiler.memory import frame_slot, require_member
from dsl.compiler.operands import Argument, Integer, Operand, Typed
from dsl.lang import types as t
from dsl.lang.annotations import resolve


def construct(lowering: Lowering, python: Any, node: ast.Call) -> Operand:
    """`T(...)` for every class of the language."""
    arguments = evaluate_arguments(lowering, node)
    name = python.__name__
    try:
        kind = resolve(python, {})
    except TypeError:
        raise lowering.error("not-machine", node.func, f"'{name}' is no class of the language", instead(name)) from None
    match kind:
        case t.StructType():
            arguments.bind(lowering, node, name, [])
            return frame_slot(lowering, kind, node)
        case t.BitsType():
            return construct_bits(lowering, kind, arguments, node)
        case t.RecordType(fields=fields):
            parts = arguments.bind_values(lowering, node, name, fields)
            return Typed(kind, tuple(value for part in parts for value in part.values))
        case t.FailureType():
            ((operand, where),) = arguments.bind(lowering, node, name, ["code"])
            return construct_failure(lowering, operand, where)
    ((operand, where),) = arguments.bind(lowering, node, name, ["value"])
    match kind:
        case t.WordType():
            return convert_word(lowering, operand, kind, where)
        case t.AddressType():
            public(lowering, operand, where, "an address")
            return Typed(kind, coerce(lowering, operand, t.U64, where, literal=True).values)
        case t.EnumType():
            value = coerce(lowering, operand, kind.word, where).value
            lowering.at(node)
            require_member(lowering, value, kind, value.width)
            return Typed(kind, (value,))
    raise lowering.error("not-machine", node.func, f"'{name}' is no class of the language")


def convert_word(lowering: Lowering, operand: Operand, word: t.WordType, node: ast.AST) -> Typed:
    """`u64(x)`: a literal that fits, or a widening that keeps the value."""
    if isinstance(operand, Integer):
        return coerce(lowering, operand, word, node, literal=True)
    found = operand.plain
    if isinstance(operand, Typed) and isinstance(found, t.BoolType | t.WordType):
        if operand.taint:
            code = "secret-leak" if operand.taint == "secret" else "untrusted-use"
            help_ = f"widen_{operand.taint}({word}, x) widens it"
            raise lowering.error(code, node, f"{operand} would become a plain {word}", help_)
        signed = isinstance(found, t.WordType) and found.signed
        (width,) = found.widths
        if found == word or (width < word.width and (word.signed or not signed)):
            return Typed(word, (lowering.at(node).resize(operand.value, word.width, signed),))
    text = f"{word}(...) does not take {operand}"
    raise lowering.error("type-mismatch", node, text, conversion_help(operand, word))


def construct_bits(lowering: Lowering, kind: t.BitsType, arguments: Arguments, node: ast.Call) -> Typed:
    layout, given = kind.layout, arguments.named
    if arguments.positional:
        raise lowering.error("argument-count", node, f"{kind}'s fields are given by name")
    absent = [field for field in layout.fields.values() if field.name not in given]
    missing = [field.name for field in absent if field.default is None]
    if missing:
        raise lowering.error("argument-count", node, f"{kind} is not given {', '.join(missing)}")
    raw = sum(field.default << field.low for field in absent if field.default)
    start = lowering.at(node).constant(raw, layout.storage.width)
    return Typed(kind, (with_fields(lowering, kind, start, given, node, clear=False),))


def with_fields(
    lowering: Lowering, kind: t.BitsType, word: ir.Value, given: dict[str, Argument], node: ast.Call, clear: bool = True
) -> ir.Value:
    """The storage word with the named fields set; clear: their old bits are not zero yet."""
    for name, (operand, where) in given.items():
        if name not in kind.layout.fields:
            help_ = suggestion(name, kind.layout.fields)
            raise lowering.error("no-attribute", keyword(node, name), f"{kind} has no '{name}'", help_)
        field = kind.layout.fields[name]
        value = coerce(lowering, operand, field.type, where).value
        builder, limit = lowering.at(where), (1 << field.count) - 1
        if field.count < value.width:
            text = f"{value.constant} does not fit in {name}, which has {field.count} bits"
            lowering.require("literal-range", builder.emit("ule", value, limit), f"{name} overflows", where, text)
        value = builder.resize(value, word.width)
        if field.low:
            value = builder.emit("shl", value, field.low)
        if clear:
            word = builder.emit("and", word, ~(limit << field.low))
        word = value if word.constant == 0 else builder.emit("or", word, value)
    return word


def construct_failure(lowering: Lowering, operand: Operand, node: ast.AST) -> Typed:
    code = coerce(lowering, operand, t.U64, node, literal=True).value
    holds, text = lowering.at(node).emit("ne", code, 0), "a Failure's code is never 0"
    lowering.require("literal-range", holds, text, node, text, "0 stands for success")
    return Typed(t.FAILURE, (code,))
