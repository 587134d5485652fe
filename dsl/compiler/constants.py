"""Python objects of build time as operands: numbers, words, enum members, memory objects; and the symbols of the latter."""

from __future__ import annotations

from enum import Enum
from typing import Any

from dsl.compiler import ir
from dsl.compiler.builder import Builder
from dsl.compiler.operands import LARGEST_INTEGER, Integer, Named, Nothing, Operand, Typed
from dsl.lang.addresses import Address
from dsl.lang.annotations import resolve
from dsl.lang.array import Array
from dsl.lang.bits import Bits
from dsl.lang.failure import Failure
from dsl.lang.record import Record
from dsl.lang.staging import Declaration
from dsl.lang.struct import Struct
from dsl.lang.types import BOOL, FAILURE, ArrayType, RecordType
from dsl.lang.words import Word


class Constants:
    """Turns Python objects into operands, and memory objects into DataObjects of the module."""

    def __init__(self, module: ir.Module) -> None:
        self.module = module
        self.symbols: dict[Declaration, str] = {}
        self.texts: dict[bytes, str] = {}
        self.per_cpu: Any = None  # the program's, once it is used
        self.counts: dict[str, int] = {}  # texts of each Python module

    def operand(self, builder: Builder, python: Any, text: str) -> Operand:
        """A Python object as an operand; what is no value stays a Named object."""
        if python is None:
            return Nothing()
        if isinstance(python, bool):
            return Typed(BOOL, (builder.constant(int(python), 1),))
        if isinstance(python, int) and python.bit_length() <= LARGEST_INTEGER:
            return Integer(int(python))
        declaration = None if isinstance(python, type) else getattr(python, "__declaration__", None)
        if isinstance(declaration, Declaration) and isinstance(python, Array | Struct):
            return self.memory_object(builder, declaration, text)
        return self.value(builder, python) or Named(python, text)

    def value(self, builder: Builder, python: Any) -> Typed | None:
        """A word, address, Bits, Enum member, Record or Failure made at build time."""
        if not isinstance(python, Word | Address | Bits | Enum | Failure | Record):
            return None
        if isinstance(python, Failure):
            return Typed(FAILURE, (builder.constant(int(python.code)),))
        try:
            kind = resolve(type(python), {})
        except TypeError:  # an Enum of something else
            return None
        if isinstance(kind, RecordType):
            parts = [self.value(builder, getattr(python, name)) for name in kind.fields]
            values = tuple(value for part in parts if part for value in part.values)
            return Typed(kind, values) if all(parts) else None
        return Typed(kind, (builder.constant(kind.encode(python), kind.widths[0]),))

    # memory objects

    def memory_object(self, builder: Builder, declaration: Declaration, text: str) -> Typed:
        symbol = builder.symbol(self.object_symbol(declaration, text))
        if declaration.kind == "static":
            return Typed(declaration.type, (symbol,))
        kind = ArrayType(declaration.type, declaration.length)
        return Typed(kind, (symbol, builder.constant(declaration.length)))

    def object_symbol(self, declaration: Declaration, text: str) -> str:
        """The symbol of a memory object; at its first use it joins the module."""
        if declaration not in self.symbols:
            symbol = self.symbols[declaration] = declaration.symbol or f"unnamed.{text}.{len(self.symbols)}"
            content = {"table": declaration.content, "supplied": b""}.get(declaration.kind)
            self.module.objects[symbol] = ir.DataObject(symbol, declaration.size(), declaration.alignment(), content)
            if declaration.kind == "supplied":
                assert declaration.name is not None
                self.module.supplied[symbol] = declaration.name
        return self.symbols[declaration]

    def text_symbol(self, module_name: str, content: bytes) -> str:
        """The symbol of a constant text; equal texts share one."""
        if content not in self.texts:
            number = self.counts.get(module_name, 0)
            self.counts[module_name] = number + 1
            symbol = f"{module_name}.text.{number}"
            self.texts[content] = symbol
            self.module.objects[symbol] = ir.DataObject(symbol, len(content), 1, content)
        return self.texts[content]
