"""Programs in corners of views, places of odd sizes, frames and fields, as corners_of_flow.py has them."""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    HostPhysical,
    HostVirtual,
    Static,
    divide_truncating,
    erase,
    frame_array,
    i8,
    i16,
    i32,
    i64,
    machine,
    rotate_left,
    static,
    static_array,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from tests.execution.corners_of_aliases import Byte, Flags, Leaf, Node, Small

ONE: Final = static(Node)
TWO: Final = static(Node)
BYTES: Final = static_array(u8, 32)
HALVES: Final = static_array(u16, 16)
WORDS: Final = static_array(u32, 16)
LONGS: Final = static_array(u64, 16)
SIGNED_BYTES: Final = static_array(i8, 16)
SIGNED_HALVES: Final = static_array(i16, 16)
SIGNED_WORDS: Final = static_array(i32, 16)
SIGNED_LONGS: Final = static_array(i64, 16)
TABLE: Final = table(u8, [1, 2, 255, 128, 7])
SIGNED_TABLE: Final = table(i64, [-1, -(1 << 63), (1 << 63) - 1])


@machine
def views_of_views(a: u64, b: u64, c: u64) -> u64:
    """A slice of a slice, at both ends or beyond; two that overlap, copied and written through both."""
    first = LONGS.slice(a & 15, b & 15)
    second = first.slice(1, c & 7)
    second[0] = a
    first[1] += second[0] + first[0]
    return second.length + first[0]


@machine
def copied_views(a: u64, b: u64) -> u64:
    """Lengths that are equal or not, views that lie inside or not; and a view as large as the argument says."""
    LONGS.slice(a & 15, 4).copy_from(LONGS.slice((a + 4) & 15, b & 4))
    return LONGS.slice(a & 31, b & 7).length


@machine
def empty_views(a: u64) -> u64:
    """Arrays of no element: filled, copied, compared; one at the very end."""
    nothing = BYTES.slice(a & 63, 0).slice(0, 0)
    nothing.fill(u8(3))
    nothing.copy_from(BYTES.slice(32, 0))
    rest = LONGS.slice(a % 17, 16 - a % 17)
    if rest.length == 0:
        return u64(nothing.equals(BYTES.slice(0, 0)))
    rest.fill(a)
    rest.slice(rest.length - 1, 1)[0] += 1
    return LONGS[15]


@machine
def whole_arrays(a: u8, b: u64) -> u64:
    """Filled, compared before and after one byte changed, copied in halves; a length that is not known."""
    BYTES.fill(a)
    BYTES[31] = a + 1
    low, high = BYTES.slice(0, 16), BYTES.slice(16, 16)
    was_equal = low.equals(high)
    high.copy_from(low)
    HALVES.slice(2, 4).fill(u16(0x0101))
    WORDS.fill(WORDS[b & 15])
    LONGS.slice(0, b & 7).fill(u64(0))
    SIGNED_LONGS.slice(1, 3).fill(i64(-2))
    return u64(was_equal) * 2 + u64(low.equals(high)) + u64(WORDS[15])


@machine
def overlapping_bytes(a: u64, b: u64) -> u64:
    """Words at odd offsets of bytes, over one another, at the end and beyond; both orders of bytes."""
    BYTES.store_u32(a & 31, b.truncate(u32))
    BYTES.store_be64(b & 15, a)
    BYTES.store_be32(a & 3, WORDS[0])
    return u64(BYTES.load_be32(3)) ^ u64(BYTES.load_u16(a & 31)) ^ BYTES.load_u64((a & 31) - 4)


@machine
def narrow_elements(a: u64, b: u8) -> u64:
    """Augmented assignments on elements of every width and sign, which may be the same element."""
    BYTES[a & 31] += b
    BYTES[a & 31] -= BYTES[b & 31]
    BYTES[a & 31] <<= b & 7
    HALVES[b & 15] += WORDS[a & 15].truncate(u16)
    WORDS[b & 15] //= a.truncate(u32) | 1
    WORDS[a & 15] %= u32(b) | 1
    SIGNED_BYTES[a & 15] -= SIGNED_BYTES[b & 15]
    SIGNED_BYTES[a & 15] >>= b & 7
    SIGNED_HALVES[a & 15] >>= 3
    SIGNED_WORDS[a & 15] = -SIGNED_WORDS[a & 15]
    SIGNED_WORDS[(a + 1) & 15] = divide_truncating(SIGNED_WORDS[a & 15], 3)
    SIGNED_LONGS[a & 15] = ~SIGNED_LONGS[a & 15]
    return u64(BYTES[a & 31]) + u64(SIGNED_HALVES[a & 15] == -1)


