"""Word functions of the library: rotations, wide arithmetic, bit counts, checked and signed arithmetic, constant-time selection.

They keep taints: an Untrusted or Secret operand gives an Untrusted or Secret result, where the language allows it.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler import ir
from dsl.compiler.arguments import Call, Lower, by_name
from dsl.compiler.builder import Builder
from dsl.compiler.fitting import taint_barrier
from dsl.compiler.operands import Integer, Operand, Typed
from dsl.compiler.operators import common_taint, common_type, nonzero_divisor, shift_count
from dsl.lang.arithmetic import Carry, SecretCarry, SecretWide, Wide
from dsl.lang.failure import OUT_OF_RANGE
from dsl.lang.types import U64, FallibleType, RecordType, WordType, tainted

SECRET_U64: Final = tainted("secret", U64)


def word_argument(call: Call, number: int, name: str, unsigned: bool = False) -> tuple[Typed, WordType]:
    """An argument that must be a word, and its type without taint."""
    operand = call.operands[number]
    if not isinstance(operand, Typed) or not isinstance(operand.plain, WordType) or (unsigned and operand.plain.signed):
        text = f"{name} takes {'an unsigned word' if unsigned else 'a word'}, found {operand}"
        raise call.error("type-mismatch", text, "a literal has no width", argument=number)
    return operand, operand.plain


def two_words(call: Call, first: int = 0, secrets: bool = False) -> tuple[ir.Value, ir.Value, WordType]:
    """Two arguments of one word type. secrets: both are secret; otherwise none is tainted."""
    operands = call.operands[first : first + 2]
    if all(isinstance(operand, Integer) for operand in operands):
        raise call.error("bare-int", f"{call.name} of two literals has no width", "give one a type: u64(...)")
    left, right, kind = common_type(call.lowering, operands[0], operands[1], call.node, call.name)
    if not isinstance(kind.plain, WordType):
        raise call.error("type-mismatch", f"{call.name} takes words, found {kind.plain}")
    if kind.taint and not secrets:
        raise taint_barrier(call.lowering, kind, call.node, f"an argument of {call.name}")
    for number, operand in enumerate(operands, first):
        if secrets and operand.taint != "secret":
            raise call.error("type-mismatch", f"expected a Secret, found {operand}", "secret(x) makes one", number)
    return left, right, kind.plain


# Bits of one word


def shifting(operation: str) -> Lower:
    """A rotate or wrapping shift: the count is public and taken modulo the width."""

    def lower(call: Call) -> Operand:
        value, word = word_argument(call, 0, "a rotate or shift", unsigned=operation.startswith("rot"))
        if value.taint == "untrusted":
            raise taint_barrier(call.lowering, value.type, call.node, f"an argument of {call.name}")
        count, where = call.given[1]
        amount = shift_count(call.lowering, count, word, where, wraps=True)
        name = "sar" if operation == "shr" and word.signed else operation
        return Typed(value.type, (call.builder.emit(name, value.value, amount),))

    return lower


def counting(operation: str) -> Lower:
    """An operation on one unsigned word, with a result of its type."""

    def lower(call: Call) -> Operand:
        value, word = word_argument(call, 0, "this function", unsigned=True)
        if value.taint == "untrusted" or (value.taint and operation != "bswap"):
            raise taint_barrier(call.lowering, value.type, call.node, f"an argument of {call.name}")
        if operation == "bswap" and word.width == 8:
            return value
        return Typed(value.type, (call.builder.emit(operation, value.value),))

    return lower


def choosing(greatest: bool) -> Lower:
    def lower(call: Call) -> Operand:
        first, second, word = two_words(call)
        builder = call.builder
        below = builder.emit("slt" if word.signed else "ult", *((first, second) if greatest else (second, first)))
        return Typed(word, (builder.emit("select", below, second, first),))

    return lower


def widening(taint: str) -> Lower:
    """widen_secret and widen_untrusted: the same number in a wider word, the taint stays."""

    def lower(call: Call) -> Operand:
        target = call.type(0)
        value, word = word_argument(call, 1, call.name, unsigned=True)
        if not isinstance(target, WordType) or target.signed or target.width < word.width or value.taint != taint:
            wanted = f"a wider unsigned word and {taint.capitalize()}"
            raise call.error("type-mismatch", f"{call.name} takes {wanted}, found {target} and {value}")
        return Typed(tainted(taint, target), (call.builder.resize(value.value, target.width),))

    return lower


# 64-bit multi-word arithmetic


def u64_arguments(call: Call) -> tuple[list[ir.Value], str]:
    """Arguments that are all u64, some perhaps Secret or Untrusted; and the taint."""
    taint = common_taint(call.lowering, call.operands, call.given[0][1])
    if taint == "untrusted":
        raise taint_barrier(call.lowering, tainted(taint, U64), call.node, "part of multi-word arithmetic")
    kinds = [tainted(operand.taint, U64) for operand in call.operands]
    return [call.typed(number, kind).value for number, kind in enumerate(kinds)], taint


def pair(call: Call, taint: str, plain: type, shielded: type, *values: ir.Value) -> Typed:
    """A Record of two words, of the class that fits the taint."""
    return Typed(RecordType(shielded if taint else plain), values)


def multiply_high(call: Call) -> Operand:
    (first, second), taint = u64_arguments(call)
    return Typed(tainted(taint, U64), (call.builder.emit("umulh", first, second),))


def multiply_wide(call: Call) -> Operand:
    (first, second), taint = u64_arguments(call)
    builder = call.builder
    return pair(call, taint, Wide, SecretWide, builder.emit("mul", first, second), builder.emit("umulh", first, second))


def require_bit(call: Call, carry: ir.Value, taint: str) -> None:
    """A public carry is 0 or 1; one that was a bool is known to be, and a secret one may not be looked at."""
    if not taint and not (carry.operation == "zext" and carry.arguments[0].width == 1):
        builder = call.builder
        builder.check(builder.emit("ule", carry, 1), "a carry is 0 or 1")


def carrying(operation: str) -> Lower:
    """add_with_carry and subtract_with_borrow: each of two steps may carry, not both."""

    def lower(call: Call) -> Operand:
        (first, second, carry), taint = u64_arguments(call)
        require_bit(call, carry, taint)
        builder = call.builder
        partial = builder.emit(operation, first, second)
        total = builder.emit(operation, partial, carry)
        steps = ((partial, first), (total, partial)) if operation == "add" else ((first, second), (partial, carry))
        out = builder.emit("or", *(builder.emit("ult", below, above) for below, above in steps))
        return pair(call, taint, Carry, SecretCarry, total, builder.emit("zext", out, width=64))

    return lower


# Checked and signed arithmetic


def checked(operation: str) -> Lower:
    """W | Failure: the wrapped result, and whether it is another than without wrapping."""

    def lower(call: Call) -> Operand:
        first, second, word = two_words(call)
        builder = call.builder
        result = builder.emit(operation, first, second)
        if operation == "mul":
            failed = product_overflow(builder, first, second, result, word.signed)
        else:
            failed = sum_overflow(builder, operation, first, second, result, word.signed)
        code = builder.emit("select", failed, builder.constant(OUT_OF_RANGE), builder.constant(0))
        return Typed(FallibleType(word), (code, result))

    return lower


def sum_overflow(
    builder: Builder, operation: str, a: ir.Value, b: ir.Value, result: ir.Value, signed: bool
) -> ir.Value:
    """Whether a + b or a - b wrapped. Signed: a sum has the sign of neither; a has neither b's sign nor that of the difference."""
    is_sum = operation == "add"  # the result may be a constant by now
    if not signed:
        return builder.emit("ult", result, a) if is_sum else builder.emit("ult", a, b)
    pairs = ((a, result), (b, result)) if is_sum else ((a, b), (a, result))
    differs = builder.emit("and", *(builder.emit("xor", *pair) for pair in pairs))
    return builder.emit("slt", differs, 0)


