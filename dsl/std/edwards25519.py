"""Points of edwards25519 (RFC 8032, 5.1): complete formulas of Hisil, Wong, Carter and Dawson (2008) for a = -1.

They hold for every pair of points, so there are no special cases. In formulas, E, F, G, H are what the standard papers call so. All is
constant-time but multiply_two_public.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Secret,
    Struct,
    address_of,
    array,
    array_at,
    as_secret,
    between,
    declassify,
    frame_array,
    machine,
    secret,
    table,
    u8,
    u64,
    upto,
    widen_secret,
)
from dsl.std.edwards25519_tables import (
    COMBS,
    DOUBLED_D,
    ENTRIES,
    ROOT_OF_MINUS_ONE,
    SPACING,
    TEETH,
    D,
    base_point_limbs,
)
from dsl.std.field25519 import (
    FieldElement,
    encodings_equal,
    field_add,
    field_invert,
    field_load,
    field_multiply,
    field_power_root,
    field_set_limbs,
    field_square,
    field_store,
    field_subtract,
    field_take_if,
    limbs_of,
)
from dsl.std.scalar25519 import DIGIT_COUNT, DIGIT_SIGN, scalar_signed_bits

ENTRY_LIMBS: Final = 12
BASE_TABLE: Final = table(u64, base_point_limbs())
D_LIMBS: Final = table(u64, limbs_of(D))
DOUBLED_D_LIMBS: Final = table(u64, limbs_of(DOUBLED_D))
ROOT_LIMBS: Final = table(u64, limbs_of(ROOT_OF_MINUS_ONE))
BUCKETS: Final = 4  # digits are odd and below 8


class Point(Struct, size=128):
    """Extended coordinates: x = X/Z, y = Y/Z, x y = T/Z."""

    x: FieldElement
    y: FieldElement
    z: FieldElement
    t: FieldElement


class Addend(Struct, size=128):
    """A point prepared to be added: Y + X, Y - X, 2 d T, and Z, which the base point's table does not hold: there it is 1."""

    y_plus_x: FieldElement
    y_minus_x: FieldElement
    doubled_dt: FieldElement
    z: FieldElement


class Buckets(Struct, size=512):
    """Sums of points, one for each odd digit 1, 3, 5, 7."""

    sums: Array[Point] = array(BUCKETS)


@machine
def point_set_identity(out: Point) -> None:
    """Set out, all zero so far, to the neutral point (0, 1)."""
    out.y.limb0 = secret(u64(1))
    out.z.limb0 = secret(u64(1))


@machine
def point_complete(out: Point, e: FieldElement, f: FieldElement, g: FieldElement, h: FieldElement) -> None:
    """Set out to (E F : G H : F G : E H), where every formula ends."""
    field_multiply(out.x, e, f)
    field_multiply(out.y, g, h)
    field_multiply(out.z, f, g)
    field_multiply(out.t, e, h)


@machine
def point_double(out: Point, point: Point) -> None:
    """Set out to 2 point; they may be one. T is not read."""
    e = FieldElement()
    f = FieldElement()
    g = FieldElement()
    h = FieldElement()
    field_add(e, point.x, point.y)
    field_square(e, e)  # (X + Y)^2
    field_square(f, point.x)
    field_square(g, point.y)
    field_add(h, f, g)  # H = X^2 + Y^2
    field_subtract(e, h, e)  # E = H - (X + Y)^2 = -2 X Y
    field_subtract(g, f, g)  # G = X^2 - Y^2
    field_square(f, point.z)
    field_add(f, f, f)
    field_add(f, f, g)  # F = 2 Z^2 + G
    point_complete(out, e, f, g, h)


@machine
def point_add(out: Point, point: Point, addend: Addend) -> None:
    """Set out to point + addend; out may be point."""
    e = FieldElement()
    f = FieldElement()
    g = FieldElement()
    h = FieldElement()
    field_subtract(e, point.y, point.x)
    field_multiply(e, e, addend.y_minus_x)  # A
    field_add(h, point.y, point.x)
    field_multiply(h, h, addend.y_plus_x)  # B
    field_multiply(f, point.t, addend.doubled_dt)  # C
    field_multiply(g, point.z, addend.z)
    point_add_end(out, e, h, f, g)


@machine
def point_add_end(out: Point, a: FieldElement, b: FieldElement, c: FieldElement, half_d: FieldElement) -> None:
    """Out from A, B, C and D/2 of an addition; all four are overwritten."""
    e = FieldElement()
    field_subtract(e, b, a)  # E = B - A
    field_add(b, b, a)  # H = B + A
    field_add(a, half_d, half_d)
    field_subtract(half_d, a, c)  # F = D - C
    field_add(a, a, c)  # G = D + C
    point_complete(out, e, half_d, a, b)


