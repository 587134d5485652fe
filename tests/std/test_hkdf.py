"""HMAC-SHA-512 and HKDF-SHA-512 give the published results, in every world."""

from __future__ import annotations

import hmac as host_hmac

import pytest

from dsl.std.hkdf import hkdf, hmac
from tests.std.vectors import Expansion, hkdf_sha512, hmac_sha512
from tests.worlds import CPython, Native, Unicorn, World


def hmac_of(world: World, key: bytes, message: bytes) -> bytes:
    """The 64-byte code."""
    out = bytearray(64)
    world.call(hmac, out, key, message)
    return bytes(out)


def hkdf_of(world: World, vector: Expansion) -> bytes:
    """As much output as the vector has."""
    out = bytearray(len(vector.output))
    world.call(hkdf, out, vector.secret_input, vector.salt, vector.information)
    return bytes(out)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPython(), marks=pytest.mark.t0, id="cpython"),
        pytest.param(Native(), marks=pytest.mark.t1, id="native"),
        pytest.param(Unicorn(), marks=pytest.mark.t1, id="unicorn"),
    ],
)
def test_hmac_rfc_4231(world: World) -> None:
    """All six; the fifth prints only the first 128 bits."""
    vectors = hmac_sha512()
    for vector in vectors:
        assert hmac_of(world, vector.key, vector.message)[: len(vector.code)] == vector.code
    assert sorted(len(vector.code) for vector in vectors) == [64] * 6


@pytest.mark.t1
def test_hmac_of_keys_and_messages_of_every_length() -> None:
    """From nothing to more than a block; the library of the host says what comes out."""
    lengths = (0, 1, 2, 63, 64, 65, 111, 112, 127, 128, 129, 200)
    for key in lengths:
        for message in lengths:
            secret, text = bytes(range(1, key + 1)), bytes(range(message))[::-1]
            assert hmac_of(Native(), secret, text) == host_hmac.digest(secret, text, "sha512"), (key, message)


@pytest.mark.t1
def test_hkdf_of_salts_and_inputs_of_every_length() -> None:
    """From nothing to more than a block of the hash, by RFC 5869 over the host's HMAC."""
    for salt_length in (0, 1, 64, 127, 128, 129, 200):
        for length in (0, 1, 128, 129):
            salt, secret, information = bytes(range(salt_length)), bytes(range(length))[::-1], bytes(range(length // 2))
            key = host_hmac.digest(salt, secret, "sha512")
            for size in (0, 1, 32, 63, 64):
                expected = host_hmac.digest(key, information + b"\x01", "sha512")[:size]
                assert hkdf_of(Native(), Expansion(secret, salt, information, expected)) == expected, (
                    salt_length,
                    length,
                )


def one_block() -> list[Expansion]:
    """Wycheproof's that ask for no more than a block."""
    return [vector for vector in hkdf_sha512() if len(vector.output) <= 64]


@pytest.mark.t0
def test_hkdf_cpython() -> None:
    """The first five of Wycheproof's, an empty salt among them."""
    vectors = one_block()[:5]
    for vector in vectors:
        assert hkdf_of(CPython(), vector) == vector.output
    assert len(vectors) == 5
    assert not all(vector.salt for vector in vectors)


@pytest.mark.t1
def test_hkdf_native() -> None:
    """All of Wycheproof's that have an output of a block or less."""
    vectors = one_block()
    for vector in vectors:
        assert hkdf_of(Native(), vector) == vector.output
    assert len(vectors) == 72
    assert max(len(vector.output) for vector in vectors) == 64


@pytest.mark.t0
def test_hkdf_refuses_more_than_a_block() -> None:
    """One byte more stops the machine."""
    with pytest.raises(AssertionError, match="one block"):
        CPython().call(hkdf, bytearray(65), b"key", b"salt", b"information")
