"""What an expression is to the compiler: a typed value in registers, an integer not yet typed, or a Python object of build time.

str(operand) is what messages call it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

from dsl.compiler import ir
from dsl.lang.types import Type, WordType


@dataclass(frozen=True, slots=True)
class Operand:
    """Base of the four. plain: the type without its taint, which only a typed value has."""

    @property
    def plain(self) -> Type | None:
        """The type of a typed value, without its taint."""
        return None

    @property
    def taint(self) -> str:
        """untrusted, secret or the empty string."""
        return ""

    @property
    def is_unsigned(self) -> bool:
        """Whether it is a public unsigned word."""
        return False


@dataclass(frozen=True, slots=True)
class Typed(Operand):
    """A value of the program: its type and its components."""

    type: Type
    values: tuple[ir.Value, ...] = ()

    def __str__(self) -> str:
        return str(self.type)

    @property
    def value(self) -> ir.Value:
        """The only component."""
        (value,) = self.values
        return value

    @property
    def references(self) -> list[ir.Value]:
        """The components that refer to memory."""
        return [value for value, part in zip(self.values, self.type.parts, strict=True) if part.refers]

    @property
    def plain(self) -> Type:
        """The type without its taint."""
        return self.type.plain

    @property
    def taint(self) -> str:
        """That of its type."""
        return self.type.taint

    @property
    def is_unsigned(self) -> bool:
        """Whether it is a public unsigned word."""
        return isinstance(self.type, WordType) and not self.type.signed


LARGEST_INTEGER: Final = 4096  # bits: a build-time int beyond that is a mistake, and Python would not even print it


@dataclass(frozen=True, slots=True)
class Integer(Operand):
    """An int constant of build time; it takes the type of what it meets."""

    value: int

    def __str__(self) -> str:
        return f"the literal {self.value}"


@dataclass(frozen=True, slots=True)
class Nothing(Operand):
    """The constant None."""

    def __str__(self) -> str:
        return "None"


@dataclass(frozen=True, slots=True)
class Named(Operand):
    """A Python object of build time that is no value: a function, class, module, table of handlers, text."""

    python: object
    text: str

    def __str__(self) -> str:
        return "a text" if isinstance(self.python, str) else f"'{self.text}'"


Argument = tuple[Operand, ast.expr]  # an evaluated argument and where it stands


@dataclass(frozen=True, slots=True)
class Place:
    """A cell in memory that an assignment writes: address + offset. `what` names it in messages."""

    address: ir.Value
    offset: int
    type: Type
    what: str
