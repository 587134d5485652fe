"""Field and scalar arithmetic is that of the integers, for numbers those at which carries begin among them."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import machine
from dsl.std import field25519 as field
from dsl.std.scalar25519 import (
    DIGIT_COUNT,
    DIGIT_SIGN,
    ORDER,
    add_sixteen,
    add_words,
    multiply_words,
    scalar_digits,
    scalar_is_reduced,
    scalar_multiply_add,
    scalar_reduce,
    scalar_reduce_hash,
    scalar_signed_bits,
    subtract_order_once,
    subtract_words,
)
from dsl.std.x25519 import ladder_step
from tests.std.inside import places
from tests.worlds import CPython, Native, Unicorn, World

PRIME: Final = field.PRIME
WHOLE: Final = 1 << 256
# where a carry or a fold begins, or happens a second time
EDGES: Final = [
    *(
        0,
        1,
        18,
        19,
        37,
        38,
        39,
        (1 << 64) - 1,
        ((1 << 64) - 1) << 192,
        1 << 255,
        (1 << 255) - 1,
        (1 << 255) - 19,
        (1 << 255) + 1462,
    ),
    *(2 * PRIME - 1, 2 * PRIME, 2 * PRIME + 1, WHOLE - 39, WHOLE - 38, WHOLE - 37, WHOLE - 1),
]
LIMBS: Final = random.Random(25519)


def mixed(count: int) -> int:
    """Each word at an end of its range or anywhere: carries through some of them, and words that cannot be mistaken for others."""
    ends = [0, 1, (1 << 64) - 1, (1 << 64) - 2, 1 << 63]
    return sum(LIMBS.choice([*ends, LIMBS.getrandbits(64)]) << 64 * index for index in range(count))


MIXED: Final = [mixed(4) for _ in range(1500)]
PRODUCTS: Final = [number for number in EDGES if number <= (1 << 255) + 1462]
elements: Final = st.one_of(st.integers(0, WHOLE - 1), st.sampled_from(EDGES))
scalars: Final = st.one_of(st.integers(0, ORDER - 1), st.sampled_from([0, 1, ORDER - 1]))
WORLDS: Final = {"cpython": CPython(), "native": Native(), "unicorn": Unicorn()}
worlds: Final = pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPython(), marks=pytest.mark.t0, id="cpython"),
        pytest.param(Native(), marks=pytest.mark.t1, id="native"),
    ],
)
OPERATIONS: Final[dict[str, tuple[Callable[..., Any], Callable[..., int]]]] = {
    "add": (field.field_add, lambda left, right: left + right),
    "subtract": (field.field_subtract, lambda left, right: left - right),
    "multiply": (field.field_multiply, lambda left, right: left * right),
    "square": (field.field_square, lambda value: value * value),
}


def pack(number: int) -> bytes:
    """An element as memory."""
    return number.to_bytes(32, "little")


def apply(world: World, operation: Callable[..., Any], *operands: int) -> int:
    """The element that an operation on elements gives."""
    out = bytearray(32)
    world.call(operation, out, *(pack(operand) for operand in operands))
    return int.from_bytes(out, "little")


def agree(name: str, places: list[str], operands: list[int]) -> None:
    """The operation gives what it should modulo p, and the same number in each world."""
    operation, meaning = OPERATIONS[name]
    given = operands[:1] if name == "square" else operands
    found = {apply(WORLDS[place], operation, *given) for place in places}
    assert len(found) == 1, (name, operands)
    assert (found.pop() - meaning(*given)) % PRIME == 0, (name, operands)


@pytest.mark.t1
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_at_the_edges(name: str) -> None:
    """At the numbers where carries begin, in pairs or many: the result is right, and the kernel's very number is its model's."""
    numbers = EDGES + MIXED[:40]
    pairs = zip(EDGES + MIXED, EDGES + MIXED, strict=True) if name == "square" else product(numbers, numbers)
    for left, right in pairs:
        agree(name, ["cpython", "native"], [left, right])


@pytest.mark.t1
@pytest.mark.parametrize("name", OPERATIONS)
@settings(deadline=None, max_examples=200)
@given(left=elements, right=elements)
def test_operations(name: str, left: int, right: int) -> None:
    """The same for any two elements."""
    agree(name, ["cpython", "native"], [left, right])


@pytest.mark.t1
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_in_unicorn(name: str) -> None:
    """The emitted bytes give in Unicorn what they give on this processor."""
    for number in (0, 5, 12, 19):
        agree(name, ["native", "unicorn"], [EDGES[number], EDGES[-1 - number]])


@pytest.mark.t1
def test_results_may_be_operands() -> None:
    """Operands may be the result's own place: the kernels read all before they write."""
    world = Native()
    for left in EDGES:
        assert apply(world, square_in_place, left) == apply(world, field.field_square, left)
        assert apply(world, multiply_in_place, left) == apply(world, field.field_multiply, left, left)


