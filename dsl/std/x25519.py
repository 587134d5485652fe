"""X25519 key agreement (RFC 7748, section 5) in constant time."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Secret, Struct, declassify, frame_array, machine, secret, table, u8, u64, upto
from dsl.std.field25519 import (
    FieldElement,
    field_add,
    field_invert,
    field_load,
    field_multiply,
    field_square,
    field_store,
    field_subtract,
    number_of,
    set_number,
    settled,
)
from dsl.std.wipe import WIPED_SIZE

BASE_POINT: Final = table(u8, bytes([9]) + bytes(31))
CURVE_CONSTANT: Final = 121665  # (A - 2) / 4


class Ladder(Struct, size=384):
    """The ladder's points (X2 : Z2) and (X3 : Z3), X1 of their difference, and room for its kernel, which counts on this order."""

    x1: FieldElement
    x2: FieldElement
    z2: FieldElement
    x3: FieldElement
    z3: FieldElement
    a: FieldElement
    b: FieldElement
    c: FieldElement
    d: FieldElement
    e: FieldElement
    f: FieldElement
    g: FieldElement


@machine(kernel="dsl.std.kernels.field25519.ladder_step")
def ladder_step(ladder: Ladder, swapped: Secret[u64]) -> None:
    """Add both points into the second; double the first, or the second if swapped is not 0, into the first. Names as in RFC 7748.

    Swapping the points only changes the sign of D A - C B, which is squared.
    """
    x1, x2, z2, x3, z3 = ladder.x1, ladder.x2, ladder.z2, ladder.x3, ladder.z3
    a, b, c, d, e, f, g = ladder.a, ladder.b, ladder.c, ladder.d, ladder.e, ladder.f, ladder.g
    field_add(a, x2, z2)
    field_subtract(d, x3, z3)
    field_subtract(b, x2, z2)
    field_add(c, x3, z3)
    second = int(declassify(swapped, "which of the two, under CPython")) != 0
    f.copy_from(c if second else a)
    g.copy_from(d if second else b)
    field_multiply(d, d, a)  # D A
    field_square(f, f)  # A A
    field_multiply(c, c, b)  # C B
    field_square(g, g)  # B B
    field_add(a, d, c)
    field_subtract(b, d, c)
    field_subtract(e, f, g)
    field_square(x3, a)
    set_number(c, settled(CURVE_CONSTANT * number_of(e)))
    field_square(b, b)
    field_add(c, c, f)
    field_multiply(x2, f, g)
    field_multiply(z3, b, x1)
    field_multiply(z2, e, c)


@machine(wipes=WIPED_SIZE)
def x25519(out: Array[Secret[u8]], scalar: Array[Secret[u8]], point: Array[Secret[u8]]) -> None:
    """Write the 32-byte x coordinate of scalar times point. All zero: the point was of small order, and the caller refuses."""
    clamped = frame_array(Secret[u8], 32)
    clamped.copy_from(scalar)
    clamped[0] &= 0xF8
    clamped[31] = (clamped[31] & 0x7F) | 0x40
    ladder = Ladder()
    field_load(ladder.x1, point)
    ladder.x2.limb0 = secret(u64(1))
    ladder.x3.copy_from(ladder.x1)
    ladder.z3.limb0 = secret(u64(1))
    last = secret(u64(0))
    for step in upto(255):
        place = 254 - step
        bit = (clamped.load_u64(place // 64 * 8) >> (place % 64)) & 1
        ladder_step(ladder, bit ^ last)
        last = bit
    # the last bit is clear, so nothing is swapped
    field_invert(ladder.a, ladder.z2)
    field_multiply(ladder.a, ladder.a, ladder.x2)
    field_store(out, ladder.a)
