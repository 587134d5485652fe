"""Types as the compiler, the layouts and the Machine model see them: what an annotation means, spelt once.

`dsl.lang.annotations.resolve` reads every legal spelling of an annotation. str(type) is the type as a program writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from dsl.lang.base_type import Part
from dsl.lang.base_type import Type as Type
from dsl.lang.failure import CheckFailed, Failure
from dsl.lang.words import i8, i16, i32, i64, u8, u16, u32, u64

if TYPE_CHECKING:
    from dsl.lang.layouts import BitsLayout, StructLayout


class NoneType_(Type):
    """The result of a function that returns nothing."""

    def __str__(self) -> str:
        return "None"

    def holds(self, value: Any) -> bool:
        return value is None


class BoolType(Type):
    """Python's bool: IR width 1 in a register, one byte in memory."""

    parts = (Part(1),)
    size = 1

    def __str__(self) -> str:
        return "bool"

    def holds(self, value: Any) -> bool:
        return value.__class__ is bool

    @cached_property
    def decode(self) -> Callable[[int], bool]:
        """0 or 1; any other number is a failed check."""
        return _truth

    encode = int


def _truth(number: int) -> bool:
    if number > 1:
        raise CheckFailed(f"a bool in memory is 0 or 1, not {number}")
    return number == 1


class NamedType(Type):
    """A type that is a class. `python` is that class, which programs name."""

    python: Any

    def __str__(self) -> str:
        return str(self.python.__name__)

    def holds(self, value: Any) -> bool:
        return value.__class__ is self.python


class ScalarType(NamedType):
    """A value that is one word."""

    @property
    def word(self) -> WordType:
        """The word that carries it."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.word.width),)

    @cached_property
    def size(self) -> int:
        return self.word.width // 8

    @cached_property
    def decode(self) -> Callable[[int], Any]:
        return self.python._wrap  # type: ignore[no-any-return]

    @cached_property
    def encode(self) -> Callable[[Any], int]:
        mask = (1 << self.word.width) - 1
        return lambda value: value._value & mask


class WordType(ScalarType):
    """u8 to i64."""

    @property
    def word(self) -> WordType:
        return self

    @cached_property
    def width(self) -> int:
        """In bits."""
        return int(self.python.width)

    @cached_property
    def signed(self) -> bool:
        """Whether it is two's complement."""
        return bool(self.python.signed)


class AddressType(ScalarType):
    """HostPhysical, HostVirtual, GuestPhysical, GuestVirtual: 64 bits."""

    @property
    def word(self) -> WordType:
        return U64


class BitsType(ScalarType):
    """A Bits class; a word of its storage's width."""

    @property
    def layout(self) -> BitsLayout:
        """Storage and fields."""
        return self.python.__layout__  # type: ignore[no-any-return]

    @property
    def word(self) -> WordType:
        return self.layout.storage


class EnumType(ScalarType):
    """A plain Enum of words; a word of its members' type."""

    @cached_property
    def word(self) -> WordType:
        return WordType(next(iter(self.python)).value.__class__)

    @cached_property
    def decode(self) -> Callable[[int], Enum]:
        """The member with a word. A word that names none is a failed check."""

        def member(number: int) -> Enum:
            value = self.word.decode(number)
            try:
                return self.python(value)  # type: ignore[no-any-return]
            except ValueError:
                raise CheckFailed(f"{value!r} is no {self}") from None

        return member

    @cached_property
    def encode(self) -> Callable[[Enum], int]:
        return lambda member: self.word.encode(member.value)


class StructType(NamedType):
    """A reference to a Struct: an address. optional: may be None (0); in memory then the reference, else the Struct itself."""

    optional: bool = False
    parts = (Part(64, refers=True),)

    def __str__(self) -> str:
        return f"{self.python.__name__} | None" if self.optional else str(self.python.__name__)

    @property
    def layout(self) -> StructLayout:
        """Size, alignment and fields of the Struct."""
        return self.python.__layout__  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return 8 if self.optional else self.layout.size

    @property
    def align(self) -> int:
        return 8 if self.optional else self.layout.align

    def holds(self, value: Any) -> bool:
        return isinstance(value, self.python) or (self.optional and value is None)

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        if not self.optional:
            return self.python._view(memory, address, keeper)
        target = memory.load(address, 8)
        return self.python._view(memory, target, None) if target else None

    def store(self, memory: Any, address: int, value: Any) -> None:
        """A Struct of a frame is refused: its memory goes with its function."""
        if not self.optional:
            raise TypeError(f"{self} in memory is not assigned: copy_from")
        self.require(value, "this place")
        if value is not None and value._keeper is not None:
            raise TypeError(f"a reference to a {value.__class__.__name__} of a frame may not be stored")
        memory.store(address, 8, 0 if value is None else value._address)


