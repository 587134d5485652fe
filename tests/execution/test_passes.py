"""What single passes do is seen in the instructions, and changes no result, with all passes or with that one off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import (
    Machine,
    add_with_carry,
    address_of,
    array_at,
    atomic_add_u64,
    between,
    divide_truncating,
    frame_array,
    machine,
    multiply_wide,
    remainder_truncating,
    rotate_left,
    static_array,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from tests.execution.native import Native
from tests.execution.support import python_outcome


@machine
def square(first: u64, second: u64) -> u64:
    """Words of a two-word square, mixed: carries of sums of two and of three."""
    low = multiply_wide(first, first)
    cross = multiply_wide(first, second)
    high = multiply_wide(second, second)
    one = add_with_carry(low.high, cross.low, u64(0))
    two = add_with_carry(cross.high, high.low, one.carry)
    again = add_with_carry(one.value, cross.low, u64(0))
    more = add_with_carry(two.value, cross.high, again.carry)
    return low.low ^ again.value ^ more.value ^ (high.high + two.carry + more.carry)


@machine
def rows(width: u64, turns: u64) -> u64:
    """Sums of products of a counter."""
    total = u64(0)
    limit = turns & 63
    for i in upto(limit):
        total = (total ^ (i * width + turns)) + i * turns
    return total


@machine
def slots(value: u64, index: u64) -> u64:
    """Two places of the frame that a store to the other leaves alone, and loads on both sides of a branch."""
    first = frame_array(u64, 4)
    second = frame_array(u64, 4)
    first[index & 3] = value
    second[value & 3] = index
    before = first[index & 3]
    if value > index:
        second[index & 3] = before
        return first[index & 3] + second[value & 3]
    first[0] = u64(7)
    return first[index & 3] ^ second[value & 3]


@machine
def turns(value: u64, other: u64) -> u64:
    """Loops of known turns, one inside the other, one that counts down, and one that never turns."""
    words = frame_array(u64, 6)
    for i in upto(3):
        for j in upto(2):
            words[2 * i + j] = rotate_left(value, i) ^ (other * j)
    total = u64(0)
    at = u64(6)
    while at > 0:
        at -= 1
        total = total * 31 + words[at]
    for _ in upto(0):
        total += 1
    return total


@machine
def sides(value: u64, other: u64) -> u64:
    """Branches around little work: with one side, with two, one inside another, and two values that differ."""
    total = other
    if value > other:
        total = value * 3
    low, high = value, other
    if low > high:
        low, high = high, low
    if value & 1 == 0:
        total += 7
    elif value & 2 == 0:
        total ^= 9
    return total - (low ^ (high << 1))


@machine
def quotients(value: u64, other: u64) -> u64:
    """Divisions by constants: of every width, signed too."""
    narrow = value.truncate(u32) // 7 + value.truncate(u32) % 10
    small = value.truncate(u8) // 11 ^ value.truncate(u16).truncate(u8) % 5
    signed = divide_truncating(value.truncate(u32).as_signed(), -7) + remainder_truncating(
        other.truncate(u32).as_signed(), 12
    )
    wide = divide_truncating(other.as_signed(), 16) - remainder_truncating(value.as_signed(), -8)
    return value // 7 + other % 1000 + u64(narrow) + u64(small) + u64(signed.as_unsigned()) + wide.as_unsigned()


CELLS: Final = static_array(u64, 4)


@machine
def same_address(turns: u64, value: u64) -> u64:
    """An address that every turn makes again, from constants inside the loop."""
    total = u64(0)
    for _turn in upto(turns & 7):
        total += atomic_add_u64(address_of(CELLS) + 8, value)
    return total


@machine
def known_carry(value: u64, other: u64) -> u64:
    """A sum of three whose first carry is known when it is lowered."""
    total = add_with_carry(u64(5), u64(6), value & 1)
    return total.value + total.carry + other


BYTES: Final = static_array(u8, 64)


@machine
def ranges(value: u64, other: u64) -> u64:
    """Indexes that counters and comparisons prove, and some that would only be right if nothing wrapped or nothing was moved."""
    bytes = array_at(u8, address_of(BYTES), other & 63)
    total = u64(0)
    i = u64(0)
    while i + 3 <= bytes.length:
        total = total * 5 + u64(bytes[i]) + u64(bytes[i + 1]) * 3 + u64(bytes[i + 2])
        i += 3
    for k in between(1, bytes.length):
        bytes[k] = bytes[k - 1] + k.truncate(u8)
    low = u64(0)
    high = bytes.length
    while low < high:
        middle = (low + high) // 2
        if u64(bytes[middle]) < value & 31:
            low = middle + 1
        else:
            high = middle
    at = value
    if at + 2 < bytes.length:  # wraps for the largest words
        total += u64(bytes[at])
    return total + low


@machine
def states(value: u64, turns: u64) -> u64:
    """A machine of three states that bits drive; one keeps its state, one is left by two ways."""
    state = u32(101)
    total = u64(0)
    for turn in upto(turns & 63):
        is_set = (value >> turn) & 1 == 1
        if state == 101:
            if is_set:
                state = u32(102)
                total += turn
        elif state == 102:
            state = u32(103) if is_set else u32(101)
            total ^= value >> 1
        else:
            total = total * 3 + 1
            if not is_set:
                state = u32(102)
    return total if state == 101 else total + u64(state)


@machine
def shifted(value: u64, turns: u64) -> u64:
    """One array moved within itself: its indexes grow with the loop, and run out for some words."""
    bytes = frame_array(u8, 64)
    start = value & 15
    for i in upto(turns & 63):
        bytes[i + start] = bytes[2 * start - 4 + i] + 1
    total = u64(0)
    for i in between(start, turns & 31):
        near = u64(bytes[i - 1]) + u64(bytes[i]) + u64(bytes[i + 1])
        total = total * 3 + near + u64(bytes[i + 2])
    return total


@machine
def sums(value: u64, turns: u64) -> u64:
    """Sums of sums of what a loop's turn stored, which its next turn reads again."""
    row = frame_array(u64, 64)
    row[0] = value
    for i in upto(turns & 63):
        row[i + 1] = row[i] * 3 + i
    return row[turns & 63]


