"""How each type of the language lies in memory under CPython: load, store, and the check that a value has the type."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

from dsl.lang import types as t
from dsl.lang.bits import member
from dsl.lang.failure import CheckFailed, Failure

_new = object.__new__


class Representation:
    """The values of one type. `accept` is the exact class of a value, or None where that alone does not say."""

    __slots__ = ("accept", "size", "type")

    def __init__(self, type_: t.Type, accept: type | None) -> None:
        self.type = type_
        self.accept = accept
        try:
            self.size = type_.size
        except TypeError:
            self.size = 0  # lives in registers only

    def require(self, value: Any, name: str) -> None:
        """Raise TypeError unless the value has this type."""
        if not self.holds(value):
            raise TypeError(f"{name} takes {self.type}, not {value.__class__.__name__}")

    def holds(self, value: Any) -> bool:
        """Whether the value has this type."""
        return value.__class__ is self.accept

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The value at address. keeper: what must stay alive as long as a reference into this memory."""
        raise TypeError(f"{self.type} is not kept in memory")

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Put the value at address."""
        raise TypeError(f"{self.type} in memory is not assigned: copy_from")


class Scalar(Representation):
    """A value that is one machine word: decode makes it from a plain number, encode gives the number."""

    __slots__ = ("decode", "encode")

    def __init__(self, type_: t.Type, accept: type, decode: Callable[[int], Any], encode: Callable[[Any], int]) -> None:
        super().__init__(type_, accept)
        self.decode = decode
        self.encode = encode

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The value at address."""
        return self.decode(memory.load(address, self.size))

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Put the value at address; another type is a TypeError."""
        if value.__class__ is not self.accept:
            self.require(value, "this place")
        memory.store(address, self.size, self.encode(value))


class Volatile(Scalar):
    """Device[T] and Shared[T]: each access leaves an event."""

    __slots__ = ()

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The value at address, read exactly once."""
        return self.decode(memory.load_volatile(address, self.size))

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Write the value at address exactly once."""
        self.require(value, "this place")
        memory.store_volatile(address, self.size, self.encode(value))


class TaintedScalar(Scalar):
    """Untrusted[T] and Secret[T]."""

    __slots__ = ("inner",)

    def __init__(self, type_: t.Type, taint: type, inner: Scalar) -> None:
        of: Any = taint._of  # type: ignore[attr-defined]
        super().__init__(
            type_, taint, lambda number: of(inner.decode(number)), lambda value: inner.encode(value._value)
        )
        self.inner = inner

    def holds(self, value: Any) -> bool:
        """Whether the value has this taint and the type inside."""
        return value.__class__ is self.accept and value._value.__class__ is self.inner.accept  # type: ignore[attr-defined]

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Put the value at address; another type is a TypeError."""
        if not self.holds(value):
            self.require(value, "this place")
        memory.store(address, self.size, self.encode(value))


class InlineStruct(Representation):
    """A Struct inside another, or as an element: loading gives a reference. In a Record: a reference."""

    __slots__ = ("python",)

    def __init__(self, type_: t.StructType) -> None:
        super().__init__(type_, None)
        self.python = type_.python

    def holds(self, value: Any) -> bool:
        """Whether the value refers to this Struct."""
        return isinstance(value, self.python)

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """A reference to the Struct at address."""
        return self.python._view(memory, address, keeper)


class Reference(Representation):
    """Ref[T] | None: an address, 0 for None."""

    __slots__ = ("python",)

    def __init__(self, type_: t.StructType) -> None:
        super().__init__(type_, None)
        self.python = type_.python

    def holds(self, value: Any) -> bool:
        """Whether the value is None or refers to this Struct."""
        return value is None or isinstance(value, self.python)

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The reference at address, or None."""
        target = memory.load(address, 8)
        return self.python._view(memory, target, None) if target else None

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Put the reference at address. A Struct of a frame is refused: its memory goes with its function."""
        self.require(value, "this place")
        if value is not None and value._keeper is not None:
            raise TypeError(f"a reference to a {self.python.__name__} of a frame may not be stored")
        memory.store(address, 8, 0 if value is None else value._address)


class InlineArray(Representation):
    """An array inside a Struct, or an Array value in a Record."""

    __slots__ = ("element",)

    def __init__(self, type_: t.ArrayType) -> None:
        super().__init__(type_, None)
        self.element = type_.element

    def holds(self, value: Any) -> bool:
        """Whether the value is an array of this element."""
        from dsl.lang.array import Array

        return isinstance(value, Array) and value._element.type == self.element

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The array at address."""
        from dsl.lang.array import Array

        assert isinstance(self.type, t.ArrayType)
        assert self.type.length is not None
        return Array._view(memory, address, self.type.length, representation_of(self.element), keeper)


class Aggregate(Representation):
    """Values that live in registers only: Records, Failure, T | Failure, None."""

    __slots__ = ("check",)

    def __init__(self, type_: t.Type, check: Callable[[Any], bool]) -> None:
        super().__init__(type_, None)
        self.check = check

    def holds(self, value: Any) -> bool:
        """Whether the value has this type."""
        return self.check(value)


@cache
def representation_of(type_: t.Type) -> Any:
    """The representation of a type."""
    match type_:
        case t.QualifiedType(qualifier="device" | "shared", inner=inner):
            scalar = representation_of(inner)
            return Volatile(type_, scalar.accept, scalar.decode, scalar.encode)
        case t.QualifiedType(qualifier=qualifier, inner=inner):
            from dsl.lang.taint import Secret, Untrusted

            return TaintedScalar(type_, Secret if qualifier == "secret" else Untrusted, representation_of(inner))
        case t.StructType(optional=True):
            return Reference(type_)
        case t.StructType():
            return InlineStruct(type_)
        case t.ArrayType():
            return InlineArray(type_)
        case t.RecordType(python=python):
            return Aggregate(type_, lambda value: value.__class__ is python)
        case t.FallibleType(inner=inner):
            within = representation_of(inner)
            return Aggregate(type_, lambda value: isinstance(value, Failure) or within.holds(value))
        case t.FailureType():
            return Aggregate(type_, lambda value: isinstance(value, Failure))
        case t.NoneType_():
            return Aggregate(type_, lambda value: value is None)
    return _scalar(type_)


def _scalar(type_: t.Type) -> Scalar:
    match type_:
        case t.BoolType():
            return Scalar(type_, bool, _truth, int)
        case t.WordType(python=python, signed=signed):
            return Scalar(type_, python, python._wrap if signed else _unsigned(python), _word_bits(type_))
        case t.AddressType(python=python):
            return Scalar(type_, python, _unsigned(python), int)
        case t.BitsType(python=python):
            return Scalar(type_, python, python.from_raw, lambda value: value._raw)
        case t.EnumType(python=python, word=word):
            return Scalar(type_, python, _members(python, word), lambda value: int(value.value) & (1 << word.width) - 1)
    raise TypeError(f"{type_} is no type of a value")


def _truth(number: int) -> bool:
    if number > 1:
        raise CheckFailed(f"a bool in memory is 0 or 1, not {number}")
    return number == 1


def _unsigned(python: Any) -> Callable[[int], Any]:
    def decode(number: int) -> Any:
        word = _new(python)
        word._value = number
        return word

    return decode


def _word_bits(type_: t.WordType) -> Callable[[Any], int]:
    mask = (1 << type_.width) - 1
    return (lambda word: word._value & mask) if type_.signed else (lambda word: word._value)


def _members(python: type[Enum], word: t.WordType) -> Callable[[int], Any]:
    return lambda number: member(python, word.python._wrap(number))
