"""Memory: fields, elements, loads, stores, frame slots, zeroing and copying."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from dsl.compiler import ir
from dsl.compiler.diagnostics import Reported, suggestion
from dsl.compiler.enums import require_member
from dsl.compiler.fitting import coerce, public
from dsl.compiler.operands import Integer, Operand, Place, Typed
from dsl.compiler.shapes import (
    BOOL,
    U64,
    bits_layout,
    describe,
    memory_align,
    memory_size,
    record_fields,
    strip,
    struct_layout,
    taint_of,
    tainted,
    widths,
)
from dsl.lang.types import (
    ArrayType,
    BitsType,
    BoolType,
    EnumType,
    FailureType,
    FallibleType,
    QualifiedType,
    RecordType,
    StructType,
    Type,
    WordType,
)

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering

UNROLLED: Final = 64  # bytes up to which zeroing and copying are single loads and stores


# Fields


def field_of(lowering: Lowering, receiver: Typed, name: str, node: ast.Attribute) -> Typed:
    """`receiver.name` as a value."""
    kind, builder = strip(receiver.type), lowering.builder
    match kind, name:
        case StructType(), _:
            return load_operand(lowering, field_place(lowering, receiver, name, node))
        case BitsType(python=python), _ if name in bits_layout(python).fields:
            return bits_field(lowering, receiver, name)
        case RecordType(python=python), _ if name in record_fields(python):
            start = 0
            for field, field_type in record_fields(python).items():
                count = len(widths(field_type))
                if field == name:
                    return Typed(field_type, receiver.values[start : start + count], receiver.in_frame)
                start += count
        case EnumType(word=word), "value":
            return Typed(tainted(taint_of(receiver.type), word), receiver.values)
        case ArrayType(length=length), "length":
            return Typed(U64, (receiver.values[1] if length is None else builder.constant(length, 64),))
        case FailureType(), "code":
            return Typed(U64, receiver.values)
    raise no_field(lowering, receiver, name, node)


def no_field(lowering: Lowering, receiver: Typed, name: str, node: ast.AST) -> Reported:
    """The error for a name that a type does not have, or has only after narrowing."""
    kind = strip(receiver.type)
    if isinstance(kind, FallibleType) or (isinstance(kind, StructType) and kind.optional):
        test = "if isinstance(x, Failure): return x" if isinstance(kind, FallibleType) else "if x is not None"
        return lowering.error(
            "not-narrowed", node, f"{describe(kind)} may have no '{name}'", f"narrow a local first: {test}"
        )
    known: list[str] = []
    if isinstance(kind, StructType):
        known = list(struct_layout(kind.python).fields)
    elif isinstance(kind, BitsType):
        known = list(bits_layout(kind.python).fields)
    elif isinstance(kind, RecordType):
        known = list(record_fields(kind.python))
    return lowering.error("no-attribute", node, f"{describe(receiver.type)} has no '{name}'", suggestion(name, known))


def field_place(lowering: Lowering, receiver: Typed, name: str, node: ast.AST) -> Place:
    """The memory of a Struct's field."""
    kind = receiver.type
    if not isinstance(kind, StructType) or kind.optional:
        if isinstance(kind, BitsType | RecordType):
            help_ = "x = x.with_(field=value)" if isinstance(kind, BitsType) else "make a new one"
            raise lowering.error(
                "type-mismatch", node, f"{describe(kind)} is a value: its fields cannot be assigned", help_
            )
        raise no_field(lowering, receiver, name, node)
    field = struct_layout(kind.python).fields.get(name)
    if field is None:
        raise no_field(lowering, receiver, name, node)
    return Place(receiver.value, field.offset, field.type, f"{describe(kind)}.{name}", receiver.in_frame)


def bits_field(lowering: Lowering, receiver: Typed, name: str) -> Typed:
    """A field of a Bits value, shifted down."""
    kind, builder = strip(receiver.type), lowering.builder
    assert isinstance(kind, BitsType)
    layout = bits_layout(kind.python)
    field, width = layout.fields[name], layout.storage.width
    count = field.high - field.low + 1
    value = receiver.value
    if field.low:
        value = builder.emit("shr", width, value, builder.constant(field.low, width))
    if isinstance(field.type, BoolType):
        return Typed(tainted(taint_of(receiver.type), BOOL), (builder.emit("trunc", 1, value),))
    target = widths(field.type)[0]
    if field.high + 1 < width and count < target:
        value = builder.emit("and", width, value, builder.constant((1 << count) - 1, width))
    value = builder.resize(value, target)
    if isinstance(field.type, EnumType):
        require_member(lowering, value, field.type, count)
    return Typed(tainted(taint_of(receiver.type), field.type), (value,))


