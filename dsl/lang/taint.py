"""Untrusted[T], a value that a guest or the outside chose, and Secret[T], a value that may not steer control flow or addresses.

The taint survives arithmetic. Ways out of Untrusted: below, at_most, trusted. Ways out of Secret: declassify, declassify_array.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Never, NoReturn, Self, TypeVar, overload

from dsl.lang.array import Array
from dsl.lang.failure import OUT_OF_RANGE, CheckFailed, Failure
from dsl.lang.words import Unsigned, _Below32, _Below64, i8, i16, i32, i64, u8, u16, u32, u64

T = TypeVar("T")
W = TypeVar("W", u8, u16, u32, u64, i8, i16, i32, i64)  # constrained, so that two widths have no common type
_new = object.__new__


def _kept(compute: Callable[[Any, Any], Any]) -> Any:
    """An operator of tainted values: that of the values inside, and its result is tainted."""

    def operate(self: Tainted[Any], other: Any) -> Any:
        result = _new(self.__class__)
        result._value = compute(self._value, other._value if other.__class__ is self.__class__ else self._inner(other))
        return result

    return operate


def _reflected(compute: Callable[[Any, Any], Any]) -> Any:
    """The same with the tainted value on the right."""
    return lambda self, other: self._of(compute(self._inner(other), self._value))


class Tainted(Generic[T]):
    """What both share: the operators of the value inside, whose results are tainted too."""

    __slots__ = ("_value",)
    _tainted = True
    _value: T

    @classmethod
    def _of(cls, value: Any) -> Self:
        tainted = _new(cls)
        tainted._value = value
        return tainted

    def _inner(self, other: Any) -> Any:
        """The operand inside other: of this taint, or public and of one type with the value, or a literal."""
        if other.__class__ is self.__class__:
            return other._value
        if other.__class__ is int or other.__class__ is self._value.__class__:
            return other
        raise TypeError(f"{self!r} beside {other!r}: both sides of one type")

    if TYPE_CHECKING:

        def __add__(self, other: Self | T | int) -> Self: ...
        def __radd__(self, other: T | int) -> Self: ...
        def __sub__(self, other: Self | T | int) -> Self: ...
        def __rsub__(self, other: T | int) -> Self: ...
        def __mul__(self, other: Self | T | int) -> Self: ...
        def __rmul__(self, other: T | int) -> Self: ...
        def __and__(self, other: Self | T | int) -> Self: ...
        def __rand__(self, other: T | int) -> Self: ...
        def __or__(self, other: Self | T | int) -> Self: ...
        def __ror__(self, other: T | int) -> Self: ...
        def __xor__(self, other: Self | T | int) -> Self: ...
        def __rxor__(self, other: T | int) -> Self: ...
        def __lshift__(self, count: Unsigned | int) -> Self: ...
        def __rshift__(self, count: Unsigned | int) -> Self: ...
        def __neg__(self) -> Self: ...
        def __invert__(self) -> Self: ...
    else:
        __hash__ = None

        def __lshift__(self, count):
            return self._of(self._value << count)

        def __rshift__(self, count):
            return self._of(self._value >> count)

        def __neg__(self):
            return self._of(-self._value)

        def __invert__(self):
            return self._of(~self._value)

        def truncate(self, word):
            """The low bits, as a narrower word."""
            return self._of(self._value.truncate(word))

        def __bool__(self):
            raise TypeError(f"{self.__class__.__name__} values are no conditions")

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}[{self._value.__class__.__name__}]"


class Untrusted(Tainted[T]):
    """A value chosen by a guest or the outside: no index, no address, no branch, until one of its checks gives the plain value."""

    __slots__ = ()

    def below(self, limit: T | int) -> T | Failure:
        """The plain value if it is less than limit, else Failure(1)."""
        value: Any = self._value
        return self._value if value < limit else Failure(OUT_OF_RANGE)

    def at_most(self, limit: T | int) -> T | Failure:
        """The plain value if it is not more than limit, else Failure(1)."""
        value: Any = self._value
        return self._value if value <= limit else Failure(OUT_OF_RANGE)

    def trusted(self, reason: str) -> T:
        """The plain value, unchecked; the reason says why any value is harmless here."""
        _require_reason(reason)
        return self._value

    if TYPE_CHECKING:

        @overload
        def truncate(self: Untrusted[u64], word: type[_Below64]) -> Untrusted[_Below64]: ...
        @overload
        def truncate(self: Untrusted[u32], word: type[_Below32]) -> Untrusted[_Below32]: ...
        @overload
        def truncate(self: Untrusted[u16], word: type[u8]) -> Untrusted[u8]: ...
        def truncate(self, word: Any) -> Any: ...
        def __floordiv__(self, divisor: T | int) -> Self: ...
        def __mod__(self, divisor: T | int) -> Self: ...
        def __eq__(self, other: Self | T | int) -> Untrusted[bool]: ...  # type: ignore[override]
        def __ne__(self, other: Self | T | int) -> Untrusted[bool]: ...  # type: ignore[override]
        def __lt__(self, other: Self | T | int) -> Untrusted[bool]: ...
        def __le__(self, other: Self | T | int) -> Untrusted[bool]: ...
        def __gt__(self, other: Self | T | int) -> Untrusted[bool]: ...
        def __ge__(self, other: Self | T | int) -> Untrusted[bool]: ...


class Secret(Tainted[T]):
    """A value that no branch, index, address, division or comparison may depend on. Its text never shows the value."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __eq__(self, other: Never) -> NoReturn: ...  # type: ignore[override]
        def __ne__(self, other: Never) -> NoReturn: ...  # type: ignore[override]
        @overload
        def truncate(self: Secret[u64], word: type[_Below64]) -> Secret[_Below64]: ...
        @overload
        def truncate(self: Secret[u32], word: type[_Below32]) -> Secret[_Below32]: ...
        @overload
        def truncate(self: Secret[u16], word: type[u8]) -> Secret[u8]: ...
        def truncate(self, word: Any) -> Any: ...
    else:

        def _refuse(self, _other):
            raise TypeError("a Secret is not compared: constant_time_equal")

        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


