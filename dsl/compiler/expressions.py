"""Expressions: names, constants, fields, elements."""

from __future__ import annotations

import ast
from typing import Any

from dsl.compiler.diagnostics import suggestion
from dsl.compiler.lower import Lowering
from dsl.compiler.memory import element_place, field_of, field_place, load_operand
from dsl.compiler.operands import LARGEST_INTEGER, Named, Operand, Place, Typed
from dsl.lang.types import ArrayType

# Constants and names


def build_time(lowering: Lowering, python: object, node: ast.expr, text: str) -> Operand:
    """A Python object of build time as an operand."""
    return lowering.unit.constants.operand(lowering.at(node), python, text)


def constant(lowering: Lowering, node: ast.Constant) -> Operand:
    if isinstance(node.value, int) and node.value.bit_length() > LARGEST_INTEGER:
        raise lowering.error("literal-range", node, f"an int constant has at most {LARGEST_INTEGER} bits")
    if node.value is None or isinstance(node.value, bool | int | str):
        return build_time(lowering, node.value, node, repr(node.value))
    kind = type(node.value).__name__
    help_ = "a table(u8, ...) holds bytes" if kind == "bytes" else ""
    raise lowering.error("unsupported", node, f"a {kind} literal is not in the language", help_)


def named(lowering: Lowering, node: ast.Name) -> Operand:
    if node.id in lowering.locals:
        return lowering.read(node.id, node)
    builtins = lowering.namespace["__builtins__"]
    builtins = builtins if isinstance(builtins, dict) else vars(builtins)
    for namespace in (lowering.statics, lowering.namespace, builtins):
        if node.id in namespace:
            return build_time(lowering, namespace[node.id], node, node.id)
    known = [*lowering.locals, *lowering.namespace, *lowering.statics, "isinstance"]
    raise lowering.error("unknown-name", node, f"no name '{node.id}' here", suggestion(node.id, known))


def attribute(lowering: Lowering, node: ast.Attribute) -> Operand:
    receiver = lowering.evaluate(node.value)
    if isinstance(receiver, Typed):
        lowering.at(node)
        return field_of(lowering, receiver, node.attr, node)
    if not isinstance(receiver, Named):
        raise lowering.error("no-attribute", node, f"{receiver} has no '{node.attr}'")
    if not hasattr(receiver.python, node.attr):
        help_ = suggestion(node.attr, dir(receiver.python))
        raise lowering.error("no-attribute", node, f"'{receiver.text}' has no '{node.attr}'", help_)
    return build_time(lowering, getattr(receiver.python, node.attr), node, f"{receiver.text}.{node.attr}")


def subscript(lowering: Lowering, node: ast.Subscript) -> Operand:
    if isinstance(node.value, ast.Name) and node.value.id not in lowering.locals:
        generic = lowering.evaluate(node.value)
        if isinstance(generic, Named) and isinstance(generic.python, type):  # a type, such as Secret[u8]
            parameter = lowering.evaluate(node.slice)
            python: Any = generic.python
            if isinstance(parameter, Named):
                text = f"{generic.text}[{parameter.text}]"
                try:
                    return Named(python[parameter.python], text)
                except (TypeError, KeyError):  # the latter from an Enum
                    raise lowering.error("type-mismatch", node, f"there is no type '{text}'") from None
    return load_operand(lowering, subscript_place(lowering, node))


def subscript_place(lowering: Lowering, node: ast.Subscript) -> Place:
    array = lowering.evaluate(node.value)
    if not isinstance(array, Typed):
        help_ = "a table(T, [...]) at module level is one"
        raise lowering.error("type-mismatch", node.value, f"expected an Array, found {array}", help_)
    if isinstance(node.slice, ast.Slice):
        help_ = "a.slice(offset, count) is a part of an array"
        raise lowering.error("unsupported", node.slice, "an index is one number", help_)
    index = lowering.evaluate(node.slice)
    if not isinstance(array.type, ArrayType):
        raise lowering.error("type-mismatch", node.value, f"only an Array has elements, found {array}")
    lowering.at(node)
    return element_place(lowering, array, index, node.slice)


def place_of(lowering: Lowering, target: ast.expr) -> Place:
    """The memory cell that an assignment's target names; evaluates the target's parts."""
    match target:
        case ast.Attribute():
            receiver = lowering.evaluate(target.value)
            if isinstance(receiver, Typed):
                lowering.at(target)
                return field_place(lowering, receiver, target.attr, target)
            if isinstance(receiver, Named):
                text = f"'{receiver.text}' is no object of machine code"
                raise lowering.error("type-mismatch", target, text, "declare one with static(T)")
            raise lowering.error("type-mismatch", target, f"{receiver} has no fields")
        case ast.Subscript():
            return subscript_place(lowering, target)
    raise lowering.error("unsupported", target, "an assignment's target is a local, a field or an element")