def product_overflow(builder: Builder, a: ir.Value, b: ir.Value, product: ir.Value, signed: bool) -> ir.Value:
    if a.width < 64:
        wide = builder.emit("mul", builder.resize(a, 64, signed), builder.resize(b, 64, signed))
        return builder.emit("ne", wide, builder.resize(product, 64, signed))
    high = builder.emit("umulh", a, b)
    if not signed:
        return builder.emit("ne", high, 0)
    sign = builder.constant(63)
    for factor, other in ((a, b), (b, a)):  # the unsigned high half counts 2**64 too much for each negative factor
        extra = builder.emit("and", builder.emit("sar", factor, sign), other)
        high = builder.emit("sub", high, extra)
    return builder.emit("ne", high, builder.emit("sar", product, sign))


def truncating(operation: str) -> Lower:
    """Signed division toward zero. MIN / -1 wraps: dividing by -1 is negating, and leaves no remainder."""

    def lower(call: Call) -> Operand:
        first, second, word = two_words(call)
        if not word.signed:
            text = f"signed words only, found {word}"
            raise call.error("type-mismatch", text, "// and % divide unsigned words")
        nonzero_divisor(call.lowering, second, call.node)
        builder = call.builder
        is_minus_one = builder.emit("eq", second, -1)
        divisor = builder.emit("select", is_minus_one, builder.constant(1, word.width), second)
        result = builder.emit(operation, first, divisor)
        if operation == "sdiv":
            result = builder.emit("select", is_minus_one, builder.emit("neg", first), result)
        return Typed(word, (result,))

    return lower