for _name in ("add", "sub", "mul", "and", "or", "xor"):
    setattr(Tainted, f"__{_name}__", _kept(getattr(operator, f"__{_name}__")))
    setattr(Tainted, f"__r{_name}__", _reflected(getattr(operator, f"__{_name}__")))
for _name in ("floordiv", "mod", "eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Untrusted, f"__{_name}__", _kept(getattr(operator, f"__{_name}__")))


def _require_reason(reason: object) -> None:
    if not isinstance(reason, str) or not reason.strip():
        raise TypeError("a reason in words is required")


def untrusted(value: T) -> Untrusted[T]:
    """Mark a value as chosen by the outside."""
    return Untrusted._of(value)


def secret(value: T) -> Secret[T]:
    """Mark a value as secret."""
    return Secret._of(value)


def widen_untrusted(word: type[W], value: Untrusted[Any]) -> Untrusted[W]:
    """The same number in a wider word; the taint stays."""
    return Untrusted._of(word(value._value))


def widen_secret(word: type[W], value: Secret[Any]) -> Secret[W]:
    """The same number in a wider word; the taint stays."""
    return Secret._of(word(value._value))


def declassify(value: Secret[T], reason: str) -> T:
    """The plain value; the reason says why it may now be known."""
    _require_reason(reason)
    if not isinstance(value, Secret):
        raise TypeError(f"declassify takes a Secret, not {value.__class__.__name__}")
    return value._value


def as_secret(array: Array[T]) -> Array[Secret[T]]:
    """The same memory, its elements secret."""
    return array._qualified("secret", True)


def declassify_array(array: Array[Secret[T]], reason: str) -> Array[T]:
    """The same memory, its elements public; the reason says why they may now be known."""
    _require_reason(reason)
    return array._qualified("secret", False)


def constant_time_equal(a: Secret[W], b: Secret[W]) -> Secret[u64]:
    """1 if both are equal, else 0, without a branch."""
    left, right = _secret_value(a), _secret_value(b)
    return Secret._of(u64(left == right))


def constant_time_select(flag: Secret[u64], a: Secret[W], b: Secret[W]) -> Secret[W]:
    """A if flag is 1, b if flag is 0, without a branch. No other flag is allowed."""
    choice = _secret_value(flag)
    if choice.__class__ is not u64 or _secret_value(a).__class__ is not _secret_value(b).__class__:
        raise TypeError("constant_time_select takes a Secret[u64] and two secrets of one type")
    if int(choice) > 1:
        raise CheckFailed("the flag of constant_time_select is 0 or 1")
    return a if choice == 1 else b


def _secret_value(value: Secret[Any]) -> Any:
    if value.__class__ is not Secret:
        raise TypeError(f"a Secret is needed, not {value.__class__.__name__}")
    return value._value
