"""DWARF's integers of variable length."""

from __future__ import annotations


def unsigned(value: int) -> bytes:
    """ULEB128: seven bits a byte, the lowest first; the top bit says that more follow."""
    low, rest = value & 0x7F, value >> 7
    return bytes((low | 0x80,)) + unsigned(rest) if rest else bytes((low,))


def signed(value: int) -> bytes:
    """SLEB128: the same, and the last byte's bit 6 is the sign."""
    low, rest = value & 0x7F, value >> 7
    return bytes((low,)) if rest == -(low >> 6) else bytes((low | 0x80,)) + signed(rest)
