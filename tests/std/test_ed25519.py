"""Ed25519 keys, signatures and refusals are those of the published vectors, in every world."""

from __future__ import annotations

import hashlib
from typing import Final

import pytest

from dsl.std.ed25519 import ed25519_public_key, ed25519_sign, ed25519_verify
from dsl.std.edwards25519 import elements_equal, point_decode, point_encode, recover_x
from dsl.std.edwards25519_tables import ROOT_OF_MINUS_ONE, Affine, D, add, base_point
from dsl.std.scalar25519 import ORDER
from tests.std.inside import places
from tests.std.vectors import Signature, ed25519_signatures, ed25519_wycheproof
from tests.worlds import CPython, Native, Unicorn, World

PRIME: Final = 2**255 - 19


def public_key_of(world: World, seed: bytes) -> bytes:
    """The public key of a seed."""
    out = bytearray(32)
    world.call(ed25519_public_key, out, seed)
    return bytes(out)


def signature_of(world: World, vector: Signature) -> bytes:
    """The signature that the vector's seed makes."""
    assert vector.seed is not None
    out = bytearray(64)
    world.call(ed25519_sign, out, vector.message, vector.seed, vector.public_key)
    return bytes(out)


def is_accepted(world: World, vector: Signature) -> bool:
    """What verification says."""
    return world.call(ed25519_verify, vector.public_key, vector.message, vector.signature) == 1


@pytest.mark.slow
@pytest.mark.t0
def test_cpython_signs_and_verifies() -> None:
    """Three reference signatures, made again, and one verified."""
    for vector in ed25519_signatures()[:3]:
        assert vector.seed is not None
        assert public_key_of(CPython(), vector.seed) == vector.public_key
        assert signature_of(CPython(), vector) == vector.signature
    assert is_accepted(CPython(), vector)


@pytest.mark.t1
@pytest.mark.parametrize("some", [slice(8), slice(8, 1024)], ids=["few", "all"])
def test_native_reference_signatures(some: slice) -> None:
    """All 1024 reference signatures: the key, the signature, its acceptance, and the refusal of a changed message."""
    vectors = ed25519_signatures()
    for vector in vectors[some]:
        assert vector.seed is not None
        assert public_key_of(Native(), vector.seed) == vector.public_key
        assert signature_of(Native(), vector) == vector.signature
        assert is_accepted(Native(), vector)
        changed = Signature(vector.public_key, vector.message + b"\0", vector.signature, False)
        assert not is_accepted(Native(), changed)
    assert len(vectors) == 1024


@pytest.mark.t1
def test_native_wycheproof() -> None:
    """All of Wycheproof's, valid and invalid."""
    vectors = ed25519_wycheproof()
    for vector in vectors:
        assert is_accepted(Native(), vector) == vector.valid, vector.comment
    assert (len(vectors), sum(vector.valid for vector in vectors)) == (210, 117)


@pytest.mark.t1
def test_unicorn_signs_and_verifies(emu: Unicorn) -> None:
    """Four reference signatures with the emitted bytes in Unicorn."""
    for vector in ed25519_signatures()[:4]:
        assert signature_of(emu, vector) == vector.signature
        assert is_accepted(emu, vector)


IDENTITY: Final = (1).to_bytes(32, "little")  # y = 1
ENCODINGS: Final = {  # and whether they are points
    "identity": (IDENTITY, True),
    "order 2": ((PRIME - 1).to_bytes(32, "little"), True),
    "y = 1 + p": ((PRIME + 1).to_bytes(32, "little"), False),
    "y = p": (PRIME.to_bytes(32, "little"), False),
    "x = 0 with the sign": ((1 | 1 << 255).to_bytes(32, "little"), False),
    "x = 0 with the sign, order 2": ((PRIME - 1 | 1 << 255).to_bytes(32, "little"), False),
    "off the curve": ((2).to_bytes(32, "little"), False),
}
worlds: Final = pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPython(), marks=pytest.mark.t0, id="cpython"),
        pytest.param(Native(), marks=pytest.mark.t1, id="native"),
    ],
)


@worlds
@pytest.mark.parametrize("name", ENCODINGS)
def test_one_encoding_a_point(world: World, name: str) -> None:
    """Only the canonical encoding of a point on the curve is taken; it comes back when it is encoded again."""
    encoded, is_point = ENCODINGS[name]
    point, again = bytearray(128), bytearray(32)
    assert world.call(point_decode, point, encoded) == is_point
    if is_point:
        world.call(point_encode, again, bytes(point))
        assert bytes(again) == encoded


