"""Arithmetic modulo p = 2**255 - 19 on secrets, in constant time.

An element is four limbs of 64 bits: any number below 2**256, which stands for what it is modulo p. Every operation takes any element and
gives one, so callers have no bounds to keep. The four operations are kernels (dsl/std/kernels/field25519.py); their bodies here say, in
ordinary Python, which of the numbers that are congruent comes out.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Record,
    Secret,
    Struct,
    add_with_carry,
    address_of,
    constant_time_equal,
    machine,
    secret,
    u8,
    u64,
    upto,
)
from dsl.lang.model import current_machine

PRIME: Final = (1 << 255) - 19
LIMB_BITS: Final = 64
LIMBS: Final = 4
ELEMENT_SIZE: Final = 32
SQUARES_MOST: Final = 100  # in a row: what the powers below need
BELOW_TOP: Final = (1 << 63) - 1  # of the highest limb: what counts less than 2**255


class FieldElement(Struct, size=32):
    """A number modulo p: the sum of limb[i] * 2**(64 i)."""

    limb0: Secret[u64]
    limb1: Secret[u64]
    limb2: Secret[u64]
    limb3: Secret[u64]


def limbs_of(number: int) -> list[int]:
    """A number below 2**256 as four limbs, for tables (ordinary Python)."""
    return [number >> (LIMB_BITS * index) & ((1 << LIMB_BITS) - 1) for index in range(LIMBS)]


# what kernels do, on Python's integers


def number_of(element: FieldElement) -> int:
    """The number that is in memory."""
    return int.from_bytes(current_machine().memory.read(int(address_of(element)), ELEMENT_SIZE), "little")


def set_number(element: FieldElement, number: int) -> None:
    """Put a number below 2**256 into memory."""
    current_machine().memory.write(int(address_of(element)), number.to_bytes(ELEMENT_SIZE, "little"))


def folded(number: int) -> int:
    """A number with what reaches 2**256 brought down, as 38 times itself."""
    return (number & ((1 << 256) - 1)) + 38 * (number >> 256)


def settled(number: int) -> int:
    """A number with what reaches 2**255 brought down, as 19 times itself."""
    return (number & ((1 << 255) - 1)) + 19 * (number >> 255)


@machine(kernel="dsl.std.kernels.field25519.field_add")
def field_add(out: FieldElement, left: FieldElement, right: FieldElement) -> None:
    """Set out to left + right."""
    set_number(out, folded(folded(number_of(left) + number_of(right))))


@machine(kernel="dsl.std.kernels.field25519.field_subtract")
def field_subtract(out: FieldElement, left: FieldElement, right: FieldElement) -> None:
    """Set out to left - right."""
    set_number(out, folded(folded(number_of(left) - number_of(right))))


@machine(kernel="dsl.std.kernels.field25519.field_multiply")
def field_multiply(out: FieldElement, left: FieldElement, right: FieldElement) -> None:
    """Set out to left * right. Operands may be out itself."""
    set_number(out, settled(folded(number_of(left) * number_of(right))))


@machine(kernel="dsl.std.kernels.field25519.field_square")
def field_square(out: FieldElement, value: FieldElement) -> None:
    """Set out to value * value. value may be out itself."""
    set_number(out, settled(folded(number_of(value) ** 2)))


@machine
def field_set_limbs(out: FieldElement, limbs: Array[u64]) -> None:
    """Set out to the four limbs of a table."""
    out.limb0 = secret(limbs[0])
    out.limb1 = secret(limbs[1])
    out.limb2 = secret(limbs[2])
    out.limb3 = secret(limbs[3])


@machine
def field_square_times(out: FieldElement, value: FieldElement, count: u64) -> None:
    """Set out to value ** (2 ** count); count is public, 1 to SQUARES_MOST."""
    field_square(out, value)
    for _ in upto(count - 1, at_most=SQUARES_MOST - 1):
        field_square(out, out)


@machine
def field_power_250(out: FieldElement, eleventh: FieldElement, value: FieldElement) -> None:
    """Set out to value ** (2**250 - 1) and eleventh to value ** 11; three different places."""
    ladder = FieldElement()
    field_square(ladder, value)  # 2
    field_square_times(out, ladder, u64(2))  # 8
    field_multiply(out, out, value)  # 9
    field_multiply(eleventh, out, ladder)  # 11
    field_square(ladder, eleventh)  # 22
    field_multiply(out, ladder, out)  # 31 = 2**5 - 1
    field_square_times(ladder, out, u64(5))
    field_multiply(out, ladder, out)  # 2**10 - 1
    tenth = FieldElement()
    tenth.copy_from(out)
    field_square_times(ladder, out, u64(10))
    field_multiply(out, ladder, out)  # 2**20 - 1
    field_square_times(ladder, out, u64(20))
    field_multiply(ladder, ladder, out)  # 2**40 - 1
    field_square_times(ladder, ladder, u64(10))
    field_multiply(out, ladder, tenth)  # 2**50 - 1
    fiftieth = tenth
    fiftieth.copy_from(out)
    field_square_times(ladder, out, u64(50))
    field_multiply(out, ladder, out)  # 2**100 - 1
    hundredth = FieldElement()
    hundredth.copy_from(out)
    field_square_times(ladder, out, u64(100))
    field_multiply(ladder, ladder, hundredth)  # 2**200 - 1
    field_square_times(ladder, ladder, u64(50))
    field_multiply(out, ladder, fiftieth)  # 2**250 - 1


@machine
def field_invert(out: FieldElement, value: FieldElement) -> None:
    """Set out to value ** (p - 2), the inverse; zero gives zero. out is not value."""
    eleventh = FieldElement()
    field_power_250(out, eleventh, value)
    field_square_times(out, out, u64(5))
    field_multiply(out, out, eleventh)


@machine
def field_power_root(out: FieldElement, value: FieldElement) -> None:
    """Set out to value ** ((p - 5) / 8) = value ** (2**252 - 3); out is not value."""
    eleventh = FieldElement()
    field_power_250(out, eleventh, value)
    field_square_times(out, out, u64(2))
    field_multiply(out, out, value)


@machine
def field_load(out: FieldElement, encoded: Array[Secret[u8]]) -> None:
    """Set out to 32 little-endian bytes, the top bit ignored."""
    out.limb0 = encoded.load_u64(0)
    out.limb1 = encoded.load_u64(8)
    out.limb2 = encoded.load_u64(16)
    out.limb3 = encoded.load_u64(24) & BELOW_TOP


class Limbs(Record):
    """A number in registers."""

    limb0: Secret[u64]
    limb1: Secret[u64]
    limb2: Secret[u64]
    limb3: Secret[u64]


@machine
def plus_small(value: Limbs, small: Secret[u64]) -> Limbs:
    """A number and a small one, whose sum is below 2**256."""
    sum0 = add_with_carry(value.limb0, small, secret(u64(0)))
    sum1 = add_with_carry(value.limb1, secret(u64(0)), sum0.carry)
    sum2 = add_with_carry(value.limb2, secret(u64(0)), sum1.carry)
    return Limbs(sum0.value, sum1.value, sum2.value, value.limb3 + sum2.carry)


@machine
def field_store(encoded: Array[Secret[u8]], value: FieldElement) -> None:
    """Write the one canonical encoding, 32 little-endian bytes below p."""
    low = Limbs(value.limb0, value.limb1, value.limb2, value.limb3 & BELOW_TOP)
    folded_once = plus_small(low, (value.limb3 >> 63) * 19)  # below 2**255 + 19, so below 2 p
    trial = plus_small(folded_once, secret(u64(19)))  # reaches 2**255 exactly if the number is p or more
    number = plus_small(folded_once, (trial.limb3 >> 63) * 19)
    encoded.store_u64(0, number.limb0)
    encoded.store_u64(8, number.limb1)
    encoded.store_u64(16, number.limb2)
    encoded.store_u64(24, number.limb3 & BELOW_TOP)


@machine
def field_take_if(out: FieldElement, other: FieldElement, mask: Secret[u64]) -> None:
    """Set out to other where mask is all ones; unchanged where it is zero."""
    out.limb0 ^= (out.limb0 ^ other.limb0) & mask
    out.limb1 ^= (out.limb1 ^ other.limb1) & mask
    out.limb2 ^= (out.limb2 ^ other.limb2) & mask
    out.limb3 ^= (out.limb3 ^ other.limb3) & mask


@machine
def encodings_equal(left: Array[Secret[u8]], right: Array[Secret[u8]]) -> Secret[u64]:
    """1 if two 32-byte strings are equal, else 0."""
    difference = (
        (left.load_u64(0) ^ right.load_u64(0))
        | (left.load_u64(8) ^ right.load_u64(8))
        | (left.load_u64(16) ^ right.load_u64(16))
        | (left.load_u64(24) ^ right.load_u64(24))
    )
    return constant_time_equal(difference, secret(u64(0)))
