"""SHA-256 with the SHA extensions gives NIST's digests, on one stream and on two, and the same without them."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Final

import pytest

from dsl.lang import Array, machine, u8
from dsl.std.sha256_bulk import EXTENSIONS, compress_extension, sha256_bulk, sha256_bulk_two, use_sha_extensions
from dsl.std.sha_constants import root_fractions
from tests.std.vectors import digests
from tests.worlds import CPython, Native, Unicorn, World

EDGES: Final = (0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 191, 192, 1000)
WORLDS: Final = [
    pytest.param(Native(), marks=pytest.mark.t1, id="native"),
    pytest.param(Unicorn(), marks=pytest.mark.t1, id="unicorn"),
]
worlds: Final = pytest.mark.parametrize("world", WORLDS)


@machine
def hash_one(digest: Array[u8], data: Array[u8]) -> bool:
    """Hash with what the processor has; whether that was the SHA extensions."""
    use_sha_extensions()
    sha256_bulk(digest, data)
    return EXTENSIONS.sha


@machine
def hash_two(first_digest: Array[u8], first: Array[u8], second_digest: Array[u8], second: Array[u8]) -> bool:
    """The same for two messages."""
    use_sha_extensions()
    sha256_bulk_two(first_digest, first, second_digest, second)
    return EXTENSIONS.sha


def one(world: World, message: bytes) -> bytes:
    """The digest of a message."""
    out = bytearray(32)
    world.call(hash_one, out, message)
    return bytes(out)


def two(world: World, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """The digests of two messages."""
    out, other = bytearray(32), bytearray(32)
    world.call(hash_two, out, first, other, second)
    return bytes(out), bytes(other)


@pytest.mark.t1
def test_the_extensions_are_taken_up_where_there_are_any() -> None:
    """This processor's are used natively; Unicorn has none, so there the general registers do the work."""
    flags = Path("/proc/cpuinfo").read_text().split()
    assert Native().call(hash_one, bytearray(32), b"") == ("sha_ni" in flags)
    assert Unicorn().call(hash_one, bytearray(32), b"") == 0


@pytest.mark.t1
@pytest.mark.parametrize("kind", ["Short", "Long"])
def test_native_nist(kind: str) -> None:
    """All of NIST's messages, alone and beside another."""
    vectors = digests(f"hashes/SHA2/SHA256{kind}Msg.rsp")
    before = vectors[0]
    for vector in vectors:
        assert one(Native(), vector.message) == vector.digest
        assert two(Native(), vector.message, before.message) == (vector.digest, before.digest)
        before = vector
    assert len(vectors) == (65 if kind == "Short" else 64)


@worlds
def test_edges_of_blocks(world: World) -> None:
    """Lengths around the places where blocks and padding change; every pair of some of them."""
    source = random.Random(7)
    messages = [source.randbytes(size) for size in EDGES]
    for message in messages:
        assert one(world, message) == hashlib.sha256(message).digest()
    for first in messages[::3]:
        for second in messages[1::4]:
            assert two(world, first, second) == (hashlib.sha256(first).digest(), hashlib.sha256(second).digest())


@pytest.mark.t1
@pytest.mark.parametrize("count", range(4))
def test_a_kernel_takes_as_many_blocks_as_it_is_given(count: int) -> None:
    """Also none; on its own, where the registers that it does not use hold other things."""
    if "sha_ni" not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("this processor has no SHA extensions")
    blocks, state = bytes(range(256))[: 64 * count], bytearray(range(32))
    expected = bytearray(state)
    constants = b"".join(word.to_bytes(4, "little") for word in root_fractions(3, 64, 32))
    CPython().call(compress_extension, expected, blocks, constants)
    Native().call(compress_extension, state, blocks, constants)
    assert state == expected


@pytest.mark.t0
def test_cpython() -> None:
    """What the kernels' bodies say is SHA-256 too."""
    state = bytearray(32)
    CPython().call(sha256_bulk, state, b"a" * 130)
    assert bytes(state) == hashlib.sha256(b"a" * 130).digest()
    other = bytearray(32)
    CPython().call(sha256_bulk_two, state, b"b" * 70, other, b"c" * 140)
    assert bytes(state) == hashlib.sha256(b"b" * 70).digest()
    assert bytes(other) == hashlib.sha256(b"c" * 140).digest()


@machine
def kernels_as_python(digest: Array[u8], data: Array[u8]) -> None:
    """Hash as if the processor had the extensions: under CPython the kernels' bodies, natively their bytes."""
    EXTENSIONS.sha = True
    sha256_bulk(digest, data)


@machine
def two_kernels_as_python(
    first_digest: Array[u8], first: Array[u8], second_digest: Array[u8], second: Array[u8]
) -> None:
    """The same for two messages."""
    EXTENSIONS.sha = True
    sha256_bulk_two(first_digest, first, second_digest, second)


@pytest.mark.t0
@pytest.mark.parametrize("size", [64, 65, 191])
def test_the_models_of_the_kernels(size: int) -> None:
    """What runs under CPython in a kernel's place gives the digest."""
    message, other = bytes(range(64)) * 3, bytes(200)
    out, second = bytearray(32), bytearray(32)
    CPython().call(kernels_as_python, out, message[:size])
    assert bytes(out) == hashlib.sha256(message[:size]).digest()
    CPython().call(two_kernels_as_python, out, message[:size], second, other)
    assert (bytes(out), bytes(second)) == (hashlib.sha256(message[:size]).digest(), hashlib.sha256(other).digest())
