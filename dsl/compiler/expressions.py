"""Expressions: names, constants, fields, elements."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from dsl.compiler.diagnostics import suggestion
from dsl.compiler.memory import element_place, field_of, field_place, load_operand
from dsl.compiler.operands import Named, Operand, Place, Typed
from dsl.compiler.shapes import describe
from dsl.lang.types import ArrayType

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


def evaluate(lowering: Lowering, node: ast.expr) -> Operand:
    """Lower an expression here; its value."""
    # these evaluate their own parts: they and this module need each other
    from dsl.compiler.calls import call
    from dsl.compiler.conditions import bool_value, conditional, narrows
    from dsl.compiler.operators import comparison, operate, unary

    match node:
        case ast.Constant():
            return constant(lowering, node)
        case ast.Name():
            return name(lowering, node)
        case ast.Attribute():
            return attribute(lowering, node)
        case ast.Subscript():
            return subscript(lowering, node)
        case ast.BinOp():
            left = evaluate(lowering, node.left)
            return operate(lowering, node.op, left, evaluate(lowering, node.right), node)
        case ast.Compare() if not narrows(node):
            return comparison(lowering, node)
        case ast.UnaryOp(op=ast.Not()) | ast.BoolOp() | ast.Compare():
            return bool_value(lowering, node)
        case ast.UnaryOp():
            return unary(lowering, node)
        case ast.IfExp():
            return conditional(lowering, node)
        case ast.Call() if narrows(node):
            return bool_value(lowering, node)
        case ast.Call():
            return call(lowering, node)
    kind = type(node).__name__
    raise lowering.error(
        "unsupported", node, f"the expression '{kind}' is not in the language", "see dsl/README.md, Functions"
    )


def typed(lowering: Lowering, node: ast.expr, wanted: str) -> Typed:
    """An expression that must have a value in registers."""
    operand = evaluate(lowering, node)
    if isinstance(operand, Typed):
        return operand
    raise lowering.error("type-mismatch", node, f"expected {wanted}, found {lowering.spell(operand)}")


# Constants and names


def constant(lowering: Lowering, node: ast.Constant) -> Operand:
    value = node.value
    if value is None or isinstance(value, bool | int | str):
        return lowering.unit.constants.operand(lowering.at(node), value, repr(value))
    kind = type(value).__name__
    help_ = "a table(u8, ...) holds bytes" if kind == "bytes" else ""
    raise lowering.error("unsupported", node, f"a {kind} literal is not in the language", help_)


def name(lowering: Lowering, node: ast.Name) -> Operand:
    if node.id in lowering.locals:
        return lowering.read(node.id, node)
    if node.id in lowering.statics:
        return lowering.unit.constants.operand(lowering.at(node), lowering.statics[node.id], node.id)
    builtins = lowering.namespace["__builtins__"]
    builtins = builtins if isinstance(builtins, dict) else vars(builtins)
    for namespace in (lowering.namespace, builtins):
        if node.id in namespace:
            return build_time(lowering, namespace[node.id], node, node.id)
    known = [*lowering.locals, *lowering.namespace, *lowering.statics, "isinstance"]
    raise lowering.error("unknown-name", node, f"no name '{node.id}' here", suggestion(node.id, known))


def build_time(lowering: Lowering, python: object, node: ast.expr, text: str) -> Operand:
    """A Python object of build time as an operand."""
    return lowering.unit.constants.operand(lowering.at(node), python, text)


def attribute(lowering: Lowering, node: ast.Attribute) -> Operand:
    receiver = evaluate(lowering, node.value)
    if isinstance(receiver, Named):
        text = f"{receiver.text}.{node.attr}"
        if not hasattr(receiver.python, node.attr):
            help_ = suggestion(node.attr, dir(receiver.python))
            raise lowering.error("no-attribute", node, f"'{receiver.text}' has no '{node.attr}'", help_)
        return build_time(lowering, getattr(receiver.python, node.attr), node, text)
    if not isinstance(receiver, Typed):
        raise lowering.error("no-attribute", node, f"{lowering.spell(receiver)} has no '{node.attr}'")
    lowering.at(node)
    return field_of(lowering, receiver, node.attr, node)


def subscript(lowering: Lowering, node: ast.Subscript) -> Operand:
    if isinstance(node.value, ast.Name) and node.value.id not in lowering.locals:
        generic = evaluate(lowering, node.value)
        if isinstance(generic, Named) and isinstance(generic.python, type):  # a type, such as Secret[u8]
            parameter = evaluate(lowering, node.slice)
            python: Any = generic.python
            if isinstance(parameter, Named):
                return Named(python[parameter.python], f"{generic.text}[{parameter.text}]")
    return load_operand(lowering, subscript_place(lowering, node))


def subscript_place(lowering: Lowering, node: ast.Subscript) -> Place:
    array = typed(lowering, node.value, "an Array")
    if isinstance(node.slice, ast.Slice):
        raise lowering.error(
            "unsupported", node.slice, "an index is one number", "a.slice(offset, count) is a part of an array"
        )
    index = evaluate(lowering, node.slice)
    if not isinstance(array.type, ArrayType):
        raise lowering.error("type-mismatch", node.value, f"only an Array has elements, found {describe(array.type)}")
    lowering.at(node)
    return element_place(lowering, array, array.type.element, index, node.slice)


def place_of(lowering: Lowering, target: ast.expr) -> Place:
    """The memory cell that an assignment's target names."""
    match target:
        case ast.Attribute():
            receiver = evaluate(lowering, target.value)
            if isinstance(receiver, Named):
                text = f"'{receiver.text}' is no object of machine code"
                raise lowering.error("type-mismatch", target, text, "declare one with static(T)")
            if not isinstance(receiver, Typed):
                raise lowering.error("type-mismatch", target, f"{lowering.spell(receiver)} has no fields")
            lowering.at(target)
            return field_place(lowering, receiver, target.attr, target)
        case ast.Subscript():
            return subscript_place(lowering, target)
    raise lowering.error("unsupported", target, "an assignment's target is a local, a field or an element")
