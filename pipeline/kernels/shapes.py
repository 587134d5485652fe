"""Kernels of other shapes in the language; the C files beside this one say what they compute."""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    HostVirtual,
    Ref,
    Struct,
    add_with_carry,
    array_at,
    between,
    frame_array,
    machine,
    multiply_wide,
    rotate_left,
    u8,
    u32,
    u64,
    upto,
)

ALL_ONES: Final = u64(0xFFFF_FFFF_FFFF_FFFF)


@machine
def heap_sort(address: HostVirtual, count: u64) -> None:
    """Sort words in place."""
    # Safe because: the caller gives `count` words.
    a = array_at(u64, address, count)
    start = count // 2
    end = count
    while end > 1:
        value = u64(0)
        if start > 0:
            start -= 1
            value = a[start]
        else:
            end -= 1
            value = a[end]
            a[end] = a[0]
        root = start
        while True:
            child = 2 * root + 1
            if child >= end:
                break
            if child + 1 < end and a[child] < a[child + 1]:
                child += 1
            if a[child] <= value:
                break
            a[root] = a[child]
            root = child
        a[root] = value


@machine
def insertion_sort(address: HostVirtual, count: u64) -> None:
    """Sort 32-bit words in place."""
    # Safe because: the caller gives `count` words.
    a = array_at(u32, address, count)
    for i in between(1, count):
        value = a[i]
        j = i
        while j > 0 and a[j - 1] > value:
            a[j] = a[j - 1]
            j -= 1
        a[j] = value


class Node(Struct):
    """Of a list."""

    following: Ref[Node] | None
    value: u64


class Head(Struct):
    """Where a list begins."""

    first: Ref[Node] | None


class Branch(Struct):
    """Of a binary tree."""

    left: Ref[Branch] | None
    right: Ref[Branch] | None
    key: u64


@machine
def list_turn(head_address: HostVirtual) -> u64:
    """Reverse a list in place, then walk it."""
    # Safe because: the caller gives the place that refers to the first node.
    head = Head.at(head_address)
    before: Ref[Node] | None = None
    node = head.first
    while node is not None:
        following = node.following
        node.following = before
        before = node
        node = following
    head.first = before
    total = u64(0)
    node = before
    while node is not None:
        if node.value & 1 != 0:
            total += node.value
        else:
            total ^= node.value >> 1
        node = node.following
    return total


@machine
def tree_find(root_address: HostVirtual, keys_address: HostVirtual, count: u64) -> u64:
    """How many keys are there, and the steps taken in the upper half."""
    # Safe because: the caller gives a tree's root and `count` words.
    root = Branch.at(root_address)
    keys = array_at(u64, keys_address, count)
    found = u64(0)
    steps = u64(0)
    for i in upto(count):
        branch: Ref[Branch] | None = root
        key = keys[i]
        while branch is not None:
            steps += 1
            if branch.key == key:
                found += 1
                break
            branch = branch.left if key < branch.key else branch.right
    return (steps << 32) | found


@machine
def bits_mix(address: HostVirtual, count: u64) -> u64:
    """Bits counted, reversed, spread and turned to Gray code by hand."""
    # Safe because: the caller gives `count` words.
    words = array_at(u64, address, count)
    mixed = u64(0)
    for i in upto(count):
        x = words[i]
        c = x - ((x >> 1) & 0x5555555555555555)
        c = (c & 0x3333333333333333) + ((c >> 2) & 0x3333333333333333)
        c = (c + (c >> 4)) & 0x0F0F0F0F0F0F0F0F
        c = (c * 0x0101010101010101) >> 56
        r = ((x >> 1) & 0x5555555555555555) | ((x & 0x5555555555555555) << 1)
        r = ((r >> 2) & 0x3333333333333333) | ((r & 0x3333333333333333) << 2)
        r = ((r >> 4) & 0x0F0F0F0F0F0F0F0F) | ((r & 0x0F0F0F0F0F0F0F0F) << 4)
        s = x & 0xFFFFFFFF
        s = (s | (s << 16)) & 0x0000FFFF0000FFFF
        s = (s | (s << 8)) & 0x00FF00FF00FF00FF
        s = (s | (s << 4)) & 0x0F0F0F0F0F0F0F0F
        s = (s | (s << 2)) & 0x3333333333333333
        s = (s | (s << 1)) & 0x5555555555555555
        low = x
        steps = u64(0)
        while low != 0:
            low &= low - 1
            steps += low & 3
        mixed = rotate_left(mixed, 5) ^ (c + r) ^ (s + (x ^ (x >> 1))) ^ steps
    return mixed


