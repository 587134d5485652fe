"""Ed25519 (RFC 8032, 5.1): keys from seeds, deterministic signatures, strict verification.

All of it is constant-time but verification, which sees public data alone.
Verification is strict and without cofactor: S below L, A canonical and of prime order (a key with a part of small order would take
signatures that nobody made, or take them by one verifier's formula only), R = S B - k A byte for byte.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Secret,
    as_secret,
    declassify,
    declassify_array,
    frame_array,
    machine,
    u8,
    u64,
)
from dsl.std.edwards25519 import (
    Addend,
    Point,
    multiply_base,
    multiply_two_public,
    point_add,
    point_decode,
    point_encode,
    point_is_identity,
    point_negate,
    point_prepare,
)
from dsl.std.field25519 import encodings_equal
from dsl.std.scalar25519 import (
    DIGIT_COUNT,
    ORDER_WORDS,
    scalar_digits,
    scalar_is_reduced,
    scalar_load,
    scalar_multiply_add,
    scalar_reduce_hash,
    scalar_store,
)
from dsl.std.sha512 import Sha512, sha512, sha512_begin, sha512_finish, sha512_update
from dsl.std.wipe import WIPED_SIZE

SEED_SIZE: Final = 32
PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64


@machine
def expand_seed(digest: Array[Secret[u8]], seed: Array[Secret[u8]]) -> None:
    """Set digest to the SHA-512 of a 32-byte seed: the scalar, clamped, then the prefix of the nonce, 32 bytes each."""
    sha512(digest, seed)
    digest[0] &= 0xF8
    digest[31] = (digest[31] & 0x7F) | 0x40


@machine
def encode_base_multiple(encoded: Array[Secret[u8]], scalar: Array[Secret[u64]]) -> None:
    """Set encoded to the scalar, below 2**255, times the base point."""
    point = Point()
    multiply_base(point, scalar)
    point_encode(encoded, point)


@machine(wipes=WIPED_SIZE)
def ed25519_public_key(public_key: Array[u8], seed: Array[Secret[u8]]) -> None:
    """Write the 32-byte public key of a 32-byte seed."""
    expanded = frame_array(Secret[u8], 64)
    expand_seed(expanded, seed)
    scalar = frame_array(Secret[u64], 4)
    scalar_load(scalar, expanded.slice(0, 32))
    encode_base_multiple(as_secret(public_key), scalar)


@machine
def hash_challenge(out: Array[Secret[u64]], point: Array[u8], public_key: Array[u8], message: Array[u8]) -> None:
    """Set out to SHA-512(R | A | message) modulo L."""
    stream = Sha512()
    sha512_begin(stream)
    sha512_update(stream, as_secret(point))
    sha512_update(stream, as_secret(public_key))
    sha512_update(stream, as_secret(message))
    digest = frame_array(Secret[u8], 64)
    sha512_finish(digest, stream)
    scalar_reduce_hash(out, digest)


@machine
def hash_nonce(out: Array[Secret[u64]], prefix: Array[Secret[u8]], message: Array[u8]) -> None:
    """Set out to SHA-512(prefix | message) modulo L."""
    stream = Sha512()
    sha512_begin(stream)
    sha512_update(stream, prefix)
    sha512_update(stream, as_secret(message))
    digest = frame_array(Secret[u8], 64)
    sha512_finish(digest, stream)
    scalar_reduce_hash(out, digest)


@machine(wipes=WIPED_SIZE)
def ed25519_sign(signature: Array[u8], message: Array[u8], seed: Array[Secret[u8]], public_key: Array[u8]) -> None:
    """Write the 64-byte signature of message. public_key must be that of seed: another one would give the scalar away."""
    expanded = frame_array(Secret[u8], 64)
    expand_seed(expanded, seed)
    nonce = frame_array(Secret[u64], 4)
    hash_nonce(nonce, expanded.slice(32, 32), message)
    encode_base_multiple(as_secret(signature.slice(0, 32)), nonce)
    challenge = frame_array(Secret[u64], 4)
    hash_challenge(challenge, signature.slice(0, 32), public_key, message)
    scalar = frame_array(Secret[u64], 4)
    scalar_load(scalar, expanded.slice(0, 32))
    proof = frame_array(Secret[u64], 4)
    scalar_multiply_add(proof, challenge, scalar, nonce)
    scalar_store(as_secret(signature.slice(32, 32)), proof)


@machine
def ed25519_verify(public_key: Array[u8], message: Array[u8], signature: Array[u8]) -> bool:
    """Whether signature (64 bytes) is public_key's (32 bytes) over message."""
    if public_key.length != PUBLIC_KEY_SIZE or signature.length != SIGNATURE_SIZE:
        return False
    proof = frame_array(Secret[u64], 4)
    scalar_load(proof, as_secret(signature.slice(32, 32)))
    if declassify(scalar_is_reduced(proof), "half of a public signature") == 0:
        return False
    key = Point()
    if not point_decode(key, public_key) or point_is_identity(key):
        return False
    point_negate(key)
    challenge = frame_array(Secret[u64], 4)
    hash_challenge(challenge, signature.slice(0, 32), public_key, message)
    challenge_digits = frame_array(u8, DIGIT_COUNT)
    scalar_digits(challenge_digits, declassify_array(challenge, "hash of a public message"))
    order_digits = frame_array(u8, DIGIT_COUNT)
    scalar_digits(order_digits, ORDER_WORDS)
    challenged = Point()
    neutral = Point()
    multiply_two_public(challenged, neutral, key, challenge_digits, order_digits)
    if not point_is_identity(neutral):
        return False
    expected = Point()
    multiply_base(expected, proof)
    addend = Addend()
    point_prepare(addend, challenged)
    point_add(expected, expected, addend)
    encoded = frame_array(Secret[u8], 32)
    point_encode(encoded, expected)
    equal = encodings_equal(encoded, as_secret(signature.slice(0, 32)))
    return declassify(equal, "verdict on a public signature") == 1
