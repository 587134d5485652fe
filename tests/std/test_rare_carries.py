"""Field arithmetic where carries come that random numbers have once in 2**58: operands are worked out from what shall come out."""

from __future__ import annotations

import pytest

from dsl.std.x25519 import CURVE_CONSTANT
from tests.std.test_field25519 import LIMBS, PRIME, agree, assert_step_is_its_model


def rare() -> int:
    """A residue whose lowest word is what the last fold brings down, so that its carry went through the words above, which are zero."""
    word = LIMBS.randrange(1400) << 64 * LIMBS.choice([0, 0, 0, 1, 2])
    return (word | LIMBS.getrandbits(255) >> 64 * (zeros := LIMBS.randrange(5)) << 64 * zeros) % PRIME


def root_of(square: int) -> int | None:
    """A square root modulo p, where there is one."""
    found = pow(square, (PRIME + 3) // 8, PRIME)
    for root in (found, found * pow(2, (PRIME - 1) // 4, PRIME) % PRIME):
        if (root * root - square) % PRIME == 0:
            return root
    return None


def quotient(left: int, right: int) -> int:
    """What times right is left, modulo p."""
    return left * pow(right, -1, PRIME) % PRIME


def squares(number: int) -> tuple[int, int]:
    """F and G of a step, of which one or what is made of both is rare: the number says what."""
    f, g = LIMBS.getrandbits(254), LIMBS.getrandbits(254)
    match number % 7:
        case 0:
            return rare(), rare()
        case 1:  # F - G takes 38 out of a word that has less
            return f, f + (LIMBS.getrandbits(60) << 64 * LIMBS.randrange(1, 4)) - LIMBS.randrange(38)
        case 2:  # 121665 E, and C behind it
            return f, f - quotient(rare(), CURVE_CONSTANT)
        case 3:
            f = LIMBS.randrange(19, 1400)
            return f, f - quotient(LIMBS.randrange(19, 1400), CURVE_CONSTANT)
        case 4:  # F G
            return f, quotient(rare(), f)
        case 5:  # E C
            f = quotient(rare(), g) - CURVE_CONSTANT * g
            return f, f - g
    return f, g


def products(number: int) -> tuple[int, int]:
    """D A and C B of a step, in the same way."""
    first, second = LIMBS.getrandbits(254), rare()
    match number % 5:
        case 0:
            return rare(), second
        case 1:
            return LIMBS.randrange(19, 1400), LIMBS.randrange(19, 1400)
        case 2:
            return first, first + (LIMBS.getrandbits(60) << 64 * LIMBS.randrange(1, 4)) - LIMBS.randrange(38)
        case 3:
            return (root_of(rare()) or 1) - second, second
    return (root_of(rare()) or 1) + second, second


@pytest.mark.t1
def test_ladder_step_where_carries_are_rare() -> None:
    """The same on numbers that are worked out so that each product, sum and difference within the step has them in turn."""
    tried, half = 0, (PRIME + 1) // 2
    for number in range(3000):
        a, b = (root_of(square % PRIME) for square in squares(number))
        if not a or not b:
            continue
        tried += 1
        first, second = products(tried)
        d, c = quotient(first, a), quotient(second, b)
        difference = (first - second) ** 2 % PRIME
        x1 = quotient(rare(), difference) if difference else 9
        points = [x1, (a + b) * half, (a - b) * half, (c + d) * half, (c - d) * half]
        assert_step_is_its_model([point % PRIME for point in points], swapped=False)
        assert_step_is_its_model([point % PRIME for point in (points[0], *points[3:], *points[1:3])], swapped=True)
    assert tried > 500


@pytest.mark.t1
def test_products_where_carries_are_rare() -> None:
    """Products and squares that are worked out so."""
    for _ in range(500):
        result, factor = rare(), LIMBS.getrandbits(255) % PRIME or 1
        agree("multiply", ["cpython", "native"], [factor, quotient(result, factor)])
        root = root_of(result)
        if root is not None:
            agree("square", ["cpython", "native"], [root])