@pytest.mark.t1
def test_x_is_recovered_where_there_is_one() -> None:
    """For numbers of every kind as y: the square is (y^2 - 1) / (d y^2 + 1) modulo p; where no root is, that is said."""
    kinds = set()
    for number in [
        *range(40),
        PRIME - 1,
        PRIME,
        (1 << 255) - 1,
        (1 << 256) - 1,
        *(7**power for power in range(60, 90)),
    ]:
        y = number % (1 << 256)
        square = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
        has_root = pow(square, (PRIME - 1) // 2, PRIME) in (0, 1)
        for world in places(recover_x):
            x = bytearray(32)
            assert world.call(recover_x, x, y.to_bytes(32, "little")) == has_root, number
            assert not has_root or (int.from_bytes(x, "little") ** 2 - square) % PRIME == 0, number
        kinds |= {pow(square, (PRIME - 1) // 4, PRIME)} if has_root else set()
    assert kinds == {0, 1, PRIME - 1}, "each way to a root was taken"


@pytest.mark.t1
def test_equality_is_that_of_numbers_modulo_p() -> None:
    """Two spellings of one number are equal; a difference anywhere is seen."""
    for number in (0, 1, 18, 1 << 200):
        for left, right in ((number, number + PRIME), (number + PRIME, number), (number, number)):
            assert Native().call(elements_equal, left.to_bytes(32, "little"), right.to_bytes(32, "little"))
    for bit in range(255):
        for number in (0, PRIME - 5 ^ 1 << 100):
            other = number ^ 1 << bit
            assert not Native().call(elements_equal, number.to_bytes(32, "little"), other.to_bytes(32, "little"))


def forgeries() -> dict[str, Signature]:
    """Signatures that a lax verifier takes: a second S, keys of small order, wrong sizes."""
    good = ed25519_signatures()[1]
    scalar = int.from_bytes(good.signature[32:], "little")
    second = good.signature[:32] + (scalar + ORDER).to_bytes(32, "little")
    trivial = IDENTITY + bytes(32)  # R neutral, S zero
    return {
        "S + L": Signature(good.public_key, good.message, second, False),
        "neutral key": Signature(IDENTITY, b"", trivial, False),
        "key of order 2": Signature(ENCODINGS["order 2"][0], b"", trivial, False),
        "short key": Signature(good.public_key[:31], good.message, good.signature, False),
        "long signature": Signature(good.public_key, good.message, good.signature + b"\0", False),
        "no signature": Signature(good.public_key, good.message, b"", False),
    }


@worlds
@pytest.mark.parametrize("name", forgeries())
def test_strictness(world: World, name: str) -> None:
    """Each is refused."""
    assert not is_accepted(world, forgeries()[name])


def encode(point: Affine) -> bytes:
    """A point's 32 bytes."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def times(scalar: int, point: Affine) -> Affine:
    """A multiple of a point."""
    total = (0, 1)
    while scalar:
        total = add(total, point) if scalar & 1 else total
        point, scalar = add(point, point), scalar >> 1
    return total


def signature_by_mixed_key(torsion: Affine, order: int) -> Signature:
    """A signature that satisfies S B = R + k A, by a key A that has a part of small order: k is a multiple of that order."""
    secret, nonce = 0x1234567890ABCDEF << 100, 0xFEDCBA0987654321 << 90
    key, commitment = encode(add(times(secret, base_point()), torsion)), encode(times(nonce, base_point()))
    for number in range(1000):
        message = number.to_bytes(2, "little")
        challenge = int.from_bytes(hashlib.sha512(commitment + key + message).digest(), "little") % ORDER
        if challenge % order == 0:
            proof = (nonce + challenge * secret) % ORDER
            return Signature(key, message, commitment + proof.to_bytes(32, "little"), False)
    raise AssertionError("a thousand messages, and no such challenge")


@pytest.mark.t1
@pytest.mark.parametrize("order", [1, 2, 4])
def test_a_key_has_prime_order(order: int) -> None:
    """The equation holds for each of these keys; one with a part of order 2 or 4 is refused all the same, a good one is taken."""
    torsion = {1: (0, 1), 2: (0, PRIME - 1), 4: (ROOT_OF_MINUS_ONE, 0)}[order]
    assert times(order, torsion) == (0, 1)
    assert is_accepted(Native(), signature_by_mixed_key(torsion, order)) == (order == 1)


@pytest.mark.t1
def test_a_proof_that_is_not_reduced_is_refused_at_once(emu: Unicorn) -> None:
    """S from L on, before the key is looked at, which is none here; at a distance of each word from L, and of one."""
    near = {ORDER + sign * (1 << bit) for bit in (0, 63, 64, 127, 128, 191, 192, 251) for sign in (1, -1)}
    counts: dict[bool, set[int]] = {True: set(), False: set()}
    for scalar in near | {0, ORDER, 1 << 252, (1 << 256) - 1, 1 << 255}:
        signature = bytes(32) + scalar.to_bytes(32, "little")
        assert not is_accepted(emu, Signature(ENCODINGS["y = p"][0], b"", signature, False))
        counts[scalar < ORDER].add(emu.instructions)
    assert len(counts[True]) == len(counts[False]) == 1
    assert counts[True] != counts[False]


@pytest.mark.t1
@pytest.mark.parametrize("name", [name for name, (_, is_point) in ENCODINGS.items() if not is_point])
def test_a_key_that_is_no_point_is_refused_at_once(name: str, emu: Unicorn) -> None:
    """Before anything is multiplied: a good signature takes twenty times as many instructions."""
    good = ed25519_signatures()[1]
    assert is_accepted(emu, good)
    whole = emu.instructions
    assert not is_accepted(emu, Signature(ENCODINGS[name][0], good.message, good.signature, False))
    assert emu.instructions < whole // 20


@pytest.mark.t1
def test_every_bit_of_a_signature_counts() -> None:
    """One flipped bit anywhere in signature or key is refused."""
    good = ed25519_signatures()[5]
    for bit in range(64 * 8):
        wrong = bytearray(good.signature)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not is_accepted(Native(), Signature(good.public_key, good.message, bytes(wrong), False))
    for bit in range(32 * 8):
        wrong = bytearray(good.public_key)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not is_accepted(Native(), Signature(bytes(wrong), good.message, good.signature, False))


@pytest.mark.t1
def test_instruction_counts(emu: Unicorn) -> None:
    """Signing and verifying a certificate's size of bytes stay below their limits."""
    vector = ed25519_signatures()[600]
    signature_of(emu, vector)
    assert emu.instructions < 200_000
    is_accepted(emu, vector)
    assert emu.instructions < 600_000