@machine
def parse_sums(address: HostVirtual, count: u64) -> u64:
    """Sums of products of numbers: all values mixed, and where it ended."""
    # Safe because: the caller gives `count` bytes.
    s = array_at(u8, address, count)
    mixed = u64(0)
    total = u64(0)
    product = u64(1)
    negative = False
    i = u64(0)
    while True:
        while i < count and (s[i] == 0x20 or s[i] == 0x0A):
            i += 1
        if i >= count:
            break
        value = u64(0)
        if s[i] == 0x30 and i + 1 < count and s[i + 1] == 0x78:
            i += 2
            while i < count:
                c = u64(s[i])
                digit = u64(0)
                if c >= 0x30 and c <= 0x39:
                    digit = c - 0x30
                elif c >= 0x61 and c <= 0x66:
                    digit = c - 0x61 + 10
                else:
                    break
                value = (value << 4) | digit
                i += 1
        else:
            if s[i] < 0x30 or s[i] > 0x39:
                break
            while i < count and s[i] >= 0x30 and s[i] <= 0x39:
                value = value * 10 + (u64(s[i]) - 0x30)
                i += 1
        product *= value
        while i < count and s[i] == 0x20:
            i += 1
        mark = s[i] if i < count else u8(0x3B)
        i += 1
        if mark == 0x2A:
            continue
        total = total - product if negative else total + product
        product = u64(1)
        negative = False
        if mark == 0x2B:
            continue
        if mark == 0x2D:
            negative = True
            continue
        if mark != 0x3B:
            break
        mixed = mixed * 31 + total
        total = u64(0)
    return mixed ^ (i << 48)


@machine
def big_multiply(result: HostVirtual, first: HostVirtual, second: HostVirtual, count: u64) -> None:
    """Write r = a * b, school method; r has twice as many words."""
    # Safe because: the caller gives 2 * count, count and count words.
    r = array_at(u64, result, 2 * count)
    a = array_at(u64, first, count)
    b = array_at(u64, second, count)
    r.fill(u64(0))
    for i in upto(count):
        carry = u64(0)
        for j in upto(count):
            product = multiply_wide(a[i], b[j])
            low = add_with_carry(product.low, r[i + j], u64(0))
            total = add_with_carry(low.value, carry, u64(0))
            r[i + j] = total.value
            carry = product.high + low.carry + total.carry
        r[i + count] = carry


@machine
def big_add(result: HostVirtual, first: HostVirtual, second: HostVirtual, count: u64) -> u64:
    """Write r = a + b; the carry out."""
    # Safe because: the caller gives `count` words at each.
    r = array_at(u64, result, count)
    a = array_at(u64, first, count)
    b = array_at(u64, second, count)
    carry = u64(0)
    for i in upto(count):
        total = add_with_carry(a[i], b[i], carry)
        r[i] = total.value
        carry = total.carry
    return carry


