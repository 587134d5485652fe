"""Words u8 to u64 and i8 to i64: fixed widths, wrapping arithmetic, no silent conversion. They are not ints.

Both operands of an operator have one type; an int literal takes the other side's type and must fit. Anything else is a TypeError here, an
error of mypy, and a compile error.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from dsl.lang.failure import CheckFailed

_new = object.__new__
_W = TypeVar("_W", bound="Word")
_U = TypeVar("_U", bound="Unsigned")
_Compute = Callable[[int, int], Any]

# The operators: each takes a word of its own type, or a literal that takes that type and must fit.


def _wrapping(compute: _Compute) -> tuple[Callable[[_W, _W | int], _W], Callable[[_W, int], _W]]:
    """An operator whose result is taken modulo 2**width, and the same for a literal on the left."""

    def operate(self: _W, other: Any) -> Any:
        cls = self.__class__
        number = other._value if other.__class__ is cls else self._number(other)
        if number is NotImplemented:
            return NotImplemented
        word = _new(cls)  # _wrap, without the call: this runs millions of times in tests of cryptography
        word._value = ((compute(self._value, number) + cls._bias) & cls._mask) - cls._bias
        return word

    return operate, _reflected(operate)


def _reflected(operate: Callable[[_W, Any], _W]) -> Callable[[_W, int], _W]:
    """The operator for a literal on the left, which takes the other side's type."""
    return lambda self, other: operate(_word(self, other), self) if other.__class__ is int else NotImplemented


def _word(like: _W, literal: int) -> _W:
    word: Any = like.__class__
    return word(literal)  # type: ignore[no-any-return]


def comparing(compute: _Compute) -> Callable[[_W, _W | int], bool]:
    """A comparison. Beside what has another type it is a TypeError; a tainted value answers itself."""

    def operate(self: _W, other: Any) -> Any:
        number = self._number(other)
        if number is NotImplemented and not getattr(other, "_tainted", False):
            raise TypeError(f"comparison of {self.__class__.__name__} with {other.__class__.__name__}")
        return NotImplemented if number is NotImplemented else compute(self._value, number)

    return operate


def _shifting(compute: _Compute) -> Callable[[_W, Unsigned | int], _W]:
    """A shift. A literal count must be below the width, a variable one is checked."""

    def operate(self: _W, count: Any) -> Any:
        number = count._value if isinstance(count, Unsigned) else count
        if number.__class__ is not int:
            return NotImplemented
        if not 0 <= number < self.width:
            error = ValueError if count.__class__ is int else CheckFailed
            raise error(f"shift of {self.__class__.__name__} by {number}")
        return self._wrap(compute(self._value, number))

    return operate


def _dividing(compute: _Compute) -> tuple[Callable[[_U, _U | int], _U], Callable[[_U, int], _U]]:
    """A division, and the same for a literal on the left; by zero it is a failed check."""

    def operate(self: _U, other: Any) -> Any:
        number = self._number(other)
        if number is not NotImplemented and number == 0:
            raise CheckFailed("division by zero")
        return NotImplemented if number is NotImplemented else self._wrap(compute(self._value, number))

    return operate, _reflected(operate)


class Number:
    """What words and addresses share: a width in bits, a sign, a value that nobody changes; for the host's Python also an int's text."""

    __slots__ = ("_value",)

    width: ClassVar[int]
    signed: ClassVar[bool]
    lowest: ClassVar[int]
    highest: ClassVar[int]
    _mask: ClassVar[int]
    _bias: ClassVar[int]  # the word for any number is ((number + bias) & mask) - bias, for both signs
    _value: int

    def __init_subclass__(cls, width: int = 0, signed: bool = False) -> None:
        if width:
            cls.width, cls.signed = width, signed
            cls._mask, cls._bias = (1 << width) - 1, (1 << (width - 1) if signed else 0)
            cls.lowest, cls.highest = -cls._bias, cls._mask - cls._bias

    @classmethod
    def _wrap(cls, number: int) -> Self:
        """The value that equals number modulo 2**width."""
        word = _new(cls)
        word._value = ((number + cls._bias) & cls._mask) - cls._bias
        return word

    def _number(self, other: Any) -> Any:
        """Other's value as a plain number if it may stand beside self, else NotImplemented."""
        return other._value if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __int__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._value})"

    def __format__(self, specification: str) -> str:
        return format(self._value, specification)

    if not TYPE_CHECKING:

        def __bool__(self):
            raise TypeError(f"{self.__class__.__name__} is no condition: compare it")


