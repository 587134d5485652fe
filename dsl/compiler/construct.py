"""Classes called as functions, and their class-level methods: words, addresses, Bits, Records, Structs, Enums, Failure."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from dsl.compiler import ir
from dsl.compiler.arguments import Arguments, Call, Lower, evaluate_arguments, keyword
from dsl.compiler.diagnostics import instead, suggestion
from dsl.compiler.fitting import coerce, conversion_help, public
from dsl.compiler.memory import frame_slot, require_member
from dsl.compiler.operands import Argument, Integer, Named, Operand, Typed
from dsl.lang import intrinsics
from dsl.lang import types as t
from dsl.lang.addresses import HostVirtual
from dsl.lang.annotations import resolve
from dsl.lang.bits import Bits
from dsl.lang.staging import PerCpu
from dsl.lang.struct import Struct
from dsl.lang.types import U64, tainted

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


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
            values = tuple(value for part in parts for value in part.values)
            return Typed(kind, values, any(part.in_frame for part in parts))
        case t.FailureType():
            ((operand, where),) = arguments.bind(lowering, node, name, ["code"])
            return construct_failure(lowering, operand, where)
    ((operand, where),) = arguments.bind(lowering, node, name, ["value"])
    match kind:
        case t.WordType():
            return convert_word(lowering, operand, kind, where)
        case t.AddressType():
            public(lowering, operand, where, "an address")
            return Typed(kind, coerce(lowering, operand, U64, where, literal=True).values)
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
            if value.constant is not None and value.constant > limit and not lowering.dead:
                text = f"{value.constant} does not fit in {name}, which has {field.count} bits"
                raise lowering.error("literal-range", where, text)
            builder.check(builder.emit("ule", value, limit), f"{name} overflows")
        value = builder.resize(value, word.width)
        if field.low:
            value = builder.emit("shl", value, field.low)
        if clear:
            word = builder.emit("and", word, ~(limit << field.low))
        word = value if word.constant == 0 else builder.emit("or", word, value)
    return word


def construct_failure(lowering: Lowering, operand: Operand, node: ast.AST) -> Typed:
    code = coerce(lowering, operand, U64, node, literal=True).value
    builder = lowering.at(node)
    if code.constant == 0:
        raise lowering.error("literal-range", node, "a Failure's code is never 0", "0 stands for success")
    builder.check(builder.emit("ne", code, 0), "a Failure's code is never 0")
    return Typed(t.FAILURE, (code,))


# Methods of classes


def static_method(python: Any, name: str) -> Lower | None:
    """What `T.at(...)`, `T.from_raw(...)` and `CPU.current()` do; None for other attributes."""
    if isinstance(python, PerCpu):
        return current_cpu if name == "current" else None
    base = {"at": Struct, "from_raw": Bits}.get(name)
    if base is None or not isinstance(python, type) or not issubclass(python, base):
        return None
    return struct_at if base is Struct else bits_from_raw


def struct_at(call: Call) -> Typed:
    assert isinstance(call.subject, Named)
    return Typed(t.StructType(call.subject.python), call.typed(0, t.AddressType(HostVirtual)).values)


def bits_from_raw(call: Call) -> Typed:
    assert isinstance(call.subject, Named)
    kind, taint = t.BitsType(call.subject.python), call.operands[0].taint
    return Typed(tainted(taint, kind), call.typed(0, tainted(taint, kind.word), literal=True).values)


def current_cpu(call: Call) -> Typed:
    """The current CPU's object: its own address is its first field, read through GS."""
    assert isinstance(call.subject, Named)
    python: Any = call.subject.python
    constants = call.lowering.unit.constants
    constants.per_cpu = constants.per_cpu or python
    if constants.per_cpu is not python:
        raise call.error(
            "declaration", "the program has another per_cpu(T) already", "GS leads to one Struct: give it both's fields"
        )
    made = call.lowering.instruction(intrinsics.read_gs_u64, call.builder.constant(0))
    return Typed(python.__declaration__.type, call.builder.results(made, (64,)))
