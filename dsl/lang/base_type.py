"""What every type says of its values: how registers hold them, how they lie in memory, and which values of CPython are its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, dataclass_transform


class Part(NamedTuple):
    """One of the IR values that hold a value: its width in bits, whether it is secret, whether it is a reference to memory."""

    width: int
    secret: bool = False
    refers: bool = False


@dataclass_transform(frozen_default=True)
class Type:
    """Base of all types, each of which is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The IR values that hold a value."""
        return ()

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The widths of those."""
        return tuple(part.width for part in self.parts)

    @property
    def size(self) -> int:
        """The bytes that a value takes in memory. Raises TypeError for types that have no place there."""
        raise TypeError(f"{self} has no place in memory")

    @property
    def align(self) -> int:
        """The alignment in bytes that a value has in memory. Raises TypeError as size does."""
        return self.size

    @property
    def volatile(self) -> bool:
        """Whether memory of this type is touched exactly once per mention."""
        return False

    @property
    def taint(self) -> str:
        """untrusted, secret or the empty string."""
        return ""

    @property
    def plain(self) -> Type:
        """The type without its qualifier."""
        return self

    @property
    def general(self) -> Type:
        """The type without what only one value knows: an array's constant length."""
        return self

    # values under CPython

    def holds(self, value: Any) -> bool:
        """Whether the value has this type."""
        return False

    def require(self, value: Any, name: str) -> None:
        """Raise TypeError unless the value has this type."""
        if not self.holds(value):
            raise TypeError(f"{name} takes {self}, not {value.__class__.__name__}")

    @cached_property
    def decode(self) -> Callable[[int], Any]:
        """Makes the value of a plain number, for values that are one word in memory."""
        raise TypeError(f"{self} is no single word in memory")

    @cached_property
    def encode(self) -> Callable[[Any], int]:
        """Gives the plain number of a value."""
        raise TypeError(f"{self} is no single word in memory")

    def load(self, memory: Any, address: int, keeper: Any) -> Any:
        """The value at address. keeper: what must stay alive as long as a reference into this memory."""
        return self.decode(memory.load(address, self.size))

    def store(self, memory: Any, address: int, value: Any) -> None:
        """Put the value at address; another type is a TypeError."""
        if not self.holds(value):
            self.require(value, "this place")
        memory.store(address, self.size, self.encode(value))
