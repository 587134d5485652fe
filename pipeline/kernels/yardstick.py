"""The eight yardstick kernels in the language; the C files beside this one say what they compute.

Parameters are those of the C functions; array_at gives each address its length.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    HostVirtual,
    add_with_carry,
    array_at,
    between,
    frame_array,
    i32,
    machine,
    multiply_wide,
    rotate_right,
    table,
    u8,
    u32,
    u64,
    upto,
)
from dsl.std.sha_constants import root_fractions

ROUND_CONSTANTS: Final = table(u32, root_fractions(3, 64, 32))
FRAME_BITS: Final = 0x000F_FFFF_FFFF_F000  # of an EPT entry
ALL_ONES: Final = u64(0xFFFF_FFFF_FFFF_FFFF)


def crc_row(index: int) -> int:
    """The CRC of one byte, reflected polynomial EDB88320."""
    for _ in range(8):
        index = (index >> 1) ^ (0xEDB88320 if index & 1 else 0)
    return index


CRC_TABLE: Final = table(u32, [crc_row(index) for index in range(256)])


@machine
def sha256_block(state: Array[u32], block: Array[u8], words: Array[u32]) -> None:
    """One block of the compression function, in its straight loop form."""
    for i in upto(16):
        words[i] = block.load_be32(4 * i)
    for i in between(16, 64):
        x = words[i - 15]
        y = words[i - 2]
        low = rotate_right(x, 7) ^ rotate_right(x, 18) ^ (x >> 3)
        high = rotate_right(y, 17) ^ rotate_right(y, 19) ^ (y >> 10)
        words[i] = words[i - 16] + low + words[i - 7] + high
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for i in upto(64):
        e_mix = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)
        first = h + e_mix + ((e & f) ^ (~e & g)) + ROUND_CONSTANTS[i] + words[i]
        second = (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        h, g, f, e, d, c, b, a = g, f, e, d + first, c, b, a, first + second
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e
    state[5] += f
    state[6] += g
    state[7] += h


@machine
def sha256_compress(state_address: HostVirtual, data_address: HostVirtual, blocks: u64) -> None:
    """Mix whole blocks into the state."""
    # Safe because: the caller gives eight words, and `blocks` blocks of 64 bytes.
    state = array_at(u32, state_address, 8)
    data = array_at(u8, data_address, blocks * 64)
    words = frame_array(u32, 64)
    for index in upto(blocks):
        sha256_block(state, data.slice(index * 64, 64), words)


@machine
def crc32_tab(start: u32, data_address: HostVirtual, size: u64) -> u32:
    """CRC-32 by table, continued from `start`."""
    # Safe because: the caller gives `size` bytes.
    data = array_at(u8, data_address, size)
    crc = ~start
    for i in upto(size):
        crc = CRC_TABLE[(crc ^ u32(data[i])) & 0xFF] ^ (crc >> 8)
    return ~crc


@machine
def mcopy(to: HostVirtual, source: HostVirtual, count: u64) -> None:
    """Copy words one by one."""
    # Safe because: the caller gives `count` words at both.
    target = array_at(u64, to, count)
    words = array_at(u64, source, count)
    for i in upto(count):
        target[i] = words[i]


@machine
def mcmp(first: HostVirtual, second: HostVirtual, count: u64) -> i32:
    """Compare words one by one: -1, 0 or 1."""
    # Safe because: the caller gives `count` words at both.
    left = array_at(u64, first, count)
    right = array_at(u64, second, count)
    for i in upto(count):
        if left[i] != right[i]:
            return i32(-1) if left[i] < right[i] else i32(1)
    return i32(0)


@machine
def bcopyb(to: HostVirtual, source: HostVirtual, count: u64) -> None:
    """Copy bytes one by one."""
    # Safe because: the caller gives `count` bytes at both.
    target = array_at(u8, to, count)
    data = array_at(u8, source, count)
    for i in upto(count):
        target[i] = data[i]


@machine
def fe_mul(result: HostVirtual, first: HostVirtual, second: HostVirtual) -> None:
    """Write r = a * b modulo 2**255 - 19, lazily reduced below 2**256."""
    # Safe because: the caller gives four words at each.
    r = array_at(u64, result, 4)
    a = array_at(u64, first, 4)
    b = array_at(u64, second, 4)
    t = frame_array(u64, 8)
    for i in upto(4):
        carry = u64(0)
        for j in upto(4):
            product = multiply_wide(a[i], b[j])
            low = add_with_carry(product.low, t[i + j], u64(0))
            total = add_with_carry(low.value, carry, u64(0))
            t[i + j] = total.value
            carry = product.high + low.carry + total.carry
        t[i + 4] = carry
    carry = u64(0)
    for i in upto(4):
        product = multiply_wide(t[i + 4], u64(38))
        low = add_with_carry(product.low, t[i], u64(0))
        total = add_with_carry(low.value, carry, u64(0))
        t[i] = total.value
        carry = product.high + low.carry + total.carry
    carry = carry * 38
    for i in upto(4):
        total = add_with_carry(t[i], carry, u64(0))
        r[i] = total.value
        carry = total.carry
    r[0] += carry * 38


@machine
def ept_walk(arena: HostVirtual, root: u64, guest_physical: u64) -> u64:
    """Walk four levels of tables in an arena; all ones for what is not there."""
    entry = root
    shift = u64(39)
    while shift >= 12:
        # Safe because: the caller's tables name pages of the arena only.
        page = array_at(u64, arena + (entry & FRAME_BITS), 512)
        entry = page[(guest_physical >> shift) & 511]
        if entry & 7 == 0:
            return ALL_ONES
        if shift > 12 and entry & 0x80 != 0:
            below = (u64(1) << shift) - 1
            return (entry & FRAME_BITS & ~below) | (guest_physical & below)
        shift -= 9
    return (entry & FRAME_BITS) | (guest_physical & 0xFFF)
