"""Types as the compiler and the layouts see them: what an annotation means, spelt once.

`resolve(annotation, namespace)` reads every legal spelling of an annotation (object, string, `T | None`, Annotated aliases).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Type:
    """Base of all types. `python` in subclasses is the class that programs name."""


@dataclass(frozen=True, slots=True)
class NoneType_(Type):
    """The result of a function that returns nothing."""


@dataclass(frozen=True, slots=True)
class BoolType(Type):
    """Python's bool: IR width 1 in a register, one byte in memory."""


@dataclass(frozen=True, slots=True)
class WordType(Type):
    """u8 to i64."""

    python: Any
    width: int
    signed: bool


@dataclass(frozen=True, slots=True)
class AddressType(Type):
    """HostPhysical, HostVirtual, GuestPhysical, GuestVirtual: 64 bits."""

    python: Any


@dataclass(frozen=True, slots=True)
class BitsType(Type):
    """A Bits class; a word of its storage's width."""

    python: Any


@dataclass(frozen=True, slots=True)
class EnumType(Type):
    """A plain Enum of words; a word of its members' type."""

    python: Any
    word: WordType


@dataclass(frozen=True, slots=True)
class StructType(Type):
    """A reference to a Struct: an address. optional: may be None (0)."""

    python: Any
    optional: bool = False


@dataclass(frozen=True, slots=True)
class RecordType(Type):
    """A Record: the values of its fields, in order."""

    python: Any


@dataclass(frozen=True, slots=True)
class ArrayType(Type):
    """An Array[T]: (address, u64 length). length is set where a declaration fixes it (fields, static_array, frame_array)."""

    element: Type
    length: int | None = None


@dataclass(frozen=True, slots=True)
class QualifiedType(Type):
    """Device[T], Shared[T] (one access per mention), Untrusted[T], Secret[T]; qualifier is that name in lower case."""

    qualifier: str
    inner: Type


@dataclass(frozen=True, slots=True)
class StaticType(Type):
    """Static[T]: a compile-time parameter."""

    inner: Type


@dataclass(frozen=True, slots=True)
class FailureType(Type):
    """Failure alone (after narrowing): its code."""


@dataclass(frozen=True, slots=True)
class FallibleType(Type):
    """T | Failure: a u64 code (0: success), then the components of T."""

    inner: Type


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """A field of a Struct: byte offset and type (ArrayType with its length for inline arrays, StructType for inline Structs)."""

    name: str
    offset: int
    size: int
    type: Type
    inline: bool  # an embedded Struct or Array: reading the field gives a reference, not a load


@dataclass(frozen=True, slots=True)
class StructLayout:
    """A Struct's size and alignment in bytes, and its fields by name, in offset order."""

    size: int
    align: int
    fields: dict[str, FieldLayout]


@dataclass(frozen=True, slots=True)
class BitField:
    """A field of a Bits class: bit positions high and low, type, and its default (a raw int) or None if it must be given."""

    name: str
    high: int
    low: int
    type: Type
    default: int | None


@dataclass(frozen=True, slots=True)
class BitsLayout:
    """A Bits class: its storage word and its fields by name."""

    storage: WordType
    fields: dict[str, BitField]


def size_of_type(type: Type) -> int:
    """The bytes a value of this type takes in memory. Raises TypeError for types that have no place there."""
    return _size_and_align(type)[0]


def align_of_type(type: Type) -> int:
    """The alignment in bytes that a value of this type has in memory."""
    return _size_and_align(type)[1]


def _size_and_align(type: Type) -> tuple[int, int]:
    match type:
        case BoolType():
            return 1, 1
        case WordType(width=width):
            return width // 8, width // 8
        case EnumType(word=word):
            return _size_and_align(word)
        case BitsType(python=python):
            return _size_and_align(python.__layout__.storage)
        case AddressType() | StructType(optional=True):
            return 8, 8
        case StructType(python=python):
            return python.__layout__.size, python.__layout__.align
        case ArrayType(element=element, length=int(length)):
            size, align = _size_and_align(element)
            return size * length, align
        case QualifiedType(inner=inner):
            return _size_and_align(inner)
    raise TypeError(f"{spell(type)} has no place in memory")


def spell(type: Type) -> str:
    """The type as a program writes it."""
    match type:
        case NoneType_():
            return "None"
        case BoolType():
            return "bool"
        case StructType(python=python, optional=True):
            return f"{python.__name__} | None"
        case WordType() | AddressType() | BitsType() | EnumType() | StructType() | RecordType():
            return str(type.python.__name__)
        case ArrayType(element=element):
            return f"Array[{spell(element)}]"
        case QualifiedType(qualifier=qualifier, inner=inner):
            return f"{qualifier.capitalize()}[{spell(inner)}]"
        case StaticType(inner=inner):
            return f"Static[{spell(inner)}]"
        case FailureType():
            return "Failure"
        case FallibleType(inner=inner):
            return f"{spell(inner)} | Failure"
    raise TypeError(f"{type!r} is no type")
