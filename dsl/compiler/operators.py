"""Operators: arithmetic, shifts, division, comparison, on words, addresses and integers of build time."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dsl.compiler import ir
from dsl.compiler.expressions import evaluate
from dsl.compiler.fitting import coerce, conversion_help, public, taint_barrier
from dsl.compiler.operands import Integer, Operand, Typed
from dsl.compiler.shapes import BOOL, U64, describe, strip, taint_of, tainted, word_of
from dsl.lang.types import (
    AddressType,
    BitsType,
    BoolType,
    EnumType,
    QualifiedType,
    StructType,
    Type,
    WordType,
)

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


INTEGER_OPERATORS: Final[dict[type, Callable[[Any, Any], int]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.Pow: operator.pow,
}  # fmt: skip
COMPARISONS: Final[dict[type, Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
ARITHMETIC: Final = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
}  # fmt: skip
SIGNS: Final = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.LShift: "<<", ast.RShift: ">>", ast.Pow: "**", ast.Div: "/", ast.MatMult: "@",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "is", ast.IsNot: "is not",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


def operate(lowering: Lowering, op: ast.operator, left: Operand, right: Operand, node: ast.AST) -> Operand:
    """A binary operator on two evaluated operands."""
    sign = SIGNS[type(op)]
    if isinstance(left, Integer) and isinstance(right, Integer):
        return integer_operation(lowering, op, left.value, right.value, node)
    if isinstance(op, ast.LShift | ast.RShift):
        return shift(lowering, op, left, right, node)
    if isinstance(left, Typed) and isinstance(left.type, AddressType):
        return address_arithmetic(lowering, op, left, right, node)
    for operand in (left, right):
        found = strip(operand.type) if isinstance(operand, Typed) else U64
        if not isinstance(found, WordType):
            help_ = {BoolType: "use and, or, not, !=", BitsType: "work on .raw()", EnumType: "work on .value"}.get(
                type(found), ""
            )
            raise lowering.error(
                "type-mismatch", node, f"'{sign}' works on words, found {lowering.spell(operand)}", help_
            )
    first, second, kind, taint = common_type(lowering, left, right, node, sign)
    builder = lowering.at(node)
    assert isinstance(kind, WordType)
    if isinstance(op, ast.FloorDiv | ast.Mod):
        if isinstance(right, Typed) and taint_of(right.type):
            raise taint_barrier(lowering, right.type, node, "a divisor")
        return divide(lowering, op, first, second, kind, taint, node)
    if type(op) not in ARITHMETIC:
        raise lowering.error(
            "unsupported", node, f"the operator '{sign}' is not in the language", "// divides unsigned words"
        )
    return Typed(tainted(taint, kind), (builder.emit(ARITHMETIC[type(op)], kind.width, first, second),))


def integer_operation(lowering: Lowering, op: ast.operator, left: int, right: int, node: ast.AST) -> Integer:
    function = INTEGER_OPERATORS.get(type(op))
    if function is None:
        raise lowering.error("unsupported", node, f"the operator '{SIGNS[type(op)]}' is not in the language")
    if isinstance(op, ast.LShift | ast.Pow) and not 0 <= right <= 4096:
        raise lowering.error("shift-range", node, f"the count {right} is out of range")
    try:
        return Integer(function(left, right))
    except (ZeroDivisionError, ValueError) as problem:
        raise lowering.error("division-by-zero", node, f"{left} {SIGNS[type(op)]} {right}: {problem}") from None


def common_type(
    lowering: Lowering, left: Operand, right: Operand, node: ast.AST, sign: str
) -> tuple[ir.Value, ir.Value, Type, str]:
    """Both operands in registers, their one type without taint, and the taint of the two."""
    for operand in (left, right):
        if not isinstance(operand, Typed | Integer):
            raise lowering.error("type-mismatch", node, f"{lowering.spell(operand)} has no operator '{sign}'")
    kinds = [operand.type for operand in (left, right) if isinstance(operand, Typed)]
    taints = {taint_of(kind) for kind in kinds} - {""}
    if len(taints) > 1:
        raise lowering.error(
            "type-mismatch", node, "one operand is Secret, the other Untrusted", "check the untrusted one first"
        )
    kind = strip(kinds[0])
    for part in kinds:
        if isinstance(part, QualifiedType) and not taint_of(part):
            raise lowering.error("type-mismatch", node, f"{describe(part)} is no value")
        if strip(part) != kind:
            text = f"'{sign}' has {lowering.spell(left)} on its left and {lowering.spell(right)} on its right"
            smaller, larger = sorted((kinds[0], kinds[1]), key=lambda k: getattr(strip(k), "width", 0))
            raise lowering.error("type-mismatch", node, text, conversion_help(Typed(strip(smaller), ()), strip(larger)))
    first, second = (coerce_operand(lowering, operand, kind, node) for operand in (left, right))
    return first, second, kind, taints.pop() if taints else ""


def coerce_operand(lowering: Lowering, operand: Operand, kind: Type, node: ast.AST) -> ir.Value:
    if isinstance(operand, Typed):
        if len(operand.values) != 1:
            raise lowering.error("type-mismatch", node, f"{describe(operand.type)} is no single value")
        return operand.value
    if isinstance(kind, AddressType) and isinstance(operand, Integer):
        text = f"expected {describe(kind)}, found the literal {operand.value}"
        raise lowering.error("type-mismatch", node, text, f"{describe(kind)}({operand.value})")
    return coerce(lowering, operand, kind, node, literal=True).value


def divide(
    lowering: Lowering, op: ast.operator, left: ir.Value, right: ir.Value, kind: WordType, taint: str, node: ast.AST
) -> Typed:
    sign = SIGNS[type(op)]
    if kind.signed:
        help_ = "divide_truncating and remainder_truncating divide signed words"
        raise lowering.error("type-mismatch", node, f"'{sign}' divides unsigned words, found {describe(kind)}", help_)
    if taint == "secret":
        raise taint_barrier(lowering, tainted(taint, kind), node, "divided")
    nonzero_divisor(lowering, right, node)
    operation = "udiv" if isinstance(op, ast.FloorDiv) else "urem"
    return Typed(tainted(taint, kind), (lowering.at(node).emit(operation, kind.width, left, right),))


def nonzero_divisor(lowering: Lowering, divisor: ir.Value, node: ast.AST) -> None:
    builder = lowering.at(node)
    if divisor.operation == "const" and divisor.data == 0 and not lowering.dead:
        raise lowering.error("division-by-zero", node, "the divisor is zero")
    builder.check(builder.emit("ne", 1, divisor, builder.constant(0, divisor.width)), "division by zero")


def shift(lowering: Lowering, op: ast.operator, left: Operand, right: Operand, node: ast.AST) -> Typed:
    sign = SIGNS[type(op)]
    if isinstance(left, Integer):
        raise lowering.error(
            "bare-int", node, f"the literal {left.value} is shifted by a variable", f"give it a type: u64({left.value})"
        )
    if not isinstance(left, Typed) or not isinstance(strip(left.type), WordType):
        raise lowering.error("type-mismatch", node, f"'{sign}' works on words, found {lowering.spell(left)}")
    word = strip(left.type)
    assert isinstance(word, WordType)
    builder = lowering.at(node)
    count = shift_count(lowering, right, word, node)
    operation = "shl" if isinstance(op, ast.LShift) else "sar" if word.signed else "shr"
    return Typed(left.type, (builder.emit(operation, word.width, left.value, count),))


def shift_count(lowering: Lowering, right: Operand, word: WordType, node: ast.AST) -> ir.Value:
    """A shift's count at the shifted word's width, checked to be below it."""
    builder = lowering.at(node)
    public(lowering, right, node, "a shift count")
    if isinstance(right, Integer):
        if not 0 <= right.value < word.width and not lowering.dead:
            help_ = "shift_left_wrapping and shift_right_wrapping take it modulo the width"
            raise lowering.error("shift-range", node, f"{describe(word)} is shifted by {right.value}", help_)
        return builder.constant(right.value, word.width)
    if not isinstance(right, Typed) or not isinstance(right.type, WordType) or right.type.signed:
        raise lowering.error("type-mismatch", node, f"a shift count is an unsigned word, found {lowering.spell(right)}")
    known = right.value.data if right.value.operation == "const" else None
    if isinstance(known, int) and known >= word.width and not lowering.dead:
        raise lowering.error("shift-range", node, f"{describe(word)} is shifted by {known}")
    builder.check(builder.emit("ult", 1, right.value, builder.constant(word.width, right.value.width)), "shift count")
    return builder.resize(right.value, word.width)


def address_arithmetic(lowering: Lowering, op: ast.operator, left: Typed, right: Operand, node: ast.AST) -> Typed:
    """A + n, a - n, and the distance a - b."""
    builder = lowering.at(node)
    if isinstance(op, ast.Sub) and isinstance(right, Typed) and right.type == left.type:
        return Typed(U64, (builder.emit("sub", 64, left.value, right.value),))
    if not isinstance(op, ast.Add | ast.Sub):
        help_ = "align_down and align_up align; as_u64() gives the number"
        raise lowering.error("type-mismatch", node, f"an address has no operator '{SIGNS[type(op)]}'", help_)
    public(lowering, right, node, "part of an address")
    offset = coerce(lowering, right, U64, node, literal=True).value
    return Typed(left.type, (builder.emit("add" if isinstance(op, ast.Add) else "sub", 64, left.value, offset),))


def unary(lowering: Lowering, node: ast.UnaryOp) -> Operand:
    operand = evaluate(lowering, node.operand)
    builder = lowering.at(node)
    sign = {ast.USub: "-", ast.Invert: "~", ast.UAdd: "+"}[type(node.op)]
    if isinstance(operand, Integer):
        return Integer({"-": -operand.value, "~": ~operand.value, "+": operand.value}[sign])
    word = strip(operand.type) if isinstance(operand, Typed) else None
    if not isinstance(operand, Typed) or not isinstance(word, WordType) or sign == "+":
        raise lowering.error("type-mismatch", node, f"unary '{sign}' has no meaning for {lowering.spell(operand)}")
    if sign == "-" and not word.signed:
        raise lowering.error(
            "type-mismatch", node, f"'-' negates signed words, found {describe(word)}", "~x + 1 negates modulo 2**n"
        )
    return Typed(operand.type, (builder.emit("neg" if sign == "-" else "not", word.width, operand.value),))


def comparison(lowering: Lowering, node: ast.Compare) -> Typed:
    if len(node.ops) != 1:
        raise lowering.error("unsupported", node, "comparisons do not chain", "write a <= b and b < c")
    op = node.ops[0]
    left, right = evaluate(lowering, node.left), evaluate(lowering, node.comparators[0])
    sign = SIGNS[type(op)]
    builder = lowering.at(node)
    if isinstance(left, Integer) and isinstance(right, Integer) and type(op) in COMPARISONS:
        return Typed(BOOL, (builder.constant(int(COMPARISONS[type(op)](left.value, right.value)), 1),))
    first, second, kind, taint = common_type(lowering, left, right, node, sign)
    if taint == "secret":
        help_ = "constant_time_equal(a, b) compares secrets"
        raise lowering.error("secret-leak", node, "a secret is compared", help_)
    ordered = isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    identity = isinstance(op, ast.Is | ast.IsNot)
    allowed = isinstance(kind, WordType | AddressType) or (
        not ordered and isinstance(kind, EnumType | BitsType | BoolType)
    )
    if not allowed or (identity and not isinstance(kind, EnumType)) or isinstance(op, ast.In | ast.NotIn):
        help_ = "compare fields, or address_of(a) == address_of(b)" if isinstance(kind, StructType) else ""
        raise lowering.error("type-mismatch", node, f"'{sign}' does not compare {describe(kind)}", help_)
    word = word_of(kind)
    prefix = "s" if word is not None and word.signed else "u"
    if isinstance(op, ast.Gt | ast.GtE):
        first, second = second, first
    name_ = {ast.Eq: "eq", ast.Is: "eq", ast.NotEq: "ne", ast.IsNot: "ne"}.get(type(op)) or (
        prefix + ("lt" if isinstance(op, ast.Lt | ast.Gt) else "le")
    )
    return Typed(tainted(taint, BOOL), (builder.emit(name_, 1, first, second),))