@machine
def square_in_place(out: field.FieldElement, value: field.FieldElement) -> None:
    """Set out to value * value, through out."""
    out.copy_from(value)
    field.field_square(out, out)


@machine
def multiply_in_place(out: field.FieldElement, value: field.FieldElement) -> None:
    """Set out to value * value, through out as both operands."""
    out.copy_from(value)
    field.field_multiply(out, out, out)


@worlds
@settings(deadline=None, max_examples=60)
@given(value=elements)
def test_store(world: World, value: int) -> None:
    """The encoding of anything is the canonical one."""
    encoded = bytearray(32)
    world.call(field.field_store, encoded, pack(value))
    assert int.from_bytes(encoded, "little") == value % PRIME


@pytest.mark.t1
@settings(deadline=None, max_examples=200)
@given(
    points=st.lists(st.one_of(st.integers(0, (1 << 255) + 1462), st.sampled_from(PRODUCTS)), min_size=5, max_size=5),
    swapped=st.booleans(),
)
def test_ladder_step(points: list[int], swapped: bool) -> None:
    """The kernel leaves in memory what its model does, on every number that a product can be."""
    assert_step_is_its_model(points, swapped)


def assert_step_is_its_model(points: list[int], swapped: bool) -> None:
    """On these five elements."""
    before = b"".join(pack(number) for number in points) + bytes(7 * 32)
    after = []
    for world in (CPython(), Native()):
        content = bytearray(before)
        world.call(ladder_step, content, int(swapped))
        after.append(bytes(content))
    assert after[0] == after[1]