@machine
def point_add_affine(out: Point, point: Point, addend: Addend) -> None:
    """Set out to point + addend, whose Z is 1; out may be point."""
    e = FieldElement()
    f = FieldElement()
    h = FieldElement()
    field_subtract(e, point.y, point.x)
    field_multiply(e, e, addend.y_minus_x)
    field_add(h, point.y, point.x)
    field_multiply(h, h, addend.y_plus_x)
    field_multiply(f, point.t, addend.doubled_dt)
    g = FieldElement()
    g.copy_from(point.z)
    point_add_end(out, e, h, f, g)


@machine
def point_prepare(out: Addend, point: Point) -> None:
    """Set out to point, prepared to be added."""
    doubled_d = FieldElement()
    field_set_limbs(doubled_d, DOUBLED_D_LIMBS)
    field_add(out.y_plus_x, point.y, point.x)
    field_subtract(out.y_minus_x, point.y, point.x)
    out.z.copy_from(point.z)
    field_multiply(out.doubled_dt, point.t, doubled_d)


@machine
def addend_negate_if(addend: Addend, mask: Secret[u64]) -> None:
    """Negate the addend where mask is all ones; leave it where mask is zero."""
    other = FieldElement()
    field_subtract(other, other, addend.doubled_dt)
    field_take_if(addend.doubled_dt, other, mask)
    other.copy_from(addend.y_plus_x)
    field_take_if(addend.y_plus_x, addend.y_minus_x, mask)
    field_take_if(addend.y_minus_x, other, mask)


@machine(kernel="dsl.std.kernels.field25519.select_entry")
def select_entry(out: Addend, entries: Array[u64], index: Secret[u64]) -> None:
    """Set out, but for Z, to an entry of a table. Every entry is read, whatever the index."""
    start = int(declassify(index, "what a kernel does, on Python's integers")) * ENTRY_LIMBS
    limbs = array_at(u64, address_of(out), ENTRY_LIMBS)
    limbs.copy_from(entries.slice(start, ENTRY_LIMBS))


@machine
def select_comb(out: Addend, comb: u64, bits: Array[Secret[u8]]) -> None:
    """Set out to the multiple of the base point that a comb's teeth stand for: bits that are SPACING apart, 1 for plus and 0 for minus.

    The table has those whose highest bit is 1; the others are their negatives.
    """
    index = secret(u64(0))
    for tooth in upto(TEETH):
        index |= widen_secret(u64, bits[tooth * SPACING]) << tooth
    negative = (index >> (TEETH - 1)) - 1
    select_entry(
        out, BASE_TABLE.slice(comb * ENTRIES * ENTRY_LIMBS, ENTRIES * ENTRY_LIMBS), (index ^ negative) & (ENTRIES - 1)
    )
    addend_negate_if(out, negative)


@machine
def multiply_base(out: Point, scalar: Array[Secret[u64]]) -> None:
    """Set out, all zero so far, to the scalar, four words below 2**255, times the base point."""
    bits = frame_array(Secret[u8], COMBS * TEETH * SPACING)
    scalar_signed_bits(bits, scalar)
    addend = Addend()
    point_set_identity(out)
    for step in upto(SPACING):
        point_double(out, out)
        for comb in upto(COMBS):
            first = comb * (TEETH * SPACING) + (SPACING - 1 - step)
            select_comb(addend, comb, bits.slice(first, (TEETH - 1) * SPACING + 1))
            point_add_affine(out, out, addend)


@machine
def buckets_clear(buckets: Buckets) -> None:
    """Set every sum, all zero so far, to the neutral point."""
    for index in upto(BUCKETS):
        point_set_identity(buckets.sums[index])


@machine
def buckets_add(buckets: Buckets, digit: u8, point: Point) -> None:
    """Add a point to the sum of a digit that is not zero, or take it away where the digit is negative."""
    addend = Addend()
    point_prepare(addend, point)
    if digit & DIGIT_SIGN != 0:
        addend_negate_if(addend, ~secret(u64(0)))
    sum_ = buckets.sums[(digit & (DIGIT_SIGN - 1)) >> 1]
    point_add(sum_, sum_, addend)


@machine
def buckets_total(out: Point, buckets: Buckets) -> None:
    """Set out to the sums, each times its digit, added up: twice (S7 + (S7 + S5) + (S7 + S5 + S3)) and all four once."""
    addend = Addend()
    running = Point()
    running.copy_from(buckets.sums[BUCKETS - 1])
    out.copy_from(running)
    for place in between(2, BUCKETS):
        point_prepare(addend, buckets.sums[BUCKETS - place])
        point_add(running, running, addend)
        point_prepare(addend, running)
        point_add(out, out, addend)
    point_double(out, out)
    point_prepare(addend, buckets.sums[0])
    point_add(running, running, addend)
    point_prepare(addend, running)
    point_add(out, out, addend)


