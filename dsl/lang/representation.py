"""How each type of the language lies in memory under CPython: load, store, and the check that a value has the type."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

from dsl.lang import types as t
from dsl.lang.failure import CheckFailed, Failure

_new = object.__new__
_Check = Callable[[Any], bool]


class Representation:
    """The values of one type. `accept` is the exact class of a value, `check` what else tells that it has the type: one or both."""

    __slots__ = ("accept", "check", "size", "type")

    def __init__(self, type_: t.Type, accept: type | None = None, check: _Check | None = None) -> None:
        self.type, self.accept, self.check = type_, accept, check
        try:
            self.size = type_.size
        except TypeError:
            self.size = 0  # lives in registers only

    def holds(self, value: Any) -> bool:
        """Whether the value has this type."""
        accepted = self.accept is None or value.__class__ is self.accept
        return accepted and (self.check is None or self.check(value))

    def require(self, value: Any, name: str) -> None:
        """Raise TypeError unless the value has this type."""
        if not self.holds(value):
            raise TypeError(f"{name} takes {self.type}, not {value.__class__.__name__}")

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The value at address. keeper: what must stay alive as long as a reference into this memory."""
        raise TypeError(f"{self.type} is not kept in memory")

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Put the value at address; another type is a TypeError."""
        raise TypeError(f"{self.type} in memory is not assigned: copy_from")


class Scalar(Representation):
    """A value that is one machine word: decode makes it from a plain number, encode gives the number."""

    __slots__ = ("decode", "encode")

    def __init__(
        self,
        type_: t.Type,
        accept: type | None,
        decode: Callable[[int], Any],
        encode: Callable[[Any], int],
        check: _Check | None = None,
    ) -> None:
        super().__init__(type_, accept, check)
        self.decode, self.encode = decode, encode

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        return self.decode(memory.load(address, self.size))

    def store(self, memory: Any, address: int, value: Any) -> None:
        if self.check is not None or value.__class__ is not self.accept:
            self.require(value, "this place")
        memory.store(address, self.size, self.encode(value))


class Volatile(Scalar):
    """Device[T] and Shared[T]: each access happens exactly once and leaves an event."""

    __slots__ = ()

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        return self.decode(memory.load_volatile(address, self.size))

    def store(self, memory: Any, address: int, value: Any) -> None:
        self.require(value, "this place")
        memory.store_volatile(address, self.size, self.encode(value))


class Inline(Representation):
    """A Struct or array inside a Struct or as an element: loading gives a view of it. In a Record: a reference."""

    __slots__ = ("view",)

    def __init__(self, type_: t.Type, check: _Check, view: Callable[[Any, int, Any], Any]) -> None:
        super().__init__(type_, None, check)
        self.view = view

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        return self.view(memory, address, keeper)


class Reference(Inline):
    """Ref[T] | None: an address, 0 for None."""

    __slots__ = ()

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        target = memory.load(address, 8)
        return self.view(memory, target, None) if target else None

    def store(self, memory: Any, address: int, value: Any) -> None:
        """A Struct of a frame is refused: its memory goes with its function."""
        self.require(value, "this place")
        if value is not None and value._keeper is not None:
            raise TypeError(f"a reference to a {value.__class__.__name__} of a frame may not be stored")
        memory.store(address, 8, 0 if value is None else value._address)


@cache
def representation_of(type_: t.Type) -> Any:
    """The representation of a type."""
    match type_:
        case t.QualifiedType(inner=inner, volatile=True):
            scalar = representation_of(inner)
            return Volatile(type_, scalar.accept, scalar.decode, scalar.encode)
        case t.QualifiedType(qualifier=qualifier, inner=inner):
            return _tainted(type_, qualifier, representation_of(inner))
        case t.StructType(python=python, optional=True):
            return Reference(type_, lambda value: value is None or isinstance(value, python), python._view)
        case t.StructType(python=python):
            return Inline(type_, lambda value: isinstance(value, python), python._view)
        case t.ArrayType(element=element, length=length):
            return _array(type_, element, length)
        case t.RecordType(python=python):
            return Representation(type_, python)
        case t.FallibleType(inner=inner):
            within = representation_of(inner)
            return Representation(type_, None, lambda value: isinstance(value, Failure) or within.holds(value))
        case t.FailureType():
            return Representation(type_, Failure)
        case t.NoneType_():
            return Representation(type_, type(None))
        case t.BoolType():
            return Scalar(type_, bool, _truth, int)
        case t.WordType(python=python, width=width, signed=True):
            return Scalar(type_, python, python._wrap, lambda word: word._value & (1 << width) - 1)
        case t.WordType(python=python):
            return Scalar(type_, python, _unsigned(python), lambda word: word._value)
        case t.AddressType(python=python):
            return Scalar(type_, python, _unsigned(python), int)
        case t.BitsType(python=python):
            return Scalar(type_, python, python.from_raw, lambda value: value._raw)
        case t.EnumType(python=python, word=word):
            return Scalar(type_, python, _members(python, word), lambda value: int(value.value) & (1 << word.width) - 1)
    raise TypeError(f"{type_} is no type of a value")


def _tainted(type_: t.Type, qualifier: str, inner: Scalar) -> Scalar:
    """Untrusted[T] and Secret[T]."""
    from dsl.lang.taint import Secret, Untrusted

    taint: Any = Secret if qualifier == "secret" else Untrusted
    return Scalar(
        type_,
        taint,
        lambda number: taint._of(inner.decode(number)),
        lambda value: inner.encode(value._value),
        lambda value: inner.holds(value._value),
    )


def _array(type_: t.Type, element: t.Type, length: int | None) -> Inline:
    """An array inside a Struct, or an Array value in a Record."""
    from dsl.lang.array import Array

    def view(memory: Any, address: int, keeper: Any) -> Any:
        assert length is not None
        return Array._view(memory, address, length, representation_of(element), keeper)

    return Inline(type_, lambda value: isinstance(value, Array) and value._element.type == element, view)


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


def _members(python: type[Enum], word: t.WordType) -> Callable[[int], Any]:
    """The member with a word. A word that names none is a failed check."""

    def decode(number: int) -> Enum:
        value = word.python._wrap(number)
        try:
            return python(value)
        except ValueError:
            raise CheckFailed(f"{value!r} is no {python.__name__}") from None

    return decode
