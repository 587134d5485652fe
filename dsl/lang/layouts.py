"""Where the fields of Structs and of Bits lie."""

from __future__ import annotations

from dataclasses import dataclass

from dsl.lang.types import Type, WordType


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """A field of a Struct: byte offset and type (ArrayType with its length for inline arrays, StructType for inline Structs)."""

    name: str
    offset: int
    type: Type

    @property
    def size(self) -> int:
        """In bytes."""
        return self.type.size


@dataclass(frozen=True, slots=True)
class StructLayout:
    """A Struct's size and alignment in bytes, and its fields by name, in offset order."""

    size: int
    align: int
    fields: dict[str, FieldLayout]


@dataclass(frozen=True, slots=True)
class BitField:
    """A field of a Bits class: bit positions high and low, type, and its default (a raw int) or None if it must be given."""

    name: str
    high: int
    low: int
    type: Type
    default: int | None

    @property
    def count(self) -> int:
        """How many bits it has."""
        return self.high - self.low + 1


@dataclass(frozen=True, slots=True)
class BitsLayout:
    """A Bits class: its storage word and its fields by name."""

    storage: WordType
    fields: dict[str, BitField]
