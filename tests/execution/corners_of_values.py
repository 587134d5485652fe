"""Programs in corners of Records, Failures, arguments, dispatch and taint, as corners_of_flow.py has them."""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import (
    Array,
    Bits,
    Failure,
    Record,
    Secret,
    Struct,
    Untrusted,
    array,
    as_secret,
    at,
    bit,
    bits,
    byte_swap,
    checked_add,
    checked_multiply,
    checked_subtract,
    declassify_array,
    dispatch,
    frame_array,
    i16,
    i32,
    i64,
    machine,
    secret,
    static,
    static_array,
    subtract_with_borrow,
    u8,
    u16,
    u32,
    u64,
    untrusted,
    upto,
    widen_secret,
    widen_untrusted,
)


class Gap(Enum):
    """Members of which none is a neighbour of another."""

    THREE = u16(3)
    THOUSANDS = u16(0x1000)
    LAST = u16(0xFFFF)
    NONE = u16(0)


class Flags(Bits, storage=u64):
    on: bool = bit(0)
    count: u16 = bits(31, 16, default=7)
    big: u64 = bits(63, 32, default=0)


class Inner(Record):
    x: u8
    y: i16


class Middle(Record):
    first: Inner
    flag: bool
    second: Inner


class Outer(Record):
    middle: Middle
    kind: Gap
    tail: i64


class Cell(Struct):
    value: u64
    half: i16
    items: Array[u16] = array(8)
    more: u32 = at(0x1C)


CELL: Final = static(Cell)
CELLS: Final = static_array(Cell, 4)
WORDS: Final = static_array(u64, 16)
BYTES: Final = static_array(u8, 32)


@machine
def outer_of(a: u8, b: i16, c: i64) -> Outer:
    middle = Middle(Inner(a, b), c < 0, Inner(x=a, y=b >> 3))
    return Outer(middle, Gap.THREE if c == 0 else Gap.NONE, c)


@machine
def records_of_records(a: u8, b: i16, c: i64) -> Middle:
    """Parts of a Record change places, or are the result as they are."""
    outer = outer_of(a, b, c)
    if outer.kind == Gap.THREE:
        return Middle(outer.middle.second, not outer.middle.flag, outer.middle.first)
    return outer.middle


@machine
def odd_ones(a: u64) -> u64 | Failure:
    if a & 3 == 3:
        return Failure(3)
    if a & 3 == 2:
        return Failure(a)
    return a * 2


@machine
def twice(a: u64) -> u64 | Failure:
    first = odd_ones(a)
    if isinstance(first, Failure):
        return first
    second = odd_ones(first + 1)
    if isinstance(second, Failure):
        return Failure(second.code + 1)
    return first + second


@machine
def failures_handed_on(a: u64) -> u64 | Failure:
    """A Failure through three functions: as it is, with another code, or turned into a value."""
    found = twice(a)
    if isinstance(found, Failure):
        if found.code == 4:
            return u64(77)
        return found
    return checked_add(found, a)


@machine
def failures_in_a_loop(a: u64) -> u64 | Failure:
    """Some go on with the loop, others leave the function; what was stored before stays."""
    for i in upto(5):
        found = odd_ones(a + i)
        if isinstance(found, Failure):
            if found.code == 3:
                continue
            return found
        WORDS[i] = found
    return a


@machine
def middle_or_failure(a: u8) -> Middle | Failure:
    if a > 200:
        return Failure(u64(a))
    return Middle(Inner(a, i16(-1)), a == 3, Inner(y=i16(5), x=a * 2))


@machine
def records_or_failures(a: u8, b: u8) -> u64:
    """Two results that may be Failures, told apart together, one arm of which knows both."""
    x = middle_or_failure(a)
    y = middle_or_failure(b)
    if isinstance(x, Failure) and isinstance(y, Failure):
        return x.code * y.code
    if isinstance(x, Failure) or isinstance(y, Failure):
        return u64(1)
    return u64(x.first.x) + u64(y.second.x)


@machine
def record_after_failure(a: u8) -> Middle | Failure:
    """A Record narrowed by not; its call again, with what the Failure's code was made of."""
    found = middle_or_failure(a)
    if not isinstance(found, Failure):
        return Middle(found.second, False, found.first) if found.flag else found
    return middle_or_failure((found.code & 63).truncate(u8))


@machine
def checked_both_ways(a: u16, b: u16) -> u16 | Failure:
    """A difference where the sum does not fit, thrice the sum where it does."""
    total = checked_add(a, b)
    if isinstance(total, Failure):
        less = checked_subtract(a, b)
        if isinstance(less, Failure):
            return Failure(2)
        return less
    return checked_multiply(total, 3)


