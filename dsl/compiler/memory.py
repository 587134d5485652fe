"""Memory: fields, elements, loads, stores, frame slots, zeroing and copying."""

from __future__ import annotations

import ast
from typing import Final

from dsl.compiler import ir
from dsl.compiler.diagnostics import Reported, suggestion
from dsl.compiler.fitting import coerce, public
from dsl.compiler.lower import Lowering
from dsl.compiler.operands import Integer, Operand, Place, Typed
from dsl.lang import intrinsics
from dsl.lang import types as t
from dsl.lang.layouts import BitField

LARGEST_SLOT: Final = 1 << 24  # bytes
LARGEST_OFFSET: Final = 1 << 30  # bytes: what an access holds beside the parts of its address, well below 2**31
UNROLLED: Final = 64  # bytes up to which zeroing and copying are single loads and stores


# Fields


def field_of(lowering: Lowering, receiver: Typed, name: str, node: ast.Attribute) -> Typed:
    """`receiver.name` as a value."""
    match receiver.type, name:
        case t.StructType(), _:
            return load_operand(lowering, field_place(lowering, receiver, name, node))
        case t.BitsType(layout=layout), _ if name in layout.fields:
            return bits_field(lowering, receiver, layout.fields[name], layout.storage.width)
        case t.RecordType(fields=fields), _ if name in fields:
            start = sum(len(kind.widths) for kind in list(fields.values())[: list(fields).index(name)])
            return Typed(fields[name], receiver.values[start : start + len(fields[name].widths)])
        case t.EnumType(word=word), "value":
            return Typed(word, receiver.values)
        case t.ArrayType(length=length), "length":
            return Typed(t.U64, (receiver.values[1] if length is None else lowering.builder.constant(length),))
        case t.FailureType(), "code":
            return Typed(t.U64, receiver.values)
    raise no_field(lowering, receiver, name, node)


def no_field(lowering: Lowering, receiver: Typed, name: str, node: ast.AST) -> Reported:
    """The error for a name that a type does not have, or has only after narrowing."""
    known: list[str] = []
    match receiver.plain:
        case t.FallibleType() | t.StructType(optional=True) as kind:
            test = "if isinstance(x, Failure): return x" if isinstance(kind, t.FallibleType) else "if x is not None"
            help_ = f"narrow a local first: {test}"
            return lowering.error("not-narrowed", node, f"{kind} may have no '{name}'", help_)
        case t.StructType() | t.BitsType() as kind:
            known = list(kind.layout.fields)
        case t.RecordType(fields=fields):
            known = list(fields)
        case t.ArrayType():
            known = ["length"]
    return lowering.error("no-attribute", node, f"{receiver} has no '{name}'", suggestion(name, known))


def field_place(lowering: Lowering, receiver: Typed, name: str, node: ast.AST) -> Place:
    """The memory of a Struct's field."""
    kind = receiver.type
    if isinstance(kind, t.BitsType | t.RecordType):
        help_ = "x = x.with_(field=value)" if isinstance(kind, t.BitsType) else "make a new one"
        raise lowering.error("type-mismatch", node, f"{kind} is a value: its fields cannot be assigned", help_)
    if not isinstance(kind, t.StructType) or kind.optional or name not in kind.layout.fields:
        raise no_field(lowering, receiver, name, node)
    field = kind.layout.fields[name]
    offset = lowering.builder.constant(field.offset)
    return displaced(lowering, receiver.value, offset, field.type, f"{kind}.{name}")


def bits_field(lowering: Lowering, receiver: Typed, field: BitField, storage: int) -> Typed:
    """A field of a Bits value, shifted down; storage: the width of the whole."""
    builder = lowering.builder
    value = receiver.value
    if field.low:
        value = builder.emit("shr", value, field.low)
    if field.type == t.BOOL:
        return Typed(field.type, (builder.emit("trunc", value, width=1),))
    (width,) = field.type.widths
    if field.high + 1 < storage and field.count < width:
        value = builder.emit("and", value, (1 << field.count) - 1)
    value = builder.resize(value, width)
    if isinstance(field.type, t.EnumType):
        require_member(lowering, value, field.type, field.count)
    return Typed(field.type, (value,))


