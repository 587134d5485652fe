"""Untrusted and Secret values keep their taint through arithmetic and leave it only where the program says so."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsl.lang import (
    CheckFailed,
    Failure,
    GuestPhysical,
    Machine,
    Secret,
    SecretCarry,
    SecretWide,
    Untrusted,
    add_with_carry,
    as_secret,
    byte_swap,
    constant_time_equal,
    constant_time_select,
    count_leading_zeros,
    declassify,
    declassify_array,
    frame_array,
    i8,
    multiply_high,
    multiply_wide,
    rotate_left,
    secret,
    shift_left_wrapping,
    subtract_with_borrow,
    u8,
    u16,
    u32,
    u64,
    untrusted,
    widen_secret,
    widen_untrusted,
)

KINDS: list[tuple[Any, Any]] = [(secret, Secret), (untrusted, Untrusted)]
BINARY: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.and_,
    operator.or_,
    operator.xor,
]
U32 = st.integers(0, 2**32 - 1)


@given(st.sampled_from(KINDS), st.sampled_from(BINARY), U32, U32)
def test_arithmetic_keeps_the_taint(
    kind: tuple[Any, Any], operation: Callable[[Any, Any], Any], a: int, b: int
) -> None:
    """Tainted beside tainted, public or literal, on either side, is the tainted result of the words."""
    make, taint = kind
    expected = operation(u32(a), u32(b))
    tainted = make(u32(a))
    for result in (operation(tainted, make(u32(b))), operation(tainted, u32(b)), operation(tainted, b)):
        assert type(result) is taint
        assert result._value == expected
    for left in (u32(b), b):
        result = operation(left, tainted)
        assert type(result) is taint
        assert result._value == operation(u32(b), u32(a))


@pytest.mark.parametrize("kind", KINDS)
def test_shape_changes_keep_the_taint(kind: tuple[Any, Any]) -> None:
    """Shifts, complement, truncation and widening."""
    make, taint = kind
    widen: Any = widen_secret if taint is Secret else widen_untrusted
    result: Any
    expected: Any
    for result, expected in (
        (make(u32(6)) << 1, u32(12)),
        (make(u32(6)) >> u8(1), u32(3)),
        (~make(u32(0)), u32(2**32 - 1)),
        (-make(i8(-128)), i8(-128)),
        (make(u32(0x1FF)).truncate(u8), u8(0xFF)),
        (widen(u64, make(u32(7))), u64(7)),
    ):
        assert type(result) is taint
        assert result._value == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_taint_forbids(kind: tuple[Any, Any]) -> None:
    """No condition, no index, no address, no other width, no other taint."""
    make, _ = kind
    other = untrusted if make is secret else secret
    with pytest.raises(TypeError):
        assert make(u64(1))
    with pytest.raises(TypeError):
        GuestPhysical(make(u64(1)))
    with pytest.raises(TypeError):
        make(u64(1)) + u32(1)
    with pytest.raises(TypeError):
        make(u64(1)) + make(u32(1))
    with pytest.raises(TypeError):
        make(u64(1)) + other(u64(1))
    with pytest.raises(TypeError):
        make(u64(1)) + GuestPhysical(1)
    with pytest.raises(TypeError):
        u64(1) << make(u64(1))
    with pytest.raises(TypeError):
        hash(make(u64(1)))
    with pytest.raises(TypeError):
        u64(make(u64(1)))


def test_untrusted_comparisons_stay_untrusted() -> None:
    """A comparison gives Untrusted[bool], which no branch takes until it is trusted."""
    for result, expected in (
        (untrusted(u64(1)) < 2, True),
        (untrusted(u64(1)) == untrusted(u64(2)), False),
        (u64(3) > untrusted(u64(2)), True),
        (untrusted(u64(1)) != u64(1), False),
    ):
        assert type(result) is Untrusted
        assert result.trusted("a test") is expected
        with pytest.raises(TypeError):
            bool(result)


@given(U32, U32)
def test_untrusted_checks(value: int, limit: int) -> None:
    """Below and at_most give the plain word or a Failure."""
    below, most = untrusted(u32(value)).below(u32(limit)), untrusted(u32(value)).at_most(limit)
    assert below == u32(value) if value < limit else isinstance(below, Failure)
    assert most == u32(value) if value <= limit else isinstance(most, Failure)


def test_reasons_are_required() -> None:
    """Trusted and declassify take a reason in words."""
    assert untrusted(u8(1)).trusted("any value fits") == u8(1)
    assert declassify(secret(u8(1)), "it is published") == u8(1)
    with pytest.raises(TypeError, match="reason"):
        untrusted(u8(1)).trusted(" ")
    with pytest.raises(TypeError, match="reason"):
        declassify(secret(u8(1)), "")
    with pytest.raises(TypeError):
        declassify(u8(1), "not secret at all")  # type: ignore[arg-type]


def test_secrets_are_not_compared_or_divided() -> None:
    """Only constant_time_equal compares; nothing divides; texts do not show the value."""
    left: Any
    right: Any
    for operation in (operator.eq, operator.ne, operator.lt, operator.floordiv, operator.mod):
        for left, right in ((secret(u64(77)), secret(u64(77))), (secret(u64(77)), u64(77)), (u64(77), secret(u64(77)))):
            with pytest.raises(TypeError):
                operation(left, right)
    with pytest.raises(TypeError):
        count_leading_zeros(secret(u64(1)))  # type: ignore[type-var]
    assert "77" not in repr(secret(u64(77)))
    with pytest.raises(TypeError) as caught:
        secret(u64(77)) + u32(77)  # type: ignore[operator]
    assert "Secret[u64]" in str(caught.value)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_secret_arithmetic(a: int, b: int) -> None:
    """The wide functions agree with their public forms and keep the secret, also beside a public operand."""
    plain = multiply_wide(u64(a), u64(b))
    mixed: list[tuple[Any, Any]] = [
        (secret(u64(a)), secret(u64(b))),
        (secret(u64(a)), u64(b)),
        (u64(a), secret(u64(b))),
    ]
    for left, right in mixed:
        hidden: Any = multiply_wide(left, right)
        assert type(hidden) is SecretWide
        assert declassify(hidden.low, "test") == plain.low
        assert declassify(hidden.high, "test") == plain.high
        high: Any = multiply_high(left, right)
        assert declassify(high, "test") == plain.high
    total = add_with_carry(secret(u64(a)), secret(u64(b)), u64(1))
    assert type(total) is SecretCarry
    assert declassify(total.carry, "test") == u64(a + b + 1 >> 64)
    difference = subtract_with_borrow(secret(u64(a)), u64(b), secret(u64(0)))
    assert declassify(difference.value, "test") == u64(a) - u64(b)
    assert declassify(rotate_left(secret(u64(a)), 13), "test") == rotate_left(u64(a), 13)
    assert declassify(byte_swap(secret(u64(a))), "test") == byte_swap(u64(a))
    assert declassify(shift_left_wrapping(secret(u64(a)), 65), "test") == u64(a) << 1


def test_constant_time_choice() -> None:
    """Equality gives 1 or 0; selection takes a for 1, b for 0, and no other flag."""
    one, two = secret(u32(1)), secret(u32(2))
    assert declassify(constant_time_equal(one, secret(u32(1))), "test") == u64(1)
    flag = constant_time_equal(one, two)
    assert declassify(flag, "test") == u64(0)
    assert declassify(constant_time_select(flag, one, two), "test") == u32(2)
    assert declassify(constant_time_select(secret(u64(1)), one, two), "test") == u32(1)
    with pytest.raises(CheckFailed):
        constant_time_select(secret(u64(2)), one, two)
    with pytest.raises(TypeError):
        constant_time_select(u64(1), one, two)  # type: ignore[arg-type]


def test_arrays_of_secrets(model: Machine) -> None:
    """as_secret and declassify_array are views of the same memory; words in secret bytes are secret."""
    octets = frame_array(u8, 16)
    hidden = as_secret(octets)
    hidden[3] = secret(u8(7))
    assert octets[3] == u8(7)
    assert type(hidden[3]) is Secret
    assert declassify(hidden.load_u32(0), "test") == u32(7 << 24)
    hidden.store_be64(8, secret(u64(1)))
    assert octets[15] == u8(1)
    assert declassify_array(hidden, "a test")[15] == u8(1)
    with pytest.raises(TypeError):
        hidden[0] = u8(1)  # type: ignore[assignment]
    with pytest.raises(TypeError):
        hidden.store_u16(0, u16(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hidden.equals(hidden)
    with pytest.raises(TypeError):
        as_secret(hidden)
    with pytest.raises(TypeError, match="reason"):
        declassify_array(hidden, "")