# Secrets


def constant_time_equal(call: Call) -> Operand:
    """1 if equal, else 0, by arithmetic that the optimiser cannot see through."""
    first, second, _ = two_words(call, secrets=True)
    builder = call.builder
    difference = builder.emit("opaque", builder.resize(builder.emit("xor", first, second), 64))
    either = builder.emit("or", difference, builder.emit("neg", difference))
    return Typed(SECRET_U64, (builder.emit("xor", builder.emit("shr", either, 63), 1),))


def constant_time_select(call: Call) -> Operand:
    """A if flag is 1, b if it is 0, by masks."""
    flag = call.typed(0, SECRET_U64).value
    first, second, word = two_words(call, first=1, secrets=True)
    builder = call.builder
    mask = builder.resize(builder.emit("neg", builder.emit("opaque", flag)), word.width)
    chosen = builder.emit("and", mask, builder.emit("xor", first, second))
    return Typed(tainted("secret", word), (builder.emit("xor", second, chosen),))


WORD_FUNCTIONS: Final[dict[str, Lower]] = {
    "rotate_left": shifting("rotl"),
    "rotate_right": shifting("rotr"),
    "shift_left_wrapping": shifting("shl"),
    "shift_right_wrapping": shifting("shr"),
    "byte_swap": counting("bswap"),
    "count_leading_zeros": counting("lzcnt"),
    "count_trailing_zeros": counting("tzcnt"),
    "population_count": counting("popcnt"),
    "minimum": choosing(greatest=False),
    "maximum": choosing(greatest=True),
    "add_with_carry": carrying("add"),
    "subtract_with_borrow": carrying("sub"),
    "checked_add": checked("add"),
    "checked_subtract": checked("sub"),
    "checked_multiply": checked("mul"),
    "divide_truncating": truncating("sdiv"),
    "remainder_truncating": truncating("srem"),
    "widen_secret": widening("secret"),
    "widen_untrusted": widening("untrusted"),
    **by_name(multiply_high, multiply_wide, constant_time_equal, constant_time_select),
}
