"""Programs in corners of control: each docstring says which. A function without one is what others call. test_corners.py runs them."""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    between,
    divide_truncating,
    frame_array,
    i8,
    i16,
    i32,
    i64,
    machine,
    maximum,
    minimum,
    remainder_truncating,
    rounds,
    static_array,
    stop,
    u8,
    u16,
    u64,
    upto,
)

WORDS: Final = static_array(u64, 16)
LOG: Final = static_array(u64, 16)
LOGGED: Final = static_array(u64, 1)


@machine
def logged(value: u64) -> u64:
    index = LOGGED[0]
    if index < 16:
        LOG[index] = value
    LOGGED[0] += 1
    return value


@machine
def seen(value: u64, result: bool) -> bool:
    _ = logged(value)
    return result


@machine
def short_circuits(a: u64, b: u64) -> u64:
    """And in or, not before and: what is evaluated, and in which order."""
    LOGGED[0] = u64(0)
    if (seen(u64(1), a > b) and seen(u64(2), a & 1 == 0)) or (not seen(u64(3), b & 1 == 0) and seen(u64(4), a != 0)):
        return logged(u64(10))
    assert seen(u64(5), a < b) or seen(u64(6), a == 77), "one of them"
    return logged(u64(11)) + LOGGED[0]


@machine
def bools_compared(a: bool, b: bool, c: u64) -> u64:
    """A bool equal to a bool, chosen by a bool, and beside comparisons of what it chose."""
    x = c if b else c + 1
    y = c if not b else c - 1
    z = (a == b) != (not a if b else b)
    return u64(z) + u64((b and x > y) or (not b and x < y)) * 2 + (x & y) * u64(b)


@machine
def arms_that_divide(a: u64, b: u64) -> u64:
    """A division stands on one arm alone, where its divisor is not zero."""
    x = a if a > b else b if b & 1 == 0 else a ^ b
    return x + (a if b == 0 else a // b) + (b if a == 0 else b % a)


@machine
def not_above_three(a: u64) -> u64:
    if a > 3:
        stop("above three")
    return a


@machine
def arms_that_stop(a: u64, b: u64) -> u64:
    """A call that may stop stands on one arm of each of two choices in one sum."""
    return (not_above_three(a) if b & 1 == 1 else b) + (not_above_three(b) if a & 1 == 1 else a)


@machine
def bounded_with_continue(a: u64, b: u64) -> u64:
    """A bounded loop that goes on early, and one that breaks before its bound."""
    total = u64(0)
    for i in upto(a & 31, at_most=16):
        if i == b & 7:
            continue
        if i == 12:
            break
        total = total * 3 + i
    return total


@machine
def rounds_that_run_out(a: u64) -> u64:
    """Thirteen rounds are needed by the largest, twelve are given."""
    rest = a
    total = u64(0)
    for i in rounds(12):
        if rest == 0:
            return total
        rest >>= 5
        total += i
    return total


@machine
def up_to_the_last_byte(a: u8, b: u8) -> u64:
    """Narrow counters whose bound is the largest number, and bounds in the wrong order."""
    total = u64(0)
    for i in between(u8(250), u8(255)):
        total += u64(i + a)
    for i in upto(u8(255)):
        total += u64(i)
    for i in between(a, b):
        total = total * 7 + u64(i)
        if total > 1 << 40:
            return total
    return total


@machine
def bound_changed_inside(a: u64) -> u64:
    """A bound is evaluated once, whatever becomes of the local or of the memory that it came from."""
    total = u64(0)
    bound = a & 7
    for i in upto(bound):
        bound = u64(100)
        total += i
    WORDS[3] = a
    for i in upto(WORDS[3] & 7):
        WORDS[3] += 1
        LOG[i] = WORDS[3]
    return total + bound + WORDS[3]


@machine
def loops_left_early(a: u64) -> u64:
    """Break and continue of an inner loop, whose beginning is the outer one's counter."""
    total = u64(0)
    for i in upto(3):
        for j in between(i, 5):
            if (a >> (i * 8 + j)) & 1 == 1:
                break
            if j == 3:
                continue
            total += u64(1) << j
        total *= 3
    return total


@machine
def a_loop_of_whiles(a: u64) -> u64:
    """Continue in a loop without a test, an inner loop that always turns until it breaks."""
    i = u64(0)
    total = u64(0)
    while True:
        i += 1
        if i & 3 == 0:
            continue
        total += i
        while total & 1 == 1:
            total += a | 1
            if total > 1000:
                break
        if i > 20:
            break
    return total


@machine
def locals_that_turn(a: u64) -> u64:
    """Two locals change places on each turn, one of them changed once more."""
    x = u64(7)
    y = x
    for i in upto(a & 3):
        x, y = y + i, x
        x += 1
    return x * 100 + y


@machine
def sums_that_wrap(a: u16, b: u16, c: i8, d: i8) -> u64:
    """Comparisons that would be decided if nothing wrapped."""
    found = u64(a + b < a) | u64(a - b > a) << 1 | u64(a * b == 0) << 2
    found |= u64((c < d and c - d < 0) or (c - d > 0 and d > c)) << 3 | u64(c + d < c) << 4
    return found | u64((a + b).as_signed() < 0) << 5


@machine
def extremes(a: i8, b: i8) -> i8:
    """Least and greatest of each other, with literals on one side."""
    return minimum(a, maximum(b, -5)) - maximum(a, 100)


@machine
def signed_steps(a: i32, b: u8) -> i32:
    """A signed local through negation, shifts and remainders, whose loop is left at zero."""
    total = a
    for i in upto(b & 31):
        if total < 0:
            total = -total - i32(i8(1))
        elif total == 0:
            break
        total = (total >> (i & 3)) - remainder_truncating(total, 7)
        if total & 8 != 0:
            continue
        total ^= i32(0x55)
    return total


@machine(depth=6)
def nested(a: u64, n: u64) -> u64:
    if n == 0:
        return a
    room = frame_array(u64, 3)
    room[n % 3] = a
    below = nested(a * 3, n - 1)
    return room[n % 3] + below + room[0]


@machine
def frames_of_recursion(a: u64) -> u64:
    """Each depth has an array of its own; one of eight calls goes too deep."""
    return nested(a, a & 7)


@machine
def quotients(a: i64, b: i16, c: u64) -> i64:
    """Constant divisors at the ends of their types, in one sum."""
    wide = divide_truncating(a, -(1 << 63)) + remainder_truncating(a, -(1 << 63)) * 3 + divide_truncating(a, 10)
    narrow = remainder_truncating(b, -32768) + divide_truncating(b, -32768) + divide_truncating(b, 641)
    return wide + i64(narrow) + (c % 0xFFFF_FFFF_FFFF_FFFF + c // 0x8000_0000_0000_0000 + c // 3).as_signed()
