"""Word functions of the library: rotations, wide arithmetic, bit counts, checked and signed arithmetic, constant-time selection."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dsl.compiler import ir
from dsl.compiler.fitting import coerce, public, taint_barrier
from dsl.compiler.operands import Integer, Operand, Typed
from dsl.compiler.operators import common_type, nonzero_divisor
from dsl.compiler.shapes import U64, describe, strip, taint_of, tainted
from dsl.lang.arithmetic import Carry, SecretCarry, SecretWide, Wide
from dsl.lang.failure import OUT_OF_RANGE
from dsl.lang.types import FallibleType, QualifiedType, RecordType, Type, WordType

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering

Given = list[tuple[Operand, ast.expr]]
Lower = Callable[["Lowering", Given, ast.Call], Operand]
SECRET_U64: Final = QualifiedType("secret", U64)


def word_argument(
    lowering: Lowering, argument: tuple[Operand, ast.expr], name: str, unsigned: bool = False
) -> tuple[Typed, WordType]:
    """An argument that must be a word, and its type without taint."""
    operand, node = argument
    word = strip(operand.type) if isinstance(operand, Typed) else None
    if not isinstance(operand, Typed) or not isinstance(word, WordType) or (unsigned and word.signed):
        kind = "an unsigned word" if unsigned else "a word"
        raise lowering.error(
            "type-mismatch", node, f"{name} takes {kind}, found {lowering.spell(operand)}", "a literal has no width"
        )
    return operand, word


def two_words(
    lowering: Lowering, given: Given, node: ast.Call, secrets: bool = False
) -> tuple[ir.Value, ir.Value, WordType, str]:
    """Two arguments of one word type, and their taint."""
    assert isinstance(node.func, ast.Name | ast.Attribute)
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
    if all(isinstance(operand, Integer) for operand, _ in given[:2]):
        raise lowering.error("bare-int", node, f"{name} of two literals has no width", "give one a type: u64(...)")
    first, second, kind, taint = common_type(lowering, given[0][0], given[1][0], node, name)
    if not isinstance(kind, WordType):
        raise lowering.error("type-mismatch", node, f"{name} takes words, found {describe(kind)}")
    if taint == "secret" and not secrets:
        raise taint_barrier(lowering, tainted(taint, kind), node, f"an argument of {name}")
    return first, second, kind, taint


def shifting(operation: str) -> Lower:
    """A rotate or wrapping shift: the count is public and taken modulo the width."""

    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        value, word = word_argument(lowering, given[0], "a rotate or shift", unsigned=operation.startswith("rot"))
        count, where = given[1]
        public(lowering, count, where, "a shift count")
        builder = lowering.at(node)
        if isinstance(count, Integer):
            amount = builder.constant(count.value % word.width, word.width)
        elif isinstance(count, Typed) and isinstance(count.type, WordType) and not count.type.signed:
            amount = builder.resize(count.value, word.width)
        else:
            raise lowering.error(
                "type-mismatch", where, f"a shift count is an unsigned word, found {lowering.spell(count)}"
            )
        name = "sar" if operation == "shr" and word.signed else operation
        return Typed(value.type, (builder.emit(name, word.width, value.value, amount),))

    return lower


def counting(operation: str) -> Lower:
    """An operation on one unsigned word, with a result of its type."""

    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        value, word = word_argument(lowering, given[0], "this function", unsigned=True)
        if taint_of(value.type) == "secret" and operation != "bswap":
            raise taint_barrier(lowering, value.type, node, "counted")
        if operation == "bswap" and word.width == 8:
            return value
        return Typed(value.type, (lowering.at(node).emit(operation, word.width, value.value),))

    return lower


def choosing(greatest: bool) -> Lower:
    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        first, second, word, taint = two_words(lowering, given, node)
        builder = lowering.at(node)
        below = builder.emit("slt" if word.signed else "ult", 1, *((first, second) if greatest else (second, first)))
        return Typed(tainted(taint, word), (builder.emit("select", word.width, below, second, first),))

    return lower


# 64-bit multi-word arithmetic


def u64_arguments(lowering: Lowering, given: Given) -> tuple[list[ir.Value], str]:
    """Arguments that are all u64, some perhaps Secret or Untrusted; and the taint."""
    taints = {taint_of(operand.type) for operand, _ in given if isinstance(operand, Typed)} - {""}
    if len(taints) > 1:
        raise lowering.error(
            "type-mismatch", given[0][1], "one operand is Secret, the other Untrusted", "check the untrusted one first"
        )
    values = []
    for operand, node in given:
        taint = taint_of(operand.type) if isinstance(operand, Typed) else ""
        values.append(coerce(lowering, operand, tainted(taint, U64), node).value)
    return values, taints.pop() if taints else ""


def pair(
    lowering: Lowering,
    taint: str,
    public_class: type,
    secret_class: type,
    values: tuple[ir.Value, ir.Value],
    node: ast.AST,
) -> Typed:
    """A Record of two words, of the class that fits the taint."""
    if taint == "untrusted":
        raise taint_barrier(lowering, tainted(taint, U64), node, "part of multi-word arithmetic")
    return Typed(RecordType(secret_class if taint else public_class), values)


def multiply_high(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    (first, second), taint = u64_arguments(lowering, given)
    return Typed(tainted(taint, U64), (lowering.at(node).emit("umulh", 64, first, second),))


def multiply_wide(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    (first, second), taint = u64_arguments(lowering, given)
    builder = lowering.at(node)
    low, high = builder.emit("mul", 64, first, second), builder.emit("umulh", 64, first, second)
    return pair(lowering, taint, Wide, SecretWide, (low, high), node)


def require_bit(lowering: Lowering, carry: ir.Value, taint: str, node: ast.AST) -> None:
    """A public carry is 0 or 1; one that was a bool is known to be, and a secret one may not be looked at."""
    if not taint and not (carry.operation == "zext" and carry.arguments[0].width == 1):
        builder = lowering.at(node)
        builder.check(builder.emit("ule", 1, carry, builder.constant(1, 64)), "a carry is 0 or 1")


def add_with_carry(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    (first, second, carry), taint = u64_arguments(lowering, given)
    require_bit(lowering, carry, taint, node)
    builder = lowering.at(node)
    partial = builder.emit("add", 64, first, second)
    total = builder.emit("add", 64, partial, carry)
    out = builder.emit("or", 1, builder.emit("ult", 1, partial, first), builder.emit("ult", 1, total, partial))
    return pair(lowering, taint, Carry, SecretCarry, (total, builder.emit("zext", 64, out)), node)


def subtract_with_borrow(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    (first, second, borrow), taint = u64_arguments(lowering, given)
    require_bit(lowering, borrow, taint, node)
    builder = lowering.at(node)
    partial = builder.emit("sub", 64, first, second)
    total = builder.emit("sub", 64, partial, borrow)
    out = builder.emit("or", 1, builder.emit("ult", 1, first, second), builder.emit("ult", 1, partial, borrow))
    return pair(lowering, taint, Carry, SecretCarry, (total, builder.emit("zext", 64, out)), node)


# Checked and signed arithmetic


def checked(overflowed: Callable[[Lowering, ir.Value, ir.Value, WordType], tuple[ir.Value, ir.Value]]) -> Lower:
    """W | Failure from a function that gives the wrapped result and a bool: overflowed."""

    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        first, second, word, taint = two_words(lowering, given, node)
        if taint:
            raise taint_barrier(lowering, tainted(taint, word), node, "checked")
        builder = lowering.at(node)
        result, failed = overflowed(lowering, first, second, word)
        code = builder.emit("select", 64, failed, builder.constant(OUT_OF_RANGE, 64), builder.constant(0, 64))
        return Typed(FallibleType(word), (code, result))

    return lower


def sum_overflow(lowering: Lowering, a: ir.Value, b: ir.Value, word: WordType) -> tuple[ir.Value, ir.Value]:
    builder, width = lowering.builder, word.width
    total = builder.emit("add", width, a, b)
    if not word.signed:
        return total, builder.emit("ult", 1, total, a)
    differs = builder.emit("and", width, builder.emit("xor", width, a, total), builder.emit("xor", width, b, total))
    return total, builder.emit("slt", 1, differs, builder.constant(0, width))


def difference_overflow(lowering: Lowering, a: ir.Value, b: ir.Value, word: WordType) -> tuple[ir.Value, ir.Value]:
    builder, width = lowering.builder, word.width
    difference = builder.emit("sub", width, a, b)
    if not word.signed:
        return difference, builder.emit("ult", 1, a, b)
    differs = builder.emit("and", width, builder.emit("xor", width, a, b), builder.emit("xor", width, a, difference))
    return difference, builder.emit("slt", 1, differs, builder.constant(0, width))


def product_overflow(lowering: Lowering, a: ir.Value, b: ir.Value, word: WordType) -> tuple[ir.Value, ir.Value]:
    builder, width = lowering.builder, word.width
    product = builder.emit("mul", width, a, b)
    if width < 64:
        wide = builder.emit("mul", 64, builder.resize(a, 64, word.signed), builder.resize(b, 64, word.signed))
        return product, builder.emit("ne", 1, wide, builder.resize(product, 64, word.signed))
    high = builder.emit("umulh", 64, a, b)
    if not word.signed:
        return product, builder.emit("ne", 1, high, builder.constant(0, 64))
    sign = builder.constant(63, 64)
    for factor, other in ((a, b), (b, a)):  # the unsigned high half counts 2**64 too much for each negative factor
        extra = builder.emit("and", 64, builder.emit("sar", 64, factor, sign), other)
        high = builder.emit("sub", 64, high, extra)
    return product, builder.emit("ne", 1, high, builder.emit("sar", 64, product, sign))


def truncating(operation: str) -> Lower:
    """Signed division toward zero. MIN / -1 wraps: dividing by -1 is negating, and leaves no remainder."""

    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        first, second, word, taint = two_words(lowering, given, node)
        if not word.signed:
            raise lowering.error(
                "type-mismatch", node, f"signed words only, found {describe(word)}", "// and % divide unsigned words"
            )
        if taint:
            raise taint_barrier(lowering, tainted(taint, word), node, "divided")
        nonzero_divisor(lowering, second, node)
        builder, width = lowering.at(node), word.width
        is_minus_one = builder.emit("eq", 1, second, builder.constant(-1, width))
        divisor = builder.emit("select", width, is_minus_one, builder.constant(1, width), second)
        result = builder.emit(operation, width, first, divisor)
        if operation == "sdiv":
            result = builder.emit("select", width, is_minus_one, builder.emit("neg", width, first), result)
        return Typed(word, (result,))

    return lower


# Secrets


def widening(taint: str) -> Lower:
    """widen_secret and widen_untrusted: the same number in a wider word, the taint stays."""

    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        return widen(lowering, given, node, taint)

    return lower


def widen(lowering: Lowering, given: Given, node: ast.Call, taint: str) -> Operand:
    target = lowering.unit.constants.class_type(lowering, getattr(given[0][0], "python", None), given[0][1])
    value, word = word_argument(lowering, given[1], f"widen_{taint}", unsigned=True)
    if not isinstance(target, WordType) or target.signed or target.width < word.width or taint_of(value.type) != taint:
        text = f"widen_{taint} takes a wider unsigned word and {taint.capitalize()}, found {describe(target)} and {describe(value.type)}"
        raise lowering.error("type-mismatch", node, text)
    return Typed(tainted(taint, target), (lowering.at(node).resize(value.value, target.width),))


def constant_time_equal(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    """1 if equal, else 0, by arithmetic that the optimiser cannot see through."""
    first, second, word, _ = two_words(lowering, given, node, secrets=True)
    builder = lowering.at(node)
    difference = builder.emit("opaque", 64, builder.resize(builder.emit("xor", word.width, first, second), 64))
    either = builder.emit("or", 64, difference, builder.emit("neg", 64, difference))
    unequal = builder.emit("shr", 64, either, builder.constant(63, 64))
    return Typed(SECRET_U64, (builder.emit("xor", 64, unequal, builder.constant(1, 64)),))


def constant_time_select(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    """A if flag is 1, b if it is 0, by masks."""
    flag = coerce(lowering, given[0][0], SECRET_U64, given[0][1]).value
    first, second, word, _ = two_words(lowering, given[1:], node, secrets=True)
    builder = lowering.at(node)
    mask = builder.resize(builder.emit("neg", 64, builder.emit("opaque", 64, flag)), word.width)
    chosen = builder.emit("and", word.width, mask, builder.emit("xor", word.width, first, second))
    kind: Type = tainted("secret", word)
    return Typed(kind, (builder.emit("xor", word.width, second, chosen),))


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
    "multiply_high": multiply_high,
    "multiply_wide": multiply_wide,
    "add_with_carry": add_with_carry,
    "subtract_with_borrow": subtract_with_borrow,
    "checked_add": checked(sum_overflow),
    "checked_subtract": checked(difference_overflow),
    "checked_multiply": checked(product_overflow),
    "divide_truncating": truncating("sdiv"),
    "remainder_truncating": truncating("srem"),
    "widen_secret": widening("secret"),
    "widen_untrusted": widening("untrusted"),
    "constant_time_equal": constant_time_equal,
    "constant_time_select": constant_time_select,
}
