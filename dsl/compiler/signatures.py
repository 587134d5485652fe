"""What a machine function takes and gives, read once from its annotations."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

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


class SignatureError(Exception):
    """An annotation is missing or has no type in the language. `node` is where."""

    def __init__(self, node: ast.AST, text: str, help_: str = "") -> None:
        super().__init__(text)
        self.node, self.text, self.help = node, text, help_


def read_signature(function: Callable[..., Any], node: ast.FunctionDef) -> Signature:
    """The signature of a machine function; raises SignatureError at the first part that is not in the language."""
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.defaults or arguments.kw_defaults:
        text = f"'{node.name}' has default, * or ** parameters"
        raise SignatureError(node, text, "a machine function takes a fixed list of parameters")
    parameters = {}
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument.annotation is None:
            raise SignatureError(argument, f"the parameter '{argument.arg}' has no type", "annotate it: name: u64")
        parameters[argument.arg] = resolve(function, argument.arg, argument.annotation)
    if node.returns is None:
        raise SignatureError(node, f"'{node.name}' has no result type", "annotate it: -> None")
    returns = function.__annotations__.get("return") not in (NoReturn, "NoReturn")
    result = resolve(function, "return", node.returns) if returns else NONE
    return Signature(node.name, parameters, result, returns)


def resolve(function: Callable[..., Any], name: str, node: ast.AST) -> Type:
    try:
        return resolve_annotation(function.__annotations__[name], function.__globals__)
    except Exception as problem:  # an annotation is an expression, which may raise anything
        raise SignatureError(node, f"this annotation is no type of the language: {problem}") from None
