"""SHA-512 (FIPS 180-4) of secret data, in constant time: one call, or a stream of pieces.

Public data is viewed with as_secret, and the digest with declassify_array. Lengths are public.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Secret,
    Struct,
    array,
    as_secret,
    machine,
    secret,
    table,
    u8,
    u64,
    upto,
)
from dsl.std.sha_blocks import compress_in_python, fill_block, pad_block
from dsl.std.sha_constants import root_fractions

BLOCK_SIZE: Final = 128
BLOCKS_MOST: Final = 128  # whole blocks that one call takes
DIGEST_SIZE: Final = 64
LENGTH_OFFSET: Final = 112  # in the last block: the length in bits, 16 bytes, big-endian
INITIAL_STATE: Final = table(u64, root_fractions(2, 8, 64))
ROUND_CONSTANTS: Final = table(u64, root_fractions(3, 80, 64))


class Sha512(Struct, size=200):
    """A hash under way: the caller's. Bytes that fill no block yet wait in `block`."""

    state: Array[Secret[u64]] = array(8)
    block: Array[Secret[u8]] = array(128)
    length: u64  # bytes taken so far


class Schedule(Struct):
    """Room for the 80 words that a block expands to."""

    words: Array[Secret[u64]] = array(80)


@machine(kernel="dsl.std.kernels.sha2.compress512")
def compress(state: Array[Secret[u64]], schedule: Schedule, block: Array[Secret[u8]], constants: Array[u64]) -> None:
    """Mix one block into the state."""
    compress_in_python(64, state, schedule, block, constants)


@machine
def sha512_begin(stream: Sha512) -> None:
    """Start a hash of nothing yet in a new stream, all zero so far."""
    stream.state.copy_from(as_secret(INITIAL_STATE))


@machine
def take_blocks(stream: Sha512, data: Array[Secret[u8]]) -> None:
    """Mix whole blocks into the state and keep the rest; no bytes of earlier data wait in the stream."""
    schedule = Schedule()
    count = data.length // BLOCK_SIZE
    for index in upto(count, at_most=BLOCKS_MOST):
        compress(stream.state, schedule, data.slice(index * BLOCK_SIZE, BLOCK_SIZE), ROUND_CONSTANTS)
    rest = data.slice(count * BLOCK_SIZE, data.length % BLOCK_SIZE)
    stream.block.slice(0, rest.length).copy_from(rest)


@machine
def sha512_update(stream: Sha512, data: Array[Secret[u8]]) -> None:
    """Take more bytes, at most BLOCKS_MOST blocks; data may lie anywhere but in the stream itself."""
    filled = stream.length % BLOCK_SIZE
    stream.length += data.length
    taken = u64(0)
    if filled > 0:
        taken = fill_block(stream.block, filled, data)
        if filled + taken < BLOCK_SIZE:
            return
        compress(stream.state, Schedule(), stream.block, ROUND_CONSTANTS)
    take_blocks(stream, data.slice(taken, data.length - taken))


@machine
def sha512_finish(digest: Array[Secret[u8]], stream: Sha512) -> None:
    """Write the 64-byte digest; the stream is used up."""
    schedule = Schedule()
    filled = stream.length % BLOCK_SIZE
    pad_block(stream.block, filled)
    if filled >= LENGTH_OFFSET:
        compress(stream.state, schedule, stream.block, ROUND_CONSTANTS)
        stream.block.fill(secret(u8(0)))
    # The length field has 128 bits; its upper half is zero: no message has 2**61 bytes.
    stream.block.store_be64(LENGTH_OFFSET + 8, secret(stream.length << 3))
    compress(stream.state, schedule, stream.block, ROUND_CONSTANTS)
    for index in upto(8):
        digest.store_be64(index * 8, stream.state[index])


@machine
def sha512(digest: Array[Secret[u8]], data: Array[Secret[u8]]) -> None:
    """Write the 64-byte digest of data, at most BLOCKS_MOST blocks."""
    stream = Sha512()
    sha512_begin(stream)
    stream.length = data.length
    take_blocks(stream, data)
    sha512_finish(digest, stream)
