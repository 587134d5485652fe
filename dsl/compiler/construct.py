"""Classes called as functions, and their class-level methods: words, addresses, Bits, Records, Structs, Enums, Failure."""

from __future__ import annotations

import ast
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from dsl.compiler import ir
from dsl.compiler.enums import require_member
from dsl.compiler.fitting import coerce, conversion_help, taint_barrier
from dsl.compiler.memory import frame_slot
from dsl.compiler.operands import Integer, Named, Operand, Typed
from dsl.compiler.shapes import (
    FAILURE,
    U64,
    WORDS,
    bits_layout,
    describe,
    record_fields,
    strip,
    taint_of,
    tainted,
    widths,
)
from dsl.lang.addresses import Address, HostVirtual
from dsl.lang.bits import Bits
from dsl.lang.failure import Failure
from dsl.lang.record import Record
from dsl.lang.staging import PerCpu
from dsl.lang.struct import Struct
from dsl.lang.types import AddressType, BitsType, BoolType, RecordType, StructType, Type, WordType

if TYPE_CHECKING:
    from dsl.compiler.calls import Arguments
    from dsl.compiler.lower import Lowering


def construct(lowering: Lowering, python: type, arguments: Arguments, node: ast.Call) -> Operand:
    """`T(...)` for every class of the language."""
    if python in WORDS:
        ((operand, where),) = arguments.bind(lowering, node, python.__name__, ["value"])
        return convert_word(lowering, operand, WORDS[python], where)
    if issubclass(python, Address):
        return construct_address(lowering, python, arguments, node)
    if issubclass(python, Bits):
        return construct_bits(lowering, python, arguments, node)
    if issubclass(python, Record):
        return construct_record(lowering, python, arguments, node)
    if issubclass(python, Struct):
        arguments.bind(lowering, node, python.__name__, [])
        return frame_slot(lowering, StructType(python), node)
    if python is Failure:
        return construct_failure(lowering, arguments, node)
    if issubclass(python, Enum):
        return construct_enum(lowering, python, arguments, node)
    raise lowering.error("not-machine", node.func, f"'{python.__name__}' is no class of the language")


def convert_word(lowering: Lowering, operand: Operand, word: WordType, node: ast.AST) -> Typed:
    """`u64(x)`: a literal that fits, or a widening that keeps the value."""
    if isinstance(operand, Integer):
        return coerce(lowering, operand, word, node, literal=True)
    found = operand.type if isinstance(operand, Typed) else None
    builder = lowering.at(node)
    if isinstance(operand, Typed) and isinstance(strip(operand.type), BoolType | WordType):
        inner, taint = strip(operand.type), taint_of(operand.type)
        if taint:
            help_ = f"widen_{taint}({describe(word)}, x) widens it"
            text = f"{describe(operand.type)} would become a plain {describe(word)}"
            raise lowering.error("secret-leak" if taint == "secret" else "untrusted-use", node, text, help_)
        if isinstance(inner, BoolType):
            return Typed(word, (builder.resize(operand.value, word.width),))
        assert isinstance(inner, WordType)
        keeps = inner == word or (inner.width < word.width and (word.signed or not inner.signed))
        if keeps:
            return Typed(word, (builder.resize(operand.value, word.width, inner.signed),))
    help_ = conversion_help(operand, word) if found is not None else ""
    raise lowering.error("type-mismatch", node, f"{describe(word)}(...) does not take {lowering.spell(operand)}", help_)


def construct_address(lowering: Lowering, python: type, arguments: Arguments, node: ast.Call) -> Typed:
    ((operand, where),) = arguments.bind(lowering, node, python.__name__, ["value"])
    if isinstance(operand, Typed) and taint_of(operand.type):
        raise taint_barrier(lowering, operand.type, where, "an address")
    return Typed(AddressType(python), coerce(lowering, operand, U64, where, literal=True).values)


def construct_bits(lowering: Lowering, python: type, arguments: Arguments, node: ast.Call) -> Typed:
    layout = bits_layout(python)
    if arguments.positional:
        raise lowering.error("argument-count", node, f"{python.__name__}'s fields are given by name")
    missing = [
        field.name for field in layout.fields.values() if field.default is None and field.name not in arguments.named
    ]
    if missing:
        raise lowering.error("argument-count", node, f"{python.__name__} is not given {', '.join(missing)}")
    given = arguments.named
    raw = sum(
        field.default << field.low for field in layout.fields.values() if field.default and field.name not in given
    )
    start = lowering.at(node).constant(raw, layout.storage.width)
    return Typed(BitsType(python), (with_fields(lowering, python, start, arguments, node, clear=False),))


