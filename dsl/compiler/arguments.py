"""A call's arguments: evaluated from left to right, bound to parameters, read as what the callee needs."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from dsl.compiler import ir
from dsl.compiler.builder import Builder
from dsl.compiler.diagnostics import Reported, suggestion
from dsl.compiler.fitting import coerce, public
from dsl.compiler.lower import Lowering
from dsl.compiler.operands import Argument, Named, Operand, Typed
from dsl.lang.annotations import resolve
from dsl.lang.types import NONE, U64, ArrayType, Type


@dataclass(frozen=True, slots=True)
class Arguments:
    """A call's evaluated arguments: values with the nodes they came from, positional ones and by name."""

    positional: list[Argument]
    named: dict[str, Argument]

    def bind(self, lowering: Lowering, node: ast.Call, callee: str, names: list[str]) -> list[Argument]:
        """The arguments in the order of `names`; each must be given exactly once."""
        code, help_ = "argument-count", f"its parameters are: {', '.join(names)}" if names else ""
        if len(self.positional) > len(names):
            text = f"{callee} takes {len(names)} arguments, found {len(self.positional)}"
            raise lowering.error(code, node, text, help_)
        bound = dict(zip(names, self.positional, strict=False))
        for name, argument in self.named.items():
            if name not in names:
                text = f"{callee} has no parameter '{name}'"
                raise lowering.error(code, keyword(node, name), text, suggestion(name, names))
            if name in bound:
                raise lowering.error(code, keyword(node, name), f"'{name}' is given twice")
            bound[name] = argument
        missing = [repr(name) for name in names if name not in bound]
        if missing:
            raise lowering.error(code, node, f"{callee} is not given {', '.join(missing)}", help_)
        return [bound[name] for name in names]

    def bind_values(self, lowering: Lowering, node: ast.Call, callee: str, parameters: dict[str, Type]) -> list[Typed]:
        """The arguments in the order of the parameters, each a value of its parameter's type."""
        bound = self.bind(lowering, node, callee, list(parameters))
        return [
            coerce(lowering, operand, kind, where)
            for kind, (operand, where) in zip(parameters.values(), bound, strict=True)
        ]


def keyword(node: ast.Call, name: str) -> ast.keyword:
    """The argument of this name."""
    return next(argument for argument in node.keywords if argument.arg == name)


def evaluate_arguments(lowering: Lowering, node: ast.Call) -> Arguments:
    """Lower the arguments from left to right."""
    positional = []
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            raise lowering.error("unsupported", argument, "an argument list is fixed: no *")
        positional.append((lowering.evaluate(argument), argument))
    named = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise lowering.error("unsupported", keyword.value, "an argument list is fixed: no **")
        named[keyword.arg] = (lowering.evaluate(keyword.value), keyword.value)
    return Arguments(positional, named)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of something that the language brings along: the arguments in the order of its parameters, and who is asked."""

    lowering: Lowering
    node: ast.Call
    name: str
    given: list[Argument]
    fields: dict[str, Argument]  # what a callee that takes any name (**) was given
    subject: Operand  # the receiver of a method; the class that constructs; else the function itself

    @property
    def builder(self) -> Builder:
        """The builder, at the place of the call."""
        return self.lowering.at(self.node)

    @property
    def receiver(self) -> Typed:
        """The value whose method is called."""
        assert isinstance(self.subject, Typed)
        return self.subject

    @property
    def operands(self) -> list[Operand]:
        """The arguments without their places."""
        return [operand for operand, _ in self.given]

    def error(self, code: str, text: str, help: str = "", argument: int | None = None) -> Reported:
        """Record an error at an argument, or at the whole call."""
        return self.lowering.error(code, self.node if argument is None else self.given[argument][1], text, help)

    def typed(self, number: int, kind: Type, literal: bool = False) -> Typed:
        """An argument at a type. literal: an int constant may take it."""
        operand, node = self.given[number]
        return coerce(self.lowering, operand, kind, node, literal)

    def value(self, number: int, kind: Type) -> ir.Value:
        """An argument that is one word; an int constant may take its type."""
        return self.typed(number, kind, literal=True).value

    def public(self, number: int, use: str) -> Operand:
        """An argument that must carry no taint."""
        operand, node = self.given[number]
        public(self.lowering, operand, node, use)
        return operand

    def unsigned(self, number: int, use: str) -> ir.Value:
        """A literal or an unsigned word of any width, as 64 bits."""
        operand = self.public(number, use)
        if isinstance(operand, Typed) and operand.is_unsigned:
            return self.lowering.at(self.given[number][1]).resize(operand.value, 64)
        return self.value(number, U64)

    def python(self, number: int) -> Any:
        """The Python object of build time that an argument names; None if it is a value."""
        operand = self.given[number][0]
        return operand.python if isinstance(operand, Named) else None

    def type(self, number: int) -> Type:
        """A type given as an argument, such as the T of frame_array(T, n)."""
        operand = self.operands[number]
        if not isinstance(operand, Named):
            raise self.error("type-mismatch", f"expected a type, found {operand}", argument=number)
        try:
            return resolve(operand.python, self.lowering.namespace)
        except (TypeError, NameError) as problem:
            text = f"expected a type of the language: {problem}"
            raise self.error("type-mismatch", text, argument=number) from None

    def text(self, number: int, what: str) -> str:
        """A literal text."""
        python = self.python(number)
        if isinstance(python, str):
            return python
        found = self.given[number][0]
        raise self.error("type-mismatch", f"{what} must be a literal text, found {found}", argument=number)

    def reason(self, number: int) -> None:
        """A literal text with a word in it, that says why a taint may end here."""
        if not self.text(number, "the reason").strip():
            raise self.error("type-mismatch", "expected a reason in words, found none", argument=number)

    def array(self, number: int) -> tuple[Typed, ArrayType]:
        """An Array and its type."""
        operand = self.given[number][0]
        if isinstance(operand, Typed) and isinstance(operand.type, ArrayType):
            return operand, operand.type
        raise self.error("type-mismatch", f"expected an Array, found {operand}", argument=number)


Lower = Callable[[Call], Operand]
NOTHING = Typed(NONE)  # the result of what is called for its effect


def by_name(*functions: Callable[[Call], Operand]) -> dict[str, Lower]:
    """Rows of a table for functions that are called as what they lower."""
    return {function.__name__: function for function in functions}


def lower_call(
    lowering: Lowering, node: ast.Call, name: str, python: Any, lower: Lower, subject: Operand, is_method: bool
) -> Operand:
    """Lower a call of a function or method of dsl.lang, whose parameters are those of its Python function."""
    arguments = evaluate_arguments(lowering, node)
    names, any_name = parameters(python)
    if any_name and arguments.positional:
        raise lowering.error("argument-count", node, f"{name} takes fields by name")
    names = [] if any_name else names[is_method:]
    given = arguments if not any_name else Arguments([], {})
    bound = given.bind(lowering, node, name, names)
    lowering.at(node)
    return lower(Call(lowering, node, name, bound, arguments.named, subject))


@cache
def parameters(python: Any) -> tuple[list[str], bool]:
    """The names of a Python function's parameters, and whether it takes any other name."""
    code = python.__code__
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]), bool(
        code.co_flags & inspect.CO_VARKEYWORDS
    )
