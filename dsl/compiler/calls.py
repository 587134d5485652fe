"""Calls: of machine functions, intrinsics, library functions, classes that construct values, dispatch tables."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from dsl.compiler import ir
from dsl.compiler.construct import construct, static_method
from dsl.compiler.diagnostics import suggestion
from dsl.compiler.dispatch import dispatch_call
from dsl.compiler.expressions import evaluate
from dsl.compiler.fitting import coerce
from dsl.compiler.library import LIBRARY, ord_
from dsl.compiler.methods import method
from dsl.compiler.operands import Named, Operand, Typed
from dsl.compiler.shapes import NONE, WORDS, describe, has_reference, secret_parts, widths
from dsl.lang.instruction import Field
from dsl.lang.staging import Dispatch
from dsl.lang.types import (
    BoolType,
    EnumType,
    FailureType,
    FallibleType,
    StaticType,
    Type,
    WordType,
)

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


@dataclass(frozen=True, slots=True)
class Arguments:
    """A call's evaluated arguments: values with the nodes they came from, positional ones and by name."""

    positional: list[tuple[Operand, ast.expr]]
    named: dict[str, tuple[Operand, ast.expr]]

    def bind(self, lowering: Lowering, node: ast.AST, callee: str, names: list[str]) -> list[tuple[Operand, ast.expr]]:
        """The arguments in the order of `names`; each must be given exactly once."""
        if len(self.positional) > len(names):
            text = f"{callee} takes {len(names)} arguments, found {len(self.positional)}"
            raise lowering.error(
                "argument-count", node, text, f"its parameters are: {', '.join(names)}" if names else ""
            )
        bound = dict(zip(names, self.positional, strict=False))
        for name, argument in self.named.items():
            if name not in names:
                raise lowering.error(
                    "argument-count", argument[1], f"{callee} has no parameter '{name}'", suggestion(name, names)
                )
            if name in bound:
                raise lowering.error("argument-count", argument[1], f"'{name}' is given twice")
            bound[name] = argument
        missing = [name for name in names if name not in bound]
        if missing:
            text = f"{callee} is not given {', '.join(repr(name) for name in missing)}"
            raise lowering.error("argument-count", node, text, f"its parameters are: {', '.join(names)}")
        return [bound[name] for name in names]


def evaluate_arguments(lowering: Lowering, node: ast.Call) -> Arguments:
    """Lower the arguments from left to right."""
    positional = []
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            raise lowering.error("unsupported", argument, "an argument list is fixed: no *")
        positional.append((evaluate(lowering, argument), argument))
    named = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise lowering.error("unsupported", keyword.value, "an argument list is fixed: no **")
        named[keyword.arg] = (evaluate(lowering, keyword.value), keyword.value)
    return Arguments(positional, named)


def call(lowering: Lowering, node: ast.Call) -> Operand:
    """Lower a call; its result."""
    if isinstance(node.func, ast.Attribute):
        receiver = evaluate(lowering, node.func.value)
        if not isinstance(receiver, Named):
            return method(lowering, receiver, node.func.attr, evaluate_arguments(lowering, node), node)
        if isinstance(receiver.python, Dispatch) and node.func.attr == "call":
            return dispatch_call(lowering, receiver, evaluate_arguments(lowering, node), node)
        special = static_method(lowering, receiver, node.func.attr)
        if special is not None:
            lowering.at(node)
            return special(evaluate_arguments(lowering, node), node)
    callee = evaluate(lowering, node.func)
    if not isinstance(callee, Named):
        raise lowering.error("not-machine", node.func, f"{lowering.spell(callee)} cannot be called")
    return call_named(lowering, callee, node)


def call_named(lowering: Lowering, callee: Named, node: ast.Call) -> Operand:
    python: Any = callee.python
    if getattr(python, "__machine__", None) is not None:
        return machine_call(lowering, python, evaluate_arguments(lowering, node), node)
    row = getattr(python, "__instruction__", None)
    if row is not None:
        return intrinsic_call(lowering, python, row, evaluate_arguments(lowering, node), node)
    if isinstance(python, type):
        return construct(lowering, python, evaluate_arguments(lowering, node), node)
    if python is ord:
        return ord_(lowering, evaluate_arguments(lowering, node).bind(lowering, node, "ord", ["c"]), node)
    module = (getattr(python, "__module__", None) or "") if isinstance(python, FunctionType) else ""
    if module.startswith("dsl.lang") and python.__name__ in LIBRARY:
        code = python.__code__
        names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        arguments = evaluate_arguments(lowering, node).bind(lowering, node, python.__name__, names)
        lowering.at(node)
        return LIBRARY[python.__name__](lowering, arguments, node)
    if module.startswith("dsl.lang"):
        raise lowering.error("unsupported", node, f"{callee.text} is not called in a machine function")
    raise lowering.error(
        "not-machine", node.func, f"'{callee.text}' is no machine function", "decorate it with @machine"
    )


