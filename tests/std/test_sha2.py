"""SHA-256 and SHA-512 give the digests that NIST published, in every world."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from dsl.lang import size_of
from dsl.std.sha256 import Sha256, sha256, sha256_begin, sha256_finish, sha256_update
from dsl.std.sha512 import Sha512, sha512, sha512_begin, sha512_finish, sha512_update
from tests.std.vectors import digests, monte_carlo
from tests.worlds import CPython, Native, Unicorn, World


@dataclass(frozen=True)
class Hash:
    """One of the two, and what is known of it."""

    name: str
    size: int
    block: int
    short: int  # vectors in NIST's file
    long: int
    whole: Callable[..., Any]
    begin: Callable[..., Any]
    update: Callable[..., Any]
    finish: Callable[..., Any]
    struct: Any

    def digest(self, world: World, message: bytes) -> bytes:
        """The digest by one call."""
        out = bytearray(self.size)
        world.call(self.whole, out, message)
        return bytes(out)

    def stream(self, world: World, pieces: list[bytes]) -> bytes:
        """The digest of the pieces joined, one call each."""
        state, out = bytearray(size_of(self.struct)), bytearray(self.size)
        world.call(self.begin, state)
        for piece in pieces:
            world.call(self.update, state, piece)
        world.call(self.finish, out, state)
        return bytes(out)

    def vectors(self, kind: str) -> Any:
        """NIST's file of this kind."""
        return digests(f"hashes/SHA2/{self.name.upper()}{kind}Msg.rsp")


HASHES: Final = [
    Hash("sha256", 32, 64, 65, 64, sha256, sha256_begin, sha256_update, sha256_finish, Sha256),
    Hash("sha512", 64, 128, 129, 128, sha512, sha512_begin, sha512_update, sha512_finish, Sha512),
]
each_hash: Final = pytest.mark.parametrize("hash_", HASHES, ids=lambda hash_: hash_.name)


def edge_sizes(block: int) -> list[int]:
    """Sizes around the places where the padding changes."""
    return [0, 1, block - block // 8 - 1, block - block // 8, block - 1, block, block + 1, 2 * block]


@pytest.mark.t0
@each_hash
def test_cpython_at_the_edges_of_blocks(hash_: Hash) -> None:
    """Every case of the padding, against hashlib."""
    for size in edge_sizes(hash_.block):
        message = bytes(range(256))[:size]
        assert hash_.digest(CPython(), message) == hashlib.new(hash_.name, message).digest(), size


@pytest.mark.t0
@each_hash
def test_cpython_nist(hash_: Hash) -> None:
    """Every eighth short message of NIST."""
    vectors = hash_.vectors("Short")[::8]
    for vector in vectors:
        assert hash_.digest(CPython(), vector.message) == vector.digest
    assert len(vectors) == hash_.short // 8 + 1


@pytest.mark.t1
@each_hash
@pytest.mark.parametrize("kind", ["Short", "Long"])
def test_native_nist(hash_: Hash, kind: str) -> None:
    """All of NIST's messages."""
    vectors = hash_.vectors(kind)
    for vector in vectors:
        assert hash_.digest(Native(), vector.message) == vector.digest
    assert len(vectors) == (hash_.short if kind == "Short" else hash_.long)


@pytest.mark.t1
@each_hash
def test_native_monte_carlo(hash_: Hash) -> None:
    """The first ten of NIST's hundred checkpoints, a thousand digests of digests each."""
    seed, checkpoints = monte_carlo(f"hashes/SHA2/{hash_.name.upper()}Monte.rsp")
    assert len(checkpoints) == 100
    for checkpoint in checkpoints[:10]:
        last = [seed, seed, seed]
        for _ in range(1000):
            last = [*last[1:], hash_.digest(Native(), b"".join(last))]
        seed = last[-1]
        assert seed == checkpoint


@pytest.mark.t1
@each_hash
def test_unicorn_nist(hash_: Hash, emu: Unicorn) -> None:
    """The same bytes in Unicorn, every eighth short message."""
    vectors = hash_.vectors("Short")[::8]
    for vector in vectors:
        assert hash_.digest(emu, vector.message) == vector.digest
    assert len(vectors) == hash_.short // 8 + 1


@pytest.mark.t1
@each_hash
def test_native_stream_in_any_pieces(hash_: Hash) -> None:
    """However a message is cut, the digest is that of the whole; empty pieces are allowed."""
    source = random.Random(1)
    for _ in range(200):
        pieces = [
            source.randbytes(source.choice([0, 1, hash_.block - 1, hash_.block, source.randrange(400)]))
            for _ in range(5)
        ]
        assert hash_.stream(Native(), pieces) == hashlib.new(hash_.name, b"".join(pieces)).digest()


@pytest.mark.t0
@each_hash
def test_cpython_stream(hash_: Hash) -> None:
    """Pieces that end inside, at and after a block."""
    pieces = [b"", b"a" * (hash_.block - 1), b"b", b"c" * (2 * hash_.block + 3), b"d"]
    assert hash_.stream(CPython(), pieces) == hashlib.new(hash_.name, b"".join(pieces)).digest()


@pytest.mark.t1
@pytest.mark.parametrize(("hash_", "limit"), [(HASHES[0], 47.0), (HASHES[1], 30.0)], ids=["sha256", "sha512"])
def test_instructions_per_byte(hash_: Hash, limit: float, emu: Unicorn) -> None:
    """What one byte of a long message costs stays below the limit."""
    hash_.digest(emu, bytes(8192))
    most = emu.instructions
    hash_.digest(emu, bytes(4096))
    assert (most - emu.instructions) / 4096 < limit
