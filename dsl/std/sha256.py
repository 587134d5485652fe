"""SHA-256 (FIPS 180-4) of public data: one call, or a stream of pieces."""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Struct,
    array,
    as_secret,
    machine,
    table,
    u8,
    u32,
    u64,
    upto,
)
from dsl.std.sha_blocks import compress_in_python, fill_block, pad_block
from dsl.std.sha_constants import root_fractions

BLOCK_SIZE: Final = 64
DIGEST_SIZE: Final = 32
LENGTH_OFFSET: Final = 56  # in the last block: the length in bits, big-endian
INITIAL_STATE: Final = table(u32, root_fractions(2, 8, 32))
ROUND_CONSTANTS: Final = table(u32, root_fractions(3, 64, 32))


class Sha256(Struct, size=104):
    """A hash under way: the caller's. Bytes that fill no block yet wait in `block`."""

    state: Array[u32] = array(8)
    block: Array[u8] = array(64)
    length: u64  # bytes taken so far


class Schedule(Struct):
    """Room for the 64 words that a block expands to."""

    words: Array[u32] = array(64)


@machine(kernel="dsl.std.kernels.sha2.compress256")
def compress(state: Array[u32], schedule: Schedule, block: Array[u8], constants: Array[u32]) -> None:
    """Mix one block into the state."""
    compress_in_python(32, state, schedule, block, constants)


@machine
def compress_blocks(state: Array[u32], blocks: Array[u8]) -> None:
    """Mix whole blocks into the state; what is left of less than a block is not looked at."""
    schedule = Schedule()
    for index in upto(blocks.length // BLOCK_SIZE):
        compress(state, schedule, blocks.slice(index * BLOCK_SIZE, BLOCK_SIZE), ROUND_CONSTANTS)


@machine
def sha256_begin(stream: Sha256) -> None:
    """Start a hash of nothing yet."""
    stream.state.copy_from(INITIAL_STATE)
    stream.length = u64(0)


@machine
def take_blocks(stream: Sha256, data: Array[u8]) -> None:
    """Mix whole blocks into the state and keep the rest; no bytes of earlier data wait in the stream."""
    compress_blocks(stream.state, data)
    rest = data.slice(data.length // BLOCK_SIZE * BLOCK_SIZE, data.length % BLOCK_SIZE)
    stream.block.slice(0, rest.length).copy_from(rest)


@machine
def sha256_update(stream: Sha256, data: Array[u8]) -> None:
    """Take more bytes; data may lie anywhere but in the stream itself."""
    filled = stream.length % BLOCK_SIZE
    stream.length += data.length
    taken = u64(0)
    if filled > 0:
        taken = fill_block(as_secret(stream.block), filled, as_secret(data))
        if filled + taken < BLOCK_SIZE:
            return
        compress_blocks(stream.state, stream.block)
    take_blocks(stream, data.slice(taken, data.length - taken))


@machine
def sha256_finish(digest: Array[u8], stream: Sha256) -> None:
    """Write the 32-byte digest; the stream is used up."""
    filled = stream.length % BLOCK_SIZE
    pad_block(as_secret(stream.block), filled)
    if filled >= LENGTH_OFFSET:
        compress_blocks(stream.state, stream.block)
        stream.block.fill(u8(0))
    stream.block.store_be64(LENGTH_OFFSET, stream.length << 3)
    compress_blocks(stream.state, stream.block)
    for index in upto(8):
        digest.store_be32(index * 4, stream.state[index])


@machine
def sha256(digest: Array[u8], data: Array[u8]) -> None:
    """Write the 32-byte digest of data."""
    stream = Sha256()
    sha256_begin(stream)
    stream.length = data.length
    take_blocks(stream, data)
    sha256_finish(digest, stream)
