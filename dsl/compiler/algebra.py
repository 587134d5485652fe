"""What the folder knows about each operation: identities that give a simpler value. A rule returns None where it has nothing to say.

A rule is called with a constant on the right of a commutative operation, and never with all arguments constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dsl.compiler.ir import Value
from dsl.lang.operations import as_signed

if TYPE_CHECKING:
    from dsl.compiler.fold import Folder


def all_ones(width: int) -> int:
    return (1 << width) - 1


def power_of_two(value: int | None) -> int | None:
    """log2 of a power of two, else None."""
    return value.bit_length() - 1 if value and value & (value - 1) == 0 else None


def add(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    return left if right.constant == 0 else joined(f, value, left, right)


def joined(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """Add and and: two constants, one after the other, are one."""
    inner = left.arguments[1].constant if left.operation == value.operation else None
    if inner is None or right.constant is None:
        return None
    both = inner + right.constant if value.operation == "add" else inner & right.constant
    return f.make(value.operation, value.width, left.arguments[0], f.constant(both, value.width))


def sub(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    known = right.constant
    if known is not None:
        return f.make("add", value.width, left, f.constant(-known, value.width))
    if left is right:
        return f.constant(0, value.width)
    if left.constant == 0:
        return f.make("neg", value.width, right)
    return None


def mul(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    known = right.constant
    if known == 0:
        return right
    if known == 1:
        return left
    shift = power_of_two(known)
    return None if shift is None else f.make("shl", value.width, left, f.constant(shift, value.width))


def udiv(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """By a power of two a shift; by another constant the high part of a product (Granlund and Montgomery, 1994).

    With m = 2**k / d rounded up, n * m >> k is the quotient for all n below 2**width if m * d - 2**k <= 2**(k - width).
    """
    width, divisor = value.width, right.constant
    shift = power_of_two(divisor)
    if shift is not None:
        return f.make("shr", width, left, f.constant(shift, width))
    if not divisor:
        return None
    k, factor = _reciprocal(divisor, width)
    if width < 64:
        wide = f.make("zext", 64, left)
        if factor >> 64 - width:  # the product would not fit, but the whole high word is exact for 32 bits
            return f.make("trunc", width, f.make("umulh", 64, wide, f.constant(-(-(1 << 64) // divisor), 64)))
        product = f.make("mul", 64, wide, f.constant(factor, 64))
        return f.make("trunc", width, f.make("shr", 64, product, f.constant(k, 64)))
    high = f.make("umulh", 64, left, f.constant(factor, 64))
    if factor >> 64:  # of 65 bits: n is added apart, and halved so that the sum fits
        half = f.make("shr", 64, f.make("sub", 64, left, high), f.constant(1, 64))
        high, k = f.make("add", 64, half, high), k - 1
    return f.make("shr", 64, high, f.constant(k - 64, 64))


def _reciprocal(divisor: int, width: int) -> tuple[int, int]:
    """The smallest k for words of `width` bits, and 2**k / divisor rounded up."""
    k = next(k for k in range(width, 2 * width + 1) if -(1 << k) % divisor <= 1 << k - width)
    return k, -(-(1 << k) // divisor)


def sdiv(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """By a constant, toward zero: a negative dividend gets what rounds its quotient up."""
    width = value.width
    divisor = as_signed(right.integer, width) if right.operation == "const" else 0
    if abs(divisor) < 2:
        return None
    shift = power_of_two(abs(divisor))
    sign = f.make("sar", width, left, f.constant(width - 1, width))
    if shift is not None:
        more = f.make("shr", width, sign, f.constant(width - shift, width))
        quotient = f.make("sar", width, f.make("add", width, left, more), f.constant(shift, width))
    elif width < 64:
        k, factor = _reciprocal(abs(divisor), width - 1)
        product = f.make("mul", 64, f.make("sext", 64, left), f.constant(factor, 64))
        rounded_down = f.make("trunc", width, f.make("sar", 64, product, f.constant(k, 64)))
        quotient = f.make("sub", width, rounded_down, sign)
    else:
        return None
    return f.make("neg", width, quotient) if divisor < 0 else quotient


def remainder(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """Urem and srem by a constant: what the quotient leaves."""
    divisor = right.constant
    if value.operation == "urem" and power_of_two(divisor) is not None:
        return f.make("and", value.width, left, f.constant((divisor or 0) - 1, value.width))
    quotient = (udiv if value.operation == "urem" else sdiv)(f, value, left, right)
    return quotient and f.make("sub", value.width, left, f.make("mul", value.width, quotient, right))


def bitwise_and(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    known = right.constant
    if left is right or known == all_ones(value.width):
        return left
    if known == 0:
        return right
    return joined(f, value, left, right)


def bitwise_or(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    known = right.constant
    if left is right or known == 0:
        return left
    return right if known == all_ones(value.width) else None


def bitwise_xor(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    known = right.constant
    if left is right:
        return f.constant(0, value.width)
    if known == 0:
        return left
    return f.make("not", value.width, left) if known == all_ones(value.width) else None


def bitwise_not(f: Folder, value: Value, left: Value) -> Value | None:
    return left.arguments[0] if left.operation == "not" else None


def shift(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """Shifts and rotations."""
    known = right.constant
    if (known is not None and known % value.width == 0) or left.constant == 0:
        return left
    return None


def equal(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """Eq and ne."""
    known = right.constant
    is_equal = value.operation == "eq"
    if left is right:
        return f.constant(int(is_equal), 1)
    if known is None:
        return None
    if left.width == 1:
        return left if bool(known) == is_equal else f.make("not", 1, left)
    if left.operation == "zext":
        inner = left.arguments[0]
        if known > all_ones(inner.width):
            return f.constant(int(not is_equal), 1)
        return f.make(value.operation, 1, inner, f.constant(known, inner.width))
    if left.operation == "sub" and known == 0:
        return f.make(value.operation, 1, *left.arguments)
    return None


def unsigned_order(f: Folder, value: Value, left: Value, right: Value) -> Value | None:
    """Ult and ule."""
    strict = value.operation == "ult"
    low, high = left.constant, right.constant
    top = all_ones(left.width)
    if left is right:
        return f.constant(int(not strict), 1)
    if strict and (high == 0 or low == top):
        return f.constant(0, 1)
    if not strict and (high == top or low == 0):
        return f.constant(1, 1)
    if (strict and high == 1) or (not strict and high == 0):
        return f.make("eq", 1, left, f.constant(0, left.width))
    if (strict and low == 0) or (not strict and low == 1):
        return f.make("ne", 1, right, f.constant(0, right.width))
    if not strict and high is not None:
        return f.make("ult", 1, left, f.constant(high + 1, left.width))
    return None


def trunc(f: Folder, value: Value, left: Value) -> Value | None:
    width = value.width
    if left.operation == "trunc":
        return f.make("trunc", width, left.arguments[0])
    if left.operation in ("zext", "sext"):
        inner = left.arguments[0]
        if inner.width == width:
            return inner
        return f.make("trunc" if inner.width > width else left.operation, width, inner)
    return None


def select(f: Folder, value: Value, flag: Value, chosen: Value, other: Value) -> Value | None:
    known = flag.constant
    if known is not None:
        return chosen if known else other
    if chosen is other:
        return chosen
    yes, no = chosen.constant, other.constant
    if (yes, no) in ((1, 0), (0, 1)):
        bit = flag if yes else f.make("not", 1, flag)
        return bit if value.width == 1 else f.make("zext", value.width, bit)
    return None


RULES: Final[dict[str, Callable[..., Value | None]]] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "udiv": udiv,
    "sdiv": sdiv,
    **dict.fromkeys(("urem", "srem"), remainder),
    "and": bitwise_and,
    "or": bitwise_or,
    "xor": bitwise_xor,
    "not": bitwise_not,
    **dict.fromkeys(("shl", "shr", "sar", "rotl", "rotr"), shift),
    **dict.fromkeys(("eq", "ne"), equal),
    **dict.fromkeys(("ult", "ule"), unsigned_order),
    "trunc": trunc,
    "select": select,
}
