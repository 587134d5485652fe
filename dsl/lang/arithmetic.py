"""Functions on words: wide arithmetic, rotation, counting, checked arithmetic, and the bounded loops."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from dsl.lang.failure import OUT_OF_RANGE, CheckFailed, Failure
from dsl.lang.operations import BINARY, UNARY
from dsl.lang.record import Record
from dsl.lang.taint import Secret
from dsl.lang.words import Signed, Unsigned, Word, i8, i16, i32, i64, u8, u16, u32, u64

T = TypeVar("T")
# Constrained, not bound: with a bound, u64 beside u32 would both be read as their base class.
W = TypeVar("W", u8, u16, u32, u64, i8, i16, i32, i64)
U = TypeVar("U", u8, u16, u32, u64)
I = TypeVar("I", i8, i16, i32, i64)
UX = TypeVar("UX", u8, u16, u32, u64, Secret[u8], Secret[u16], Secret[u32], Secret[u64])
WX = TypeVar("WX", u8, u16, u32, u64, i8, i16, i32, i64, Secret[u8], Secret[u16], Secret[u32], Secret[u64])
_MaybeSecret = Secret[u64] | u64  # the first overload that fits counts: of public words alone the result is public
_MASK = (1 << 64) - 1
_new = object.__new__
_tuple: Any = tuple.__new__


class Wide(Record):
    """A 128-bit number."""

    low: u64
    high: u64


class Carry(Record):
    """A sum or difference of 64 bits and the carry or borrow out of it, 0 or 1."""

    value: u64
    carry: u64


class SecretWide(Record):
    """A secret 128-bit number."""

    low: Secret[u64]
    high: Secret[u64]


class SecretCarry(Record):
    """A secret sum or difference of 64 bits and its carry or borrow, 0 or 1."""

    value: Secret[u64]
    carry: Secret[u64]


def _open(values: tuple[Any, ...]) -> tuple[bool, list[int]]:
    """The plain numbers of u64 operands, and whether any is secret."""
    hidden = False
    numbers = []
    for value in values:
        if value.__class__ is Secret:
            hidden, value = True, value._value
        if value.__class__ is not u64:
            raise TypeError(f"a u64 is needed here, not {value.__class__.__name__}")
        numbers.append(value._value)
    return hidden, numbers


def _pair(hidden: bool, plain: Any, shielded: Any, first: int, second: int) -> Any:
    """A Record of two u64, secret if hidden."""
    a, b = _new(u64), _new(u64)
    a._value, b._value = first, second
    if not hidden:
        return _tuple(plain, (a, b))
    left, right = _new(Secret), _new(Secret)
    left._value, right._value = a, b
    return _tuple(shielded, (left, right))


@overload
def multiply_wide(a: u64, b: u64) -> Wide: ...  # type: ignore[overload-overlap]
@overload
def multiply_wide(a: _MaybeSecret, b: _MaybeSecret) -> SecretWide: ...
def multiply_wide(a: Any, b: Any) -> Any:
    """The whole product."""
    hidden, (x, y) = _open((a, b))
    product = x * y
    return _pair(hidden, Wide, SecretWide, product & _MASK, product >> 64)


@overload
def multiply_high(a: u64, b: u64) -> u64: ...  # type: ignore[overload-overlap]
@overload
def multiply_high(a: _MaybeSecret, b: _MaybeSecret) -> Secret[u64]: ...
def multiply_high(a: Any, b: Any) -> Any:
    """The high half of the product."""
    hidden, (x, y) = _open((a, b))
    high = u64._wrap(x * y >> 64)
    return Secret._of(high) if hidden else high


@overload
def add_with_carry(a: u64, b: u64, carry: u64) -> Carry: ...  # type: ignore[overload-overlap]
@overload
def add_with_carry(a: _MaybeSecret, b: _MaybeSecret, carry: _MaybeSecret) -> SecretCarry: ...
def add_with_carry(a: Any, b: Any, carry: Any) -> Any:
    """A + b + carry, and the carry out. Carry is 0 or 1; any other is a failed check."""
    hidden, (x, y, z) = _open((a, b, carry))
    if z > 1:
        raise CheckFailed(f"a carry is 0 or 1, not {z}")
    total = x + y + z
    return _pair(hidden, Carry, SecretCarry, total & _MASK, total >> 64)


@overload
def subtract_with_borrow(a: u64, b: u64, borrow: u64) -> Carry: ...  # type: ignore[overload-overlap]
@overload
def subtract_with_borrow(a: _MaybeSecret, b: _MaybeSecret, borrow: _MaybeSecret) -> SecretCarry: ...
def subtract_with_borrow(a: Any, b: Any, borrow: Any) -> Any:
    """A - b - borrow, and the borrow out. Borrow is 0 or 1; any other is a failed check."""
    hidden, (x, y, z) = _open((a, b, borrow))
    if z > 1:
        raise CheckFailed(f"a borrow is 0 or 1, not {z}")
    difference = x - y - z
    return _pair(hidden, Carry, SecretCarry, difference & _MASK, int(difference < 0))


def _modulo(count: Any, width: int) -> int:
    if count.__class__ is int:
        return int(count) % width
    if not isinstance(count, Unsigned):
        raise TypeError(f"a count is an unsigned word or a literal, not {count.__class__.__name__}")
    return count._value % width


def _on_bits(x: T, compute: Callable[[int, int], int]) -> T:
    """An operation on x's bits and width; a secret stays one."""
    value: Any = x
    inner = value._value if value.__class__ is Secret else value
    if not isinstance(inner, Unsigned):
        raise TypeError(f"an unsigned word is needed here, not {inner.__class__.__name__}")
    bits: Any = inner._wrap(compute(inner._value, inner.width))
    result: T = Secret._of(bits) if value.__class__ is Secret else bits
    return result


