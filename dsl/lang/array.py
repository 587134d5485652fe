"""Array[T]: an address and a length. Every index is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from dsl.lang import types as t
from dsl.lang.failure import CheckFailed, MachineError
from dsl.lang.words import Unsigned, u8, u16, u32, u64

if TYPE_CHECKING:
    from dsl.lang.taint import Secret, Untrusted

T = TypeVar("T")
W = TypeVar("W")
_new = object.__new__
LONGEST: Final = 1 << 48  # elements: no processor addresses more bytes
_HIGHEST: Final = (1 << 64) - 1


if TYPE_CHECKING:

    class _byte_load(Generic[W]):
        """The type of Array.load_u16 and its like: the word has the taint of the array's bytes."""

        def __init__(self, word: type[W], big: bool = False) -> None: ...
        @overload
        def __get__(self, array: Array[u8], owner: Any) -> Callable[[Unsigned | int], W]: ...
        @overload
        def __get__(self, array: Array[Secret[u8]], owner: Any) -> Callable[[Unsigned | int], Secret[W]]: ...
        @overload
        def __get__(self, array: Array[Untrusted[u8]], owner: Any) -> Callable[[Unsigned | int], Untrusted[W]]: ...
        def __get__(self, array: Any, owner: Any) -> Any: ...

    class _byte_store(Generic[W]):
        """The type of Array.store_u16 and its like."""

        def __init__(self, word: type[W], big: bool = False) -> None: ...
        @overload
        def __get__(self, array: Array[u8], owner: Any) -> Callable[[Unsigned | int, W], None]: ...
        @overload
        def __get__(self, array: Array[Secret[u8]], owner: Any) -> Callable[[Unsigned | int, Secret[W]], None]: ...
        @overload
        def __get__(
            self, array: Array[Untrusted[u8]], owner: Any
        ) -> Callable[[Unsigned | int, Untrusted[W]], None]: ...
        def __get__(self, array: Any, owner: Any) -> Any: ...
else:

    def _byte_load(word, big=False):
        size, order = word.width // 8, "big" if big else "little"

        def load(self, offset):
            value = word._wrap(int.from_bytes(self._memory.read(self._bytes_at(offset, size), size), order))
            return self._element.python._of(value) if self._element.taint else value

        return load

    def _byte_store(word, big=False):
        kind, order = t.WordType(word), "big" if big else "little"

        def store(self, offset, value):
            address = self._bytes_at(offset, kind.size)
            taint = self._element.taint
            t.tainted(taint, kind).require(value, "this place")
            number = value._value._value if taint else value._value
            self._memory.write(address, number.to_bytes(kind.size, order))

        return store


