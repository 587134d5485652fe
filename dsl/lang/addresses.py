"""The four address types: 64 bits each, which do not mix with each other or with u64."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Self, TypeVar, cast, overload

from dsl.lang.failure import CheckFailed
from dsl.lang.words import Number, comparing, u64

_A = TypeVar("_A", bound="Address")


def _comparing(compute: Callable[[int, int], bool]) -> Callable[[_A, _A], bool]:
    """A comparison; with an address of another kind, or a number, it is a TypeError."""
    return cast("Callable[[_A, _A], bool]", comparing(compute))


class Address(Number, width=64):
    """What the four share. Arithmetic wraps at 2**64."""

    __slots__ = ()

    def __init__(self, value: u64 | int) -> None:
        number: Any = value
        if number.__class__ is not u64:
            if number.__class__ is not int:
                raise TypeError(f"{self.__class__.__name__} takes a u64 or a literal, not {number.__class__.__name__}")
            number = u64(number)
        self._value = number._value

    def as_u64(self) -> u64:
        """The same bits as a word."""
        return u64._wrap(self._value)

    def _distance(self, other: Any) -> Any:
        if other.__class__ is u64:
            return other._value
        return u64(other)._value if other.__class__ is int else NotImplemented

    def __add__(self, distance: u64 | int) -> Self:
        number = self._distance(distance)
        return NotImplemented if number is NotImplemented else self._wrap(self._value + number)

    @overload
    def __sub__(self, other: Self) -> u64: ...
    @overload
    def __sub__(self, other: u64 | int) -> Self: ...
    def __sub__(self, other: Any) -> Any:
        if other.__class__ is self.__class__:
            return u64._wrap(self._value - other._value)
        number = self._distance(other)
        return NotImplemented if number is NotImplemented else self._wrap(self._value - number)

    def _alignment(self, alignment: Any) -> int:
        number = self._distance(alignment)
        if number is NotImplemented:
            raise TypeError(f"an alignment is a u64 or a literal, not {alignment.__class__.__name__}")
        if number == 0 or number & (number - 1):
            raise CheckFailed(f"alignment {number} is no power of two")
        return int(number)

    def align_down(self, alignment: u64 | int) -> Self:
        """The highest multiple of alignment (a power of two) not above this address."""
        return self._wrap(self._value & -self._alignment(alignment))

    def align_up(self, alignment: u64 | int) -> Self:
        """The lowest multiple of alignment (a power of two) not below this address; wraps at 2**64."""
        number = self._alignment(alignment)
        return self._wrap((self._value + number - 1) & -number)

    def is_aligned(self, alignment: u64 | int) -> bool:
        """Whether this address is a multiple of alignment, a power of two."""
        return self._value & (self._alignment(alignment) - 1) == 0

    __eq__, __ne__ = _comparing(operator.eq), _comparing(operator.ne)  # type: ignore[assignment]  # refuse two kinds
    __lt__, __le__ = _comparing(operator.lt), _comparing(operator.le)
    __gt__, __ge__ = _comparing(operator.gt), _comparing(operator.ge)

    __hash__ = Number.__hash__

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._value:#x})"


class HostPhysical(Address):
    """An address on the machine's memory bus."""

    __slots__ = ()


class HostVirtual(Address):
    """An address that this program's own instructions use: the only kind that can be dereferenced."""

    __slots__ = ()


class GuestPhysical(Address):
    """An address in a box's physical memory."""

    __slots__ = ()


class GuestVirtual(Address):
    """An address that a box's own instructions use."""

    __slots__ = ()
