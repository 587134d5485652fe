"""Operators: arithmetic, shifts, division, comparison, on words, addresses and integers of build time."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dsl.compiler import ir
from dsl.compiler.conditions import bool_value, narrows
from dsl.compiler.fitting import coerce, conversion_help, public, taint_barrier
from dsl.compiler.lower import Lowering
from dsl.compiler.operands import LARGEST_INTEGER, Integer, Operand, Typed
from dsl.lang import types as t


@dataclass(frozen=True, slots=True)
class Sign:
    """How an operator is written, what it does to ints (None: nothing), and its IR operation on words ("": another way)."""

    text: str
    integers: Callable[[Any, Any], int] | None = None
    words: str = ""


SIGNS: Final = {
    ast.Add: Sign("+", operator.add, "add"),
    ast.Sub: Sign("-", operator.sub, "sub"),
    ast.Mult: Sign("*", operator.mul, "mul"),
    ast.BitAnd: Sign("&", operator.and_, "and"),
    ast.BitOr: Sign("|", operator.or_, "or"),
    ast.BitXor: Sign("^", operator.xor, "xor"),
    ast.FloorDiv: Sign("//", operator.floordiv, "udiv"),
    ast.Mod: Sign("%", operator.mod, "urem"),
    ast.LShift: Sign("<<", operator.lshift, "shl"),
    ast.RShift: Sign(">>", operator.rshift, "shr"),
    ast.Pow: Sign("**", operator.pow),
    ast.Div: Sign("/"),
    ast.MatMult: Sign("@"),
    ast.Eq: Sign("==", operator.eq, "eq"),
    ast.NotEq: Sign("!=", operator.ne, "ne"),
    ast.Lt: Sign("<", operator.lt, "lt"),
    ast.LtE: Sign("<=", operator.le, "le"),
    ast.Gt: Sign(">", operator.gt, "lt"),  # with its sides exchanged
    ast.GtE: Sign(">=", operator.ge, "le"),
    ast.Is: Sign("is", None, "eq"),
    ast.IsNot: Sign("is not", None, "ne"),
    ast.In: Sign("in"),
    ast.NotIn: Sign("not in"),
}
WORD_HELP: Final = {
    t.BoolType: "use and, or, not, !=",
    t.BitsType: "work on .raw()",
    t.EnumType: "work on .value",
}


def binary(lowering: Lowering, node: ast.BinOp) -> Operand:
    left = lowering.evaluate(node.left)
    return operate(lowering, node.op, left, lowering.evaluate(node.right), node)


def operate(lowering: Lowering, op: ast.operator, left: Operand, right: Operand, node: ast.AST) -> Operand:
    """A binary operator on two evaluated operands."""
    sign = SIGNS[type(op)]
    if isinstance(left, Integer) and isinstance(right, Integer):
        return integer_operation(lowering, sign, left.value, right.value, node)
    if isinstance(op, ast.LShift | ast.RShift):
        return shift(lowering, sign, left, right, node)
    if isinstance(left, Typed) and isinstance(left.type, t.AddressType):
        return address_arithmetic(lowering, sign, left, right, node)
    for operand in (left, right):
        if isinstance(operand, Typed) and not isinstance(operand.plain, t.WordType):
            text, help_ = f"'{sign.text}' works on words, found {operand}", WORD_HELP.get(type(operand.plain), "")
            raise lowering.error("type-mismatch", node, text, help_)
    first, second, kind = common_type(lowering, left, right, node, sign.text)
    if isinstance(op, ast.FloorDiv | ast.Mod):
        require_divisible(lowering, sign, right, kind, second, node)
    elif not sign.words:
        text = f"the operator '{sign.text}' is not in the language"
        raise lowering.error("unsupported", node, text, "// divides unsigned words")
    return Typed(kind, (lowering.at(node).emit(sign.words, first, second),))


def integer_operation(lowering: Lowering, sign: Sign, left: int, right: int, node: ast.AST) -> Integer:
    if sign.integers is None:
        raise lowering.error("unsupported", node, f"the operator '{sign.text}' is not in the language")
    if sign.text in ("<<", ">>", "**") and not 0 <= right <= LARGEST_INTEGER:
        raise lowering.error("shift-range", node, f"the count {right} is out of range")
    bits = left.bit_length()
    size = {"**": bits * right, "<<": bits + right}.get(sign.text, bits + right.bit_length())
    if size > LARGEST_INTEGER:
        raise lowering.error("literal-range", node, f"this int constant may take more than {LARGEST_INTEGER} bits")
    try:
        return Integer(sign.integers(left, right))
    except (ZeroDivisionError, ValueError) as problem:
        raise lowering.error("division-by-zero", node, f"{left} {sign.text} {right}: {problem}") from None


def common_type(
    lowering: Lowering, left: Operand, right: Operand, node: ast.AST, sign: str
) -> tuple[ir.Value, ir.Value, t.Type]:
    """Both operands in registers, and their one type, tainted if one of them is."""
    for operand in (left, right):
        if not isinstance(operand, Typed | Integer):
            help_ = "machine code has words, such as u64(1), and Enums of them"
            raise lowering.error("type-mismatch", node, f"{operand} has no operator '{sign}'", help_)
    kinds = [operand.type for operand in (left, right) if isinstance(operand, Typed)]
    taint = common_taint(lowering, [left, right], node)
    kind = kinds[0].plain
    for part in kinds:
        if part.volatile:
            raise lowering.error("type-mismatch", node, f"{part} is no value")
        if part.plain != kind:
            text = f"'{sign}' has {left} on its left and {right} on its right"
            smaller, larger = sorted((each.plain for each in kinds), key=lambda each: getattr(each, "width", 0))
            raise lowering.error("type-mismatch", node, text, conversion_help(Typed(smaller), larger))
    first, second = (single_value(lowering, operand, kind, node) for operand in (left, right))
    return first, second, t.tainted(taint, kind)


def common_taint(lowering: Lowering, operands: list[Operand], node: ast.AST) -> str:
    """The taint of operands of which others may be public."""
    taints = {operand.taint for operand in operands} - {""}
    if len(taints) > 1:
        text, help_ = "one operand is Secret, the other Untrusted", "check the untrusted one first"
        raise lowering.error("type-mismatch", node, text, help_)
    return taints.pop() if taints else ""


def single_value(lowering: Lowering, operand: Operand, kind: t.Type, node: ast.AST) -> ir.Value:
    if isinstance(operand, Typed):
        if len(operand.values) != 1:
            raise lowering.error("type-mismatch", node, f"{operand} is no single value")
        return operand.value
    return coerce(lowering, operand, kind, node, literal=True).value


def require_divisible(
    lowering: Lowering, sign: Sign, right: Operand, kind: t.Type, divisor: ir.Value, node: ast.AST
) -> None:
    """Division is of unsigned words that are no secrets, by a public one that is not zero."""
    public(lowering, right, node, "a divisor")
    if isinstance(kind.plain, t.WordType) and kind.plain.signed:
        text = f"'{sign.text}' divides unsigned words, found {kind.plain}"
        help_ = "divide_truncating and remainder_truncating divide signed words"
        raise lowering.error("type-mismatch", node, text, help_)
    if kind.taint == "secret":
        raise taint_barrier(lowering, kind, node, "divided")
    nonzero_divisor(lowering, divisor, node)


def nonzero_divisor(lowering: Lowering, divisor: ir.Value, node: ast.AST) -> None:
    holds = lowering.at(node).emit("ne", divisor, 0)
    lowering.require("division-by-zero", holds, "division by zero", node, "the divisor is zero")


def shift(lowering: Lowering, sign: Sign, left: Operand, right: Operand, node: ast.AST) -> Typed:
    if isinstance(left, Integer):
        text, help_ = f"the literal {left.value} is shifted by a variable", f"give it a type: u64({left.value})"
        raise lowering.error("bare-int", node, text, help_)
    word = left.plain
    if not isinstance(left, Typed) or not isinstance(word, t.WordType):
        raise lowering.error("type-mismatch", node, f"'{sign.text}' works on words, found {left}")
    count = shift_count(lowering, right, word, node)
    operation = "sar" if word.signed and sign.words == "shr" else sign.words
    return Typed(left.type, (lowering.at(node).emit(operation, left.value, count),))


def shift_count(lowering: Lowering, right: Operand, word: t.WordType, node: ast.AST, wraps: bool = False) -> ir.Value:
    """A shift's count at the shifted word's width; checked to be below it, unless it wraps."""
    builder = lowering.at(node)
    public(lowering, right, node, "a shift count")
    if isinstance(right, Integer):
        if not wraps and not 0 <= right.value < word.width and not lowering.dead:
            help_ = "shift_left_wrapping and shift_right_wrapping take it modulo the width"
            raise lowering.error("shift-range", node, f"{word} is shifted by {right.value}", help_)
        return builder.constant(right.value % word.width if wraps else right.value, word.width)
    if not isinstance(right, Typed) or not right.is_unsigned:
        raise lowering.error("type-mismatch", node, f"a shift count is an unsigned word, found {right}")
    if not wraps:
        below, text = builder.emit("ult", right.value, word.width), f"{word} is shifted by {right.value.constant}"
        lowering.require("shift-range", below, "shift count", node, text)
    return builder.resize(right.value, word.width)


def address_arithmetic(lowering: Lowering, sign: Sign, left: Typed, right: Operand, node: ast.AST) -> Typed:
    """A + n, a - n, and the distance a - b."""
    if sign.words == "sub" and isinstance(right, Typed) and right.type == left.type:
        return Typed(t.U64, (lowering.at(node).emit("sub", left.value, right.value),))
    if sign.words not in ("add", "sub"):
        help_ = "align_down and align_up align; as_u64() gives the number"
        raise lowering.error("type-mismatch", node, f"an address has no operator '{sign.text}'", help_)
    public(lowering, right, node, "part of an address")
    offset = coerce(lowering, right, t.U64, node, literal=True).value
    return Typed(left.type, (lowering.at(node).emit(sign.words, left.value, offset),))


def unary(lowering: Lowering, node: ast.UnaryOp) -> Operand:
    if isinstance(node.op, ast.Not):
        return bool_value(lowering, node)
    operand = lowering.evaluate(node.operand)
    sign = {ast.USub: "-", ast.Invert: "~", ast.UAdd: "+"}[type(node.op)]
    if isinstance(operand, Integer):
        return Integer({"-": -operand.value, "~": ~operand.value, "+": operand.value}[sign])
    word = operand.plain
    if not isinstance(operand, Typed) or not isinstance(word, t.WordType) or sign == "+":
        raise lowering.error("type-mismatch", node, f"unary '{sign}' has no meaning for {operand}")
    if sign == "-" and not word.signed:
        text, help_ = f"'-' negates signed words, found {word}", "~x + 1 negates modulo 2**n"
        raise lowering.error("type-mismatch", node, text, help_)
    return Typed(operand.type, (lowering.at(node).emit("neg" if sign == "-" else "not", operand.value),))


def comparison(lowering: Lowering, node: ast.Compare) -> Typed:
    if narrows(node):
        return bool_value(lowering, node)
    if len(node.ops) != 1:
        raise lowering.error("unsupported", node, "comparisons do not chain", "write a <= b and b < c")
    sign = SIGNS[type(node.ops[0])]
    left, right = lowering.evaluate(node.left), lowering.evaluate(node.comparators[0])
    builder = lowering.at(node)
    if isinstance(left, Integer) and isinstance(right, Integer) and sign.integers is not None:
        return Typed(t.BOOL, (builder.constant(sign.integers(left.value, right.value), 1),))
    first, second, common = common_type(lowering, left, right, node, sign.text)
    kind = common.plain
    if common.taint == "secret":
        help_ = "constant_time_equal(a, b) compares secrets"
        raise lowering.error("secret-leak", node, "a secret is compared", help_)
    if not compares(sign, kind):
        help_ = "compare fields, or address_of(a) == address_of(b)" if isinstance(kind, t.StructType) else ""
        raise lowering.error("type-mismatch", node, f"'{sign.text}' does not compare {kind}", help_)
    if sign.text in (">", ">="):
        first, second = second, first
    signed = isinstance(kind, t.ScalarType) and kind.word.signed
    prefix = "" if sign.words in ("eq", "ne") else "s" if signed else "u"
    return Typed(t.tainted(common.taint, t.BOOL), (builder.emit(prefix + sign.words, first, second),))


def compares(sign: Sign, kind: t.Type) -> bool:
    """Whether values of a type have this comparison."""
    if sign.text in ("is", "is not"):
        return isinstance(kind, t.EnumType)
    if sign.text in ("==", "!="):
        return isinstance(kind, t.ScalarType | t.BoolType)
    return isinstance(kind, t.WordType | t.AddressType) and bool(sign.words)
