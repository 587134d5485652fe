"""Arithmetic modulo p = 2**255 - 19 on secrets, in constant time.

An element is five limbs of 51 bits. Bounds, which every caller keeps: a *carried* element (from multiply, square, carry, load) has limbs
below 2**51 + 2**18; any operand of multiply or square has limbs below 2**54; what is subtracted has limbs below 2**53 - 76. A sum of two
carried elements and a difference of two such sums stay within them.

Products are accumulated without carries: one factor is shifted left by 3, the other by 10, so that the high word of each product
counts multiples of 2**51, and the low word, shifted right by 13, is the rest.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Record,
    Secret,
    Struct,
    constant_time_equal,
    erase,
    machine,
    multiply_wide,
    secret,
    u8,
    u64,
    upto,
)

LIMB_BITS: Final = 51
SQUARES_MOST: Final = 100  # in a row: what the powers below need
LIMB_MASK: Final = (1 << 51) - 1
PRIME: Final = (1 << 255) - 19
FOUR_P_FIRST: Final = 4 * ((1 << 51) - 19)  # 4 p, limb by limb
FOUR_P_OTHER: Final = 4 * ((1 << 51) - 1)


class FieldElement(Struct, size=40):
    """A number modulo p: the sum of limb[i] * 2**(51 i)."""

    limb0: Secret[u64]
    limb1: Secret[u64]
    limb2: Secret[u64]
    limb3: Secret[u64]
    limb4: Secret[u64]


class Column(Record):
    """A column of a product: low counts 1, high counts 2**51."""

    low: Secret[u64]
    high: Secret[u64]


def limbs_of(number: int) -> list[int]:
    """A number below 2**255 as five limbs, for tables (ordinary Python)."""
    return [number >> (LIMB_BITS * index) & LIMB_MASK for index in range(5)]


@machine
def field_set(out: FieldElement, number: u64) -> None:
    """Set out to number, a public number below 2**51."""
    out.limb0 = secret(number)
    out.limb1 = secret(u64(0))
    out.limb2 = secret(u64(0))
    out.limb3 = secret(u64(0))
    out.limb4 = secret(u64(0))


@machine
def field_set_limbs(out: FieldElement, limbs: Array[u64]) -> None:
    """Set out to the five limbs of a table."""
    out.limb0 = secret(limbs[0])
    out.limb1 = secret(limbs[1])
    out.limb2 = secret(limbs[2])
    out.limb3 = secret(limbs[3])
    out.limb4 = secret(limbs[4])


@machine
def field_add(out: FieldElement, left: FieldElement, right: FieldElement) -> None:
    """Set out to left + right, not carried."""
    out.limb0 = left.limb0 + right.limb0
    out.limb1 = left.limb1 + right.limb1
    out.limb2 = left.limb2 + right.limb2
    out.limb3 = left.limb3 + right.limb3
    out.limb4 = left.limb4 + right.limb4


@machine
def field_subtract(out: FieldElement, left: FieldElement, right: FieldElement) -> None:
    """Set out to left - right + 4 p, not carried: 2**53 more than left at most."""
    out.limb0 = left.limb0 + FOUR_P_FIRST - right.limb0
    out.limb1 = left.limb1 + FOUR_P_OTHER - right.limb1
    out.limb2 = left.limb2 + FOUR_P_OTHER - right.limb2
    out.limb3 = left.limb3 + FOUR_P_OTHER - right.limb3
    out.limb4 = left.limb4 + FOUR_P_OTHER - right.limb4


@machine
def first_product(left: Secret[u64], right: Secret[u64]) -> Column:
    """A column of one product; left is 8 times, right 1024 times a limb."""
    product = multiply_wide(left, right)
    return Column(product.low >> 13, product.high)


@machine
def add_product(column: Column, left: Secret[u64], right: Secret[u64]) -> Column:
    """The column with one product more; left is 8 times, right 1024 times a limb."""
    product = multiply_wide(left, right)
    return Column(column.low + (product.low >> 13), column.high + product.high)


@machine
def store_columns(out: FieldElement, c0: Column, c1: Column, c2: Column, c3: Column, c4: Column) -> None:
    """Set out to the product that the columns add up to, carried. Column sums are below 2**63.8."""
    r0 = c0.low + c4.high * 19
    r1 = c1.low + c0.high + (r0 >> LIMB_BITS)
    r2 = c2.low + c1.high + (r1 >> LIMB_BITS)
    r3 = c3.low + c2.high + (r2 >> LIMB_BITS)
    r4 = c4.low + c3.high + (r3 >> LIMB_BITS)
    out.limb0 = (r0 & LIMB_MASK) + (r4 >> LIMB_BITS) * 19
    out.limb1 = r1 & LIMB_MASK
    out.limb2 = r2 & LIMB_MASK
    out.limb3 = r3 & LIMB_MASK
    out.limb4 = r4 & LIMB_MASK


@machine
def field_multiply(out: FieldElement, left: FieldElement, right: FieldElement) -> None:
    """Set out to left * right, carried. Operands may be out itself."""
    a0 = left.limb0 << 3
    a1 = left.limb1 << 3
    a2 = left.limb2 << 3
    a3 = left.limb3 << 3
    a4 = left.limb4 << 3
    b0 = right.limb0 << 10
    b1 = right.limb1 << 10
    b2 = right.limb2 << 10
    b3 = right.limb3 << 10
    b4 = right.limb4 << 10
    c4 = first_product(a0, b4)
    c4 = add_product(c4, a1, b3)
    c4 = add_product(c4, a2, b2)
    c4 = add_product(c4, a3, b1)
    c4 = add_product(c4, a4, b0)
    a4_19 = a4 * 19
    c3 = first_product(a0, b3)
    c3 = add_product(c3, a1, b2)
    c3 = add_product(c3, a2, b1)
    c3 = add_product(c3, a3, b0)
    c3 = add_product(c3, a4_19, b4)
    a3_19 = a3 * 19
    c2 = first_product(a0, b2)
    c2 = add_product(c2, a1, b1)
    c2 = add_product(c2, a2, b0)
    c2 = add_product(c2, a3_19, b4)
    c2 = add_product(c2, a4_19, b3)
    a2_19 = a2 * 19
    c1 = first_product(a0, b1)
    c1 = add_product(c1, a1, b0)
    c1 = add_product(c1, a2_19, b4)
    c1 = add_product(c1, a3_19, b3)
    c1 = add_product(c1, a4_19, b2)
    c0 = first_product(a0, b0)
    c0 = add_product(c0, a1 * 19, b4)
    c0 = add_product(c0, a2_19, b3)
    c0 = add_product(c0, a3_19, b2)
    c0 = add_product(c0, a4_19, b1)
    store_columns(out, c0, c1, c2, c3, c4)


@machine
def field_square(out: FieldElement, value: FieldElement) -> None:
    """Set out to value * value, carried. value may be out itself."""
    a0 = value.limb0 << 3
    a1 = value.limb1 << 3
    a2 = value.limb2 << 3
    a3 = value.limb3 << 3
    a4 = value.limb4 << 3
    b0 = value.limb0 << 10
    b1 = value.limb1 << 10
    b2 = value.limb2 << 10
    b3 = value.limb3 << 10
    b4 = value.limb4 << 10
    twice0 = a0 + a0
    twice1 = a1 + a1
    c4 = add_product(add_product(first_product(twice0, b4), twice1, b3), a2, b2)
    a4_19 = a4 * 19
    c3 = add_product(add_product(first_product(twice0, b3), twice1, b2), a4_19, b4)
    a3_38 = a3 * 38
    c2 = add_product(add_product(first_product(twice0, b2), a1, b1), a3_38, b4)
    c1 = add_product(add_product(first_product(twice0, b1), a2 * 38, b4), a3 * 19, b3)
    c0 = add_product(add_product(first_product(a0, b0), a1 * 38, b4), a3_38, b2)
    store_columns(out, c0, c1, c2, c3, c4)


@machine
def field_square_times(out: FieldElement, value: FieldElement, count: u64) -> None:
    """Set out to value ** (2 ** count), carried; count is public, 1 to SQUARES_MOST."""
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
    erase(ladder)
    erase(tenth)
    erase(hundredth)


@machine
def field_invert(out: FieldElement, value: FieldElement) -> None:
    """Set out to value ** (p - 2), the inverse; zero gives zero. out is not value."""
    eleventh = FieldElement()
    field_power_250(out, eleventh, value)
    field_square_times(out, out, u64(5))
    field_multiply(out, out, eleventh)
    erase(eleventh)


@machine
def field_power_root(out: FieldElement, value: FieldElement) -> None:
    """Set out to value ** ((p - 5) / 8) = value ** (2**252 - 3); out is not value."""
    eleventh = FieldElement()
    field_power_250(out, eleventh, value)
    field_square_times(out, out, u64(2))
    field_multiply(out, out, value)
    erase(eleventh)


@machine
def field_carry(out: FieldElement, value: FieldElement) -> None:
    """Set out to value, carried; limbs of value may be any below 2**63."""
    r0 = value.limb0
    r1 = value.limb1 + (r0 >> LIMB_BITS)
    r2 = value.limb2 + (r1 >> LIMB_BITS)
    r3 = value.limb3 + (r2 >> LIMB_BITS)
    r4 = value.limb4 + (r3 >> LIMB_BITS)
    out.limb0 = (r0 & LIMB_MASK) + (r4 >> LIMB_BITS) * 19
    out.limb1 = r1 & LIMB_MASK
    out.limb2 = r2 & LIMB_MASK
    out.limb3 = r3 & LIMB_MASK
    out.limb4 = r4 & LIMB_MASK


@machine
def field_load(out: FieldElement, encoded: Array[Secret[u8]]) -> None:
    """Set out to 32 little-endian bytes, the top bit ignored, carried; numbers from p up are taken modulo p."""
    word0 = encoded.load_u64(0)
    word1 = encoded.load_u64(8)
    word2 = encoded.load_u64(16)
    word3 = encoded.load_u64(24)
    out.limb0 = word0 & LIMB_MASK
    out.limb1 = ((word0 >> 51) | (word1 << 13)) & LIMB_MASK
    out.limb2 = ((word1 >> 38) | (word2 << 26)) & LIMB_MASK
    out.limb3 = ((word2 >> 25) | (word3 << 39)) & LIMB_MASK
    out.limb4 = (word3 >> 12) & LIMB_MASK


@machine
def field_store(encoded: Array[Secret[u8]], value: FieldElement) -> None:
    """Write the one canonical encoding, 32 little-endian bytes below p."""
    carried = FieldElement()
    field_carry(carried, value)
    field_carry(carried, carried)  # limbs below 2**51 now, but for a last 19 or less in the lowest: value < 2 p
    # value >= p exactly if value + 19 reaches 2**255.
    excess = (carried.limb0 + 19) >> LIMB_BITS
    excess = (carried.limb1 + excess) >> LIMB_BITS
    excess = (carried.limb2 + excess) >> LIMB_BITS
    excess = (carried.limb3 + excess) >> LIMB_BITS
    excess = (carried.limb4 + excess) >> LIMB_BITS
    r0 = carried.limb0 + excess * 19
    r1 = carried.limb1 + (r0 >> LIMB_BITS)
    r2 = carried.limb2 + (r1 >> LIMB_BITS)
    r3 = carried.limb3 + (r2 >> LIMB_BITS)
    r4 = (carried.limb4 + (r3 >> LIMB_BITS)) & LIMB_MASK
    r0 &= LIMB_MASK
    r1 &= LIMB_MASK
    r2 &= LIMB_MASK
    r3 &= LIMB_MASK
    encoded.store_u64(0, r0 | (r1 << 51))
    encoded.store_u64(8, (r1 >> 13) | (r2 << 38))
    encoded.store_u64(16, (r2 >> 26) | (r3 << 25))
    encoded.store_u64(24, (r3 >> 39) | (r4 << 12))
    erase(carried)


@machine
def field_take_if(out: FieldElement, other: FieldElement, mask: Secret[u64]) -> None:
    """Set out to other where mask is all ones; unchanged where it is zero."""
    out.limb0 ^= (out.limb0 ^ other.limb0) & mask
    out.limb1 ^= (out.limb1 ^ other.limb1) & mask
    out.limb2 ^= (out.limb2 ^ other.limb2) & mask
    out.limb3 ^= (out.limb3 ^ other.limb3) & mask
    out.limb4 ^= (out.limb4 ^ other.limb4) & mask


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