def with_fields(
    lowering: Lowering, python: type, word: ir.Value, arguments: Arguments, node: ast.AST, clear: bool = True
) -> ir.Value:
    """The storage word with the named fields set; clear: their old bits are not zero yet."""
    layout = bits_layout(python)
    width = layout.storage.width
    for name, (operand, where) in arguments.named.items():
        if name not in layout.fields:
            raise lowering.error("no-attribute", where, f"{python.__name__} has no '{name}'")
        field = layout.fields[name]
        value = coerce(lowering, operand, field.type, where).value
        builder = lowering.at(where)
        count = field.high - field.low + 1
        if count < value.width:
            limit = (1 << count) - 1
            if value.operation == "const" and isinstance(value.data, int) and value.data > limit and not lowering.dead:
                raise lowering.error(
                    "literal-range", where, f"{value.data} does not fit in {name}, which has {count} bits"
                )
            builder.check(builder.emit("ule", 1, value, builder.constant(limit, value.width)), f"{name} overflows")
        value = builder.resize(value, width)
        if field.low:
            value = builder.emit("shl", width, value, builder.constant(field.low, width))
        if clear:
            mask = ((1 << count) - 1) << field.low
            word = builder.emit("and", width, word, builder.constant(~mask, width))
        known_zero = word.operation == "const" and word.data == 0
        word = value if known_zero else builder.emit("or", width, word, value)
    return word


def construct_record(lowering: Lowering, python: type, arguments: Arguments, node: ast.Call) -> Typed:
    fields = record_fields(python)
    bound = arguments.bind(lowering, node, python.__name__, list(fields))
    parts = [
        coerce(lowering, operand, kind, where) for kind, (operand, where) in zip(fields.values(), bound, strict=True)
    ]
    values = tuple(value for part in parts for value in part.values)
    return Typed(RecordType(python), values, any(part.in_frame for part in parts))


def construct_failure(lowering: Lowering, arguments: Arguments, node: ast.Call) -> Typed:
    ((operand, where),) = arguments.bind(lowering, node, "Failure", ["code"])
    code = coerce(lowering, operand, U64, where, literal=True).value
    builder = lowering.at(where)
    if code.operation == "const" and code.data == 0:
        raise lowering.error("literal-range", where, "a Failure's code is never 0", "0 stands for success")
    builder.check(builder.emit("ne", 1, code, builder.constant(0, 64)), "a Failure's code is never 0")
    return Typed(FAILURE, (code,))


def construct_enum(lowering: Lowering, python: type[Enum], arguments: Arguments, node: ast.Call) -> Typed:
    """`Kind(word)`: the member with this word, which must exist."""
    kind = lowering.unit.constants.enum_type(python)
    ((operand, where),) = arguments.bind(lowering, node, python.__name__, ["value"])
    value = coerce(lowering, operand, kind.word, where).value
    lowering.at(node)
    require_member(lowering, value, kind)
    return Typed(kind, (value,))


# Methods of classes

ClassMethod = Callable[["Arguments", ast.Call], Operand]


def static_method(lowering: Lowering, receiver: Named, name: str) -> ClassMethod | None:
    """What `T.at(...)`, `T.from_raw(...)` and `CPU.current()` do; None for other attributes."""
    python: Any = receiver.python
    if isinstance(python, PerCpu) and name == "current":
        return lambda arguments, node: current_cpu(lowering, python, arguments, node)
    if not isinstance(python, type):
        return None
    if issubclass(python, Struct) and name == "at":
        return lambda arguments, node: struct_at(lowering, python, arguments, node)
    if issubclass(python, Bits) and name == "from_raw":
        return lambda arguments, node: bits_from_raw(lowering, python, arguments, node)
    return None


def struct_at(lowering: Lowering, python: type, arguments: Arguments, node: ast.Call) -> Typed:
    ((operand, where),) = arguments.bind(lowering, node, f"{python.__name__}.at", ["address"])
    address = coerce(lowering, operand, AddressType(HostVirtual), where)
    return Typed(StructType(python), address.values)


def bits_from_raw(lowering: Lowering, python: type, arguments: Arguments, node: ast.Call) -> Typed:
    ((operand, where),) = arguments.bind(lowering, node, f"{python.__name__}.from_raw", ["word"])
    storage: Type = bits_layout(python).storage
    taint = taint_of(operand.type) if isinstance(operand, Typed) else ""
    word = coerce(lowering, operand, tainted(taint, storage), where, literal=True)
    return Typed(tainted(taint, BitsType(python)), word.values)


def current_cpu(lowering: Lowering, python: Any, arguments: Arguments, node: ast.Call) -> Typed:
    """The current CPU's object: its own address is its first field, read through GS."""
    arguments.bind(lowering, node, "current", [])
    kind = lowering.unit.constants.per_cpu(python)
    builder = lowering.at(node)
    offset = builder.constant(0, 64)
    made = builder.emit("intrinsic", 0, offset, data=lowering.unit.instruction("read_gs_u64"))
    return Typed(kind, (builder.emit("extract", widths(kind)[0], made, data=0),))
