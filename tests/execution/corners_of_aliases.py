"""Programs in corners of aliases and of the order of accesses, as corners_of_flow.py has them."""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import (
    Array,
    Bits,
    Device,
    Record,
    Ref,
    Shared,
    Struct,
    address_of,
    array,
    array_at,
    atomic_add_u64,
    atomic_exchange_u64,
    bit,
    bits,
    i16,
    i32,
    machine,
    rotate_left,
    static,
    static_array,
    u8,
    u16,
    u32,
    u64,
    upto,
)


class Byte(Enum):
    """Zero, which cleared memory holds, is no member."""

    LOW = u8(1)
    HIGH = u8(200)


class Flags(Bits, storage=u64):
    on: bool = bit(0)
    kind: Byte = bits(15, 8, default=Byte.LOW)
    count: u16 = bits(31, 16, default=7)
    big: u64 = bits(63, 32, default=0)


class Small(Bits, storage=u8):
    a: u8 = bits(2, 0, default=5)
    b: u8 = bits(7, 3, default=0)


class Leaf(Struct):
    value: u64
    kind: Byte
    small: Small
    half: i16
    word: i32
    items: Array[u16] = array(8)


class Node(Struct):
    leaf: Leaf
    next: Ref[Node] | None
    flags: Flags
    number: u64
    leaves: Array[Leaf] = array(3)


class Ports(Struct):
    status: Device[u32]
    data: Shared[u32]
    wide: Device[u64]
    plain: u64


class Picked(Record):
    leaf: Leaf
    items: Array[u16]
    on: bool
    flags: Flags


ONE: Final = static(Node)
TWO: Final = static(Node)
PORTS: Final = static(Ports)
HALVES: Final = static_array(u16, 16)
LONGS: Final = static_array(u64, 16)


@machine
def put(words: Array[u64], index: u64, value: u64) -> u64:
    words[index] = value
    return value


@machine
def doubled(node: Node) -> u64:
    node.number *= 2
    return node.number


@machine
def counted(leaf: Leaf) -> u64:
    leaf.value += 1
    return leaf.value


@machine
def calls_between_loads(a: u64) -> u64:
    """What stands left of a call that stores is loaded before it, what stands right of it after."""
    LONGS[2] = a
    LONGS[2] += put(LONGS, u64(2), u64(100)) + LONGS[2]
    total = LONGS[put(LONGS, u64(2), u64(5))] + put(LONGS, u64(5), a) + LONGS[5] + put(LONGS, u64(5), a + 1) + LONGS[5]
    ONE.number = a
    ONE.number, TWO.number = TWO.number + 1, ONE.number
    ONE.number += doubled(ONE) + ONE.number
    return LONGS[2] + total


@machine
def swept(words: Array[u64], value: u64) -> u64:
    kept = value
    for i in upto(words.length):
        kept = rotate_left(kept ^ words[i], 9)
        if kept & 3 == 0:
            continue
        words[i] = kept
    return kept


@machine
def calls_that_stay_calls(a: u64) -> u64:
    """A function too large to be inlined changes what was loaded before it, directly and by a view."""
    before = LONGS[3] + LONGS[15]
    first = swept(LONGS, a)
    between = LONGS[3] ^ before
    second = swept(LONGS.slice(2, 3), first)
    return rotate_left(between, 3) + LONGS[3] * 5 + second + LONGS[15]


@machine
def places_evaluated_once(a: u64) -> u64:
    """Calls in the place of an augmented assignment, in its element and in what is added."""
    ONE.leaves[counted(ONE.leaf) & 1].items[counted(ONE.leaf) & 7] += (
        u16(counted(ONE.leaf).truncate(u16)) + ONE.leaves[0].items[0] + a.truncate(u16)
    )
    return counted(ONE.leaf)


@machine
def conditions_that_store(a: u64) -> u64:
    """A condition's call changes what the arm loads, and what a later one does not."""
    x = LONGS[a & 15] if put(LONGS, a & 15, u64(3)) == 3 and LONGS[a & 15] == 3 else LONGS[0]
    LONGS[a & 15] = x + put(LONGS, a & 15, x) * LONGS[a & 15]
    return x


@machine
def places_that_change_places(a: u64, b: u64) -> u64:
    """Elements swapped that may be one, and an index that is assigned in the same statement as its element."""
    LONGS[a & 15], LONGS[b & 15] = LONGS[b & 15], LONGS[a & 15]
    i = a & 15
    i, LONGS[i] = b & 15, i
    LONGS[LONGS[0] & 15], i = i, LONGS[i]
    return i