def require_member(lowering: Lowering, word: ir.Value, kind: t.EnumType, bits: int) -> None:
    """Stop unless the word (of which only the low `bits` can be set) is that of a member."""
    builder = lowering.builder
    mask = (1 << kind.word.width) - 1
    values = sorted(int(member.value) & mask for member in kind.python)
    if len(values) == 1 << bits:
        return
    fits: ir.Value | None = None
    for low, high in runs(values):
        distance = word if low == 0 else builder.emit("sub", word, low)
        inside = builder.emit("ule", distance, high - low)
        fits = inside if fits is None else builder.emit("or", fits, inside)
    assert fits is not None
    builder.check(fits, f"no member of {kind}")


def runs(values: list[int]) -> list[tuple[int, int]]:
    """Sorted integers as ranges (first, last) without gaps."""
    firsts = [value for value in values if value - 1 not in values]
    lasts = [value for value in values if value + 1 not in values]
    return list(zip(firsts, lasts, strict=True))


# Elements


def element_place(lowering: Lowering, array: Typed, index: Operand, node: ast.AST) -> Place:
    """The memory of an array's element; the index is checked."""
    builder = lowering.at(node)
    public(lowering, index, node, "an index")
    if not isinstance(index, Integer) and not index.is_unsigned:
        raise lowering.error("type-mismatch", node, f"an index is an unsigned word, found {index}")
    assert isinstance(array.type, t.ArrayType)
    element, (address, length) = array.type.element, array.values
    assert isinstance(index, Typed | Integer)
    wide = builder.constant(index.value) if isinstance(index, Integer) else builder.resize(index.value, 64)
    known = index.value if isinstance(index, Integer) else wide.constant
    holds = builder.emit("ult", wide, length) if known == wide.constant else builder.constant(0, 1)
    room = "no array is that long" if length.constant is None else f"the array has {length.constant} elements"
    room = "no negative index exists" if (known or 0) < 0 else room
    lowering.require("index-range", holds, "index", node, f"the index {known} is out of range", room)
    return displaced(lowering, address, scaled(lowering, wide, element.size), element, f"an element of {array}")


def displaced(lowering: Lowering, address: ir.Value, distance: ir.Value, kind: t.Type, what: str) -> Place:
    """The place at a distance in bytes from an address: in the access itself where it can be."""
    known = distance.constant
    if known is not None and known < LARGEST_OFFSET:
        return Place(address, known, kind, what)
    return Place(lowering.builder.emit("add", address, distance), 0, kind, what)


def scaled(lowering: Lowering, count: ir.Value, size: int) -> ir.Value:
    """Count * size as a shift where it is one."""
    if size == 1:
        return count
    is_power = size & (size - 1) == 0
    return lowering.builder.emit("shl" if is_power else "mul", count, size.bit_length() - 1 if is_power else size)


# Loads and stores


def load_operand(lowering: Lowering, place: Place) -> Typed:
    """What reading a place gives: its value, or a reference for an embedded Struct or Array."""
    builder = lowering.builder
    match place.type:
        case t.StructType(optional=False):
            return Typed(place.type, (builder.add_constant(place.address, place.offset),))
        case t.ArrayType(length=int(length)):
            address = builder.add_constant(place.address, place.offset)
            return Typed(place.type, (address, builder.constant(length)))
    return load(lowering, place)


def access(place: Place) -> tuple[t.Type, ir.Access]:
    """The type of a place's value, and how it is touched."""
    kind = place.type
    return kind.plain if kind.volatile else kind, ir.Access(place.offset, kind.volatile)


def load(lowering: Lowering, place: Place) -> Typed:
    """One load from a place."""
    kind, how = access(place)
    builder = lowering.builder
    value = builder.load(place.address, kind.size * 8, how)
    if kind.plain == t.BOOL:
        builder.check(builder.emit("ule", value, 1), "a bool in memory is 0 or 1")
        return Typed(kind, (builder.emit("ne", value, 0),))
    value.secret = kind.taint == "secret"
    if isinstance(kind.plain, t.EnumType):
        require_member(lowering, value, kind.plain, value.width)
    return Typed(kind, (value,))