@machine
def signed_elements(a: u64) -> i64:
    """A loop over four arrays of signed words, one of which it stores to."""
    total = i64(0)
    for i in upto(u8(16)):
        total += i64(SIGNED_BYTES[i]) * i64(SIGNED_HALVES[i]) ^ i64(SIGNED_WORDS[i]) - SIGNED_LONGS[i]
        if SIGNED_BYTES[i] < 0 and SIGNED_WORDS[i] > -5:
            SIGNED_HALVES[i] = i16(SIGNED_BYTES[i]) - 1
    return total + SIGNED_TABLE[a & 3]


@machine
def fresh_on_each_turn(a: u64) -> u64:
    """What is made on the frame in a loop is zero on each turn, whatever the turn before left there."""
    total = u64(0)
    for i in upto(a & 7):
        words = frame_array(u32, 5)
        for j in upto(5):
            if j > i:
                break
            words[j] += (a >> j).truncate(u32) + words[(j + 1) % 5]
        leaf = Leaf()
        leaf.items[i & 7 if i < 6 else u64(5)] = words[i % 5].truncate(u16)
        total = total * 31 + u64(words[i % 5]) + leaf.value + u64(leaf.items[0])
        leaf.value = total
        room = frame_array(u8, 9)
        room.store_u64(1, a)
        for j in upto(9):
            room[j] ^= room[8 - j]
        room.store_be32(i % 5, room.load_u32(5))
        total = rotate_left(total, 9) ^ room.load_u64(0) ^ u64(room.load_u16(7))
    return total


@machine
def mode_of(a: u64, mode: Static[u8], words: Array[u64]) -> u64:
    total = a
    for i in upto(mode):
        total = total * 3 + words[u64(i)]
    return total if mode == 2 else total + u64(mode)


@machine
def specialised(a: u64) -> u64:
    """Constants of a function made anew: loops of none, two and five turns, over the array and a view of it."""
    return (
        mode_of(a, u8(2), LONGS)
        ^ mode_of(a, u8(2), LONGS.slice(2, 4))
        ^ mode_of(mode=u8(0), a=a, words=LONGS)
        ^ mode_of(a, u8(5), LONGS)
    )


@machine
def constant_arrays(i: u8) -> u64:
    """A table and a text whose bytes are not its letters; an index one beyond."""
    letters = text("héllo")
    return u64(TABLE[i & 7]) + u64(TABLE.slice(1, 3)[i & 3]) * 256 + u64(letters[u64(i) % 7]) * 65536


@machine
def cleared_members(a: u64) -> u64:
    """After clear and erase a field holds no member of its Enum: reading it stops, copying it does not."""
    ONE.leaves[a % 3].kind = Byte.HIGH
    erase(ONE.leaf)
    ONE.leaf.value = a
    ONE.leaf.half = i16(a.truncate(u8).as_signed())
    ONE.leaf.small = Small(a=u8(1), b=(a & 31).truncate(u8))
    ONE.leaf.small = ONE.leaf.small.with_(a=ONE.leaf.small.a + 6)
    TWO.leaf.copy_from(ONE.leaf)
    TWO.leaves[1].clear()
    return u64(ONE.leaves[1].kind.value) + TWO.leaf.value


@machine
def fields_too_large(f: Flags, c: u16, a: u8) -> u64:
    """A field of Bits that holds no member, one that a value may not fit, and what was outside of all fields."""
    small = Small(b=a)
    if c & 1 == 1:
        return u64(f.kind.value)
    ONE.flags = f.with_(count=c, kind=Byte.HIGH)
    return u64(ONE.flags.raw()) + u64(u8(small.with_(a=a & 7).raw())) + u64(Small.from_raw(a).b)


@machine
def addresses(a: u64, b: u64) -> u64:
    """Sums, differences and roundings that wrap at the end of the address space."""
    place = HostPhysical(a)
    up = place.align_up(4096)
    near = (place < HostPhysical(b) and place + 8 >= HostPhysical(b)) or HostVirtual(a) == HostVirtual(b)
    return up.as_u64() ^ (up - place) ^ place.align_down(1 << 21).as_u64() ^ u64(place < up) ^ u64(near) << 1
