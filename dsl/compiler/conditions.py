"""Conditions: control that splits on a bool, with what each side then knows about types."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from dsl.compiler import ir
from dsl.compiler.builder import Loop, Position
from dsl.compiler.fitting import coerce, public
from dsl.compiler.lower import Lowering
from dsl.compiler.operands import Integer, Named, Operand, Typed
from dsl.lang.failure import Failure
from dsl.lang.types import BOOL, FAILURE, FailureType, FallibleType, StructType, Type


def condition(lowering: Lowering, node: ast.expr) -> tuple[Position, Position]:
    """Split here on a bool expression: where it is true, and where it is false."""
    match node:
        case ast.BoolOp(op=operator, values=parts):
            return short_circuit(lowering, parts, isinstance(operator, ast.And))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            yes, no = condition(lowering, inner)
            return no, yes
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as operator], comparators=[ast.Constant(value=None)]):
            test = none_test(lowering, node, left, isinstance(operator, ast.IsNot))
        case ast.Call(func=ast.Name(id="isinstance"), args=[argument, against]):
            test = failure_test(lowering, node, argument, against)
        case _:
            test = Test(truth(lowering, node))
    yes, no = lowering.at(node).branch(test.value)
    if test.local:
        narrow(yes, test.local, test.when_true)
        narrow(no, test.local, test.when_false)
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
        return yes, lowering.builder.join([*left, no])
    return lowering.builder.join([*left, yes]), no


def truth(lowering: Lowering, node: ast.expr) -> ir.Value:
    """The value of a condition, which must be a public bool."""
    operand = lowering.evaluate(node)
    public(lowering, operand, node, "a condition")
    if isinstance(operand, Typed) and operand.type == BOOL:
        return operand.value
    optional = isinstance(operand.plain, StructType)
    help_ = "ask for one: x is not None" if optional else "compare it: x != 0"
    raise lowering.error("type-mismatch", node, f"a condition is bool, found {operand}", help_)


def count_up(
    lowering: Lowering,
    name: str,
    first: Typed,
    end: ir.Value,
    turn: Callable[[Loop, Typed], None],
    assigned: Collection[str] = (),
    never: str = "",
) -> None:
    """Take turns while a counter, which begins at `first`, is below `end`. never: the text of a stop where it no longer is."""
    builder, hidden = lowering.builder, f"{name} "  # a local that no program can name
    builder.environment[hidden] = first
    lowering.declared[hidden] = first.type
    loop = lowering.open_loop({*assigned, hidden})
    counter = builder.environment[hidden]
    builder.position, after = builder.branch(builder.emit("ult", counter.value, end))
    turn(loop, counter)
    if not lowering.dead:
        builder.environment[hidden] = Typed(first.type, (builder.emit("add", counter.value, 1),))
    builder.close_loop(loop)
    if never:
        after = builder.stop(after, never)
    builder.position = builder.join([after, *loop.breaks])
    builder.environment.pop(hidden, None)


# Tests that tell a local's type


@dataclass(frozen=True, slots=True)
class Test:
    """A condition, and the local (if any) that it narrows: to which type where it is true, and where it is false."""

    value: ir.Value
    local: str = ""
    when_true: Type = BOOL
    when_false: Type = BOOL


def narrow(position: Position, name: str, kind: Type) -> None:
    position.environment[name] = replace(position.environment[name], type=kind)


def narrows(node: ast.expr) -> bool:
    """Whether a test can narrow the type of a local."""
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return narrows(inner)
        case ast.Compare(ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return True
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, _]):
            return True
    return False


def none_test(lowering: Lowering, node: ast.Compare, left: ast.expr, negated: bool) -> Test:
    """`x is None`, or negated `x is not None`."""
    operand = lowering.evaluate(left)
    builder = lowering.at(node)
    if not isinstance(operand, Typed) or not isinstance(operand.type, StructType):
        raise lowering.error("type-mismatch", left, f"only T | None is compared with None, found {operand}")
    if not operand.type.optional:
        return Test(builder.constant(int(negated), 1))
    present, absent = StructType(operand.type.python), operand.type
    value = builder.emit("ne" if negated else "eq", operand.value, 0)
    name = left.id if isinstance(left, ast.Name) and left.id in builder.environment else ""
    return Test(value, name, present, absent) if negated else Test(value, name, absent, present)


def failure_test(lowering: Lowering, node: ast.Call, argument: ast.expr, against: ast.expr) -> Test:
    """`isinstance(x, Failure)`."""
    operand, python = lowering.evaluate(argument), lowering.evaluate(against)
    if not isinstance(python, Named) or python.python is not Failure:
        help_ = "compare an Enum to tell kinds apart"
        raise lowering.error("type-mismatch", against, "isinstance tests for Failure only", help_)
    if not isinstance(operand, Typed) or not isinstance(operand.type, FallibleType | FailureType):
        text = f"isinstance tests T | Failure, found {operand}"
        raise lowering.error("type-mismatch", argument, text, "it cannot be a Failure here")
    builder = lowering.at(node)
    if isinstance(operand.type, FailureType):
        return Test(builder.constant(1, 1))
    if not isinstance(argument, ast.Name):
        help_ = "assign the result to a local first"
        raise lowering.error("not-narrowed", argument, "only a local can be narrowed", help_)
    return Test(builder.emit("ne", operand.values[0], 0), argument.id, FAILURE, operand.type.inner)


# Conditions as values


def bool_value(lowering: Lowering, node: ast.expr) -> Typed:
    """A condition as a value: 1 where it is true, 0 where it is false."""
    yes, no = condition(lowering, node)
    lowering.at(node)
    return choose(lowering, [known_bool(lowering, yes, True), known_bool(lowering, no, False)])


def known_bool(lowering: Lowering, position: Position, value: bool) -> tuple[Position, Typed]:
    """An arm of `choose` that gives a constant."""
    lowering.builder.position = position
    return position, Typed(BOOL, (lowering.builder.constant(int(value), 1),))


RESULT = "result "  # a local that no program can name


def choose(lowering: Lowering, arms: list[tuple[Position, Typed]]) -> Typed:
    """The value of the arm through which control came; all have one type. Control goes on where the arms meet."""
    builder = lowering.builder
    for position, typed in arms:
        position.environment[RESULT] = typed
    builder.declared[RESULT] = arms[0][1].type
    builder.position = builder.join([position for position, _ in arms])
    binding = builder.environment.pop(RESULT)
    return Typed(arms[0][1].type, binding.values)


def conditional(lowering: Lowering, node: ast.IfExp) -> Typed:
    """`a if c else b`: one arm is evaluated; both have one type, or one is a reference and the other None."""
    arms: list[tuple[Position, Operand, ast.expr]] = []
    for position, part in zip(condition(lowering, node.test), (node.body, node.orelse), strict=True):
        lowering.builder.position = position
        operand = lowering.evaluate(part)
        if isinstance(operand, Integer | Named):
            text = f"an arm of a conditional needs a type, found {operand}"
            raise lowering.error(
                "bare-int",
                part,
                text,
                f"give the literal a type: u64({operand.value})" if isinstance(operand, Integer) else "",
            )
        arms.append((lowering.builder.position, operand, part))
    kind = common_kind(lowering, arms[0][1], arms[1][1], node)
    chosen = []
    for position, operand, part in arms:
        lowering.builder.position = position
        chosen.append((position, coerce(lowering, operand, kind, part)))
    return choose(lowering, chosen)


def common_kind(lowering: Lowering, first: Operand, second: Operand, node: ast.AST) -> Type:
    """The one type of two arms."""
    kinds = [operand.type.general for operand in (first, second) if isinstance(operand, Typed)]
    references = [kind for kind in kinds if isinstance(kind, StructType)]
    if references and len(references) == len(kinds) and len({kind.python for kind in references}) == 1:
        absent = len(kinds) == 1 or any(kind.optional for kind in references)
        return StructType(references[0].python, optional=absent)
    if len(kinds) != 2 or kinds[0] != kinds[1]:
        text = f"one arm is {first}, the other {second}"
        raise lowering.error("type-mismatch", node, text, "convert one of them")
    return kinds[0]
