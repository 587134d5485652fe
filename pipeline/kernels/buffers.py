"""Kernels from one buffer to another, in the language; buffers.c beside this one says what they compute.

Each takes an address and a count of what is read, and an address and a size of what is written.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    HostVirtual,
    array_at,
    between,
    frame_array,
    i16,
    i32,
    machine,
    maximum,
    minimum,
    rotate_left,
    table,
    u8,
    u32,
    u64,
    upto,
)

ALPHABET: Final = table(u8, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


@machine
def lz_expand(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Expand literals and copies of what was written before (as LZ4 has them); bytes written."""
    # Safe because: the caller gives `count` and `size` bytes.
    s = array_at(u8, source, count)
    d = array_at(u8, target, size)
    i = u64(0)
    o = u64(0)
    while i < count:
        token = s[i]
        i += 1
        literals = u64(token >> 4)
        for k in upto(literals):
            d[o + k] = s[i + k]
        i += literals
        o += literals
        if i >= count:
            break
        distance = u64(s[i]) | (u64(s[i + 1]) << 8)
        i += 2
        length = u64(token & 15) + 4
        if length == 19:
            while True:
                more = s[i]
                i += 1
                length += u64(more)
                if more != 255:
                    break
        for _ in upto(length):
            d[o] = d[o - distance]
            o += 1
    return o


