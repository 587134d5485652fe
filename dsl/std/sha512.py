"""SHA-512 (FIPS 180-4) of secret data, in constant time: one call, or a stream of pieces.

Public data is viewed with as_secret, and the digest with declassify_array. Lengths are public.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Record,
    Secret,
    Struct,
    array,
    as_secret,
    erase,
    frame_array,
    machine,
    minimum,
    rotate_right,
    secret,
    table,
    u8,
    u64,
    upto,
)
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


class Working(Record):
    """The working variables of FIPS 180-4, 6.4.2, and b ^ c, which the next majority needs again."""

    a: Secret[u64]
    b: Secret[u64]
    c: Secret[u64]
    d: Secret[u64]
    e: Secret[u64]
    f: Secret[u64]
    g: Secret[u64]
    h: Secret[u64]
    b_xor_c: Secret[u64]


@machine
def step(v: Working, word: Secret[u64], constant: u64) -> Working:
    """One round, with its word of the schedule and its constant.

    Sums of rotations are nested (fewer instructions), majority is b ^ ((a ^ b) & (b ^ c)).
    """
    e_mix = rotate_right(rotate_right(rotate_right(v.e, 23) ^ v.e, 4) ^ v.e, 14)
    a_mix = rotate_right(rotate_right(rotate_right(v.a, 5) ^ v.a, 6) ^ v.a, 28)
    first = v.h + word + constant + (((v.f ^ v.g) & v.e) ^ v.g) + e_mix
    a_xor_b = v.a ^ v.b
    second = a_mix + ((a_xor_b & v.b_xor_c) ^ v.b)
    return Working(first + second, v.a, v.b, v.c, v.d + first, v.e, v.f, v.g, a_xor_b)


@machine
def sixteen_steps(start: Working, words: Array[Secret[u64]], constants: Array[u64]) -> Working:
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
def next_word(oldest: Secret[u64], second: Secret[u64], tenth: Secret[u64], fifteenth: Secret[u64]) -> Secret[u64]:
    """The schedule's next word from those 16, 15, 7 and 2 places before."""
    low = rotate_right(rotate_right(second, 7) ^ second, 1) ^ (second >> 7)
    high = rotate_right(rotate_right(fifteenth, 42) ^ fifteenth, 19) ^ (fifteenth >> 6)
    return oldest + low + tenth + high


@machine
def next_sixteen_words(words: Array[Secret[u64]]) -> None:
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
def load_words(words: Array[Secret[u64]], block: Array[Secret[u8]]) -> None:
    """Read a block as sixteen big-endian words."""
    words[0] = block.load_be64(0)
    words[1] = block.load_be64(8)
    words[2] = block.load_be64(16)
    words[3] = block.load_be64(24)
    words[4] = block.load_be64(32)
    words[5] = block.load_be64(40)
    words[6] = block.load_be64(48)
    words[7] = block.load_be64(56)
    words[8] = block.load_be64(64)
    words[9] = block.load_be64(72)
    words[10] = block.load_be64(80)
    words[11] = block.load_be64(88)
    words[12] = block.load_be64(96)
    words[13] = block.load_be64(104)
    words[14] = block.load_be64(112)
    words[15] = block.load_be64(120)


@machine
def compress(state: Array[Secret[u64]], words: Array[Secret[u64]], block: Array[Secret[u8]]) -> None:
    """Mix one block into the state; words is room for sixteen words, which the caller erases."""
    load_words(words, block)
    v = Working(state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7], state[1] ^ state[2])
    constants = ROUND_CONSTANTS.slice(0, 80)
    for group in upto(5):
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
def sha512_begin(stream: Sha512) -> None:
    """Start a hash of nothing yet."""
    stream.state.copy_from(as_secret(INITIAL_STATE))
    stream.length = u64(0)


@machine
def sha512_update(stream: Sha512, data: Array[Secret[u8]]) -> None:
    """Take more bytes, at most BLOCKS_MOST blocks; data may lie anywhere but in the stream itself."""
    words = frame_array(Secret[u64], 16)
    filled = stream.length % BLOCK_SIZE
    stream.length += data.length
    taken = u64(0)
    if filled > 0:
        taken = minimum(BLOCK_SIZE - filled, data.length)
        stream.block.slice(filled, taken).copy_from(data.slice(0, taken))
        if filled + taken < BLOCK_SIZE:
            return
        compress(stream.state, words, stream.block)
    for _ in upto((data.length - taken) // BLOCK_SIZE, at_most=BLOCKS_MOST):
        compress(stream.state, words, data.slice(taken, BLOCK_SIZE))
        taken += BLOCK_SIZE
    rest = data.length - taken
    stream.block.slice(0, rest).copy_from(data.slice(taken, rest))
    erase(words)


@machine
def sha512_finish(digest: Array[Secret[u8]], stream: Sha512) -> None:
    """Write the 64-byte digest; the stream is used up."""
    words = frame_array(Secret[u64], 16)
    filled = stream.length % BLOCK_SIZE
    stream.block[filled] = secret(u8(0x80))
    stream.block.slice(filled + 1, BLOCK_SIZE - 1 - filled).fill(secret(u8(0)))
    if filled >= LENGTH_OFFSET:
        compress(stream.state, words, stream.block)
        stream.block.fill(secret(u8(0)))
    # The length field has 128 bits; its upper half is zero: no message has 2**61 bytes.
    stream.block.store_be64(LENGTH_OFFSET + 8, secret(stream.length << 3))
    compress(stream.state, words, stream.block)
    erase(words)
    for index in upto(8):
        digest.store_be64(index * 8, stream.state[index])
    erase(stream)


@machine
def sha512(digest: Array[Secret[u8]], data: Array[Secret[u8]]) -> None:
    """Write the 64-byte digest of data, at most BLOCKS_MOST blocks."""
    stream = Sha512()
    sha512_begin(stream)
    sha512_update(stream, data)
    sha512_finish(digest, stream)
