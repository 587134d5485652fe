"""Rotations of SHA-256 and SHA-512 (FIPS 180-4, 4.1.2, 4.1.3), by bits of a word: for the kernels, and what they mean in Python."""

from __future__ import annotations

from typing import Final

SUMS: Final = {32: ((2, 13, 22), (6, 11, 25)), 64: ((28, 34, 39), (14, 18, 41))}  # three of a, three of e
SCHEDULE: Final = {
    32: ((7, 18, 3), (17, 19, 10)),
    64: ((1, 8, 7), (19, 61, 6)),
}  # two and a shift, of the words 15 and 2 before