@machine
def search_count(text_address: HostVirtual, size: u64, pattern_address: HostVirtual, length: u64) -> u64:
    """How often a pattern of 1 to 255 bytes occurs (Horspool)."""
    # Safe because: the caller gives `size` and `length` bytes.
    text = array_at(u8, text_address, size)
    pattern = array_at(u8, pattern_address, length)
    skip = frame_array(u8, 256)
    skip.fill(length.truncate(u8))
    for i in upto(length - 1):
        skip[pattern[i]] = (length - 1 - i).truncate(u8)
    found = u64(0)
    at = u64(0)
    while at + length <= size:
        k = length
        while k > 0 and text[at + k - 1] == pattern[k - 1]:
            k -= 1
        if k == 0:
            found += 1
        at += u64(skip[text[at + length - 1]])
    return found


@machine
def utf8_count(address: HostVirtual, count: u64) -> u64:
    """Count the characters of UTF-8 text; all ones for text that is not UTF-8."""
    # Safe because: the caller gives `count` bytes.
    data = array_at(u8, address, count)
    state = u32(0)
    characters = u64(0)
    for i in upto(count):
        c = data[i]
        if state == 0:
            if c < 0x80:
                characters += 1
            elif c < 0xC2:
                return ALL_ONES
            elif c < 0xE0:
                state = u32(1)
            elif c == 0xE0:
                state = u32(4)
            elif c == 0xED:
                state = u32(5)
            elif c < 0xF0:
                state = u32(2)
            elif c == 0xF0:
                state = u32(6)
            elif c < 0xF4:
                state = u32(3)
            elif c == 0xF4:
                state = u32(7)
            else:
                return ALL_ONES
        elif state == 1:
            if c & 0xC0 != 0x80:
                return ALL_ONES
            state = u32(0)
            characters += 1
        elif state == 2:
            if c & 0xC0 != 0x80:
                return ALL_ONES
            state = u32(1)
        elif state == 3:
            if c & 0xC0 != 0x80:
                return ALL_ONES
            state = u32(2)
        elif state == 4:
            if c < 0xA0 or c > 0xBF:
                return ALL_ONES
            state = u32(1)
        elif state == 5:
            if c < 0x80 or c > 0x9F:
                return ALL_ONES
            state = u32(1)
        elif state == 6:
            if c < 0x90 or c > 0xBF:
                return ALL_ONES
            state = u32(2)
        else:
            if c < 0x80 or c > 0x8F:
                return ALL_ONES
            state = u32(2)
    return characters if state == 0 else ALL_ONES


@machine
def matrix_multiply(result: HostVirtual, first: HostVirtual, second: HostVirtual, count: u64) -> None:
    """Write c = a * b, count by count."""
    # Safe because: the caller gives count * count words at each.
    c = array_at(u64, result, count * count)
    a = array_at(u64, first, count * count)
    b = array_at(u64, second, count * count)
    for i in upto(count):
        for j in upto(count):
            total = u64(0)
            for k in upto(count):
                total += a[i * count + k] * b[k * count + j]
            c[i * count + j] = total


@machine
def sieve(address: HostVirtual, count: u64) -> u64:
    """Primes below count; the caller's bytes are flags."""
    # Safe because: the caller gives `count` bytes.
    flags = array_at(u8, address, count)
    primes = u64(0)
    flags.fill(u8(1))
    for i in between(2, count):
        if flags[i] != 0:
            primes += 1
            j = i * i
            while j < count:
                flags[j] = u8(0)
                j += i
    return primes


@machine
def table_insert(places_address: HostVirtual, size: u64, keys_address: HostVirtual, count: u64) -> u64:
    """Put keys into an open table; how many were new in the upper half, and the probes."""
    # Safe because: the caller gives `size` and `count` words.
    places = array_at(u64, places_address, size)
    keys = array_at(u64, keys_address, count)
    mask = size - 1
    fresh = u64(0)
    probes = u64(0)
    places.fill(u64(0))
    for i in upto(count):
        key = keys[i]
        at = ((key * 0x9E3779B97F4A7C15) >> 32) & mask
        while True:
            probes += 1
            found = places[at]
            if found == key:
                break
            if found == 0:
                places[at] = key
                fresh += 1
                break
            at = (at + 1) & mask
    return (fresh << 32) | probes