@machine
def chosen_references(a: u64, b: u64) -> u64:
    """Two references that are one or two objects, as the arguments have it; a Struct inside one, or of an array."""
    first = ONE if a & 1 == 0 else TWO
    second = ONE if b & 1 == 0 else TWO
    first.number = a
    second.number = b
    first.leaf.value = second.number + first.number
    leaf = ONE.leaves[a & 1] if b & 2 == 0 else (first.leaf if a & 2 == 0 else second.leaf)
    leaf.value += first.leaf.value
    words = LONGS if a > b else LONGS.slice(b & 7, 4)
    words[a & 3] = words.length
    return first.leaf.value + leaf.value + words[0]


@machine
def elements_that_may_be_one(a: u64) -> u64:
    """A Struct of an array by a variable and by a constant index, one copied over at last."""
    some, first = ONE.leaves[a & 3], ONE.leaves[0]
    some.items[a & 7] = u16(9)
    first.items[0] += some.items[a & 7] + first.items[0]
    some.value = u64(first.items[0])
    first.copy_from(ONE.leaves[2])
    return some.value


@machine
def reference_of_the_turn_before(a: u64, b: u8) -> u64:
    """A local refers to another object from one turn on; what it was is still written to."""
    total = u64(0)
    leaf = ONE.leaf
    for i in upto(b & 7):
        before = leaf
        if i & 1 == 1:
            leaf = ONE.leaves[u64(i) % 3]
        before.value += u64(i)
        total += leaf.value ^ before.value
    leaf.value = a
    return total + ONE.leaf.value


@machine
def links_that_end(a: u64, b: u64) -> u64:
    """Fields that refer to one another in a circle, or to None; narrowed, followed, written through."""
    ONE.next = TWO
    TWO.next = None if a & 1 == 1 else ONE
    ONE.number = a
    TWO.number = b
    second = ONE.next
    if second is None:
        return u64(0)
    third = second.next
    if third is not None:
        third.number += 1
        second.number += third.number
        third.flags = Flags(on=True, big=a >> 40)
        second.flags = third.flags.with_(big=third.flags.big + 1)
        return third.number
    second.leaf.value = b
    return second.number


@machine(depth=9)
def down(node: Node, steps: u64) -> u64:
    total = node.number
    following = node.next
    if following is not None and steps > 0:
        total += down(following, steps - 1) * 3
    node.number += 1
    return total


@machine
def recursion_through_a_circle(a: u64) -> u64:
    """Each depth adds to a node that a deeper one has changed; steps may be too many."""
    ONE.next = TWO
    TWO.next = ONE
    return down(ONE, a & 15)


@machine
def picked(a: u64) -> Picked:
    if a & 1 == 1:
        return Picked(leaf=ONE.leaf, items=ONE.leaf.items, on=True, flags=Flags(on=False))
    return Picked(ONE.leaves[a & 3], HALVES.slice(a & 7, 4), False, Flags(on=True, big=a >> 40))


@machine
def records_that_refer(a: u64, b: u64) -> u64:
    """Two Records whose references and arrays may be the same; an index that one of their arrays lacks."""
    first = picked(a)
    second = picked(b)
    first.items[a & 3] = u16(7)
    first.leaf.items[1] += second.items[b & 7]
    second.leaf.value = first.items.length + u64(first.on == second.on)
    return first.leaf.value + u64(first.flags.with_(count=u16(9)).raw())


@machine
def another_view_of_words(a: u64) -> u64:
    """The same memory as words of another width, and a Struct at the address of one."""
    # Safe because: the array has sixteen words of 64 bits.
    halves = array_at(u32, address_of(LONGS) + 4, 6)
    halves[a & 7] += 3
    LONGS[0] += 1
    # Safe because: it is the address of a Leaf.
    leaf = Leaf.at(address_of(ONE.leaves[1]))
    leaf.value = a
    ONE.leaves[1].value += u64(halves[0])
    return leaf.value


@machine
def atomics_beside_loads(a: u64, b: u64) -> u64:
    """Two atomic instructions on an element, by addresses of two views, and plain accesses around them."""
    LONGS[1] += 1
    first = atomic_exchange_u64(address_of(LONGS.slice(1, 1)), a)
    second = atomic_add_u64(address_of(LONGS.slice(1, 2)), b)
    return LONGS[1] + first * 3 + second


@machine
def device_and_shared(a: u32) -> u64:
    """Each mention is one access: read, written, read twice, and both in one statement."""
    first = PORTS.status
    PORTS.status = a
    PORTS.data += a
    PORTS.wide ^= u64(first)
    again = PORTS.status | PORTS.status
    return u64(again) + u64(PORTS.data)
