"""Points of edwards25519 (RFC 8032, 5.1) in constant time: complete formulas of Hisil, Wong, Carter and Dawson (2008) for a = -1.

They hold for every pair of points, so there are no special cases. In formulas, E, F, G, H are what the standard papers call so.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Secret,
    Struct,
    array,
    as_secret,
    between,
    constant_time_equal,
    declassify,
    erase,
    frame_array,
    machine,
    secret,
    table,
    u8,
    u64,
    upto,
)
from dsl.std.edwards25519_tables import DOUBLED_D, ROOT_OF_MINUS_ONE, D, base_point_limbs
from dsl.std.field25519 import (
    FieldElement,
    encodings_equal,
    field_add,
    field_invert,
    field_load,
    field_multiply,
    field_power_root,
    field_set,
    field_set_limbs,
    field_square,
    field_store,
    field_subtract,
    field_take_if,
    limbs_of,
)
from dsl.std.scalar25519 import DIGIT_COUNT, ORDER_WORDS, scalar_digits

POSITIONS: Final = 8  # of the base point's table: multiples of 16**(8 i)
MULTIPLES: Final = 8  # 1 to 8 times
AFFINE_LIMBS: Final = 15
BASE_TABLE: Final = table(u64, base_point_limbs(POSITIONS, MULTIPLES))
D_LIMBS: Final = table(u64, limbs_of(D))
DOUBLED_D_LIMBS: Final = table(u64, limbs_of(DOUBLED_D))
ROOT_LIMBS: Final = table(u64, limbs_of(ROOT_OF_MINUS_ONE))


class Point(Struct, size=160):
    """Extended coordinates: x = X/Z, y = Y/Z, x y = T/Z."""

    x: FieldElement
    y: FieldElement
    z: FieldElement
    t: FieldElement


class Addend(Struct, size=160):
    """A point prepared to be added: Y + X, Y - X, Z, 2 d T."""

    y_plus_x: FieldElement
    y_minus_x: FieldElement
    z: FieldElement
    doubled_dt: FieldElement


class AddendTable(Struct, size=1280):
    """1 to 8 times a point."""

    multiples: Array[Addend] = array(MULTIPLES)


@machine
def point_set_identity(out: Point) -> None:
    """Set out to the neutral point (0, 1)."""
    field_set(out.x, u64(0))
    field_set(out.y, u64(1))
    field_set(out.z, u64(1))
    field_set(out.t, u64(0))


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
    erase(e)
    erase(f)
    erase(g)
    erase(h)


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
    erase(e)
    erase(f)
    erase(g)
    erase(h)


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
    erase(e)


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
    erase(e)
    erase(f)
    erase(g)
    erase(h)


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
    saved = FieldElement()
    saved.copy_from(addend.y_plus_x)
    field_take_if(addend.y_plus_x, addend.y_minus_x, mask)
    field_take_if(addend.y_minus_x, saved, mask)
    field_set(saved, u64(0))
    field_subtract(saved, saved, addend.doubled_dt)
    field_take_if(addend.doubled_dt, saved, mask)
    erase(saved)


@machine
def addend_set_identity(out: Addend) -> None:
    """Set out to the neutral point."""
    field_set(out.y_plus_x, u64(1))
    field_set(out.y_minus_x, u64(1))
    field_set(out.z, u64(1))
    field_set(out.doubled_dt, u64(0))


@machine
def take_limbs_if(out: FieldElement, limbs: Array[u64], mask: Secret[u64]) -> None:
    """Set out to five limbs of a table where mask is all ones; unchanged where it is zero."""
    out.limb0 ^= (out.limb0 ^ limbs[0]) & mask
    out.limb1 ^= (out.limb1 ^ limbs[1]) & mask
    out.limb2 ^= (out.limb2 ^ limbs[2]) & mask
    out.limb3 ^= (out.limb3 ^ limbs[3]) & mask
    out.limb4 ^= (out.limb4 ^ limbs[4]) & mask


@machine
def select_base(out: Addend, position: u64, digit: Secret[u64]) -> None:
    """Set out to digit (-8 to 8) times 16**(8 position) times the base point. Every entry of the position is read, whatever the digit."""
    negative = secret(u64(0)) - (digit >> 63)
    magnitude = (digit ^ negative) - negative
    addend_set_identity(out)
    for index in upto(MULTIPLES):
        mask = secret(u64(0)) - constant_time_equal(magnitude, secret(index + 1))
        entry = BASE_TABLE.slice((position * MULTIPLES + index) * AFFINE_LIMBS, AFFINE_LIMBS)
        take_limbs_if(out.y_plus_x, entry.slice(0, 5), mask)
        take_limbs_if(out.y_minus_x, entry.slice(5, 5), mask)
        take_limbs_if(out.doubled_dt, entry.slice(10, 5), mask)
    addend_negate_if(out, negative)


@machine
def select_multiple(out: Addend, multiples: AddendTable, digit: Secret[u64]) -> None:
    """Set out to digit (-8 to 8) times the table's point. Every entry is read, whatever the digit."""
    negative = secret(u64(0)) - (digit >> 63)
    magnitude = (digit ^ negative) - negative
    addend_set_identity(out)
    for index in upto(MULTIPLES):
        mask = secret(u64(0)) - constant_time_equal(magnitude, secret(index + 1))
        entry = multiples.multiples[index]
        field_take_if(out.y_plus_x, entry.y_plus_x, mask)
        field_take_if(out.y_minus_x, entry.y_minus_x, mask)
        field_take_if(out.z, entry.z, mask)
        field_take_if(out.doubled_dt, entry.doubled_dt, mask)
    addend_negate_if(out, negative)


