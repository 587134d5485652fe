"""Statements: assignments, branches, loops, checks, returns."""

from __future__ import annotations

import ast

from dsl.compiler.builder import Loop, Position
from dsl.compiler.calls import call, discardable
from dsl.compiler.conditions import condition, count_up, narrows, truth
from dsl.compiler.expressions import place_of
from dsl.compiler.fitting import coerce, public
from dsl.compiler.lower import Lowering
from dsl.compiler.memory import load, store
from dsl.compiler.operands import Integer, Named, Nothing, Operand, Typed
from dsl.compiler.operators import operate
from dsl.compiler.signatures import resolve
from dsl.compiler.source import assigned_names
from dsl.lang import types as t


def expression_statement(lowering: Lowering, node: ast.Expr) -> None:
    if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return  # a docstring
    if not isinstance(node.value, ast.Call):
        raise lowering.error("discarded-result", node, "this expression has no effect", "did you mean an assignment?")
    result = call(lowering, node.value)
    if not discardable(result):
        text = f"the result, {result}, is discarded"
        raise lowering.error("discarded-result", node, text, "use it, or assign it to _")


def assign_statement(lowering: Lowering, node: ast.Assign) -> None:
    if len(node.targets) != 1:
        help_ = "write one assignment a line"
        raise lowering.error("unsupported", node, "an assignment has one target here", help_)
    match node.targets[0], node.value:
        case ast.Tuple(elts=targets), ast.Tuple(elts=values):
            if len(targets) != len(values):
                raise lowering.error("type-mismatch", node, f"{len(targets)} targets, {len(values)} values")
            operands = [lowering.evaluate(element) for element in values]
            for part, operand, element in zip(targets, operands, values, strict=True):
                assign_target(lowering, part, operand, element)
        case ast.Tuple(), _:
            help_ = "assign the Record to a local and read its fields"
            raise lowering.error("unsupported", node, "only a tuple display can be unpacked", help_)
        case target, value:
            assign_target(lowering, target, lowering.evaluate(value), value)


def assign_target(lowering: Lowering, target: ast.expr, operand: Operand, value: ast.expr) -> None:
    if isinstance(target, ast.Name):
        assign(lowering, target.id, operand, target, value)
    else:
        store(lowering, place_of(lowering, target), operand, target, value)


def assign(lowering: Lowering, name: str, operand: Operand, node: ast.AST, value: ast.AST) -> None:
    """Give a local the value of an expression; the first assignment decides its type."""
    previous = lowering.builder.environment.get(name)
    if previous is not None and name in lowering.counting:
        raise lowering.error("loop-variable", node, f"the loop variable '{name}' is read-only", "use another local")
    if isinstance(operand, Integer):
        help_ = f"give the literal a type: {lowering.declared.get(name, 'u64')}({operand.value})"
        raise lowering.error("bare-int", value, f"'{name}' would be a bare int", help_)
    if name == "_":
        return
    if operand.plain == t.NONE:
        text = f"'{name}' is assigned None, which the call returns"
        raise lowering.error("type-mismatch", value, text, "call it as a statement")
    if name not in lowering.declared:
        if not isinstance(operand, Typed):
            raise lowering.error("type-mismatch", value, f"'{name}' has no type yet, and {operand} gives it none")
        lowering.declared[name] = operand.type.general
    declared = lowering.declared[name]
    stored = coerce(lowering, operand, declared, value)
    narrowed = operand.type.general if isinstance(operand, Typed) else declared
    lowering.builder.environment[name] = Typed(narrowed, stored.values)