@machine
def multiply_two_public(
    first: Point, second: Point, point: Point, first_digits: Array[u8], second_digits: Array[u8]
) -> None:
    """Set first and second to two public scalars times one public point: its doubles serve both. In time that depends on the scalars."""
    first_buckets = Buckets()
    second_buckets = Buckets()
    buckets_clear(first_buckets)
    buckets_clear(second_buckets)
    double = Point()
    double.copy_from(point)
    for index in upto(DIGIT_COUNT):
        if first_digits[index] != 0:
            buckets_add(first_buckets, first_digits[index], double)
        if second_digits[index] != 0:
            buckets_add(second_buckets, second_digits[index], double)
        point_double(double, double)
    buckets_total(first, first_buckets)
    buckets_total(second, second_buckets)


@machine
def point_is_identity(point: Point) -> bool:
    """Whether a public point is the neutral one."""
    zero = FieldElement()
    return elements_equal(point.x, zero) and elements_equal(point.y, point.z)


@machine
def point_encode(encoded: Array[Secret[u8]], point: Point) -> None:
    """Write the 32-byte encoding: y, and the lowest bit of x in the top bit."""
    inverse = FieldElement()
    coordinate = FieldElement()
    field_invert(inverse, point.z)
    x_bytes = frame_array(Secret[u8], 32)
    field_multiply(coordinate, point.x, inverse)
    field_store(x_bytes, coordinate)
    field_multiply(coordinate, point.y, inverse)
    field_store(encoded, coordinate)
    encoded[31] |= x_bytes[0] << 7


@machine
def elements_equal(left: FieldElement, right: FieldElement) -> bool:
    """Whether two elements, which are public, are one number modulo p."""
    left_bytes = frame_array(Secret[u8], 32)
    right_bytes = frame_array(Secret[u8], 32)
    field_store(left_bytes, left)
    field_store(right_bytes, right)
    return declassify(encodings_equal(left_bytes, right_bytes), "coordinates of a public point") == 1


@machine
def recover_x(x: FieldElement, y: FieldElement) -> bool:
    """Set x to a square root of (y^2 - 1) / (d y^2 + 1), of a public point; False if there is none. RFC 8032, 5.1.3."""
    one = FieldElement()
    one.limb0 = secret(u64(1))
    u = FieldElement()
    field_square(u, y)
    v = FieldElement()
    field_set_limbs(v, D_LIMBS)
    field_multiply(v, v, u)
    field_add(v, v, one)
    field_subtract(u, u, one)
    power = FieldElement()
    field_square(power, v)
    field_multiply(power, power, v)  # v^3
    uv3 = FieldElement()
    field_multiply(uv3, power, u)
    field_square(power, power)
    field_multiply(power, power, v)  # v^7
    field_multiply(power, power, u)  # u v^7
    field_power_root(x, power)
    field_multiply(x, x, uv3)
    check = FieldElement()
    field_square(check, x)
    field_multiply(check, check, v)  # u if x is a root, -u if x times the root of -1 is one
    if elements_equal(check, u):
        return True
    field_add(check, check, u)
    one.limb0 = secret(u64(0))
    if not elements_equal(check, one):
        return False
    root = FieldElement()
    field_set_limbs(root, ROOT_LIMBS)
    field_multiply(x, x, root)
    return True


@machine
def point_decode(out: Point, encoded: Array[u8]) -> bool:
    """Set out, all zero so far, to the public point of a 32-byte encoding; False if it has none.

    Refused: y not below p, y of no point, x = 0 with the sign bit set.
    """
    field_load(out.y, as_secret(encoded))
    canonical = frame_array(Secret[u8], 32)
    field_store(canonical, out.y)
    sign = encoded[31] >> 7
    canonical[31] |= secret(sign << 7)
    if declassify(encodings_equal(canonical, as_secret(encoded)), "encoding of a public point") == 0:
        return False
    if not recover_x(out.x, out.y):
        return False
    zero = FieldElement()
    if sign == 1 and elements_equal(out.x, zero):
        return False
    field_store(canonical, out.x)
    if declassify(canonical[0], "coordinate of a public point") & 1 != sign:
        field_subtract(out.x, zero, out.x)
    out.z.limb0 = secret(u64(1))
    field_multiply(out.t, out.x, out.y)
    return True


@machine
def point_negate(point: Point) -> None:
    """Set point to -point."""
    zero = FieldElement()
    field_subtract(point.x, zero, point.x)
    field_subtract(point.t, zero, point.t)
