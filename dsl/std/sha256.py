"""SHA-256 (FIPS 180-4) of public data: one call, or a stream of pieces."""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Record,
    Struct,
    array,
    frame_array,
    machine,
    minimum,
    rotate_right,
    table,
    u8,
    u32,
    u64,
    upto,
)
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


class Working(Record):
    """The working variables of FIPS 180-4, 6.2.2, and b ^ c, which the next majority needs again."""

    a: u32
    b: u32
    c: u32
    d: u32
    e: u32
    f: u32
    g: u32
    h: u32
    b_xor_c: u32


@machine
def step(v: Working, word: u32, constant: u32) -> Working:
    """One round, with its word of the schedule and its constant.

    Sums of rotations are nested (fewer instructions), majority is b ^ ((a ^ b) & (b ^ c)).
    """
    e_mix = rotate_right(rotate_right(rotate_right(v.e, 14) ^ v.e, 5) ^ v.e, 6)
    a_mix = rotate_right(rotate_right(rotate_right(v.a, 9) ^ v.a, 11) ^ v.a, 2)
    first = v.h + word + constant + (((v.f ^ v.g) & v.e) ^ v.g) + e_mix
    a_xor_b = v.a ^ v.b
    second = a_mix + ((a_xor_b & v.b_xor_c) ^ v.b)
    return Working(first + second, v.a, v.b, v.c, v.d + first, v.e, v.f, v.g, a_xor_b)


@machine
def sixteen_steps(start: Working, words: Array[u32], constants: Array[u32]) -> Working:
    """Sixteen rounds on sixteen words of the schedule."""
    v = step(start, words[0], constants[0])
    v = step(v, words[1], constants[1])
    v = step(v, words[2], constants[2])
    v = step(v, words[3], constants[3])
    v = step(v, words[4], constants[4])
    v = step(v, words[5], constants[5])
    v = step(v, words[6], constants[6])
    v = step(v, words[7], constants[7])
    v = step(v, words[8], constants[8])
    v = step(v, words[9], constants[9])
    v = step(v, words[10], constants[10])
    v = step(v, words[11], constants[11])
    v = step(v, words[12], constants[12])
    v = step(v, words[13], constants[13])
    v = step(v, words[14], constants[14])
    return step(v, words[15], constants[15])


@machine
def next_word(oldest: u32, second: u32, tenth: u32, fifteenth: u32) -> u32:
    """The schedule's next word from those 16, 15, 7 and 2 places before."""
    low = rotate_right(rotate_right(second, 11) ^ second, 7) ^ (second >> 3)
    high = rotate_right(rotate_right(fifteenth, 2) ^ fifteenth, 17) ^ (fifteenth >> 10)
    return oldest + low + tenth + high


@machine
def next_sixteen_words(words: Array[u32]) -> None:
    """Replace sixteen words of the schedule by the next sixteen, in place."""
    words[0] = next_word(words[0], words[1], words[9], words[14])
    words[1] = next_word(words[1], words[2], words[10], words[15])
    words[2] = next_word(words[2], words[3], words[11], words[0])
    words[3] = next_word(words[3], words[4], words[12], words[1])
    words[4] = next_word(words[4], words[5], words[13], words[2])
    words[5] = next_word(words[5], words[6], words[14], words[3])
    words[6] = next_word(words[6], words[7], words[15], words[4])
    words[7] = next_word(words[7], words[8], words[0], words[5])
    words[8] = next_word(words[8], words[9], words[1], words[6])
    words[9] = next_word(words[9], words[10], words[2], words[7])
    words[10] = next_word(words[10], words[11], words[3], words[8])
    words[11] = next_word(words[11], words[12], words[4], words[9])
    words[12] = next_word(words[12], words[13], words[5], words[10])
    words[13] = next_word(words[13], words[14], words[6], words[11])
    words[14] = next_word(words[14], words[15], words[7], words[12])
    words[15] = next_word(words[15], words[0], words[8], words[13])


@machine
def load_words(words: Array[u32], block: Array[u8]) -> None:
    """Read a block as sixteen big-endian words."""
    words[0] = block.load_be32(0)
    words[1] = block.load_be32(4)
    words[2] = block.load_be32(8)
    words[3] = block.load_be32(12)
    words[4] = block.load_be32(16)
    words[5] = block.load_be32(20)
    words[6] = block.load_be32(24)
    words[7] = block.load_be32(28)
    words[8] = block.load_be32(32)
    words[9] = block.load_be32(36)
    words[10] = block.load_be32(40)
    words[11] = block.load_be32(44)
    words[12] = block.load_be32(48)
    words[13] = block.load_be32(52)
    words[14] = block.load_be32(56)
    words[15] = block.load_be32(60)


@machine
def compress(state: Array[u32], blocks: Array[u8]) -> None:
    """Mix whole blocks into the state; blocks.length is a multiple of 64."""
    words = frame_array(u32, 16)
    for index in upto(blocks.length // BLOCK_SIZE):
        load_words(words, blocks.slice(index * BLOCK_SIZE, BLOCK_SIZE))
        v = Working(state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7], state[1] ^ state[2])
        constants = ROUND_CONSTANTS.slice(0, 64)
        for group in upto(4):
            if group > 0:
                next_sixteen_words(words)
            v = sixteen_steps(v, words, constants.slice(0, 16))
            constants = constants.slice(16, constants.length - 16)
        state[0] += v.a
        state[1] += v.b
        state[2] += v.c
        state[3] += v.d
        state[4] += v.e
        state[5] += v.f
        state[6] += v.g
        state[7] += v.h


@machine
def sha256_begin(stream: Sha256) -> None:
    """Start a hash of nothing yet."""
    stream.state.copy_from(INITIAL_STATE)
    stream.length = u64(0)


@machine
def sha256_update(stream: Sha256, data: Array[u8]) -> None:
    """Take more bytes; data may lie anywhere but in the stream itself."""
    filled = stream.length % BLOCK_SIZE
    stream.length += data.length
    taken = u64(0)
    if filled > 0:
        taken = minimum(BLOCK_SIZE - filled, data.length)
        stream.block.slice(filled, taken).copy_from(data.slice(0, taken))
        if filled + taken < BLOCK_SIZE:
            return
        compress(stream.state, stream.block)
    whole = (data.length - taken) // BLOCK_SIZE * BLOCK_SIZE
    compress(stream.state, data.slice(taken, whole))
    rest = data.length - taken - whole
    stream.block.slice(0, rest).copy_from(data.slice(taken + whole, rest))


@machine
def sha256_finish(digest: Array[u8], stream: Sha256) -> None:
    """Write the 32-byte digest; the stream is used up."""
    filled = stream.length % BLOCK_SIZE
    stream.block[filled] = u8(0x80)
    stream.block.slice(filled + 1, BLOCK_SIZE - 1 - filled).fill(u8(0))
    if filled >= LENGTH_OFFSET:
        compress(stream.state, stream.block)
        stream.block.fill(u8(0))
    stream.block.store_be64(LENGTH_OFFSET, stream.length << 3)
    compress(stream.state, stream.block)
    for index in upto(8):
        digest.store_be32(index * 4, stream.state[index])


@machine
def sha256(digest: Array[u8], data: Array[u8]) -> None:
    """Write the 32-byte digest of data."""
    stream = Sha256()
    sha256_begin(stream)
    sha256_update(stream, data)
    sha256_finish(digest, stream)
