"""What an expression is to the compiler: a typed value in registers, an integer not yet typed, or a Python object of build time."""

from __future__ import annotations

from dataclasses import dataclass

from dsl.compiler import ir
from dsl.lang.types import Type


@dataclass(frozen=True, slots=True)
class Typed:
    """A value of the program: its type and its components. in_frame: it refers to memory of this call's frame."""

    type: Type
    values: tuple[ir.Value, ...]
    in_frame: bool = False

    @property
    def value(self) -> ir.Value:
        """The only component."""
        (value,) = self.values
        return value


@dataclass(frozen=True, slots=True)
class Integer:
    """An int constant of build time; it takes the type of what it meets."""

    value: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """The constant None."""


@dataclass(frozen=True, slots=True)
class Named:
    """A Python object of build time that is no value: a function, class, module, table of handlers, text."""

    python: object
    text: str


Operand = Typed | Integer | Nothing | Named


@dataclass(frozen=True, slots=True)
class Place:
    """A cell in memory that an assignment writes: address + offset. `what` names it in messages."""

    address: ir.Value
    offset: int
    type: Type
    what: str
    in_frame: bool = False