INPUTS = [
    (0, 0),
    (1, 1),
    (0x5A5A_F00F_1234_8765, 64),
    (2**64 - 1, 2**64 - 1),
    (2**63, 3),
    (12345, 67),
    (0xB6DB6DB6DB6DB6DB, 200),
]
CASES: list[tuple[str, Callable[[u64, u64], u64]]] = [
    ("carry", square),
    ("number", slots),
    ("unroll", turns),
    ("choose", sides),
    ("fold", quotients),
    ("checks", ranges),
    ("thread", states),
    ("limit", shifted),
    ("number", sums),
]


@pytest.mark.t1
@pytest.mark.parametrize(("name", "function"), CASES, ids=[name for name, _ in CASES])
def test_pass_keeps_results(name: str, function: Callable[[u64, u64], u64]) -> None:
    """With and without the pass, machine code gives what CPython gives."""
    options: tuple[dict[str, Any], ...] = ({}, {"disable": (name,)}, {"pool": 5})
    for given in INPUTS:
        expected = python_outcome(partial(one_word, function, given))
        for chosen in options:
            program = compile_function(function, verify=True, **chosen)
            found = Native(program).call(program.entry, list(given))
            assert (found if found == "stopped" else found[:1]) == expected, f"{name}, {chosen}, {given}"


def one_word(function: Callable[[u64, u64], u64], given: tuple[int, int]) -> tuple[int]:
    return (int(function(*map(u64, given))),)


def instructions(function: Any, **options: Any) -> list[str]:
    """The mnemonics of a compiled function."""
    return [line.text.split()[0] for _, line in compile_function(function, **options).linked.lines]


@pytest.mark.t1
def test_carry_needs_no_comparison() -> None:
    """Carries are added by adc; without the pass they are compared for."""
    assert instructions(square).count("cmp") < instructions(square, disable=("carry",)).count("cmp")
    assert "adc" in instructions(square)


@pytest.mark.t1
def test_known_turns_need_no_loop() -> None:
    """Loops of known turns have no jump left; without the pass they do."""
    assert not any(name.startswith("j") for name in instructions(turns))
    assert "jb" in instructions(turns, disable=("unroll",))


