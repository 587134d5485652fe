"""Field and scalar arithmetic is that of the integers, for numbers at and between the bounds that it promises to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.std import field25519 as field
from dsl.std.scalar25519 import ORDER, scalar_digits, scalar_is_reduced, scalar_multiply_add, scalar_reduce_hash
from tests.worlds import CPython, Native, World

PRIME: Final = field.PRIME
LARGEST_LIMB: Final = (1 << 54) - 1  # of an operand of multiply
LARGEST_SUBTRAHEND: Final = 4 * ((1 << 51) - 19)
limbs: Final = st.lists(
    st.one_of(
        st.integers(0, LARGEST_LIMB),
        st.sampled_from([0, 1, 18, 19, (1 << 51) - 19, (1 << 51) - 1, 1 << 51, LARGEST_LIMB]),
    ),
    min_size=5,
    max_size=5,
)
scalars: Final = st.one_of(st.integers(0, ORDER - 1), st.sampled_from([0, 1, ORDER - 1]))
worlds: Final = pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPython(), marks=pytest.mark.t0, id="cpython"),
        pytest.param(Native(), marks=pytest.mark.t1, id="native"),
    ],
)
Element = list[int]


def number_of(element: Element) -> int:
    """The number that limbs stand for."""
    return sum(limb << (51 * index) for index, limb in enumerate(element))


def pack(words: Element) -> bytes:
    """Words as memory."""
    return b"".join(word.to_bytes(8, "little") for word in words)


def unpack(content: bytes | bytearray) -> Element:
    """Memory as words."""
    return [int.from_bytes(content[index : index + 8], "little") for index in range(0, len(content), 8)]


def apply(world: World, operation: Callable[..., Any], *operands: Element) -> Element:
    """The limbs that an operation on elements gives."""
    out = bytearray(40)
    world.call(operation, out, *(pack(operand) for operand in operands))
    return unpack(out)


def is_carried(element: Element) -> bool:
    """Whether limbs keep the bound of a carried element."""
    return all(limb < (1 << 51) + (1 << 18) for limb in element)


@worlds
@settings(deadline=None, max_examples=60)
@given(left=limbs, right=limbs)
def test_multiply(world: World, left: Element, right: Element) -> None:
    """Products are right and carried, up to the largest operands."""
    found = apply(world, field.field_multiply, left, right)
    assert number_of(found) % PRIME == number_of(left) * number_of(right) % PRIME
    assert is_carried(found)


@worlds
@settings(deadline=None, max_examples=60)
@given(value=limbs)
def test_square_and_store(world: World, value: Element) -> None:
    """Squares are right and carried; the encoding of anything is the canonical one."""
    found = apply(world, field.field_square, value)
    assert number_of(found) % PRIME == number_of(value) ** 2 % PRIME
    assert is_carried(found)
    encoded = bytearray(32)
    world.call(field.field_store, encoded, pack(value))
    assert int.from_bytes(encoded, "little") == number_of(value) % PRIME


@worlds
@settings(deadline=None, max_examples=40)
@given(left=limbs, right=st.lists(st.integers(0, LARGEST_SUBTRAHEND), min_size=5, max_size=5))
def test_add_and_subtract(world: World, left: Element, right: Element) -> None:
    """Sums and differences are right, and no limb wraps."""
    assert number_of(apply(world, field.field_add, left, right)) == number_of(left) + number_of(right)
    assert number_of(apply(world, field.field_subtract, left, right)) == number_of(left) - number_of(right) + 4 * PRIME


@worlds
@pytest.mark.parametrize("number", [0, 1, 2, PRIME - 1, PRIME, PRIME + 1, (1 << 255) - 1, 0x1234567890ABCDEF << 180])
def test_load_store_invert_root(world: World, number: int) -> None:
    """Loading takes any 255 bits, storing gives the number below p; inverse and root exponents are right."""
    element = bytearray(40)
    world.call(field.field_load, element, (number | 1 << 255).to_bytes(32, "little"))
    encoded = bytearray(32)
    world.call(field.field_store, encoded, bytes(element))
    assert int.from_bytes(encoded, "little") == number % PRIME
    inverse = number_of(apply(world, field.field_invert, unpack(element)))
    assert inverse % PRIME == pow(number, PRIME - 2, PRIME)
    root = number_of(apply(world, field.field_power_root, unpack(element)))
    assert root % PRIME == pow(number, (PRIME - 5) // 8, PRIME)


@worlds
@settings(deadline=None, max_examples=40)
@given(left=scalars, right=st.integers(0, (1 << 255) - 1), addend=scalars)
def test_scalar_multiply_add(world: World, left: int, right: int, addend: int) -> None:
    """Signature halves are right modulo L."""
    out = bytearray(32)
    world.call(scalar_multiply_add, out, *(number.to_bytes(32, "little") for number in (left, right, addend)))
    assert int.from_bytes(out, "little") == (left * right + addend) % ORDER


@worlds
@settings(deadline=None, max_examples=40)
@given(
    number=st.one_of(
        st.integers(0, (1 << 512) - 1),
        st.builds(lambda k, d: k * ORDER + d, st.integers(0, 1 << 259), st.integers(0, 2)),
    )
)
def test_scalar_reduce(world: World, number: int) -> None:
    """Hashes are reduced right, multiples of L among them."""
    number %= 1 << 512
    out = bytearray(32)
    world.call(scalar_reduce_hash, out, number.to_bytes(64, "little"))
    assert int.from_bytes(out, "little") == number % ORDER


@pytest.mark.t1
@pytest.mark.parametrize("number", [0, 1, ORDER - 1, ORDER, ORDER + 1, 2 * ORDER, (1 << 256) - 1])
def test_scalar_is_reduced(number: int) -> None:
    """S is refused from L on."""
    assert Native().call(scalar_is_reduced, number.to_bytes(32, "little")) == (number < ORDER)


@worlds
@settings(deadline=None, max_examples=40)
@given(number=st.one_of(st.integers(0, (1 << 255) - 1), st.sampled_from([0, 8, 0x8888, (1 << 255) - 1])))
def test_scalar_digits(world: World, number: int) -> None:
    """The digits add up to the scalar, and lie between -8 and 8."""
    out = bytearray(512)
    world.call(scalar_digits, out, number.to_bytes(32, "little"))
    digits = [word - (1 << 64) if word >> 63 else word for word in unpack(out)]
    assert sum(digit * 16**index for index, digit in enumerate(digits)) == number
    assert all(-8 <= digit <= 8 for digit in digits)