# Elements


def element_place(lowering: Lowering, array: Typed, element: Type, index: Operand, node: ast.AST) -> Place:
    """The memory of an array's element; the index is checked."""
    builder = lowering.at(node)
    public(lowering, index, node, "an index")
    if isinstance(index, Typed) and not (isinstance(index.type, WordType) and not index.type.signed):
        raise lowering.error("type-mismatch", node, f"an index is an unsigned word, found {describe(index.type)}")
    if not isinstance(index, Typed | Integer):
        raise lowering.error("type-mismatch", node, f"an index is an unsigned word, found {lowering.spell(index)}")
    address, length = array.values
    size = memory_size(element)
    what = f"an element of {describe(array.type)}"
    known = constant_index(index)
    fixed = length.data if isinstance(length.data, int) and length.operation == "const" else None
    if known is not None:
        if (known < 0 or (fixed is not None and known >= fixed)) and not lowering.dead:
            elements = "no negative index exists" if known < 0 else f"the array has {fixed} elements"
            raise lowering.error("index-range", node, f"the index {known} is out of range", elements)
        if fixed is None:
            builder.check(builder.emit("ult", 1, builder.constant(known, 64), length), "index")
        return Place(address, max(known, 0) * size, element, what, array.in_frame)
    assert isinstance(index, Typed)
    wide = builder.resize(index.value, 64)
    builder.check(builder.emit("ult", 1, wide, length), "index")
    return Place(builder.emit("add", 64, address, scaled(lowering, wide, size)), 0, element, what, array.in_frame)


def constant_index(index: Typed | Integer) -> int | None:
    if isinstance(index, Integer):
        return index.value
    value = index.value
    return value.data if value.operation == "const" and isinstance(value.data, int) else None


def scaled(lowering: Lowering, count: ir.Value, size: int) -> ir.Value:
    """Count * size as a shift where it is one."""
    builder = lowering.builder
    if size & (size - 1) == 0:
        return count if size == 1 else builder.emit("shl", 64, count, builder.constant(size.bit_length() - 1, 64))
    return builder.emit("mul", 64, count, builder.constant(size, 64))


# Loads and stores


def load_operand(lowering: Lowering, place: Place) -> Typed:
    """What reading a place gives: its value, or a reference for an embedded Struct or Array."""
    builder = lowering.builder
    match place.type:
        case StructType(optional=False):
            return Typed(place.type, (builder.add_constant(place.address, place.offset),), place.in_frame)
        case ArrayType(length=int(length)):
            address = builder.add_constant(place.address, place.offset)
            return Typed(place.type, (address, builder.constant(length, 64)), place.in_frame)
    return load(lowering, place)


def access(place: Place) -> tuple[Type, ir.Access]:
    """The type of a place's value, and how it is touched."""
    kind = place.type
    if isinstance(kind, QualifiedType) and kind.qualifier in ("device", "shared"):
        return kind.inner, ir.Access(place.offset, volatile=True)
    return kind, ir.Access(place.offset)


def load(lowering: Lowering, place: Place) -> Typed:
    """One load from a place."""
    kind, how = access(place)
    builder = lowering.builder
    if isinstance(strip(kind), BoolType):
        byte = builder.emit("load", 8, place.address, data=how)
        builder.check(builder.emit("ule", 1, byte, builder.constant(1, 8)), "a bool in memory is 0 or 1")
        return Typed(kind, (builder.emit("trunc", 1, byte),))
    value = builder.emit("load", widths(kind)[0], place.address, data=how)
    value.secret = taint_of(kind) == "secret"
    plain = strip(kind)
    if isinstance(plain, EnumType):
        require_member(lowering, value, plain)
    return Typed(kind, (value,))