def annotated_assignment(lowering: Lowering, node: ast.AnnAssign) -> None:
    if not isinstance(node.target, ast.Name):
        raise lowering.error("unsupported", node.target, "only a local can be annotated")
    name, text = node.target.id, ast.unparse(node.annotation)
    kind = resolve(text, lowering.namespace, node.annotation, lambda *says: lowering.error("signature", *says))
    if lowering.declared.setdefault(name, kind.general) != kind.general:
        text = f"'{name}' is {lowering.declared[name]}, and is annotated {kind}"
        raise lowering.error("type-mismatch", node.annotation, text, "a local has one type")
    if node.value is not None:
        assign(lowering, name, lowering.evaluate(node.value), node.target, node.value)


def augmented_assignment(lowering: Lowering, node: ast.AugAssign) -> None:
    if isinstance(node.target, ast.Name):
        left: Operand = lowering.read(node.target.id, node.target)
        right = lowering.evaluate(node.value)
        assign(lowering, node.target.id, operate(lowering, node.op, left, right, node), node.target, node)
        return
    place = place_of(lowering, node.target)
    left = load(lowering, place)
    right = lowering.evaluate(node.value)
    store(lowering, place, operate(lowering, node.op, left, right, node), node.target, node)


def if_statement(lowering: Lowering, node: ast.If) -> None:
    yes, no = condition(lowering, node.test)
    lowering.builder.position = yes
    lowering.body(node.body)
    yes = lowering.builder.position
    lowering.builder.position = no
    lowering.body(node.orelse)
    lowering.builder.position = lowering.builder.join([yes, lowering.builder.position])


def while_statement(lowering: Lowering, node: ast.While) -> None:
    refuse_else(lowering, node)
    loop = lowering.open_loop(assigned_names([node]))
    yes, no = condition(lowering, node.test)
    loop_body(lowering, loop, yes, node.body)
    lowering.builder.close_loop(loop)
    lowering.builder.position = lowering.builder.join([no, *loop.breaks])


def refuse_else(lowering: Lowering, node: ast.While | ast.For) -> None:
    if node.orelse:
        raise lowering.error("unsupported", node.orelse[0], "a loop has no else here", "use a bool local")


def loop_body(lowering: Lowering, loop: Loop, entry: Position, statements: list[ast.stmt]) -> None:
    """Lower a loop's body; leaves the builder where the body's end and its continues meet."""
    lowering.builder.position = entry
    lowering.loops.append(loop)
    lowering.body(statements)
    lowering.loops.pop()
    lowering.builder.position = lowering.builder.join([lowering.builder.position, *loop.continues])


def for_statement(lowering: Lowering, node: ast.For) -> None:
    """`for i in` upto(n), between(low, high) or rounds(n): count up while below the end, which is evaluated once."""
    refuse_else(lowering, node)
    if not isinstance(node.target, ast.Name):
        raise lowering.error("unsupported", node.target, "a loop variable is one name")
    name = node.target.id
    low, high, must_leave = loop_range(lowering, node.iter)
    kind = low.type
    if name in lowering.builder.environment or lowering.declared.setdefault(name, kind) != kind:
        help_ = "give the loop variable a name of its own"
        raise lowering.error("loop-variable", node.target, f"'{name}' is already a local", help_)
    lowering.loop_variables.add(name)
    lowering.counting.add(name)

    def turn(loop: Loop, counter: Typed) -> None:
        lowering.builder.environment[name] = counter
        loop_body(lowering, loop, lowering.builder.position, node.body)
        lowering.at(node.iter)

    lowering.at(node.iter)
    never = "the loop runs too often" if must_leave else ""
    count_up(lowering, name, low, high.value, turn, assigned_names(node.body), never)
    lowering.counting.remove(name)
    lowering.builder.environment.pop(name, None)


