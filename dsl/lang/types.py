"""Types as the compiler and the layouts see them: what an annotation means, spelt once.

`dsl.lang.annotations.resolve` reads every legal spelling of an annotation. str(type) is the type as a program writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dsl.lang.words import i8, i16, i32, i64, u8, u16, u32, u64


@dataclass(frozen=True, slots=True)
class Type:
    """Base of all types: what each says of its values, in registers and in memory."""

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths in bits of the IR values that hold a value."""
        return ()

    @property
    def secret_parts(self) -> tuple[bool, ...]:
        """For each of those: whether it is secret."""
        return (False,) * len(self.widths)

    @property
    def size(self) -> int:
        """The bytes that a value takes in memory. Raises TypeError for types that have no place there."""
        raise TypeError(f"{self} has no place in memory")

    @property
    def align(self) -> int:
        """The alignment in bytes that a value has in memory. Raises TypeError as size does."""
        return self.size

    @property
    def taint(self) -> str:
        """untrusted, secret or the empty string."""
        return ""

    @property
    def plain(self) -> Type:
        """The type without its qualifier."""
        return self

    @property
    def general(self) -> Type:
        """The type without what only one value knows: an array's constant length."""
        return self


@dataclass(frozen=True, slots=True)
class NoneType_(Type):
    """The result of a function that returns nothing."""

    def __str__(self) -> str:
        return "None"


@dataclass(frozen=True, slots=True)
class NamedType(Type):
    """A type that is a class. `python` is that class, which programs name."""

    python: Any

    def __str__(self) -> str:
        return str(self.python.__name__)


@dataclass(frozen=True, slots=True)
class ScalarType(NamedType):
    """A value that is one word."""

    @property
    def word(self) -> WordType:
        """The word that carries it."""
        raise NotImplementedError

    @property
    def widths(self) -> tuple[int, ...]:
        """That word's."""
        return (self.word.width,)

    @property
    def size(self) -> int:
        """That word's."""
        return self.word.width // 8


@dataclass(frozen=True, slots=True)
class BoolType(Type):
    """Python's bool: IR width 1 in a register, one byte in memory."""

    widths = (1,)
    size = 1

    def __str__(self) -> str:
        return "bool"


@dataclass(frozen=True, slots=True)
class WordType(ScalarType):
    """u8 to i64."""

    @property
    def word(self) -> WordType:
        """Itself."""
        return self

    @property
    def width(self) -> int:
        """In bits."""
        return int(self.python.width)

    @property
    def signed(self) -> bool:
        """Whether it is two's complement."""
        return bool(self.python.signed)


@dataclass(frozen=True, slots=True)
class AddressType(ScalarType):
    """HostPhysical, HostVirtual, GuestPhysical, GuestVirtual: 64 bits."""

    @property
    def word(self) -> WordType:
        """Every address is a u64."""
        return U64


@dataclass(frozen=True, slots=True)
class BitsType(ScalarType):
    """A Bits class; a word of its storage's width."""

    @property
    def layout(self) -> BitsLayout:
        """Storage and fields."""
        layout: BitsLayout = self.python.__layout__
        return layout

    @property
    def word(self) -> WordType:
        """Its storage."""
        return self.layout.storage


@dataclass(frozen=True, slots=True)
class EnumType(ScalarType):
    """A plain Enum of words; a word of its members' type."""

    @property
    def word(self) -> WordType:
        """The type that the members' values share."""
        return WordType(next(iter(self.python)).value.__class__)


@dataclass(frozen=True, slots=True)
class StructType(NamedType):
    """A reference to a Struct: an address. optional: may be None (0); in memory then the reference, else the Struct itself."""

    optional: bool = False
    widths = (64,)

    def __str__(self) -> str:
        return f"{self.python.__name__} | None" if self.optional else str(self.python.__name__)

    @property
    def layout(self) -> StructLayout:
        """Size, alignment and fields of the Struct."""
        layout: StructLayout = self.python.__layout__
        return layout

    @property
    def size(self) -> int:
        """Of the reference or of the Struct."""
        return 8 if self.optional else self.layout.size

    @property
    def align(self) -> int:
        """Of the reference or of the Struct."""
        return 8 if self.optional else self.layout.align


