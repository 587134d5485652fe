"""Pack and unpack bytes through the layout of a Struct: the one definition that the machine code uses too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsl.lang.layouts import FieldLayout, StructLayout
from dsl.lang.types import (
    AddressType,
    ArrayType,
    BitsType,
    BoolType,
    EnumType,
    QualifiedType,
    StructType,
    Type,
    WordType,
)


def layout_of(struct: Any) -> StructLayout:
    """The layout of a Struct class."""
    layout: StructLayout = struct.__layout__
    return layout


def pack(struct: Any, values: Mapping[str, Any]) -> bytes:
    """The bytes of a Struct with these fields; what is not named is zero.

    Byte arrays take bytes, zero padded at the end; arrays of Structs take lists of mappings; Enums take their members.
    Raises ValueError for an unknown field or a value that does not fit.
    """
    layout = layout_of(struct)
    buffer = bytearray(layout.size)
    for name, value in values.items():
        if name not in layout.fields:
            raise ValueError(f"{struct.__name__} has no field {name}; it has {', '.join(layout.fields)}")
        field = layout.fields[name]
        data = encode(field.type, value, f"{struct.__name__}.{name}")
        if len(data) > field.size:
            raise ValueError(f"{struct.__name__}.{name}: expected at most {field.size} bytes, found {len(data)}")
        buffer[field.offset : field.offset + len(data)] = data
    return bytes(buffer)


def encode(kind: Type, value: Any, place: str) -> bytes:
    """The bytes of one value of a type."""
    if isinstance(kind, ArrayType):
        if isinstance(value, (bytes, bytearray)):
            return bytes(value)
        return b"".join(encode(kind.element, item, f"{place}[{index}]") for index, item in enumerate(value))
    if isinstance(kind, StructType):
        return pack(kind.python, value)
    size, signed = scalar_shape(kind)
    number = plain_number(value)
    try:
        return number.to_bytes(size, "little", signed=signed)
    except OverflowError:
        raise ValueError(f"{place}: expected a number of {size} bytes, found {number}") from None


def plain_number(value: Any) -> int:
    """A word, an Enum of words, a bool or an int as an int."""
    if isinstance(value, int):
        return int(value)
    return plain_number(value.value) if hasattr(value, "value") else int(value)


def scalar_shape(kind: Type) -> tuple[int, bool]:
    """Size in bytes, and whether it is signed, of a type that is one word."""
    if isinstance(kind, WordType):
        return kind.width // 8, kind.signed
    if isinstance(kind, BoolType):
        return 1, False
    if isinstance(kind, AddressType):
        return 8, False
    if isinstance(kind, EnumType):
        return scalar_shape(kind.word)
    if isinstance(kind, BitsType):
        return scalar_shape(kind.python.__layout__.storage)
    if isinstance(kind, QualifiedType):
        return scalar_shape(kind.inner)
    raise ValueError(f"no packed form for {kind}")


def element_size(kind: Type) -> int:
    """Size in bytes of an element of an inline array."""
    return layout_of(kind.python).size if isinstance(kind, StructType) else scalar_shape(kind)[0]


def unpack(struct: Any, data: bytes) -> dict[str, Any]:
    """The fields of a Struct: numbers, bytes for byte arrays, lists for other arrays, dicts for Structs inside.

    Raises ValueError if there are fewer bytes than the Struct has.
    """
    layout = layout_of(struct)
    if len(data) < layout.size:
        raise ValueError(f"{struct.__name__}: expected {layout.size} bytes, found {len(data)}")
    return {name: decode(field, data) for name, field in layout.fields.items()}


def decode(field: FieldLayout, data: bytes) -> Any:
    """One field out of its Struct's bytes."""
    return decode_value(field.type, data[field.offset : field.offset + field.size])


def decode_value(kind: Type, data: bytes) -> Any:
    """One value of a type, out of exactly its bytes."""
    if isinstance(kind, ArrayType):
        size = element_size(kind.element)
        if size == 1:
            return bytes(data)
        return [decode_value(kind.element, data[start : start + size]) for start in range(0, len(data), size)]
    if isinstance(kind, StructType):
        return unpack(kind.python, data)
    return int.from_bytes(data, "little", signed=scalar_shape(kind)[1])
