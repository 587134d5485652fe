"""Kernels that search and divide, in the language; searches.c beside this one says what they compute.

Each takes an address and a count of what is read, and an address and a size of what is written.
"""

from __future__ import annotations

from dsl.lang import HostVirtual, Struct, array_at, machine, u8, u32, u64, upto


class Row(Struct):
    """Of a table that is sorted by key."""

    key: u64
    value: u64


@machine
def row_search(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Look words up in a table of 1024 rows by halving; the sum of what was found."""
    # Safe because: the caller gives `count` words and `size` bytes of rows.
    keys = array_at(u64, source, count)
    rows = array_at(Row, target, size // 16)
    found = u64(0)
    for i in upto(count):
        key = keys[i] & 0xFFFF
        low = u64(0)
        high = u64(1024)
        while low < high:
            middle = (low + high) // 2
            if rows[middle].key < key:
                low = middle + 1
            else:
                high = middle
        if low < 1024 and rows[low].key == key:
            found += rows[low].value
    return found


@machine
def token_states(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """Count words, numbers, strings and comments, as a machine of six states; 16 bits each."""
    # Safe because: the caller gives `count` bytes.
    s = array_at(u8, source, count)
    words = u64(0)
    numbers = u64(0)
    strings = u64(0)
    comments = u64(0)
    state = u32(0)
    for i in upto(count):
        c = s[i]
        if state == 0:
            if c >= 0x61 and c <= 0x7A:
                state = u32(1)
                words += 1
            elif c >= 0x30 and c <= 0x39:
                state = u32(2)
                numbers += 1
            elif c == 0x22:
                state = u32(3)
                strings += 1
            elif c == 0x23:
                state = u32(4)
                comments += 1
        elif state == 1:
            if not ((c >= 0x61 and c <= 0x7A) or (c >= 0x30 and c <= 0x39)):
                state = u32(0)
        elif state == 2:
            if c < 0x30 or c > 0x39:
                state = u32(0)
        elif state == 3:
            if c == 0x5C:
                state = u32(5)
            elif c == 0x22:
                state = u32(0)
        elif state == 4:
            if c == 0x0A:
                state = u32(0)
        else:
            state = u32(3)
    return words | (numbers << 16) | (strings << 32) | (comments << 48)


@machine
def knapsack(source: HostVirtual, count: u64, target: HostVirtual, size: u64) -> u64:
    """The most that fits into 256, of `count` things of a weight and a value each."""
    # Safe because: the caller gives 2 * count bytes and `size` bytes.
    s = array_at(u8, source, 2 * count)
    best = array_at(u32, target, size // 4)
    for w in upto(257):
        best[w] = u32(0)
    for i in upto(count):
        weight = u64(s[2 * i]) + 1
        value = u32(s[2 * i + 1])
        w = u64(256)
        while w >= weight:
            taken = best[w - weight] + value
            if taken > best[w]:
                best[w] = taken
            w -= 1
    return u64(best[256])
