"""Small programs that use every construct of the language; test_frontend runs each in both worlds."""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import (
    Array,
    Bits,
    Device,
    Failure,
    HostVirtual,
    Record,
    Ref,
    Secret,
    Shared,
    Static,
    Struct,
    address_of,
    array,
    array_at,
    between,
    bit,
    bits,
    checked_add,
    checked_multiply,
    checked_subtract,
    constant_time_equal,
    constant_time_select,
    declassify,
    dispatch,
    divide_truncating,
    erase,
    frame_array,
    i8,
    i64,
    machine,
    maximum,
    offset_of,
    remainder_truncating,
    rotate_left,
    rounds,
    secret,
    size_of,
    static,
    static_array,
    stop,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
    untrusted,
    upto,
)

LIMIT: Final = 7
WORD: Final = u32(0x1234)
PRIMES: Final = table(u16, [2, 3, 5, 7, 11, 13])


class Kind(Enum):
    """Keys of the dispatch, and a field's type."""

    FIRST = u8(0)
    SECOND = u8(1)
    THIRD = u8(2)
    SPARSE = u8(9)


class Entry(Bits, storage=u32):
    """A value with every kind of field."""

    present: bool = bit(0)
    kind: Kind = bits(7, 4)
    count: u16 = bits(17, 8, default=3)
    top: u8 = bits(31, 28, default=0)


class Pair(Record):
    """Two results."""

    low: u64
    high: u64


class Inner(Struct):
    """Embedded in Node."""

    value: u32
    flag: bool
    kind: Kind
    small: u16


class Node(Struct):
    """Memory with every kind of field."""

    inner: Inner
    following: Ref[Node] | None
    entry: Entry
    total: u32
    cells: Array[u8] = array(16)


class Port(Struct):
    """Memory that a device and others see."""

    status: Device[u32]
    mailbox: Shared[u32]
    quiet: u64
    key: Array[u8] = array(16)


NODE: Final = static(Node)
OTHER: Final = static(Node)
PORT: Final = static(Port)
COUNTERS: Final = static_array(u64, 8)


