"""Constants of edwards25519 (RFC 8032, 5.1), computed from its definition. Ordinary Python; emits no code."""

from __future__ import annotations

from typing import Final

from dsl.std.field25519 import PRIME, limbs_of

D: Final = -121665 * pow(121666, -1, PRIME) % PRIME
DOUBLED_D: Final = 2 * D % PRIME
ROOT_OF_MINUS_ONE: Final = pow(2, (PRIME - 1) // 4, PRIME)

COMBS: Final = 3  # 3 * 5 * 17 bits are 255; a table of 4.5 KiB, 51 additions and 16 doublings
TEETH: Final = 5
SPACING: Final = 17
ENTRIES: Final = 1 << (TEETH - 1)

Affine = tuple[int, int]


def base_point() -> Affine:
    """The base point: y = 4/5, x even."""
    y = 4 * pow(5, -1, PRIME) % PRIME
    square = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * ROOT_OF_MINUS_ONE % PRIME
    return (PRIME - x if x & 1 else x, y)


def add(left: Affine, right: Affine) -> Affine:
    """The sum of two points."""
    (x1, y1), (x2, y2) = left, right
    product = D * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + y1 * x2) * pow(1 + product, -1, PRIME) % PRIME
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME) % PRIME
    return x, y


def negated(point: Affine) -> Affine:
    """The point whose sum with this one is neutral."""
    return PRIME - point[0], point[1]


def multiplied_by_power(point: Affine, power: int) -> Affine:
    """2**power times a point."""
    for _ in range(power):
        point = add(point, point)
    return point


def base_point_limbs() -> list[int]:
    """Limbs of y + x, y - x, 2 d x y of each comb's entries.

    Tooth t of comb c stands for 2**((c * TEETH + t) * SPACING) times the base point. Entry i is the highest tooth, plus each other tooth t
    where bit t of i is one, and minus it where that is zero.
    """
    limbs: list[int] = []
    tooth = base_point()
    for _ in range(COMBS):
        teeth = []
        for _ in range(TEETH):
            teeth.append(tooth)
            tooth = multiplied_by_power(tooth, SPACING)
        for index in range(ENTRIES):
            x, y = teeth[-1]
            for place, other in enumerate(teeth[:-1]):
                x, y = add((x, y), other if index >> place & 1 else negated(other))
            for number in (y + x, y - x, DOUBLED_D * x * y):
                limbs += limbs_of(number % PRIME)
    return limbs
