"""What a machine function takes and gives, read once from its annotations."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from dsl.compiler.diagnostics import instead, suggestion
from dsl.lang.annotations import resolve as resolve_annotation
from dsl.lang.types import NONE, StaticType, Type


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters in order with their types (Static ones too), the result, and whether the function ever returns."""

    name: str
    parameters: dict[str, Type]
    result: Type
    returns: bool

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the parameters that exist in machine code."""
        kinds = [kind for kind in self.parameters.values() if not isinstance(kind, StaticType)]
        return tuple(width for kind in kinds for width in kind.widths)


Refuse = Callable[[ast.AST, str, str], Exception]  # makes the error at a node from its text and help


def read_signature(function: Callable[..., Any], node: ast.FunctionDef, refuse: Refuse) -> Signature:
    """The signature of a machine function; raises what `refuse` makes at the first part that is not in the language."""
    arguments, told = node.args, function.__annotations__
    if arguments.vararg or arguments.kwarg or arguments.defaults or arguments.kw_defaults:
        text = f"'{node.name}' has default, * or ** parameters"
        raise refuse(node, text, "a machine function takes a fixed list of parameters")
    parameters = {}
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument.annotation is None:
            raise refuse(argument, f"the parameter '{argument.arg}' has no type", "annotate it: name: u64")
        parameters[argument.arg] = resolve(told[argument.arg], function.__globals__, argument.annotation, refuse)
    if node.returns is None:
        raise refuse(node, f"'{node.name}' has no result type", "annotate it: -> None")
    returns = told.get("return") not in (NoReturn, "NoReturn")
    result = resolve(told["return"], function.__globals__, node.returns, refuse) if returns else NONE
    return Signature(node.name, parameters, result, returns)


@cache
def instruction_signature(function: Any) -> Signature:
    """The signature of an intrinsic, whose annotations are right."""
    kinds = {name: resolve_annotation(kind, function.__globals__) for name, kind in function.__annotations__.items()}
    result = kinds.pop("return")
    return Signature(function.__name__, kinds, result, returns=True)


def resolve(annotation: Any, namespace: dict[str, Any], node: ast.AST, refuse: Refuse) -> Type:
    """The type that an annotation means; raises what `refuse` makes if it is none."""
    try:
        return resolve_annotation(annotation, namespace)
    except Exception as problem:  # an annotation is an expression, which may raise anything
        raise refuse(
            node,
            f"this annotation is no type of the language: {problem}",
            annotation_help(problem, namespace),
        ) from None


def annotation_help(problem: Exception, names: dict[str, Any]) -> str:
    """What may have been meant by an annotation."""
    if isinstance(problem, NameError):
        return suggestion(problem.name or "", names)
    return instead(str(problem).partition(" ")[0])
