"""Calls: of machine functions, intrinsics, library functions, classes that construct values, dispatch tables."""

from __future__ import annotations

import ast
import builtins
from types import FunctionType
from typing import Any

from dsl.compiler.arguments import evaluate_arguments, lower_call
from dsl.compiler.conditions import bool_value, narrows
from dsl.compiler.construct import construct
from dsl.compiler.diagnostics import instead
from dsl.compiler.dispatch import dispatch_call
from dsl.compiler.fitting import coerce
from dsl.compiler.library import LIBRARY, ord_
from dsl.compiler.lower import Lowering
from dsl.compiler.methods import method, methods_of
from dsl.compiler.operands import Named, Operand, Typed
from dsl.compiler.signatures import instruction_signature
from dsl.lang import types as t
from dsl.lang.staging import Dispatch


def call(lowering: Lowering, node: ast.Call) -> Operand:
    """Lower a call; its result."""
    if narrows(node):
        return bool_value(lowering, node)
    if isinstance(node.func, ast.Attribute):
        receiver, name = lowering.evaluate(node.func.value), node.func.attr
        if not isinstance(receiver, Named) or name in methods_of(receiver)[1]:
            return method(lowering, receiver, name, node)
        if isinstance(receiver.python, Dispatch) and name == "call":
            return dispatch_call(lowering, receiver.python, node)
    callee = lowering.evaluate(node.func)
    if not isinstance(callee, Named):
        raise lowering.error("not-machine", node.func, f"{callee} cannot be called")
    return call_named(lowering, callee, node)


def call_named(lowering: Lowering, callee: Named, node: ast.Call) -> Operand:
    python: Any = callee.python
    if getattr(python, "__machine__", None) is not None:
        return machine_call(lowering, python, node)
    if isinstance(python, type):
        return construct(lowering, python, node)
    if python is ord:
        return lower_call(lowering, node, "ord", ord_, ord_, callee, is_method=False)
    if not isinstance(python, FunctionType) or not python.__module__.startswith("dsl.lang"):
        own = getattr(builtins, callee.text, None) is python  # Python's own
        help_ = instead(callee.text) if own else "decorate it with @machine"
        raise lowering.error("not-machine", node.func, f"'{callee.text}' is no machine function", help_)
    name = python.__name__
    if name in LIBRARY:
        return lower_call(lowering, node, name, python, LIBRARY[name], callee, is_method=False)
    if getattr(python, "__instruction__", None) is not None:
        return intrinsic_call(lowering, python, node)
    raise lowering.error("unsupported", node, f"{callee.text} is not called in a machine function", instead(name))


def discardable(operand: Operand) -> bool:
    """Whether a call's result may be dropped: not when it may be a Failure."""
    return isinstance(operand, Typed) and not isinstance(operand.type, t.FallibleType | t.FailureType)


# Machine functions


def machine_call(lowering: Lowering, python: Any, node: ast.Call) -> Typed:
    """A direct call; a function with Static parameters is specialised for their values."""
    arguments = evaluate_arguments(lowering, node)
    parameters = lowering.unit.signature(python).parameters
    if not any(isinstance(kind, t.StaticType) for kind in parameters.values()):
        lowering.unit.request(python, (), lowering.source.span(node), lowering.chain)  # an error here hides none in it
    bound = arguments.bind(lowering, node, f"'{python.__name__}'", list(parameters))
    statics: list[object] = []
    passed: list[Typed] = []
    for kind, (operand, argument) in zip(parameters.values(), bound, strict=True):
        if isinstance(kind, t.StaticType):
            statics.append(static_argument(lowering, operand, kind.inner, argument))
        else:
            passed.append(coerce(lowering, operand, kind, argument))
    return lowering.call(python, tuple(statics), passed, node)


def static_argument(lowering: Lowering, operand: Operand, kind: t.Type, node: ast.AST) -> object:
    """The Python object that a Static parameter stands for; the argument must be known at compile time."""
    values = [value.constant for value in coerce(lowering, operand, kind, node).values]
    if len(values) != 1 or values[0] is None:
        text = "a Static parameter needs a value known at compile time"
        raise lowering.error("static-argument", node, text, "pass a constant")
    if not isinstance(kind, t.BoolType | t.WordType | t.EnumType):
        text = f"no Static parameter has the type {kind}"
        raise lowering.error("static-argument", node, text, "bool, a word or an Enum")
    return kind.decode(values[0])


# Intrinsics


def intrinsic_call(lowering: Lowering, python: Any, node: ast.Call) -> Typed:
    """An instruction: its Python function gives parameters and result, its row the rest."""
    signature = instruction_signature(python)
    passed = evaluate_arguments(lowering, node).bind_values(lowering, node, signature.name, signature.parameters)
    builder = lowering.at(node)
    made = lowering.instruction(python, *(value for argument in passed for value in argument.values))
    return Typed(signature.result, builder.results(made, signature.result.widths))