@machine
def base64_encode(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Write three bytes as four letters; letters written."""
    # Safe because: the caller gives `count` and `size` bytes.
    s = array_at(u8, source, count)
    d = array_at(u8, target, size)
    i = u64(0)
    o = u64(0)
    while i + 3 <= count:
        v = (u32(s[i]) << 16) | (u32(s[i + 1]) << 8) | u32(s[i + 2])
        d[o] = ALPHABET[v >> 18]
        d[o + 1] = ALPHABET[(v >> 12) & 63]
        d[o + 2] = ALPHABET[(v >> 6) & 63]
        d[o + 3] = ALPHABET[v & 63]
        i += 3
        o += 4
    return o


@machine
def edit_distance(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Insertions, deletions and changes from one half of the bytes to the other; one row at a time in the target."""
    # Safe because: the caller gives 2 * count bytes and `size` bytes for count + 1 words.
    a = array_at(u8, source, count)
    b = array_at(u8, source + count, count)
    row = array_at(u32, target, size // 4)
    for j in upto(count + 1):
        row[j] = j.truncate(u32)
    for i in upto(count):
        diagonal = row[0]
        row[0] = (i + 1).truncate(u32)
        for j in upto(count):
            up = row[j + 1]
            cost = diagonal if a[i] == b[j] else diagonal + 1
            row[j + 1] = minimum(cost, minimum(up + 1, row[j] + 1))
            diagonal = up
    return u64(row[count])


@machine
def life_turn(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """One turn of Conway's game on a board of count * count bytes; who lives."""
    # Safe because: the caller gives count * count and `size` bytes.
    s = array_at(u8, source, count * count)
    d = array_at(u8, target, size)
    alive = u64(0)
    for y in between(1, count - 1):
        for x in between(1, count - 1):
            at = y * count + x
            above = (s[at - count - 1] & 1) + (s[at - count] & 1) + (s[at - count + 1] & 1)
            below = (s[at + count - 1] & 1) + (s[at + count] & 1) + (s[at + count + 1] & 1)
            near = above + below + (s[at - 1] & 1) + (s[at + 1] & 1)
            if near == 3 or (near == 2 and s[at] & 1 == 1):
                d[at] = u8(1)
                alive += 1
            else:
                d[at] = u8(0)
    return alive


@machine
def sip_rounds(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Two rounds of SipHash for each eight bytes."""
    # Safe because: the caller gives `count` bytes.
    s = array_at(u8, source, count)
    v0 = u64(0x736F6D6570736575)
    v1 = u64(0x646F72616E646F6D)
    v2 = u64(0x6C7967656E657261)
    v3 = u64(0x7465646279746573) ^ size
    i = u64(0)
    while i + 8 <= count:
        word = s.load_u64(i)
        v3 ^= word
        for _ in upto(2):
            v0 += v1
            v1 = rotate_left(v1, 13) ^ v0
            v0 = rotate_left(v0, 32)
            v2 += v3
            v3 = rotate_left(v3, 16) ^ v2
            v0 += v3
            v3 = rotate_left(v3, 21) ^ v0
            v2 += v1
            v1 = rotate_left(v1, 17) ^ v2
            v2 = rotate_left(v2, 32)
        v0 ^= word
        i += 8
    return v0 ^ v1 ^ v2 ^ v3


@machine
def queens(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Ways to put `count` (at most 15) queens on a board, without recursion."""
    columns = frame_array(u32, 16)
    left = frame_array(u32, 16)
    right = frame_array(u32, 16)
    free = frame_array(u32, 16)
    every = (u32(1) << count) - 1
    free[0] = every
    depth = u64(0)
    found = u64(0)
    while True:
        if free[depth] == 0:
            if depth == 0:
                break
            depth -= 1
            continue
        place = free[depth] & (u32(0) - free[depth])
        free[depth] ^= place
        if depth + 1 == count:
            found += 1
            continue
        columns[depth + 1] = columns[depth] | place
        left[depth + 1] = (left[depth] | place) << 1
        right[depth + 1] = (right[depth] | place) >> 1
        depth += 1
        free[depth] = every & ~(columns[depth] | left[depth] | right[depth])
    return found


@machine
def ring_buffer(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Put words into a ring of 64 and take them out, as the bytes say."""
    # Safe because: the caller gives `count` bytes and `size` bytes, of which the ring takes 256.
    s = array_at(u8, source, count)
    ring = array_at(u32, target, size // 4)
    head = u32(0)
    tail = u32(0)
    total = u64(0)
    for i in upto(count):
        byte = s[i]
        if byte & 3 != 0 and head - tail < 64:
            ring[head & 63] = u32(byte) * 77
            head += 1
        elif head != tail:
            total += u64(ring[tail & 63])
            tail += 1
    return total * 31 + u64(head)


@machine
def decimal_text(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Write words in decimal, a blank behind each; bytes written."""
    # Safe because: the caller gives `count` words and `size` bytes.
    s = array_at(u32, source, count)
    d = array_at(u8, target, size)
    digits = frame_array(u8, 10)
    o = u64(0)
    for i in upto(count):
        rest = s[i]
        k = u64(0)
        while True:
            digits[k] = (rest % 10).truncate(u8) + 0x30
            k += 1
            rest = rest // 10
            if rest == 0:
                break
        while k > 0:
            k -= 1
            d[o] = digits[k]
            o += 1
        d[o] = u8(0x20)
        o += 1
    return o


@machine
def byte_machine(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Run `size` steps of a machine of eight registers and three-byte instructions."""
    # Safe because: the caller gives `count` bytes.
    code = array_at(u8, source, count)
    r = frame_array(u64, 8)
    at = u64(0)
    for _ in upto(size):
        operation = code[at] & 7
        x = code[at + 1] & 7
        y = code[at + 2] & 7
        at += 3
        if at + 3 >= count:
            at = u64(0)
        if operation == 0:
            r[x] += r[y]
        elif operation == 1:
            r[x] ^= r[y]
        elif operation == 2:
            r[x] = r[x] * 3 + 1
        elif operation == 3:
            r[x] = r[y] >> 1
        elif operation == 4:
            r[x] = u64(code[at])
        elif operation == 5:
            if r[x] & 1 == 1:
                at = at // 2
        elif operation == 6:
            r[x] = ~r[y]
        else:
            r[x] -= r[y]
    return r[0] ^ r[1] ^ r[2] ^ r[3]


@machine
def collatz(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """The most steps from a number below `count` to one."""
    longest = u32(0)
    for i in between(1, count):
        v = i
        steps = u32(0)
        while v != 1:
            v = v // 2 if v & 1 == 0 else 3 * v + 1
            steps += 1
        longest = maximum(longest, steps)
    return u64(longest)


@machine
def box_blur(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Means of nine of count * count bytes; the first one."""
    # Safe because: the caller gives count * count and `size` bytes.
    s = array_at(u8, source, count * count)
    d = array_at(u8, target, size)
    for y in between(1, count - 1):
        for x in between(1, count - 1):
            total = u32(0)
            for dy in upto(3):
                for dx in upto(3):
                    total += u32(s[(y + dy - 1) * count + x + dx - 1])
            d[y * count + x] = (total // 9).truncate(u8)
    return u64(d[count + 1])


@machine
def filter_words(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """A filter of eight signed words that saturates; the last one."""
    # Safe because: the caller gives `count` words and `size` bytes.
    s = array_at(i16, source, count)
    d = array_at(i16, target, size // 2)
    for i in between(8, count):
        total = i32(0)
        for k in upto(8):
            total += i32(s[i - k]) * (i32(k.truncate(u32).as_signed()) * 3 - 7)
        total = total >> 4
        if total > 32767:
            total = i32(32767)
        if total < -32768:
            total = i32(-32768)
        d[i] = total.truncate(i16)
    return u64(d[count - 1].as_unsigned())