def rotate_left(x: UX, n: Unsigned | int) -> UX:
    """X rotated left by n modulo its width."""
    return _on_bits(x, lambda bits, width: BINARY["rotl"](bits, _modulo(n, width), width))


def rotate_right(x: UX, n: Unsigned | int) -> UX:
    """X rotated right by n modulo its width."""
    return _on_bits(x, lambda bits, width: BINARY["rotr"](bits, _modulo(n, width), width))


def shift_left_wrapping(x: WX, n: Unsigned | int) -> WX:
    """X shifted left by n modulo its width."""
    value: Any = x
    return value << _modulo(n, (value._value if value.__class__ is Secret else value).width)  # type: ignore[no-any-return]


def shift_right_wrapping(x: WX, n: Unsigned | int) -> WX:
    """X shifted right by n modulo its width; the sign enters a signed word."""
    value: Any = x
    return value >> _modulo(n, (value._value if value.__class__ is Secret else value).width)  # type: ignore[no-any-return]


def byte_swap(x: UX) -> UX:
    """X with its bytes reversed."""
    return _on_bits(x, UNARY["bswap"])


def _counted(x: T, operation: str) -> T:
    if x.__class__ is Secret:
        raise TypeError("not for secrets")
    return _on_bits(x, UNARY[operation])


def count_leading_zeros(x: U) -> U:
    """Zeros above the highest bit set; of zero: the width."""
    return _counted(x, "lzcnt")


def count_trailing_zeros(x: U) -> U:
    """Zeros below the lowest bit set; of zero: the width."""
    return _counted(x, "tzcnt")


def population_count(x: U) -> U:
    """How many bits are set."""
    return _counted(x, "popcnt")


def _same(a: T | int, b: T | int) -> tuple[T, T]:
    """Both as words of one type; one may be a literal."""
    left: Any = a
    right: Any = b
    if left.__class__ is int and isinstance(b, Word):
        left = right.__class__(left)
    if right.__class__ is int and isinstance(a, Word):
        right = left.__class__(right)
    if left.__class__ is not right.__class__ or not issubclass(left.__class__, Word):
        raise TypeError(f"{a!r} beside {b!r}: words of one type are needed here")
    return left, right


def minimum(a: W, b: W | int) -> W:
    """The smaller of two."""
    left, right = _same(a, b)
    return left if left <= right else right


def maximum(a: W, b: W | int) -> W:
    """The larger of two."""
    left, right = _same(a, b)
    return left if left >= right else right


def _divided(a: I, b: I | int, operation: str) -> I:
    left, right = _same(a, b)
    if not isinstance(left, Signed):
        raise TypeError(f"signed words are needed here, not {left.__class__.__name__}")
    if right == 0:
        raise CheckFailed("division by zero")
    return left._wrap(BINARY[operation](left._value & left._mask, right._value & left._mask, left.width))


def divide_truncating(a: I, b: I | int) -> I:
    """The quotient of signed words, toward zero. Zero stops; the lowest divided by -1 wraps to itself."""
    return _divided(a, b, "sdiv")


def remainder_truncating(a: I, b: I | int) -> I:
    """The remainder of divide_truncating; it has the sign of a. Zero stops."""
    return _divided(a, b, "srem")


def _checked(a: W, b: W | int, compute: Callable[[int, int], int]) -> W | Failure:
    left, right = _same(a, b)
    number = compute(left._value, right._value)
    return left._wrap(number) if left.lowest <= number <= left.highest else Failure(OUT_OF_RANGE)


def checked_add(a: W, b: W | int) -> W | Failure:
    """The sum, or Failure(1) if it does not fit."""
    return _checked(a, b, operator.add)


def checked_subtract(a: W, b: W | int) -> W | Failure:
    """The difference, or Failure(1) if it does not fit."""
    return _checked(a, b, operator.sub)


def checked_multiply(a: W, b: W | int) -> W | Failure:
    """The product, or Failure(1) if it does not fit."""
    return _checked(a, b, operator.mul)


# Loops


@overload
def upto(n: int, *, at_most: int | None = None) -> Iterator[u64]: ...
@overload
def upto(n: U, *, at_most: int | None = None) -> Iterator[U]: ...
def upto(n: Any, *, at_most: int | None = None) -> Any:
    """Count from 0 to n - 1, in n's type (a literal: u64). at_most is a promise: a larger n is a failed check."""
    limit = u64(n) if n.__class__ is int else n
    if at_most is not None and int(limit) > at_most:
        raise CheckFailed(f"a loop of {limit:d} rounds, at most {at_most} promised")
    return between(limit.__class__(0), limit)


@overload
def between(low: int, high: int) -> Iterator[u64]: ...
@overload
def between(low: U, high: U | int) -> Iterator[U]: ...
@overload
def between(low: int, high: U) -> Iterator[U]: ...
def between(low: Any, high: Any) -> Any:
    """Count from low to high - 1; no round if low is not below high."""
    if low.__class__ is int and high.__class__ is int:
        low = u64(low)
    left, right = _same(low, high)
    if not isinstance(left, Unsigned):
        raise TypeError(f"loops count in unsigned words, not {left.__class__.__name__}")
    word = left.__class__
    return (word._wrap(number) for number in range(left._value, right._value))


def rounds(most: int) -> Iterator[u64]:
    """Count from 0, for a loop that is left by break or return: a round after `most` of them is a failed check."""
    yield from between(0, most)
    raise CheckFailed(f"a loop of more than {most} rounds")
