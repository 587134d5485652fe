"""X25519 key agreement (RFC 7748, section 5) in constant time."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Secret, erase, frame_array, machine, secret, table, u8, u64, upto
from dsl.std.field25519 import (
    FieldElement,
    field_add,
    field_invert,
    field_load,
    field_multiply,
    field_set,
    field_square,
    field_store,
    field_subtract,
)
from dsl.std.wipe import wipe_frames_below

BASE_POINT: Final = table(u8, bytes([9]) + bytes(31))
CURVE_CONSTANT: Final = 121665  # (A - 2) / 4


@machine
def swap_if(left: FieldElement, right: FieldElement, mask: Secret[u64]) -> None:
    """Exchange two elements where mask is all ones; leave them where it is zero."""
    change0 = (left.limb0 ^ right.limb0) & mask
    change1 = (left.limb1 ^ right.limb1) & mask
    change2 = (left.limb2 ^ right.limb2) & mask
    change3 = (left.limb3 ^ right.limb3) & mask
    change4 = (left.limb4 ^ right.limb4) & mask
    left.limb0 ^= change0
    left.limb1 ^= change1
    left.limb2 ^= change2
    left.limb3 ^= change3
    left.limb4 ^= change4
    right.limb0 ^= change0
    right.limb1 ^= change1
    right.limb2 ^= change2
    right.limb3 ^= change3
    right.limb4 ^= change4


@machine
def ladder_step(x2: FieldElement, z2: FieldElement, x3: FieldElement, z3: FieldElement, x1: FieldElement) -> None:
    """Double (x2 : z2) and add it to (x3 : z3); x1 is their difference. Names as in RFC 7748."""
    a = FieldElement()
    b = FieldElement()
    e = FieldElement()
    field_add(a, x2, z2)
    field_subtract(b, x2, z2)
    field_add(e, x3, z3)
    field_subtract(z3, x3, z3)
    field_multiply(z3, z3, a)  # D A
    field_multiply(x3, e, b)  # C B
    field_add(e, z3, x3)
    field_subtract(z3, z3, x3)
    field_square(x3, e)
    field_square(z3, z3)
    field_multiply(z3, z3, x1)
    field_square(a, a)  # A A
    field_square(b, b)  # B B
    field_multiply(x2, a, b)
    field_subtract(e, a, b)  # E
    field_set(b, u64(CURVE_CONSTANT))
    field_multiply(b, b, e)
    field_add(b, b, a)
    field_multiply(z2, e, b)
    erase(a)
    erase(b)
    erase(e)


@machine
def x25519(out: Array[Secret[u8]], scalar: Array[Secret[u8]], point: Array[Secret[u8]]) -> None:
    """Write the 32-byte x coordinate of scalar times point. All zero: the point was of small order, and the caller refuses."""
    clamped = frame_array(Secret[u8], 32)
    clamped.copy_from(scalar)
    clamped[0] &= 0xF8
    clamped[31] = (clamped[31] & 0x7F) | 0x40
    x1 = FieldElement()
    x2 = FieldElement()
    z2 = FieldElement()
    x3 = FieldElement()
    z3 = FieldElement()
    field_load(x1, point)
    x3.copy_from(x1)
    field_set(x2, u64(1))
    field_set(z3, u64(1))
    swapped = secret(u64(0))
    for step in upto(255):
        place = 254 - step
        bit = (clamped.load_u64(place // 64 * 8) >> (place % 64)) & 1
        mask = secret(u64(0)) - (bit ^ swapped)
        swap_if(x2, x3, mask)
        swap_if(z2, z3, mask)
        swapped = bit
        ladder_step(x2, z2, x3, z3, x1)
    mask = secret(u64(0)) - swapped
    swap_if(x2, x3, mask)
    swap_if(z2, z3, mask)
    field_invert(z3, z2)
    field_multiply(x2, x2, z3)
    field_store(out, x2)
    erase(clamped)
    erase(x1)
    erase(x2)
    erase(z2)
    erase(x3)
    erase(z3)
    wipe_frames_below()