class Array(Generic[T]):
    """A view of `length` elements in memory. Made by declarations, fields, frame_array, array_at, slice; never by its class."""

    __slots__ = ("_address", "_element", "_keeper", "_length", "_memory", "_stride")

    _memory: Any
    _address: int
    _length: int
    _element: t.Type
    _stride: int
    _keeper: Any
    __declaration__: Any = None

    if not TYPE_CHECKING:
        __iter__ = None

        def __init__(self, *_arguments):
            raise TypeError("an Array is made by frame_array, array_at, static_array or table")

        def __bool__(self):
            raise TypeError("an Array is no condition")

    @classmethod
    def _view(cls, memory: Any, address: int, length: int, element: t.Type, keeper: Any) -> Array[Any]:
        array: Array[Any] = _new(Array)
        array._memory, array._address, array._length, array._keeper = memory, address, length, keeper
        array._element, array._stride = element, element.size
        return array

    def _index(self, index: Any) -> int:
        """The address of an element. Past the end: a failed check."""
        number = index if index.__class__ is int else index._value if isinstance(index, Unsigned) else None
        if number is None:
            raise TypeError(f"an index is an unsigned word or a literal, not {index.__class__.__name__}")
        if not 0 <= number < self._length:
            raise CheckFailed(f"index {number} of an array of {self._length}")
        return self._address + number * self._stride

    def __getitem__(self, index: Unsigned | int) -> T:
        return self._element.load(self._memory, self._index(index), self._keeper)  # type: ignore[no-any-return]

    def __setitem__(self, index: Unsigned | int, value: T) -> None:
        self._element.store(self._memory, self._index(index), value)

    @property
    def length(self) -> u64:
        """The number of elements."""
        return u64._wrap(self._length)

    def slice(self, offset: Unsigned | int, count: Unsigned | int) -> Array[T]:
        """The count elements from offset on. Past the end: a failed check."""
        first, many = _number(offset), _number(count)
        if first + many > self._length:
            raise CheckFailed(f"slice of {many} at {first} of an array of {self._length}")
        return Array._view(self._memory, self._address + first * self._stride, many, self._element, self._keeper)

    def copy_from(self, other: Array[T]) -> None:
        """Copy other's elements here. Lengths that differ are a failed check; the two must not overlap."""
        if other._element != self._element or self._element.volatile:
            raise TypeError(f"copy of {other._element} elements to {self._element} elements")
        if other._length != self._length:
            raise CheckFailed(f"copy of {other._length} elements to {self._length}")
        size = self._length * self._stride
        if size and self._address < other._address + size and other._address < self._address + size:
            raise MachineError("copy_from between arrays that overlap")
        self._memory.write(self._address, other._memory.read(other._address, size))

    def fill(self, value: T) -> None:
        """Set every element to value."""
        if isinstance(self._element, t.StructType) or self._element.volatile:
            raise TypeError(f"an array of {self._element} is not filled")
        if self._length:
            self[0] = value
            self._memory.write(self._address, self._memory.read(self._address, self._stride) * self._length)

    def equals(self, other: Array[T]) -> bool:
        """Whether both have the same length and the same elements. Not for secrets."""
        kind = self._element
        if other._element != kind or isinstance(kind, t.QualifiedType | t.StructType):
            raise TypeError(f"equals between {kind} and {other._element} elements")
        size = self._length * self._stride
        return self._length == other._length and self._memory.read(self._address, size) == other._memory.read(
            other._address, size
        )

    # Words inside an array of bytes, at any offset: little-endian, or big-endian (be). Past the end: a failed check.

    load_u16, store_u16 = _byte_load(u16), _byte_store(u16)
    load_u32, store_u32 = _byte_load(u32), _byte_store(u32)
    load_u64, store_u64 = _byte_load(u64), _byte_store(u64)
    load_be32, store_be32 = _byte_load(u32, big=True), _byte_store(u32, big=True)
    load_be64, store_be64 = _byte_load(u64, big=True), _byte_store(u64, big=True)

    def _bytes_at(self, offset: Any, size: int) -> int:
        kind = self._element
        if (kind.plain if kind.taint else kind) != t.U8:
            raise TypeError(f"only an array of u8 has words at byte offsets, not {kind}")
        first = _number(offset)
        if first + size > self._length:
            raise CheckFailed(f"{size} bytes at {first} of an array of {self._length}")
        return self._address + first

    def _qualified(self, qualifier: str, add: bool) -> Array[Any]:
        """The same memory with a taint added to, or taken from, its elements."""
        kind = self._element
        if (kind.plain is not kind) if add else (kind.taint != qualifier):
            raise TypeError(f"this takes an array of {'plain' if add else qualifier} elements, not {kind}")
        changed = t.QualifiedType(qualifier, kind) if add else kind.plain
        return Array._view(self._memory, self._address, self._length, changed, self._keeper)

    def __repr__(self) -> str:
        return f"<Array of {self._length} {self._element}>"


def _number(value: Any) -> int:
    """An unsigned word or a literal as a plain number."""
    if value.__class__ is int and 0 <= value <= _HIGHEST:
        return int(value)
    if isinstance(value, Unsigned):
        return value._value
    raise TypeError(f"an unsigned word or a literal is needed here, not {value!r}")