@machine
def multiply_by_sixteen(point: Point) -> None:
    """Set point to 16 point."""
    point_double(point, point)
    point_double(point, point)
    point_double(point, point)
    point_double(point, point)


@machine
def multiply_base(out: Point, digits: Array[Secret[u64]]) -> None:
    """Set out to the scalar of 64 signed digits times the base point."""
    addend = Addend()
    point_set_identity(out)
    for step in upto(POSITIONS):
        multiply_by_sixteen(out)
        for position in upto(POSITIONS):
            select_base(addend, position, digits[position * POSITIONS + (POSITIONS - 1 - step)])
            point_add_affine(out, out, addend)
    erase(addend)


@machine
def prepare_multiples(out: AddendTable, point: Point) -> None:
    """Set out to 1 to 8 times point."""
    multiple = Point()
    multiple.copy_from(point)
    point_prepare(out.multiples[0], point)
    for index in between(1, MULTIPLES):
        point_add(multiple, multiple, out.multiples[0])
        point_prepare(out.multiples[index], multiple)


@machine
def multiply_two(out: Point, base_digits: Array[Secret[u64]], point: Point, digits: Array[Secret[u64]]) -> None:
    """Set out to base_digits times the base point + digits times point."""
    multiples = AddendTable()
    prepare_multiples(multiples, point)
    addend = Addend()
    point_set_identity(out)
    for step in upto(64):
        multiply_by_sixteen(out)
        select_multiple(addend, multiples, digits[63 - step])
        point_add(out, out, addend)
        select_base(addend, u64(0), base_digits[63 - step])
        point_add_affine(out, out, addend)


@machine
def multiply_point(out: Point, point: Point, digits: Array[Secret[u64]]) -> None:
    """Set out to the scalar of 64 signed digits times point."""
    multiples = AddendTable()
    prepare_multiples(multiples, point)
    addend = Addend()
    point_set_identity(out)
    for step in upto(64):
        multiply_by_sixteen(out)
        select_multiple(addend, multiples, digits[63 - step])
        point_add(out, out, addend)


@machine
def point_is_identity(point: Point) -> bool:
    """Whether a public point is the neutral one."""
    zero = FieldElement()
    return elements_equal(point.x, zero) and elements_equal(point.y, point.z)


@machine
def point_has_prime_order(point: Point) -> bool:
    """Whether a public point has order L: it is not the neutral one, and has no part of order 2, 4 or 8."""
    if point_is_identity(point):
        return False
    digits = frame_array(Secret[u64], DIGIT_COUNT)
    scalar_digits(digits, as_secret(ORDER_WORDS))
    multiple = Point()
    multiply_point(multiple, point, digits)
    return point_is_identity(multiple)


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
    erase(inverse)
    erase(coordinate)
    erase(x_bytes)


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
    field_set(one, u64(1))
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
    field_set(one, u64(0))
    if not elements_equal(check, one):
        return False
    root = FieldElement()
    field_set_limbs(root, ROOT_LIMBS)
    field_multiply(x, x, root)
    return True


@machine
def point_decode(out: Point, encoded: Array[u8]) -> bool:
    """Set out to the public point of a 32-byte encoding; False if it has none.

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
    field_set(out.z, u64(1))
    field_multiply(out.t, out.x, out.y)
    return True


@machine
def point_negate(point: Point) -> None:
    """Set point to -point."""
    zero = FieldElement()
    field_subtract(point.x, zero, point.x)
    field_subtract(point.t, zero, point.t)