def loop_range(lowering: Lowering, node: ast.expr) -> tuple[Typed, Typed, bool]:
    """The first value and the end of a for loop, and whether the loop must be left before it comes to its end."""
    function = lowering.evaluate(node.func) if isinstance(node, ast.Call) else None
    name = getattr(function.python, "__name__", "") if isinstance(function, Named) else ""
    if not isinstance(node, ast.Call) or name not in ("upto", "between", "rounds"):
        text = "a for loop goes over upto(n), between(low, high) or rounds(n)"
        raise lowering.error("unsupported", node, text, "or use while")
    ends = [lowering.evaluate(argument) for argument in node.args]
    expected = 2 if name == "between" else 1
    if len(ends) != expected:
        raise lowering.error("argument-count", node, f"{name} takes {expected} arguments, found {len(ends)}")
    if name == "rounds" and not isinstance(ends[0], Integer):
        text = f"the bound of rounds must be an int constant, found {ends[0]}"
        raise lowering.error("static-argument", node.args[0], text)
    counted = next((end for end in ends if isinstance(end, Typed)), Typed(t.U64))
    public(lowering, counted, node, "the end of a loop")
    if not counted.is_unsigned:
        raise lowering.error("type-mismatch", node, f"a loop counts unsigned words, found {counted}")
    typed = [coerce(lowering, end, counted.type, node, literal=True) for end in ends]
    builder = lowering.at(node)
    for keyword in node.keywords:
        most = lowering.evaluate(keyword.value)
        if name != "upto" or keyword.arg != "at_most" or not isinstance(most, Integer):
            raise lowering.error("argument-count", keyword, "upto alone takes a keyword: at_most, an int constant")
        bound = coerce(lowering, most, counted.type, node, literal=True)
        holds = builder.emit("ule", typed[-1].value, bound.value)
        text = f"the loop runs {typed[-1].value.constant} times, at most {most.value} are allowed"
        lowering.require("literal-range", holds, f"the loop runs at most {most.value} times", node, text)
    if name != "between":
        typed.insert(0, Typed(counted.type, (builder.constant(0, typed[0].value.width),)))
    return typed[0], typed[1], name == "rounds"


def leave_loop(lowering: Lowering, node: ast.Break | ast.Continue) -> None:
    if not lowering.loops:
        raise lowering.error("unsupported", node, "not in a loop")
    loop = lowering.loops[-1]
    (loop.breaks if isinstance(node, ast.Break) else loop.continues).append(lowering.builder.position)
    lowering.builder.leave()


def assert_statement(lowering: Lowering, node: ast.Assert) -> None:
    if not isinstance(node.msg, ast.Constant | None) or (node.msg and not isinstance(node.msg.value, str)):
        raise lowering.error("unsupported", node, "the text of an assert is a literal")
    assert_condition(lowering, node.test, str(node.msg.value) if node.msg else "assertion")


def assert_condition(lowering: Lowering, test: ast.expr, message: str) -> None:
    """Stop unless test holds; what it narrows stays narrowed."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for part in test.values:
            assert_condition(lowering, part, message)
    elif narrows(test) or isinstance(test, ast.BoolOp):
        yes, no = condition(lowering, test)
        lowering.at(test)
        lowering.builder.stop(no, message)
        lowering.builder.position = yes
    else:
        holds = truth(lowering, test)
        lowering.at(test).check(holds, message)


def return_statement(lowering: Lowering, node: ast.Return) -> None:
    operand: Operand = Nothing() if node.value is None else lowering.evaluate(node.value)
    where = node.value or node
    result = coerce(lowering, operand, lowering.signature.result, where)
    lowering.returned += [(value, lowering.source.span(where), str(result)) for value in result.references]
    lowering.at(node)
    lowering.leave(result.values)


def end(lowering: Lowering, node: ast.FunctionDef) -> None:
    """Finish the function at its last line."""
    if lowering.dead:
        return
    lowering.builder.span = lowering.source.span(node.body[-1])
    result = lowering.signature.result
    if (result.inner if isinstance(result, t.FallibleType) else result) != t.NONE:
        text = f"'{node.name}' can end without returning {result}"
        raise lowering.error("missing-return", node.body[-1], text, "return on every path, or stop(...)")
    lowering.leave(coerce(lowering, Nothing(), result, node.body[-1]).values)