@machine
def arithmetic(a: u64, b: u64) -> u64:
    """Wrapping operators, precedence, literals on both sides."""
    c = (a + b) * 3 - (a ^ b) + (5 & a) - (~b | 1)
    c = 100 - c
    return c % 1000 + (a // (b | 1))


@machine
def shifts(a: u64, n: u8) -> u64:
    """Shifts by literals and by checked variables."""
    return (a << 3) ^ (a >> n) ^ rotate_left(a, n)


@machine
def signed(a: i64, b: i64) -> i64:
    """Signed division, remainder, arithmetic shift, comparison."""
    if a < b:
        return divide_truncating(a, b) - remainder_truncating(a, b)
    return (a >> 2) + (-b)


@machine
def narrow(a: u64) -> u64:
    """Truncation, sign changes, widening."""
    low = a.truncate(u8)
    return u64(low) + u64(low.as_signed().as_unsigned()) + u64(a.truncate(u32) + WORD) + u64(a == 0)


@machine
def literals_at_edges(a: i8) -> bool:
    """A signed literal and a signed comparison of 8 bits."""
    return a >= -128 and (a + 1 > a or a == 127)


@machine
def leaves_in_time(n: u64) -> u64:
    """A loop with a bound: left by break or return, or stopped."""
    total = n % 41
    for i in rounds(20):
        if total % 16 == 15:
            return i
        if total % 16 == 0:
            break
        total += i * 2 + 1
    return total + 100


@machine
def loops(n: u64) -> u64:
    """Nested loops with break and continue; the loop variable is used after an inner loop."""
    total = u64(0)
    for i in upto(n % 20):
        if i == 3:
            continue
        for j in between(i, 12):
            if j * i > 40:
                break
            total += j ^ i
        total += i
    while total > 1000:
        total -= 999
        if total % 5 == 0:
            break
    return total


@machine
def while_true(n: u64) -> u64:
    """A loop that only break leaves; a local that every break has assigned."""
    count = u64(0)
    while True:
        count += 1
        if count * count >= n % 1000:
            found = count
            break
    return found


@machine
def swap(a: u64, b: u64) -> Pair:
    """Tuple swap, of locals and of elements."""
    a, b = b, a
    cells = frame_array(u64, 2)
    cells[0], cells[1] = a, b
    cells[0], cells[1] = cells[1], cells[0]
    return Pair(cells[0] + a, high=cells[1] - b)


@machine
def step(counters: Array[u64]) -> u64:
    """Counts its calls in the first element; gives an index."""
    counters[0] += 1
    return counters[0] % 4 + 1


@machine
def place_once(a: u64) -> u64:
    """The place of an augmented assignment is evaluated once."""
    COUNTERS[0] = a % 50
    COUNTERS[step(COUNTERS)] += 10
    COUNTERS[step(COUNTERS)] ^= a
    return COUNTERS[0] + COUNTERS[1] * 3 + COUNTERS[2] * 5 + COUNTERS[3] * 7 + COUNTERS[4] * 11


@machine
def note(trace: Array[u8], value: u64) -> u64:
    """Append a value to the trace."""
    trace[0] += 1
    trace[trace[0]] = value.truncate(u8)
    return value


@machine
def order(a: u64) -> u64:
    """Evaluation from left to right, and short circuits."""
    trace = frame_array(u8, 16)
    total = note(trace, a % 3) + note(trace, u64(7)) * note(trace, u64(9))
    if (note(trace, a % 2) == 0 and note(trace, u64(4)) == 4) or note(trace, u64(5)) == 6:
        total += 1000
    chosen = note(trace, u64(20)) if a > 10 else note(trace, u64(21))
    return total + chosen + trace.load_u64(0) + trace.load_u64(8)


@machine
def elements(a: u64, i: u8) -> u64:
    """Indexes of every width, constant and variable; a failed check past the end."""
    return u64(PRIMES[i]) + u64(PRIMES[5]) + u64(PRIMES[a % 6]) + PRIMES.length


@machine
def fields(a: u64, flag: bool) -> u64:
    """Loads and stores of all kinds of fields, through references and embedded Structs."""
    node = NODE
    node.inner.value = a.truncate(u32)
    node.inner.flag = flag
    node.inner.kind = Kind.SPARSE if flag else Kind.SECOND
    node.cells[3] = a.truncate(u8)
    node.cells[a % 16] ^= 0x55
    OTHER.copy_from(node)
    node.clear()
    inner = OTHER.inner
    total = u64(inner.value) + u64(inner.flag) + u64(inner.kind.value)
    for i in upto(OTHER.cells.length):
        total += u64(OTHER.cells[i]) * (i + 1)
    return total + u64(node.inner.value)


@machine
def references(a: u64) -> u64:
    """References that may be absent, narrowed in several ways."""
    OTHER.following = None
    NODE.following = OTHER if a % 2 == 0 else None
    NODE.total = u32(5)
    OTHER.total = a.truncate(u32)
    following = NODE.following
    if following is None:
        return u64(NODE.total)
    last = following.following
    if last is not None and last.total > 3:
        return u64(1)
    assert last is None
    return u64(following.total)


@machine
def bit_fields(a: u32) -> u32:
    """Construction with defaults, update, overflow checks, reading."""
    entry = Entry(present=a % 2 == 0, kind=Kind.SPARSE, top=(a >> 28).truncate(u8))
    entry = entry.with_(count=a.truncate(u16) & 0xFFF)
    NODE.entry = entry
    loaded = NODE.entry
    again = Entry.from_raw(loaded.raw() | 0x0C000)
    if loaded.present and loaded.kind == Kind.SPARSE:
        return u32(again.raw()) + u32(loaded.count)
    return u32(again.raw()) ^ u32(again.top)


@machine
def to_kind(word: u8) -> Kind:
    """The member of a word, which must exist."""
    return Kind(word)


@machine
def fallible(a: u64, b: u64) -> u64 | Failure:
    """Failure through several calls."""
    if a == 0:
        return Failure(7)
    total = checked_add(a, b)
    if isinstance(total, Failure):
        return total
    product = checked_multiply(total, 3)
    return product


@machine
def known_sums(a: u64) -> u64:
    """Checked sums and differences of which the compiler knows the result, or that it is one of the parts."""
    failures = u64(0)
    too_large, too_small = checked_add(u8(200), 100), checked_subtract(u8(100), 200)
    if isinstance(too_large, Failure):
        failures += 1
    if isinstance(too_small, Failure):
        failures += 2
    same, nothing = checked_add(a, 0), checked_subtract(a, a)
    if isinstance(same, Failure) or isinstance(nothing, Failure):
        failures += 4
    return failures


@machine
def nothing_or_failure(a: u64) -> Failure | None:
    """None is success."""
    if a > 100:
        return Failure(a)
    return None


@machine
def narrowed(a: u64, b: u64) -> u64:
    """Both sides of a test for Failure."""
    first = fallible(a, b)
    second = nothing_or_failure(b)
    if not isinstance(second, Failure) and not isinstance(first, Failure):
        return first
    if isinstance(second, Failure):
        return second.code
    if isinstance(first, Failure):
        return first.code + 1000
    return first


@machine
def specialised(a: u64, mode: Static[u8], wide: Static[bool]) -> u64:
    """Code for one mode; the others' is gone, though they could not be compiled with this constant."""
    if mode == 0:
        return a
    if wide:
        return a << mode
    return u64(a.truncate(u8) >> mode)


@machine
def specialisations(a: u64) -> u64:
    """Three versions of one function."""
    return specialised(a, u8(0), True) + specialised(a, u8(40), True) + specialised(a, u8(3), False)


@machine
def one(a: u64, b: u64) -> u64:
    """A handler."""
    return a + b


@machine
def two(x: u64, y: u64) -> u64:
    """A handler whose parameters have other names."""
    return x * y


@machine
def three(a: u64, b: u64) -> u64:
    """A handler."""
    return a - b


HANDLERS: Final = dispatch({Kind.SECOND: one, Kind.FIRST: two}, default=three)
NUMBERS: Final = dispatch(dict.fromkeys(range(0, 60, 3), one) | {100: two, 7: two}, default=three)


@machine
def dispatched(a: u64, b: u64) -> u64:
    """Dispatch by an Enum, its word, and ints; the last needs a tree."""
    kind = Kind.FIRST if b % 3 == 0 else Kind.SPARSE
    return (
        HANDLERS.call(kind, a, b)
        + HANDLERS.call((b % 4).truncate(u8), a, b)
        + NUMBERS.call((a % 110).truncate(u32), a, b)
    )


@machine
def frame_objects(a: u64) -> u64:
    """Frame slots are zero at each pass; slices; fill; copies; equality; text."""
    total = u64(0)
    for i in upto(3):
        inner = Inner()
        total += u64(inner.value)
        inner.value = a.truncate(u32)
        total += u64(inner.value)
        large = frame_array(u16, 100)
        total += u64(large[i])
        large.fill(u16(0x0303))
        large[i] = a.truncate(u16)
        part = large.slice(i, 4)
        total += u64(part[0]) + u64(part[3]) + part.length
        large.fill(u16(0x1234))
        total += u64(large[99])
    hello = frame_array(u8, 5)
    hello.copy_from(text("hello"))
    if hello.equals(text("hello")):
        total += 5
    if not hello.slice(1, 3).equals(text("elf")):
        total += 50
    erase(hello)
    return total + u64(hello[0])


@machine
def bytes_and_words(a: u64, offset: u64) -> u64:
    """Unaligned words in bytes, both orders, a checked offset."""
    data = frame_array(u8, 24)
    data.store_u64(3, a)
    data.store_be32(12, a.truncate(u32))
    data.store_u16(20, a.truncate(u16))
    return data.load_be64(offset % 40) ^ u64(data.load_u32(9)) ^ u64(data.load_be32(1)) ^ u64(data.load_u16(11))


@machine
def layout(a: u64) -> u64:
    """Constants of layouts."""
    return a + size_of(Node) * 2 + offset_of(Node, "cells") + (1 << LIMIT) + (-5 + LIMIT)


@machine
def addresses(a: u64) -> u64:
    """Address arithmetic and views of other memory."""
    start = address_of(COUNTERS)
    COUNTERS[2] = a
    # Safe because both lie inside COUNTERS.
    view = array_at(u64, start + 16, 2)
    again = Node.at(address_of(NODE))
    again.total = u32(77)
    distance = (start + 4095).align_up(4096) - start.align_down(4096)
    return view[0] + u64(NODE.total) + distance + u64(HostVirtual(a).is_aligned(8))


@machine
def secrets(a: u64, b: u64) -> u64:
    """Masks in place of branches."""
    x: Secret[u64] = secret(a)
    y = secret(b)
    equal = constant_time_equal(x, y)
    smallest = constant_time_select(equal, x + 1, y ^ 5)
    return declassify(smallest, "a test")


@machine
def checked_input(a: u64) -> u64:
    """Untrusted values become plain by a check."""
    wild = untrusted(a) & 0x1F
    index = wild.below(6)
    if isinstance(index, Failure):
        return index.code
    return u64(PRIMES[index])


@machine
def stops(a: u64) -> u64:
    """Checks that stop the machine."""
    assert a != 5, "five"
    if a == 6:
        stop("six")
    return maximum(a, 3)


@machine(depth=12)
def fibonacci(n: u64) -> u64:
    """Recursion with a known depth."""
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


@machine
def observed(a: u32) -> u64:
    """Each mention of device memory is one access, in order; what is erased is zero."""
    PORT.status = a
    PORT.quiet = u64(a)
    PORT.status = a
    unused = PORT.status
    PORT.mailbox |= 1
    twice = PORT.status + PORT.status
    PORT.key[3] = u8(7)
    erase(PORT.key)
    return u64(twice) + PORT.quiet + u64(PORT.mailbox) + u64(PORT.key[3]) + u64(unused)
