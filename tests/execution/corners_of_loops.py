"""Programs in corners of loops, as corners_of_flow.py has them: what the turn before loaded, and which check of a turn fails first."""

from __future__ import annotations

import random
from typing import Final

from dsl.lang import Array, between, machine, static_array, table, u8, u16, u64, upto

BYTES: Final = table(u8, random.Random(16).randbytes(1 << 16))
WORDS: Final = static_array(u64, 16)


@machine
def two_widths(start: u64, turns: u64) -> u64:
    """A turn reads where the one before it read, but by more bits of the same word."""
    word = start
    total = u64(BYTES[u64(word.truncate(u16))])
    for turn in upto(turns & 7):
        total += u64(BYTES[u64(word.truncate(u16))]) * 7 + turn
        word = word * 3 + 1
        total += u64(BYTES[u64(word.truncate(u8))])
    return total


@machine
def element(array: Array[u64], index: u64) -> u64:
    return array[index]  # the check is on this line, wherever it is inlined


@machine
def two_lines(bounds: u64, lengths: u64) -> u64:
    """Checks of two lines take turns, and the first to fail is between others of its line."""
    total = u64(0)
    first = WORDS.slice(u64(0), lengths & 7)
    second = WORDS.slice(u64(8), lengths >> 3 & 7)
    for index in between(bounds >> 4 & 3, bounds & 15):
        total += element(first, index)
        total += second[index]
        total += element(first, index + 1)
        total += element(first, index - 1)
    return total
