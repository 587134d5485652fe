"""Conditions: control that splits on a bool, with what each side then knows about types."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from dsl.compiler import ir
from dsl.compiler.builder import Binding, Position
from dsl.compiler.expressions import evaluate
from dsl.compiler.fitting import coerce, taint_barrier
from dsl.compiler.operands import Integer, Named, Nothing, Operand, Typed
from dsl.compiler.shapes import BOOL, FAILURE, general, taint_of
from dsl.lang.types import BoolType, FailureType, FallibleType, StructType, Type

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


def condition(lowering: Lowering, node: ast.expr) -> tuple[Position, Position]:
    """Split here on a bool expression: where it is true, and where it is false."""
    builder = lowering.builder
    match node:
        case ast.BoolOp(op=operator, values=parts):
            return short_circuit(lowering, parts, isinstance(operator, ast.And))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            yes, no = condition(lowering, inner)
            return no, yes
    narrowing = narrowing_test(lowering, node)
    value = narrowing[0] if narrowing else truth(lowering, node)
    lowering.at(node)
    yes, no = builder.branch(value)
    if narrowing and narrowing[1]:
        _, name, when_true, when_false = narrowing
        narrow(yes, name, when_true)
        narrow(no, name, when_false)
    return yes, no


def short_circuit(lowering: Lowering, parts: list[ast.expr], is_and: bool) -> tuple[Position, Position]:
    """`and` (or `or`): each part is evaluated only where those before it held (or failed)."""
    left: list[Position] = []  # where the rest was skipped
    for part in parts[:-1]:
        yes, no = condition(lowering, part)
        left.append(no if is_and else yes)
        lowering.builder.position = yes if is_and else no
    yes, no = condition(lowering, parts[-1])
    if is_and:
        return yes, lowering.builder.join([*left, no], lowering.declared)
    return lowering.builder.join([*left, yes], lowering.declared), no


def truth(lowering: Lowering, node: ast.expr) -> ir.Value:
    """The value of a condition, which must be a public bool."""
    operand = evaluate(lowering, node)
    if isinstance(operand, Typed):
        if isinstance(operand.type, BoolType):
            return operand.value
        if taint_of(operand.type):
            raise taint_barrier(lowering, operand.type, node, "a condition")
    raise lowering.error(
        "type-mismatch", node, f"a condition is bool, found {lowering.spell(operand)}", "compare it: x != 0"
    )


def narrow(position: Position, name: str, kind: Type) -> None:
    binding = position.environment[name]
    position.environment[name] = replace(binding, type=kind)


def narrows(node: ast.expr) -> bool:
    """Whether a test can narrow the type of a local."""
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return narrows(inner)
        case ast.Compare(ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return True
        case ast.Call(func=ast.Name(id="isinstance")):
            return True
    return False


def narrowing_test(lowering: Lowering, node: ast.expr) -> tuple[ir.Value, str, Type, Type] | None:
    """For `x is None`, `x is not None`, `isinstance(x, Failure)`: the condition, the local, its types when true and when false."""
    match node:
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as operator], comparators=[ast.Constant(value=None)]):
            return none_test(lowering, node, left, isinstance(operator, ast.IsNot))
        case ast.Call(func=ast.Name(id="isinstance"), args=[argument, against]):
            return failure_test(lowering, node, argument, against)
    return None


def none_test(lowering: Lowering, node: ast.Compare, left: ast.expr, negated: bool) -> tuple[ir.Value, str, Type, Type]:
    operand = evaluate(lowering, left)
    builder = lowering.at(node)
    if isinstance(operand, Nothing) or not isinstance(operand, Typed) or not isinstance(operand.type, StructType):
        raise lowering.error(
            "type-mismatch", left, f"only T | None is compared with None, found {lowering.spell(operand)}"
        )
    if not operand.type.optional:
        return builder.constant(int(negated), 1), "", operand.type, operand.type
    present, absent = StructType(operand.type.python), operand.type
    value = builder.emit("ne" if negated else "eq", 1, operand.value, builder.constant(0, 64))
    name = left.id if isinstance(left, ast.Name) and left.id in builder.environment else ""
    return (value, name, present, absent) if negated else (value, name, absent, present)


def failure_test(
    lowering: Lowering, node: ast.Call, argument: ast.expr, against: ast.expr
) -> tuple[ir.Value, str, Type, Type]:
    operand, python = evaluate(lowering, argument), evaluate(lowering, against)
    if not isinstance(python, Named) or python.python is not lowering.unit.failure_class:
        raise lowering.error(
            "type-mismatch", against, "isinstance tests for Failure only", "compare an Enum to tell kinds apart"
        )
    if not isinstance(operand, Typed) or not isinstance(operand.type, FallibleType | FailureType):
        text = f"isinstance tests T | Failure, found {lowering.spell(operand)}"
        raise lowering.error("type-mismatch", argument, text, "it cannot be a Failure here")
    builder = lowering.at(node)
    if isinstance(operand.type, FailureType):
        return builder.constant(1, 1), "", FAILURE, FAILURE
    if not isinstance(argument, ast.Name):
        raise lowering.error(
            "not-narrowed", argument, "only a local can be narrowed", "assign the result to a local first"
        )
    value = builder.emit("ne", 1, operand.values[0], builder.constant(0, 64))
    return value, argument.id, FAILURE, operand.type.inner


def bool_value(lowering: Lowering, node: ast.expr) -> Typed:
    """A condition as a value: 1 where it is true, 0 where it is false."""
    yes, no = condition(lowering, node)
    builder = lowering.at(node)
    arms = []
    for position, known in ((yes, 1), (no, 0)):
        builder.position = position
        arms.append((position, Typed(BOOL, (builder.constant(known, 1),))))
    return choose(lowering, arms)


RESULT = "result "  # a local that no program can name


def choose(lowering: Lowering, arms: list[tuple[Position, Typed]]) -> Typed:
    """The value of the arm through which control came; all have one type. Control goes on where the arms meet."""
    builder = lowering.builder
    for position, typed in arms:
        position.environment[RESULT] = Binding(typed.values, typed.type, typed.in_frame)
    builder.position = builder.join([position for position, _ in arms], lowering.declared | {RESULT: arms[0][1].type})
    binding = builder.environment.pop(RESULT)
    return Typed(arms[0][1].type, binding.values, binding.in_frame)


def conditional(lowering: Lowering, node: ast.IfExp) -> Typed:
    """`a if c else b`: one arm is evaluated; both have one type, or one is a reference and the other None."""
    yes, no = condition(lowering, node.test)
    arms: list[tuple[Position, Operand]] = []
    for position, part in ((yes, node.body), (no, node.orelse)):
        lowering.builder.position = position
        operand = evaluate(lowering, part)
        if isinstance(operand, Integer | Named):
            text = f"an arm of a conditional needs a type, found {lowering.spell(operand)}"
            raise lowering.error("bare-int", part, text, "give the literal a type: u64(0)")
        arms.append((lowering.builder.position, operand))
    kind = common_kind(lowering, arms[0][1], arms[1][1], node)
    chosen = []
    for (position, operand), part in zip(arms, (node.body, node.orelse), strict=True):
        lowering.builder.position = position
        chosen.append((position, coerce(lowering, operand, kind, part)))
    return choose(lowering, chosen)


def common_kind(lowering: Lowering, first: Operand, second: Operand, node: ast.AST) -> Type:
    """The one type of two arms."""
    kinds = [general(operand.type) for operand in (first, second) if isinstance(operand, Typed)]
    references = [kind for kind in kinds if isinstance(kind, StructType)]
    if references and len(references) == len(kinds) and len({kind.python for kind in references}) == 1:
        absent = len(kinds) == 1 or any(kind.optional for kind in references)
        return StructType(references[0].python, optional=absent)
    if len(kinds) != 2 or kinds[0] != kinds[1]:
        text = f"one arm is {lowering.spell(first)}, the other {lowering.spell(second)}"
        raise lowering.error("type-mismatch", node, text, "convert one of them")
    return kinds[0]
