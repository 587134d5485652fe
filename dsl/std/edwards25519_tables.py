"""Constants of edwards25519 (RFC 8032, 5.1), computed from its definition. Ordinary Python; emits no code."""

from __future__ import annotations

from typing import Final

from dsl.std.field25519 import PRIME, limbs_of

D: Final = -121665 * pow(121666, -1, PRIME) % PRIME
DOUBLED_D: Final = 2 * D % PRIME
ROOT_OF_MINUS_ONE: Final = pow(2, (PRIME - 1) // 4, PRIME)

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


def base_point_limbs(positions: int, multiples: int) -> list[int]:
    """Limbs of y + x, y - x, 2 d x y for 1 to `multiples` times 16**(64 / positions * i) times the base point, i below `positions`."""
    limbs: list[int] = []
    unit = base_point()
    for _ in range(positions):
        point = unit
        for _ in range(multiples):
            x, y = point
            for coordinate in (y + x, y - x, DOUBLED_D * x * y):
                limbs += limbs_of(coordinate % PRIME)
            point = add(point, unit)
        for _ in range(4 * 64 // positions):
            unit = add(unit, unit)
    return limbs