def store(lowering: Lowering, place: Place, operand: Operand, node: ast.AST, value_node: ast.AST) -> None:
    """One store to a place; whole Structs and Arrays are refused."""
    kind, how = access(place)
    builder = lowering.at(node)
    if (isinstance(kind, StructType) and not kind.optional) or isinstance(kind, ArrayType):
        text = f"{place.what} is a whole {describe(kind)}, which cannot be assigned"
        raise lowering.error("struct-assign", node, text, "copy into it: target.copy_from(source)")
    value = coerce(lowering, operand, kind, value_node)
    if value.in_frame:
        text = f"a reference to this function's frame is stored in {place.what}"
        raise lowering.error("frame-escape", value_node, text, "the frame is gone when the function returns")
    if isinstance(kind, StructType):
        lowering.stored.append((value.value, lowering.source.span(value_node)))
    lowering.at(node)
    stored = builder.resize(value.value, 8) if isinstance(strip(kind), BoolType) else value.value
    builder.emit("store", 0, place.address, stored, data=how)


# Frame slots, zeroing, copying


def frame_slot(lowering: Lowering, kind: Type, node: ast.AST) -> Typed:
    """A zeroed Struct or Array in this function's frame."""
    builder = lowering.at(node)
    size, align = memory_size(kind), memory_align(kind)
    address = builder.emit("frame", 64, data=ir.Slot(max(size, 1), align))
    zero(lowering, address, size)
    values = (
        (address, builder.constant(kind.length, 64))
        if isinstance(kind, ArrayType) and kind.length is not None
        else (address,)
    )
    return Typed(kind, values, in_frame=True)


def pieces(size: int) -> list[tuple[int, int]]:
    """Offset and width in bits of the accesses that cover `size` bytes."""
    result, offset = [], 0
    for step in (8, 4, 2, 1):
        while size - offset >= step:
            result.append((offset, step * 8))
            offset += step
    return result


def zero(lowering: Lowering, address: ir.Value, size: int, volatile: bool = False) -> None:
    """Zero `size` bytes; volatile: no pass may remove it."""
    builder = lowering.builder
    if size > UNROLLED:
        zero_elements(lowering, address, builder.constant(size, 64), 1)
        return
    for offset, width in pieces(size):
        builder.emit("store", 0, address, builder.constant(0, width), data=ir.Access(offset, volatile))


def zero_elements(lowering: Lowering, address: ir.Value, count: ir.Value, size: int) -> None:
    """Zero count elements of `size` bytes by an intrinsic, which no pass removes."""
    builder = lowering.builder
    words = whole_words(lowering, count, size)
    if words is None:
        fill(lowering, address, builder.constant(0, 8), scaled(lowering, count, size))
    else:
        builder.emit(
            "intrinsic", 0, address, builder.constant(0, 64), words, data=lowering.unit.instruction("fill_words")
        )


def whole_words(lowering: Lowering, count: ir.Value, size: int) -> ir.Value | None:
    """How many u64 are count elements of `size` bytes; None if that may be no whole number."""
    if size % 8 == 0:
        return scaled(lowering, count, size // 8)
    if count.operation == "const" and isinstance(count.data, int) and count.data * size % 8 == 0:
        return lowering.builder.constant(count.data * size // 8, 64)
    return None


def fill(lowering: Lowering, address: ir.Value, byte: ir.Value, size: ir.Value) -> None:
    """Set `size` bytes to `byte`."""
    lowering.builder.emit("intrinsic", 0, address, byte, size, data=lowering.unit.instruction("fill_bytes"))


def copy(lowering: Lowering, target: ir.Value, source: ir.Value, count: ir.Value, size: int) -> None:
    """Copy count elements of `size` bytes between areas that are equal or do not overlap."""
    builder = lowering.builder
    known = count.data * size if count.operation == "const" and isinstance(count.data, int) else None
    if known is not None and known <= UNROLLED:
        for offset, width in pieces(known):
            value = builder.emit("load", width, source, data=ir.Access(offset))
            builder.emit("store", 0, target, value, data=ir.Access(offset))
        return
    words = whole_words(lowering, count, size)
    number = scaled(lowering, count, size) if words is None else words
    row = lowering.unit.instruction("copy_bytes" if words is None else "copy_words")
    builder.emit("intrinsic", 0, target, source, number, data=row)