class Word(Number):
    """Arithmetic modulo 2**width."""

    __slots__ = ()

    if not TYPE_CHECKING:  # each class below states which arguments it takes

        def __new__(cls, value):
            """A literal that must fit, or a value-preserving widening of a word, or of a bool (0 or 1)."""
            kind = value.__class__
            if kind is int or kind is bool:
                number = int(value)
                if not cls.lowest <= number <= cls.highest:
                    raise ValueError(f"{number} does not fit in {cls.__name__} ({cls.lowest} to {cls.highest})")
            elif issubclass(kind, Word):
                number = value._value
                if kind.lowest < cls.lowest or kind.highest > cls.highest:
                    raise TypeError(
                        f"{cls.__name__}(...) only widens, and not every {kind.__name__} fits: truncate, as_signed, as_unsigned"
                    )
            else:
                raise TypeError(f"{cls.__name__}(...) takes a literal, a bool or a narrower word, not {kind.__name__}")
            word = _new(cls)
            word._value = number
            return word

    def _number(self, other: Any) -> Any:
        if other.__class__ is self.__class__:
            return other._value
        return _word(self, other)._value if other.__class__ is int else NotImplemented

    __add__, __radd__ = _wrapping(operator.add)
    __sub__, __rsub__ = _wrapping(operator.sub)
    __mul__, __rmul__ = _wrapping(operator.mul)
    __and__, __rand__ = _wrapping(operator.and_)
    __or__, __ror__ = _wrapping(operator.or_)
    __xor__, __rxor__ = _wrapping(operator.xor)
    __lshift__, __rshift__ = _shifting(operator.lshift), _shifting(operator.rshift)
    __eq__, __ne__ = comparing(operator.eq), comparing(operator.ne)  # type: ignore[assignment]  # refuse two widths
    __lt__, __le__ = comparing(operator.lt), comparing(operator.le)
    __gt__, __ge__ = comparing(operator.gt), comparing(operator.ge)
    __hash__ = Number.__hash__

    def __invert__(self) -> Self:
        return self._wrap(~self._value)

    if not TYPE_CHECKING:  # declared by the classes that have it

        def truncate(self, word):
            """The low bits, as a narrower word of the same sign."""
            if not issubclass(word, Word) or word.signed != self.signed or word.width >= self.width:
                raise TypeError(
                    f"{self.__class__.__name__}.truncate takes a narrower word of its sign, not {word.__name__}"
                )
            return word._wrap(self._value)


class Unsigned(Word):
    """u8 to u64. Division truncates; dividing by zero is a failed check."""

    __slots__ = ()

    __floordiv__, __rfloordiv__ = _dividing(operator.floordiv)
    __mod__, __rmod__ = _dividing(operator.mod)


class Signed(Word):
    """i8 to i64, two's complement. Division is divide_truncating and remainder_truncating."""

    __slots__ = ()

    def __neg__(self) -> Self:
        return self._wrap(-self._value)


class u8(Unsigned, width=8):
    """An unsigned word of 8 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8) -> Self: ...

    def as_signed(self) -> i8:
        """The same bits, signed."""
        return i8._wrap(self._value)


class u16(Unsigned, width=16):
    """An unsigned word of 16 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8 | u16) -> Self: ...
        def truncate(self, word: type[u8]) -> u8: ...

    def as_signed(self) -> i16:
        """The same bits, signed."""
        return i16._wrap(self._value)


class u32(Unsigned, width=32):
    """An unsigned word of 32 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8 | u16 | u32) -> Self: ...
        def truncate(self, word: type[_Below32]) -> _Below32: ...

    def as_signed(self) -> i32:
        """The same bits, signed."""
        return i32._wrap(self._value)


class u64(Unsigned, width=64):
    """An unsigned word of 64 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8 | u16 | u32 | u64) -> Self: ...
        def truncate(self, word: type[_Below64]) -> _Below64: ...

    def as_signed(self) -> i64:
        """The same bits, signed."""
        return i64._wrap(self._value)


class i8(Signed, width=8, signed=True):
    """A signed word of 8 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | i8) -> Self: ...

    def as_unsigned(self) -> u8:
        """The same bits, unsigned."""
        return u8._wrap(self._value)


class i16(Signed, width=16, signed=True):
    """A signed word of 16 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8 | i8 | i16) -> Self: ...
        def truncate(self, word: type[i8]) -> i8: ...

    def as_unsigned(self) -> u16:
        """The same bits, unsigned."""
        return u16._wrap(self._value)


class i32(Signed, width=32, signed=True):
    """A signed word of 32 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8 | u16 | i8 | i16 | i32) -> Self: ...
        def truncate(self, word: type[_BelowI32]) -> _BelowI32: ...

    def as_unsigned(self) -> u32:
        """The same bits, unsigned."""
        return u32._wrap(self._value)


class i64(Signed, width=64, signed=True):
    """A signed word of 64 bits."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, value: int | u8 | u16 | u32 | i8 | i16 | i32 | i64) -> Self: ...
        def truncate(self, word: type[_BelowI64]) -> _BelowI64: ...

    def as_unsigned(self) -> u64:
        """The same bits, unsigned."""
        return u64._wrap(self._value)


_Below32 = TypeVar("_Below32", u8, u16)
_Below64 = TypeVar("_Below64", u8, u16, u32)
_BelowI32 = TypeVar("_BelowI32", i8, i16)
_BelowI64 = TypeVar("_BelowI64", i8, i16, i32)

WORDS = (u8, u16, u32, u64, i8, i16, i32, i64)