class RecordType(NamedType):
    """A Record: the values of its fields, in order."""

    @property
    def fields(self) -> dict[str, Type]:
        """The types of its fields by name."""
        return self.python.__record__  # type: ignore[no-any-return]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for field in self.fields.values() for part in field.parts)


class ArrayType(Type):
    """An Array[T]: (address, u64 length). length is set where a declaration fixes it (fields, static_array, frame_array)."""

    element: Type
    length: int | None = None
    parts = (Part(64, refers=True), Part(64))

    def __str__(self) -> str:
        return f"Array[{self.element}]"

    @property
    def size(self) -> int:
        return super().size if self.length is None else self.element.size * self.length

    @property
    def align(self) -> int:
        return self.element.align

    @property
    def general(self) -> Type:
        return ArrayType(self.element.general)

    def holds(self, value: Any) -> bool:
        return bool(getattr(value, "_element", None) == self.element)

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        from dsl.lang.array import Array

        assert self.length is not None
        return Array._view(memory, address, self.length, self.element, keeper)

    def store(self, memory: Any, address: int, value: Any) -> None:
        raise TypeError(f"{self} in memory is not assigned: copy_from")


class QualifiedType(Type):
    """Device[T], Shared[T] (one access per mention), Untrusted[T], Secret[T]; qualifier is that name in lower case."""

    qualifier: str
    inner: Type

    def __str__(self) -> str:
        return f"{self.qualifier.capitalize()}[{self.inner}]"

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part._replace(secret=self.qualifier == "secret") for part in self.inner.parts)

    @cached_property
    def size(self) -> int:
        if self.taint and isinstance(self.inner, BoolType | EnumType):
            raise TypeError(f"{self} has no place in memory, whose loads would look at it: keep a word there")
        return self.inner.size

    @property
    def align(self) -> int:
        return self.inner.align

    @property
    def plain(self) -> Type:
        return self.inner

    @property
    def volatile(self) -> bool:
        return self.qualifier in ("device", "shared")

    @property
    def taint(self) -> str:
        return "" if self.volatile else self.qualifier

    @cached_property
    def python(self) -> Any:
        """The class of a tainted value."""
        from dsl.lang.taint import Secret, Untrusted

        return Secret if self.taint == "secret" else Untrusted

    def holds(self, value: Any) -> bool:
        if self.volatile:
            return self.inner.holds(value)
        return value.__class__ is self.python and self.inner.holds(value._value)

    @cached_property
    def decode(self) -> Callable[[int], Any]:
        inner, make = self.inner.decode, self.python._of
        return inner if self.volatile else lambda number: make(inner(number))

    @cached_property
    def encode(self) -> Callable[[Any], int]:
        inner = self.inner.encode
        return inner if self.volatile else lambda value: inner(value._value)

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """Of volatile memory: exactly one access, which leaves an event."""
        return self.decode((memory.load_volatile if self.volatile else memory.load)(address, self.size))

    def store(self, memory: Any, address: int, value: Any) -> None:
        self.require(value, "this place")
        (memory.store_volatile if self.volatile else memory.store)(address, self.size, self.encode(value))


class WrappedType(Type):
    """A type that says more about the one inside."""

    inner: Type

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.inner.parts

    def holds(self, value: Any) -> bool:
        return self.inner.holds(value)


class StaticType(WrappedType):
    """Static[T]: a compile-time parameter."""

    def __str__(self) -> str:
        return f"Static[{self.inner}]"


class FailureType(Type):
    """Failure alone (after narrowing): its code."""

    parts = (Part(64),)

    def __str__(self) -> str:
        return "Failure"

    def holds(self, value: Any) -> bool:
        return isinstance(value, Failure)


class FallibleType(WrappedType):
    """T | Failure: a u64 code (0: success), then the components of T."""

    def __str__(self) -> str:
        return f"{self.inner} | Failure"

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(64), *self.inner.parts)

    @property
    def general(self) -> Type:
        return FallibleType(self.inner.general)

    def holds(self, value: Any) -> bool:
        return isinstance(value, Failure) or self.inner.holds(value)


def tainted(taint: str, kind: Type) -> Type:
    """The type with a taint on it, if there is one."""
    return QualifiedType(taint, kind) if taint else kind


NONE: Final = NoneType_()
BOOL: Final = BoolType()
FAILURE: Final = FailureType()
U8, U16, U32, U64 = WordType(u8), WordType(u16), WordType(u32), WordType(u64)
UNSIGNED: Final = {word.width: word for word in (U8, U16, U32, U64)}
SIGNED: Final = {word.width: word for word in map(WordType, (i8, i16, i32, i64))}