@pytest.mark.t1
def test_little_work_needs_no_branch() -> None:
    """Small branches become conditional moves; without the pass they are jumps."""
    found, without = instructions(sides), instructions(sides, disable=("choose",))
    assert sum(name.startswith("cmov") for name in found) > sum(name.startswith("cmov") for name in without)
    assert sum(name.startswith("j") for name in found) < sum(name.startswith("j") for name in without) // 2


def inner_loops(function: Any, **options: Any) -> list[list[str]]:
    """The instructions of each loop that has no loop inside, from where its jump back leads to that jump."""
    program = compile_function(function, **options)
    start, size, _ = program.symbols[program.entry]
    lines = [(at, line.text) for at, line in program.linked.lines if start <= at < start + size]
    back = [(int(text.split()[1], 16), at) for at, text in lines if text.startswith("j")]
    loops = [(begin, end) for begin, end in back if begin < end]
    inner = [each for each in loops if not any(each != o and each[0] <= o[0] and o[1] <= each[1] for o in loops)]
    return [[text for at, text in lines if begin <= at <= end] for begin, end in inner]


@pytest.mark.t1
def test_growing_indexes_are_checked_before_the_loop() -> None:
    """A turn has one jump, the loop's own; without the pass there are those of checks."""
    assert [sum(text.startswith("j") for text in loop) for loop in inner_loops(shifted)] == [1, 1]
    assert [sum(text.startswith("j") for text in loop) for loop in inner_loops(shifted, disable=("limit",))] != [1, 1]


@pytest.mark.t1
def test_turns_hand_on_what_they_stored() -> None:
    """What the turn before stored is in a register: a turn stores and does not load."""
    (loop,) = (loop for loop in inner_loops(sums) if any("imul" in text or "lea" in text for text in loop))
    assert sum("[" in text and not text.startswith("lea") for text in loop) == 1


@pytest.mark.t1
def test_states_need_no_comparison() -> None:
    """What state a machine is in, its place in the code says: inside the loop no state is compared or kept in a register."""

    def compared(**options: Any) -> int:
        lines = [line.text for _, line in compile_function(states, **options).linked.lines]
        return sum(text.startswith("cmp") and text.endswith(("0x65", "0x66", "0x67")) for text in lines)

    assert compared() == 0
    assert compared(disable=("thread",)) > 1


@pytest.mark.t1
def test_constant_divisors_need_no_division() -> None:
    """Quotients and remainders by constants are products and shifts."""
    assert not {"div", "idiv"}.intersection(instructions(quotients))


@pytest.mark.t1
def test_proved_indexes_need_no_check() -> None:
    """On four lines indexes are checked; two need it: after a sum that may wrap, and in a middle, whose proof is too long."""
    assert instructions(ranges).count("ud2") == 2
    assert instructions(ranges, disable=("checks",)).count("ud2") == 4


@pytest.mark.t1
def test_small_loop_lies_on_one_line() -> None:
    """A function is put where its loop of less than a cache line does not lie on two."""
    program = compile_function(rows)
    start, size, _ = program.symbols[program.entry]
    lines = [(at, line.text) for at, line in program.linked.lines if start <= at < start + size]
    jumps = [(at, int(text.partition(" ")[2], 16)) for at, text in lines if text.startswith("j")]
    ((begin, end),) = [(target, at + 1) for at, target in jumps if target < at]
    assert begin // 64 == end // 64


@pytest.mark.t1
def test_what_is_hoisted_takes_its_constants_along() -> None:
    """Nothing had moved them out of the loop before: the IR is legal all the same."""
    program = compile_function(same_address, verify=True, disable=("inline", "fold"))
    for given in ((0, 1), (7, 5)):
        with Machine():
            expected = int(same_address(*map(u64, given)))
        assert Native(program).call(program.entry, list(given))[0] == expected


@pytest.mark.t1
def test_carries_that_are_constants_need_no_folding() -> None:
    """The pass that looks for sums of three takes what comes, also where nothing was folded before."""
    program = compile_function(known_carry, verify=True, disable=("inline", "fold", "number", "hoist"))
    assert Native(program).call(program.entry, [3, 100])[0] == 112
