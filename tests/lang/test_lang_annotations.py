"""Every legal spelling of an annotation means one type; what is no type of the language is refused."""

from __future__ import annotations

from enum import Enum
from typing import Any, Optional, Union

import pytest

from dsl.lang import (
    Array,
    Bits,
    Device,
    Failure,
    GuestPhysical,
    Record,
    Ref,
    Secret,
    Shared,
    Static,
    Struct,
    Untrusted,
    bit,
    i32,
    u8,
    u16,
    u32,
    u64,
)
from dsl.lang import types as t
from dsl.lang.annotations import resolve


class Place(Struct):
    """A Struct."""

    word: u64


class Flags(Bits, storage=u16):
    """Bits."""

    ready: bool = bit(0)


class Kind(Enum):
    """An Enum."""

    ONE = u32(1)


class Pair(Record):
    """A Record."""

    first: u8


class Mixed(Enum):
    """No Enum of the language."""

    ONE = u32(1)
    TWO = u8(2)


class Plain(Enum):
    """No Enum of the language either."""

    ONE = 1


U8, U64 = t.WordType(u8), t.WordType(u64)
PLACE = t.StructType(Place)

SPELLINGS: list[tuple[Any, t.Type, str]] = [
    (None, t.NoneType_(), "None"),
    ("None", t.NoneType_(), "None"),
    (bool, t.BoolType(), "bool"),
    (u64, U64, "u64"),
    ("u64", U64, "u64"),
    (i32, t.WordType(i32), "i32"),
    (GuestPhysical, t.AddressType(GuestPhysical), "GuestPhysical"),
    (Flags, t.BitsType(Flags), "Flags"),
    (Kind, t.EnumType(Kind), "Kind"),
    (Pair, t.RecordType(Pair), "Pair"),
    (Place, PLACE, "Place"),
    (Place | None, t.StructType(Place, True), "Place | None"),
    ("Place | None", t.StructType(Place, True), "Place | None"),
    (Optional[Place], t.StructType(Place, True), "Place | None"),  # noqa: UP045
    (Ref[Place] | None, t.StructType(Place, True), "Place | None"),
    ("Ref[Place] | None", t.StructType(Place, True), "Place | None"),
    (Ref["Place"] | None, t.StructType(Place, True), "Place | None"),
    (u64 | Failure, t.FallibleType(U64), "u64 | Failure"),
    ("Failure | u64", t.FallibleType(U64), "u64 | Failure"),
    (Union[u64, Failure], t.FallibleType(U64), "u64 | Failure"),  # noqa: UP007
    ("None | Failure", t.FallibleType(t.NoneType_()), "None | Failure"),
    ("Place | None | Failure", t.FallibleType(t.StructType(Place, True)), "Place | None | Failure"),
    ("Pair | Failure", t.FallibleType(t.RecordType(Pair)), "Pair | Failure"),
    (Failure, t.FailureType(), "Failure"),
    (Array[u8], t.ArrayType(U8), "Array[u8]"),
    ("Array[Place]", t.ArrayType(PLACE), "Array[Place]"),
    ("Array[u8] | Failure", t.FallibleType(t.ArrayType(U8)), "Array[u8] | Failure"),
    ("Array[Secret[u8]]", t.ArrayType(t.QualifiedType("secret", U8)), "Array[Secret[u8]]"),
    ("Array[Device[u8]]", t.ArrayType(t.QualifiedType("device", U8)), "Array[Device[u8]]"),
    (Untrusted[u64], t.QualifiedType("untrusted", U64), "Untrusted[u64]"),
    ("Untrusted[bool]", t.QualifiedType("untrusted", t.BoolType()), "Untrusted[bool]"),
    (Secret[u64], t.QualifiedType("secret", U64), "Secret[u64]"),
    (Device[u8], t.QualifiedType("device", U8), "Device[u8]"),
    ("Shared[Flags]", t.QualifiedType("shared", t.BitsType(Flags)), "Shared[Flags]"),
    (Shared[u8], t.QualifiedType("shared", U8), "Shared[u8]"),
    (Static[u8], t.StaticType(U8), "Static[u8]"),
    ("Static[Kind]", t.StaticType(t.EnumType(Kind)), "Static[Kind]"),
]


@pytest.mark.parametrize(("annotation", "expected", "text"), SPELLINGS, ids=str)
def test_spellings(annotation: Any, expected: t.Type, text: str) -> None:
    """Objects, strings and typing's old forms resolve alike, and are spelt back one way."""
    assert resolve(annotation, globals()) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "annotation",
    [
        int, str, float, object, Struct, Bits, Record, Enum, Mixed, Plain, "int", "5", "u64 | u32", "u64 | None", "Ref[Place]",
        "Pair | None", "Device[Place]", "Device[Device[u8]]", "Static[int]", "list[u8]", "tuple[u8, u8]", "Ref[u8] | None", "Array[int]",
        "Device[Secret[u8]]",
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_type(annotation: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError):
        resolve(annotation, globals())


def test_unknown_names() -> None:
    """A name that is not in the namespace is a NameError; the names of this module are not seen uninvited."""
    with pytest.raises(NameError):
        resolve("Place", {})
    assert resolve("Here | None", {"Here": Place}) == t.StructType(Place, True)


@pytest.mark.parametrize(
    ("kind", "size", "align"),
    [
        (t.BoolType(), 1, 1),
        (U8, 1, 1),
        (U64, 8, 8),
        (t.BitsType(Flags), 2, 2),
        (t.EnumType(Kind), 4, 4),
        (t.AddressType(GuestPhysical), 8, 8),
        (t.StructType(Place, True), 8, 8),
        (PLACE, 8, 8),
        (t.ArrayType(t.WordType(u16), 3), 6, 2),
        (t.QualifiedType("device", t.WordType(u32)), 4, 4),
    ],
)
def test_sizes(kind: t.Type, size: int, align: int) -> None:
    """Size and alignment in memory."""
    assert (kind.size, kind.align) == (size, align)


@pytest.mark.parametrize(
    "kind", [t.NoneType_(), t.RecordType(Pair), t.FailureType(), t.FallibleType(U64), t.ArrayType(U8)]
)
def test_types_without_a_place(kind: t.Type) -> None:
    """What lives in registers only has no size in memory."""
    with pytest.raises(TypeError, match="no place in memory"):
        assert kind.size
