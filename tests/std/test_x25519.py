"""X25519 gives the shared secrets of RFC 7748 and Wycheproof, in every world."""

from __future__ import annotations

import random
from typing import Final

import pytest

from dsl.std.field25519 import PRIME
from dsl.std.scalar25519 import ORDER
from dsl.std.x25519 import CURVE_CONSTANT, x25519
from tests.std.vectors import x25519_wycheproof
from tests.worlds import CPython, Native, Unicorn, World

NINE: Final = bytes([9]) + bytes(31)
# RFC 7748, 5.2: scalar, u-coordinate, result
SINGLE: Final = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]
AFTER_ONE: Final = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
AFTER_THOUSAND: Final = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def shared(world: World, scalar: bytes, point: bytes) -> bytes:
    """The x coordinate of scalar times point."""
    out = bytearray(32)
    world.call(x25519, out, scalar, point)
    return bytes(out)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPython(), marks=pytest.mark.t0, id="cpython"),
        pytest.param(Native(), marks=pytest.mark.t1, id="native"),
        pytest.param(Unicorn(), marks=pytest.mark.t1, id="unicorn"),
    ],
)
def test_rfc_7748(world: World) -> None:
    """The two single vectors, and one step of the iterated one."""
    for scalar, point, result in SINGLE:
        assert shared(world, bytes.fromhex(scalar), bytes.fromhex(point)).hex() == result
    assert shared(world, NINE, NINE).hex() == AFTER_ONE


@pytest.mark.t1
def test_native_thousand_steps() -> None:
    """A thousand steps of the iterated vector."""
    scalar, point = NINE, NINE
    for _ in range(1000):
        scalar, point = shared(Native(), scalar, point), scalar
    assert scalar.hex() == AFTER_THOUSAND


@pytest.mark.t1
def test_native_wycheproof() -> None:
    """All of Wycheproof's; those it calls acceptable (small order, twist, non-canonical) have a defined result too."""
    vectors = x25519_wycheproof()
    for vector in vectors:
        assert shared(Native(), vector.private, vector.public) == vector.shared, vector
    assert len(vectors) == 4 * 518


def ladder(scalar: int, u: int) -> int:
    """The u-coordinate of any multiple of a point, in Python's integers (RFC 7748, section 5); 0 for the point at infinity."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in reversed(range(scalar.bit_length())):
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, cross, other = x2 + z2, x2 - z2, (x3 - z3) * (x2 + z2), (x3 + z3) * (x2 - z2)
        e = a * a - b * b
        x3, z3 = (cross + other) ** 2 % PRIME, u * (cross - other) ** 2 % PRIME
        x2, z2 = a * a * b * b % PRIME, e * (a * a + CURVE_CONSTANT * e) % PRIME
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return x2 * pow(z2, -1, PRIME) % PRIME if z2 else 0


@pytest.mark.t1
def test_results_that_are_small_numbers() -> None:
    """Points whose multiple is a small number or one just below p: such a product is p or more before it is written canonically."""
    source, tried = random.Random(7748), 0
    for result in [*range(2, 400), *(PRIME - number for number in range(1, 200))]:
        if ladder(ORDER + 1, result) != result:
            continue  # not of prime order
        tried += 1
        scalar = bytearray(source.randbytes(32))
        scalar[0], scalar[31] = scalar[0] & 0xF8, scalar[31] & 0x7F | 0x40
        point = ladder(pow(int.from_bytes(scalar, "little"), -1, ORDER), result)
        assert shared(Native(), bytes(scalar), point.to_bytes(32, "little")) == result.to_bytes(32, "little")
    assert tried > 20


@pytest.mark.t1
@pytest.mark.slow
def test_unicorn_wycheproof(emu: Unicorn) -> None:
    """Every sixteenth of them in Unicorn."""
    for vector in x25519_wycheproof()[::16]:
        assert shared(emu, vector.private, vector.public) == vector.shared, vector