@dataclass(frozen=True, slots=True)
class RecordType(NamedType):
    """A Record: the values of its fields, in order."""

    @property
    def fields(self) -> dict[str, Type]:
        """The types of its fields by name."""
        fields: dict[str, Type] = self.python.__record__
        return fields

    @property
    def widths(self) -> tuple[int, ...]:
        """Those of all fields."""
        return tuple(width for field in self.fields.values() for width in field.widths)

    @property
    def secret_parts(self) -> tuple[bool, ...]:
        """Those of all fields."""
        return tuple(part for field in self.fields.values() for part in field.secret_parts)


@dataclass(frozen=True, slots=True)
class ArrayType(Type):
    """An Array[T]: (address, u64 length). length is set where a declaration fixes it (fields, static_array, frame_array)."""

    element: Type
    length: int | None = None
    widths = (64, 64)

    def __str__(self) -> str:
        return f"Array[{self.element}]"

    @property
    def size(self) -> int:
        """Of an array whose length is fixed."""
        if self.length is None:
            raise TypeError(f"{self} has no place in memory")
        return self.element.size * self.length

    @property
    def align(self) -> int:
        """That of an element."""
        return self.element.align

    @property
    def general(self) -> Type:
        """An array of any length."""
        return ArrayType(self.element.general)


@dataclass(frozen=True, slots=True)
class WrappedType(Type):
    """A type that says more about the one inside."""

    inner: Type

    @property
    def widths(self) -> tuple[int, ...]:
        """Those of the type inside."""
        return self.inner.widths


@dataclass(frozen=True, slots=True)
class QualifiedType(Type):
    """Device[T], Shared[T] (one access per mention), Untrusted[T], Secret[T]; qualifier is that name in lower case."""

    qualifier: str
    inner: Type

    def __str__(self) -> str:
        return f"{self.qualifier.capitalize()}[{self.inner}]"

    @property
    def widths(self) -> tuple[int, ...]:
        """Those of the type inside."""
        return self.inner.widths

    @property
    def secret_parts(self) -> tuple[bool, ...]:
        """All, of a secret."""
        return (self.qualifier == "secret",) * len(self.widths)

    @property
    def size(self) -> int:
        """That of the type inside."""
        return self.inner.size

    @property
    def align(self) -> int:
        """That of the type inside."""
        return self.inner.align

    @property
    def volatile(self) -> bool:
        """Whether memory of this type is touched exactly once per mention."""
        return self.qualifier in ("device", "shared")

    @property
    def taint(self) -> str:
        """The qualifier, if it is a taint."""
        return "" if self.volatile else self.qualifier

    @property
    def plain(self) -> Type:
        """The type inside."""
        return self.inner


@dataclass(frozen=True, slots=True)
class StaticType(WrappedType):
    """Static[T]: a compile-time parameter."""

    def __str__(self) -> str:
        return f"Static[{self.inner}]"


@dataclass(frozen=True, slots=True)
class FailureType(Type):
    """Failure alone (after narrowing): its code."""

    widths = (64,)

    def __str__(self) -> str:
        return "Failure"


@dataclass(frozen=True, slots=True)
class FallibleType(WrappedType):
    """T | Failure: a u64 code (0: success), then the components of T."""

    def __str__(self) -> str:
        return f"{self.inner} | Failure"

    @property
    def widths(self) -> tuple[int, ...]:
        """The code's, then those of T."""
        return (64, *self.inner.widths)

    @property
    def secret_parts(self) -> tuple[bool, ...]:
        """The code is public."""
        return (False, *self.inner.secret_parts)

    @property
    def general(self) -> Type:
        """Of T in general."""
        return FallibleType(self.inner.general)


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """A field of a Struct: byte offset and type (ArrayType with its length for inline arrays, StructType for inline Structs)."""

    name: str
    offset: int
    type: Type

    @property
    def size(self) -> int:
        """In bytes."""
        return self.type.size


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

    @property
    def count(self) -> int:
        """How many bits it has."""
        return self.high - self.low + 1


@dataclass(frozen=True, slots=True)
class BitsLayout:
    """A Bits class: its storage word and its fields by name."""

    storage: WordType
    fields: dict[str, BitField]


def tainted(taint: str, kind: Type) -> Type:
    """The type with a taint on it, if there is one."""
    return QualifiedType(taint, kind) if taint else kind


NONE: Final = NoneType_()
BOOL: Final = BoolType()
FAILURE: Final = FailureType()
U8, U16, U32, U64 = WordType(u8), WordType(u16), WordType(u32), WordType(u64)
UNSIGNED: Final = {word.width: word for word in (U8, U16, U32, U64)}
SIGNED: Final = {word.width: word for word in map(WordType, (i8, i16, i32, i64))}