@worlds
@pytest.mark.parametrize("number", [0, 1, 2, PRIME - 1, PRIME, PRIME + 1, (1 << 255) - 1, 0x1234567890ABCDEF << 180])
def test_load_store_invert_root(world: World, number: int) -> None:
    """Loading takes any 255 bits, storing gives the number below p; inverse and root exponents are right."""
    element = bytearray(32)
    world.call(field.field_load, element, (number | 1 << 255).to_bytes(32, "little"))
    encoded = bytearray(32)
    world.call(field.field_store, encoded, bytes(element))
    assert int.from_bytes(encoded, "little") == number % PRIME
    value = int.from_bytes(element, "little")
    inverse = apply(world, field.field_invert, value)
    assert inverse % PRIME == pow(number, PRIME - 2, PRIME)
    root = apply(world, field.field_power_root, value)
    assert root % PRIME == pow(number, (PRIME - 5) // 8, PRIME)


@pytest.mark.t1
@pytest.mark.parametrize(("left_words", "right_words"), [(4, 4), (5, 5), (1, 3)])
def test_words_are_numbers(left_words: int, right_words: int) -> None:
    """Products, sums and differences of arrays of words are those of integers; with a mask of zeros nothing is added or taken."""
    world = Native()
    for _ in range(300):
        left, right, start = mixed(left_words), mixed(right_words), mixed(right_words)
        wide = left_words + right_words
        product = bytearray(start.to_bytes(8 * wide, "little"))
        world.call(
            multiply_words, product, left.to_bytes(8 * left_words, "little"), right.to_bytes(8 * right_words, "little")
        )
        assert int.from_bytes(product, "little") == start + left * right
        base, whole = mixed(right_words), 1 << 64 * right_words
        given = right.to_bytes(8 * right_words, "little")
        for mask in (0, (1 << 64) - 1):
            amount = right if mask else 0
            words = bytearray(base.to_bytes(8 * right_words, "little"))
            world.call(add_words, words, given, mask)
            assert int.from_bytes(words, "little") == (base + amount) % whole
            words = bytearray(base.to_bytes(8 * right_words, "little"))
            assert world.call(subtract_words, words, given, mask) == (base < amount)
            assert int.from_bytes(words, "little") == (base - amount) % whole


@pytest.mark.t1
def test_small_steps_on_words() -> None:
    """Sixteen more, with carries through every word; L less, where that leaves a number."""
    for number in [mixed(4) for _ in range(200)] + [(1 << 256) - 1 >> 64 * count << 4 for count in range(4)]:
        words = bytearray(pack(number % WHOLE))
        Native().call(add_sixteen, words)
        assert int.from_bytes(words, "little") == (number + 16) % WHOLE
    edges = [ORDER + sign * (1 << bit) for bit in (0, 1, 63, 64, 65, 127, 128, 191, 192, 251) for sign in (1, -1)]
    for number in [0, 1, ORDER, 2 * ORDER - 1, *edges, *(mixed(4) % (2 * ORDER) for _ in range(100))]:
        words = bytearray(number.to_bytes(40, "little"))
        Native().call(subtract_order_once, words)
        assert int.from_bytes(words, "little") == number % ORDER


@worlds
@settings(deadline=None, max_examples=40)
@given(left=scalars, right=st.integers(0, (1 << 255) - 1), addend=scalars)
def test_scalar_multiply_add(world: World, left: int, right: int, addend: int) -> None:
    """Signature halves are right modulo L."""
    out = bytearray(32)
    world.call(scalar_multiply_add, out, *(number.to_bytes(32, "little") for number in (left, right, addend)))
    assert int.from_bytes(out, "little") == (left * right + addend) % ORDER


@worlds
@settings(deadline=None, max_examples=40)
@given(
    number=st.one_of(
        st.integers(0, (1 << 512) - 1),
        st.builds(lambda k, d: k * ORDER + d, st.integers(0, 1 << 259), st.integers(0, 2)),
    )
)
def test_scalar_reduce(world: World, number: int) -> None:
    """Hashes are reduced right, multiples of L among them."""
    number %= 1 << 512
    out = bytearray(32)
    world.call(scalar_reduce_hash, out, number.to_bytes(64, "little"))
    assert int.from_bytes(out, "little") == number % ORDER


@pytest.mark.t1
def test_reductions_next_to_multiples_of_the_order() -> None:
    """What is left of L, or beyond it, in each word: of numbers, and of products with a sum."""
    for bit, sign in product((0, 1, 63, 64, 65, 127, 128, 129, 191, 192, 251), (-1, 0, 1)):
        for factor in (1, 2, 3, mixed(3), mixed(4), (1 << 259) - 7):
            number = factor * ORDER + sign * (1 << bit)
            for world in places(scalar_reduce):
                out = bytearray(32)
                world.call(scalar_reduce, out, number.to_bytes(64, "little"))
                assert int.from_bytes(out, "little") == number % ORDER, (factor, bit, sign)
        left, right = mixed(4) >> 1, mixed(4) >> 1
        addend = (sign * (1 << bit) - left * right) % ORDER
        for world in places(scalar_multiply_add):
            world.call(scalar_multiply_add, out, pack(left), pack(right), pack(addend))
            assert int.from_bytes(out, "little") == sign * (1 << bit) % ORDER, (left, right, addend)


@pytest.mark.t1
@pytest.mark.parametrize(
    "number",
    [0, 1, ORDER - 1, ORDER, ORDER + 1, 2 * ORDER, (1 << 256) - 1]
    + [ORDER + sign * (1 << bit) for bit in (63, 64, 127, 128, 191, 192, 251) for sign in (1, -1)],
)
def test_scalar_is_reduced(number: int) -> None:
    """S is refused from L on."""
    assert Native().call(scalar_is_reduced, number.to_bytes(32, "little")) == (number < ORDER)


@pytest.mark.t1
def test_each_word_beside_the_orders() -> None:
    """A word that is one less than that of L, as much, or one more, in all combinations: borrows come and go between them."""
    for steps in product((-1, 0, 1), repeat=4):
        number = ORDER + sum(step << 64 * index for index, step in enumerate(steps))
        for world in places(scalar_is_reduced):
            assert world.call(scalar_is_reduced, number.to_bytes(32, "little")) == (number < ORDER), steps
        words = bytearray(number.to_bytes(40, "little"))
        Native().call(subtract_order_once, words)
        assert int.from_bytes(words, "little") == number % ORDER, steps


@worlds
@settings(deadline=None, max_examples=40)
@given(
    number=st.one_of(
        st.integers(0, (1 << 253) - 1), st.sampled_from([0, 8, 9, 15, ORDER, (1 << 253) - 1, 0x8888 << 200])
    )
)
def test_scalar_digits(world: World, number: int) -> None:
    """The digits add up to the scalar; they are odd or zero, below 8, and three zeros follow each that is not zero."""
    out = bytearray(DIGIT_COUNT)
    world.call(scalar_digits, out, number.to_bytes(32, "little"))
    digits = [(digit & 0x7F) * (-1 if digit & DIGIT_SIGN else 1) for digit in out]
    assert sum(digit << index for index, digit in enumerate(digits)) == number
    assert all(abs(digit) in (0, 1, 3, 5, 7) for digit in digits)
    assert all(sum(digit != 0 for digit in digits[index : index + 4]) <= 1 for index in range(DIGIT_COUNT))


@worlds
@settings(deadline=None, max_examples=40)
@given(
    number=st.one_of(
        st.integers(0, (1 << 255) - 1), st.sampled_from([0, 1, ORDER - 1, ORDER, 1 << 254, (1 << 255) - 1])
    )
)
def test_scalar_signed_bits(world: World, number: int) -> None:
    """The signs add up to the scalar modulo L."""
    out = bytearray(255)
    world.call(scalar_signed_bits, out, number.to_bytes(32, "little"))
    assert set(out) <= {0, 1}
    assert (sum((2 * bit - 1) << index for index, bit in enumerate(out)) - number) % ORDER == 0
