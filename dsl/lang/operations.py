"""What operations on words compute, on plain integers: one definition for CPython, for folding and for interpreting IR.

Every argument and result is in 0 <= x < 2**width. `evaluate` gives None where an operation has no constant meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


def as_signed(value: int, width: int) -> int:
    """The integer whose two's complement in `width` bits is value."""
    return value - (1 << width) if value >> (width - 1) & 1 else value


def rotate_left(value: int, count: int, width: int) -> int:
    count %= width
    return (value << count | value >> (width - count)) & ((1 << width) - 1)


def leading_zeros(value: int, width: int) -> int:
    return width - value.bit_length()


def trailing_zeros(value: int, width: int) -> int:
    return (value & -value).bit_length() - 1 if value else width


def byte_swap(value: int, width: int) -> int:
    return int.from_bytes(value.to_bytes(width // 8, "little"), "big")


def truncating_quotient(a: int, b: int, width: int) -> int:
    """The signed quotient rounded toward zero, of two's complement words."""
    left, right = as_signed(a, width), as_signed(b, width)
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


UNARY: Final[dict[str, Callable[[int, int], int]]] = {
    # (argument, its width) -> result, masked by the caller
    "not": lambda a, width: ~a,
    "neg": lambda a, width: -a,
    "bswap": byte_swap,
    "lzcnt": leading_zeros,
    "tzcnt": trailing_zeros,
    "popcnt": lambda a, width: a.bit_count(),
    "zext": lambda a, width: a,
    "sext": as_signed,
    "trunc": lambda a, width: a,
}

BINARY: Final[dict[str, Callable[[int, int, int], int]]] = {
    # (left, right, their width) -> result, masked by the caller
    "add": lambda a, b, width: a + b,
    "sub": lambda a, b, width: a - b,
    "mul": lambda a, b, width: a * b,
    "umulh": lambda a, b, width: a * b >> width,
    "udiv": lambda a, b, width: a // b,
    "urem": lambda a, b, width: a % b,
    "sdiv": truncating_quotient,
    "srem": lambda a, b, width: as_signed(a, width) - truncating_quotient(a, b, width) * as_signed(b, width),
    "and": lambda a, b, width: a & b,
    "or": lambda a, b, width: a | b,
    "xor": lambda a, b, width: a ^ b,
    "shl": lambda a, b, width: a << b % width,
    "shr": lambda a, b, width: a >> b % width,
    "sar": lambda a, b, width: as_signed(a, width) >> b % width,
    "rotl": lambda a, b, width: rotate_left(a, b, width),
    "rotr": lambda a, b, width: rotate_left(a, -b, width),
    "eq": lambda a, b, width: a == b,
    "ne": lambda a, b, width: a != b,
    "ult": lambda a, b, width: a < b,
    "ule": lambda a, b, width: a <= b,
    "slt": lambda a, b, width: as_signed(a, width) < as_signed(b, width),
    "sle": lambda a, b, width: as_signed(a, width) <= as_signed(b, width),
}

DIVISIONS: Final = ("udiv", "urem", "sdiv", "srem")


def evaluate(operation: str, width: int, arguments: list[int], argument_width: int) -> int | None:
    """The result, of `width` bits, of a pure operation or a division; None if it has none (other operations, division by zero)."""
    mask = (1 << width) - 1
    if operation in UNARY:
        return UNARY[operation](arguments[0], argument_width) & mask
    if operation in BINARY:
        if operation in DIVISIONS and arguments[1] == 0:
            return None
        return int(BINARY[operation](arguments[0], arguments[1], argument_width)) & mask
    if operation == "select":
        return arguments[1] if arguments[0] else arguments[2]
    return None
