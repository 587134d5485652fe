"""Kernels whose state lies in memory, in the language; states.c beside this one says what they compute.

Each takes the bytes that it reads and what it writes to, as arrays: to C, an address and a length each.
"""

from __future__ import annotations

from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    array,
    array_at,
    frame_array,
    machine,
    minimum,
    rotate_left,
    u8,
    u16,
    u32,
    u64,
    upto,
)


@machine
def quarter_round(x: Array[u32], a: u64, b: u64, c: u64, d: u64) -> None:
    """Stir four words."""
    x[a] += x[b]
    x[d] = rotate_left(x[d] ^ x[a], 16)
    x[c] += x[d]
    x[b] = rotate_left(x[b] ^ x[c], 12)
    x[a] += x[b]
    x[d] = rotate_left(x[d] ^ x[a], 8)
    x[c] += x[d]
    x[b] = rotate_left(x[b] ^ x[c], 7)


@machine
def stream_cipher(source: Array[u8], target: Array[u8]) -> u64:
    """ChaCha20 of what follows 64 bytes of state; the counter behind it."""
    state = frame_array(u32, 16)
    x = frame_array(u32, 16)
    for i in upto(16):
        state[i] = source.load_u32(4 * i)
    input_ = source.slice(64, source.length - 64)
    at = u64(0)
    while at < input_.length:
        for i in upto(16):
            x[i] = state[i]
        for _ in upto(10):
            quarter_round(x, u64(0), u64(4), u64(8), u64(12))
            quarter_round(x, u64(1), u64(5), u64(9), u64(13))
            quarter_round(x, u64(2), u64(6), u64(10), u64(14))
            quarter_round(x, u64(3), u64(7), u64(11), u64(15))
            quarter_round(x, u64(0), u64(5), u64(10), u64(15))
            quarter_round(x, u64(1), u64(6), u64(11), u64(12))
            quarter_round(x, u64(2), u64(7), u64(8), u64(13))
            quarter_round(x, u64(3), u64(4), u64(9), u64(14))
        for i in upto(minimum(input_.length - at, 64)):
            word = x[i >> 2] + state[i >> 2]
            target[at + i] = input_[at + i] ^ (word >> ((i & 3) * 8)).truncate(u8)
        state[12] += 1
        at += 64
    return u64(state[12])


class Steps(Struct):
    """The state of xoshiro256**."""

    words: Array[u64] = array(4)


@machine
def word_generator(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """`count` words of xoshiro256**, whose state lies before them; the last one."""
    # Safe because: the caller gives `size` bytes, which hold the state and `count` words.
    s = Steps.at(target).words
    d = array_at(u64, target + 32, size // 8 - 4)
    word = u64(0)
    for i in upto(count):
        word = rotate_left(s[1] * 5, 7) * 9
        shifted = s[1] << 17
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = rotate_left(s[3], 45)
        d[i] = word
    return word


class LetterNode(Struct):
    """Of a tree of texts: where the next letter leads, and how many came by."""

    following: Array[u16] = array(8)
    count: u32
    depth: u32


@machine
def letter_tree(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """A tree of all texts of six letters out of eight, each a node by its number; nodes used."""
    # Safe because: the caller gives `count` bytes and `size` bytes of nodes, which are zero.
    s = array_at(u8, source, count)
    nodes = array_at(LetterNode, target, size // 24)
    used = u16(1)
    i = u64(0)
    while i + 6 <= count:
        at = u16(0)
        for k in upto(6):
            letter = s[i + k] & 7
            child = nodes[at].following[letter]
            if child == 0:
                child = used
                used += 1
                nodes[at].following[letter] = child
                nodes[child].depth = k.truncate(u32) + 1
            at = child
            nodes[at].count += 1
        i += 1
    return u64(used)