@machine
def many(a: u8, b: bool, c: i16, d: u64, e: Array[u8], f: Inner, g: u32, h: Flags, i: Gap, j: bool) -> u64:
    e[u64(a) & 7] += 1
    total = u64(a) + u64(b) * 2 + u64(c.as_unsigned()) + d * 3 + e.length
    return total * 5 + u64(f.x) + u64(f.y.as_unsigned()) + u64(g) * 7 + u64(h.count) + u64(i.value) + u64(j) * 100


@machine
def arguments_on_the_stack(a: u8, c: i16, d: u64, g: u32) -> u64:
    """Twelve components of every kind, by position and by keyword in another order."""
    flags = Flags(on=True, count=u16(a))
    y = many(a, a > 3, c, d, BYTES, Inner(a + 1, -c), g, flags, Gap.THREE if a > 9 else Gap.LAST, d > 5)
    part, inner = BYTES.slice(3, 9), Inner(y=c, x=a)
    z = many(j=d > 5, i=Gap.NONE, h=Flags(on=False), g=g * 3, f=inner, e=part, d=y, c=c >> 2, b=False, a=a * 2)
    return y ^ z


@machine
def add_to(a: u64, cell: Cell) -> u64:
    cell.value += a
    return cell.value


@machine
def take_from(a: u64, cell: Cell) -> u64:
    cell.value -= a
    cell.items[a & 7] = u16(3)
    return u64(5)


@machine
def leave(k: u64, x: Cell) -> u64:
    x.half = i16(-4)
    return k


BY_KIND: Final = dispatch({Gap.LAST: add_to, Gap.THREE: take_from}, default=leave)
BY_NUMBER: Final = dispatch(
    {0: add_to, 0xFFFF: take_from, 0x8000: add_to, 5: take_from, 6: take_from, 7: take_from}, default=leave
)


@machine
def dispatched(key: u16, a: u64, small: u8) -> u64:
    """Keys at both ends and in a row, words and members, in one sum."""
    kind = Gap.THREE
    if small < 10:
        kind = Gap.LAST
    elif small < 100:
        kind = Gap.NONE
    return BY_NUMBER.call(key, a, CELL) + BY_KIND.call(key, a, CELLS[0]) + BY_KIND.call(kind, a, CELLS[a & 3])


@machine
def gaps(a: u16) -> bool:
    """A word that is no member's stops; members by is, not equal and equal."""
    kind = Gap(a)
    return kind is Gap.THOUSANDS or (kind != Gap.LAST and kind == Gap.THREE)


@machine
def untrusted_limits(a: u64, b: Untrusted[i16], c: Untrusted[i32]) -> u64 | Failure:
    """Signed limits below zero, sums that wrap before the limit, an index behind two of them."""
    low = (untrusted(a) & 0xFF) + 3
    index = low.at_most(20)
    if isinstance(index, Failure):
        return index.code + 1000
    place = (untrusted(a) >> 8).below(16)
    if isinstance(place, Failure):
        return place.code + index
    small = (b - 3).at_most(5)
    less = (-c + 3).below(-7)
    if isinstance(small, Failure) or isinstance(less, Failure):
        return WORDS[place] + index
    return (widen_untrusted(u64, untrusted(a.truncate(u32))) << 3 ^ u64(small.as_unsigned())).below(1 << 20)


@machine
def secrets_in_arrays(a: Secret[u64], b: Secret[u64]) -> Secret[u64]:
    """Views and narrow parts of secret arrays, their bytes at odd places, a borrow of a borrow."""
    words = frame_array(Secret[u64], 3)
    words[0] = a
    words[1] = words[0] + b
    words.slice(1, 2)[1] = byte_swap(words[1] - 5)
    rest = subtract_with_borrow(words[0], words[2], secret(u64(1)))
    room = frame_array(Secret[u8], 16)
    room.store_u64(3, rest.value)
    room.store_be32(9, b.truncate(u32))
    room[0] ^= room[4]
    return room.load_be64(2) ^ widen_secret(u64, room.load_u16(0)) ^ (rest.carry << 5)


@machine
def shared_view(a: u64) -> Secret[u64]:
    """One array seen as secret and as public, written through both."""
    words = frame_array(u64, 4)
    words[a & 3] = a
    hidden = as_secret(words)
    hidden[1] += hidden[a & 3] * 2
    shown = declassify_array(hidden, "the test's own")
    shown[2] += 1
    return hidden[1] ^ hidden[2] ^ secret(shown[0])