def store(lowering: Lowering, place: Place, operand: Operand, node: ast.AST, value_node: ast.AST) -> None:
    """One store to a place; whole Structs and Arrays are refused."""
    kind, how = access(place)
    lowering.at(node)
    if isinstance(kind, t.ArrayType) or (isinstance(kind, t.StructType) and not kind.optional):
        text = f"{place.what} is a whole {kind}, which cannot be assigned"
        raise lowering.error("struct-assign", node, text, "copy into it: target.copy_from(source)")
    value = coerce(lowering, operand, kind, value_node)
    if isinstance(kind, t.StructType):
        lowering.stored.append((value.value, lowering.source.span(value_node), place.what))
    builder = lowering.at(node)
    refuse_constant(lowering, place.address)
    stored = builder.resize(value.value, 8) if value.value.width == 1 else value.value
    builder.store(place.address, stored, how)


def refuse_constant(lowering: Lowering, address: ir.Value) -> None:
    """An error if memory at this address, which is written, is that of a table or a text."""
    while address.operation == "add":
        address = address.arguments[0]
    if address.operation == "symbol" and isinstance(address.data, ir.Address):
        item = lowering.unit.module.objects.get(address.data.symbol)
        if item is not None and item.content is not None:
            help_, span = "static_array(T, n) can be written", lowering.builder.span
            raise lowering.unit.error("type-mismatch", span, "a table or a text is read-only", help_, lowering.chain)


# Frame slots, zeroing, copying


def frame_slot(lowering: Lowering, kind: t.StructType | t.ArrayType, node: ast.AST) -> Typed:
    """A zeroed Struct or Array in this function's frame."""
    builder = lowering.at(node)
    if kind.size > LARGEST_SLOT:
        text = f"{kind} takes {kind.size:,} bytes of the stack, expected at most {LARGEST_SLOT:,}"
        raise lowering.error("literal-range", node, text, "declare it with static or static_array")
    address = builder.emit("frame", data=ir.Slot(max(kind.size, 1), kind.align))
    zero(lowering, address, builder.constant(1), kind.size)
    length = () if isinstance(kind, t.StructType) else (builder.constant(kind.length or 0),)
    return Typed(kind, (address, *length))


def pieces(size: int) -> list[tuple[int, int]]:
    """Offset and width in bits of the accesses that cover `size` bytes."""
    result, offset = [], 0
    for step in (8, 4, 2, 1):
        while size - offset >= step:
            result.append((offset, step * 8))
            offset += step
    return result


def zero(lowering: Lowering, address: ir.Value, count: ir.Value, size: int, volatile: bool = False) -> None:
    """Zero count elements of `size` bytes; volatile: no pass may remove it (an intrinsic none removes anyhow)."""
    builder = lowering.builder
    if count.constant is None or count.constant * size > UNROLLED:
        fill(lowering, address, builder.constant(0, 8), count, size)
        return
    refuse_constant(lowering, address)
    for offset, width in pieces(count.constant * size):
        builder.store(address, builder.constant(0, width), ir.Access(offset, volatile))


def fill(lowering: Lowering, address: ir.Value, byte: ir.Value, count: ir.Value, size: int) -> None:
    """Set every byte of count elements of `size` bytes, by words if their number and the byte are known well enough."""
    refuse_constant(lowering, address)
    words = None if byte.constant is None else whole_words(lowering, count, size)
    if words is None or byte.constant is None:
        lowering.instruction(intrinsics.fill_bytes, address, byte, scaled(lowering, count, size))
    else:
        word = lowering.builder.constant(byte.constant * 0x0101_0101_0101_0101)
        lowering.instruction(intrinsics.fill_words, address, word, words)


def whole_words(lowering: Lowering, count: ir.Value, size: int) -> ir.Value | None:
    """How many u64 are count elements of `size` bytes; None if that may be no whole number."""
    if size % 8 == 0:
        return scaled(lowering, count, size // 8)
    if count.constant is not None and count.constant * size % 8 == 0:
        return lowering.builder.constant(count.constant * size // 8)
    return None


def copy(lowering: Lowering, target: ir.Value, source: ir.Value, count: ir.Value, size: int) -> None:
    """Copy count elements of `size` bytes between areas that are equal or do not overlap."""
    builder = lowering.builder
    refuse_constant(lowering, target)
    if count.constant is not None and count.constant * size <= UNROLLED:
        for offset, width in pieces(count.constant * size):
            builder.store(target, builder.load(source, width, ir.Access(offset)), ir.Access(offset))
        return
    words = whole_words(lowering, count, size)
    if words is None:
        lowering.instruction(intrinsics.copy_bytes, target, source, scaled(lowering, count, size))
    else:
        lowering.instruction(intrinsics.copy_words, target, source, words)