def discardable(operand: Operand) -> bool:
    """Whether a call's result may be dropped: not when it may be a Failure."""
    return isinstance(operand, Typed) and not isinstance(operand.type, FallibleType | FailureType)


# Machine functions


def machine_call(lowering: Lowering, python: Any, arguments: Arguments, node: ast.Call) -> Typed:
    """A direct call; a function with Static parameters is specialised for their values."""
    signature = lowering.unit.signature(python)
    names = [name for name, _ in signature.parameters]
    bound = arguments.bind(lowering, node, f"'{signature.name}'", names)
    statics: list[object] = []
    passed: list[Typed] = []
    for (_, kind), (operand, argument) in zip(signature.parameters, bound, strict=True):
        if isinstance(kind, StaticType):
            statics.append(static_argument(lowering, operand, kind.inner, argument))
        else:
            passed.append(coerce(lowering, operand, kind, argument))
    builder = lowering.at(node)
    symbol = lowering.unit.request(python, tuple(statics), lowering, node)
    return emit_call(lowering, symbol, passed, signature.result, node, builder, signature.returns)


def emit_call(
    lowering: Lowering,
    symbol: str,
    passed: list[Typed],
    result: Type,
    node: ast.AST,
    builder: Any,
    returns: bool = True,
) -> Typed:
    """The call itself and its results' extracts."""
    values = [value for argument in passed for value in argument.values]
    called = builder.emit("call", 0, *values, data=ir.Callee(symbol, widths(result)))
    extracted = tuple(builder.emit("extract", width, called, data=index) for index, width in enumerate(widths(result)))
    for value, is_secret in zip(extracted, secret_parts(result), strict=True):
        value.secret = is_secret
    if not returns:
        builder.finish("stop", [], "a function that never returns did")
    refers = any(argument.in_frame for argument in passed) and has_reference(result)
    return Typed(result, extracted, in_frame=refers)


def static_argument(lowering: Lowering, operand: Operand, kind: Type, node: ast.AST) -> object:
    """The Python object that a Static parameter stands for; the argument must be known at compile time."""
    typed = coerce(lowering, operand, kind, node)
    values = [value.data for value in typed.values if value.operation == "const" and isinstance(value.data, int)]
    if len(values) != 1 or len(typed.values) != 1:
        raise lowering.error(
            "static-argument", node, "a Static parameter needs a value known at compile time", "pass a constant"
        )
    match kind:
        case BoolType():
            return bool(values[0])
        case WordType(python=python):
            return python._wrap(values[0])
        case EnumType(python=python, word=word):
            return python(word.python._wrap(values[0]))
    raise lowering.error(
        "static-argument", node, f"no Static parameter has the type {describe(kind)}", "bool, a word or an Enum"
    )


# Intrinsics


def intrinsic_call(lowering: Lowering, python: Any, row: Any, arguments: Arguments, node: ast.Call) -> Typed:
    """An instruction: its Python function gives parameters and result, its row the rest."""
    if row.name in ("vmread", "vmwrite"):
        return field_access(lowering, row, arguments, node)
    signature = lowering.unit.library_signature(python)
    bound = arguments.bind(lowering, node, signature.name, [name for name, _ in signature.parameters])
    passed = [
        coerce(lowering, operand, kind, argument)
        for (_, kind), (operand, argument) in zip(signature.parameters, bound, strict=True)
    ]
    builder = lowering.at(node)
    values = [value for argument in passed for value in argument.values]
    made = builder.emit("intrinsic", 0, *values, data=row)
    result = signature.result
    extracted = tuple(builder.emit("extract", width, made, data=index) for index, width in enumerate(widths(result)))
    if not signature.returns:
        builder.finish("stop", [], f"{signature.name} returned")
    return Typed(result, extracted)


def field_access(lowering: Lowering, row: Any, arguments: Arguments, node: ast.Call) -> Typed:
    """vmread(FIELD) and vmwrite(FIELD, value): the constant Field gives the encoding and the width."""
    reads = row.name == "vmread"
    (field, where), *rest = arguments.bind(lowering, node, row.name, ["field"] if reads else ["field", "value"])
    if not isinstance(field, Named) or not isinstance(field.python, Field):
        raise lowering.error("type-mismatch", where, f"expected a constant Field, found {lowering.spell(field)}")
    word = WORDS[field.python.word]
    builder = lowering.at(node)
    encoding = builder.constant(field.python.encoding, 64)
    if reads:
        made = builder.emit("intrinsic", 0, encoding, data=row)
        return Typed(word, (builder.resize(builder.emit("extract", 64, made, data=0), word.width),))
    value = coerce(lowering, rest[0][0], word, rest[0][1]).value
    builder.emit("intrinsic", 0, encoding, builder.resize(value, 64), data=row)
    return Typed(NONE, ())
