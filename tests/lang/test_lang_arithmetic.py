"""The functions on words: wide products, carries, rotation, counting, checked arithmetic, loops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsl.lang import (
    CheckFailed,
    Failure,
    add_with_carry,
    between,
    byte_swap,
    checked_add,
    checked_multiply,
    checked_subtract,
    count_leading_zeros,
    count_trailing_zeros,
    divide_truncating,
    i8,
    i32,
    maximum,
    minimum,
    multiply_high,
    multiply_wide,
    population_count,
    remainder_truncating,
    rotate_left,
    rotate_right,
    shift_left_wrapping,
    shift_right_wrapping,
    subtract_with_borrow,
    u8,
    u16,
    u32,
    u64,
    upto,
)

UNSIGNED: list[Any] = [u8, u16, u32, u64]
U64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


@given(U64, U64, st.integers(0, 1))
def test_wide(a: int, b: int, carry: int) -> None:
    """Products and sums of 64 bits keep every bit in their two halves."""
    product = multiply_wide(u64(a), u64(b))
    assert int(product.high) << 64 | int(product.low) == a * b
    assert multiply_high(u64(a), u64(b)) == product.high
    total = add_with_carry(u64(a), u64(b), u64(carry))
    assert int(total.carry) << 64 | int(total.value) == a + b + carry
    difference = subtract_with_borrow(u64(a), u64(b), u64(carry))
    assert int(difference.value) - (int(difference.carry) << 64) == a - b - carry


def test_carries_are_zero_or_one() -> None:
    """A carry or borrow of two fails a check; other types are refused."""
    with pytest.raises(CheckFailed):
        add_with_carry(u64(1), u64(1), u64(2))
    with pytest.raises(CheckFailed):
        subtract_with_borrow(u64(1), u64(1), u64(2))
    with pytest.raises(TypeError):
        add_with_carry(u64(1), u32(1), u64(0))  # type: ignore[call-overload]


@given(st.sampled_from(UNSIGNED), U64, st.integers(0, 200))
def test_rotation(word: Any, number: int, count: int) -> None:
    """Rotation moves each bit by the count modulo the width, in both directions."""
    value = word._wrap(number)
    text = f"{int(value):0{word.width}b}"
    step = count % word.width
    assert f"{int(rotate_left(value, count)):0{word.width}b}" == text[step:] + text[:step]
    assert rotate_right(rotate_left(value, u64(count)), u8(count)) == value
    assert int(shift_left_wrapping(value, count)) == (int(value) << step) % 2**word.width
    assert int(shift_right_wrapping(value, count)) == int(value) >> step


def test_shift_right_wrapping_keeps_the_sign() -> None:
    """The sign enters a signed word."""
    assert shift_right_wrapping(i8(-128), 9) == i8(-64)


@given(st.sampled_from(UNSIGNED), U64)
def test_counting(word: Any, number: int) -> None:
    """Zeros and ones are those of the binary text; zero has as many zeros as bits."""
    value = word._wrap(number)
    text = f"{int(value):0{word.width}b}"
    assert int(count_leading_zeros(value)) == len(text) - len(text.lstrip("0"))
    assert int(count_trailing_zeros(value)) == len(text) - len(text.rstrip("0"))
    assert int(population_count(value)) == text.count("1")
    assert int(byte_swap(value)).to_bytes(word.width // 8, "big") == int(value).to_bytes(word.width // 8, "little")


@given(st.integers(-128, 127), st.integers(-128, 127))
def test_signed_division(a: int, b: int) -> None:
    """Division goes toward zero, the remainder has the dividend's sign, MIN // -1 wraps, zero stops."""
    if b == 0:
        with pytest.raises(CheckFailed):
            divide_truncating(i8(a), i8(b))
        return
    quotient, remainder = int(divide_truncating(i8(a), i8(b))), int(remainder_truncating(i8(a), i8(b)))
    if (a, b) == (-128, -1):
        assert (quotient, remainder) == (-128, 0)
    else:
        assert quotient == int(a / b)
        assert quotient * b + remainder == a
        assert remainder == 0 or (remainder < 0) == (a < 0)


@given(st.sampled_from([*UNSIGNED, i8, i32]), U64, U64)
def test_checked(word: Any, x: int, y: int) -> None:
    """Checked arithmetic gives the true result or a Failure, never a wrapped one."""
    a, b = word._wrap(x), word._wrap(y)
    for function, number in (
        (checked_add, int(a) + int(b)),
        (checked_subtract, int(a) - int(b)),
        (checked_multiply, int(a) * int(b)),
    ):
        result = function(a, b)
        if word.lowest <= number <= word.highest:
            assert not isinstance(result, Failure)
            assert int(result) == number
        else:
            assert isinstance(result, Failure)
            assert result.code == 1


def test_minimum_and_maximum() -> None:
    """Literals take the other's type; types do not mix."""
    assert minimum(u8(3), 4) == u8(3)
    assert maximum(i8(-3), -4) == i8(-3)
    with pytest.raises(TypeError):
        minimum(u8(1), u16(1))  # type: ignore[type-var]


def test_loops() -> None:
    """Loops count in the type of their bound; a broken promise fails a check before the first round."""
    assert [int(i) for i in upto(3)] == [0, 1, 2]
    assert all(type(i) is u16 for i in upto(u16(3)))
    assert list(between(u8(5), u8(3))) == []
    assert [int(i) for i in between(2, u32(5))] == [2, 3, 4]
    assert [int(i) for i in upto(u8(255))][-1] == 254
    with pytest.raises(CheckFailed, match="promised"):
        upto(u64(5), at_most=4)
    with pytest.raises(TypeError):
        upto(i8(3))  # type: ignore[call-overload]


def test_failure_codes() -> None:
    """A Failure carries a u64 that is not zero, and is no condition."""
    assert Failure(7).code == u64(7)
    with pytest.raises(CheckFailed):
        Failure(0)
    with pytest.raises(TypeError):
        Failure(u32(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        assert Failure(1)  # type: ignore[truthy-bool]
