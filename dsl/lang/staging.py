"""What stands at module level: memory objects, tables, dispatch. Ordinary Python, run when a program is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Generic, TypeVar, TypeVarTuple, overload

from dsl.lang.addresses import HostVirtual
from dsl.lang.annotations import resolve
from dsl.lang.array import LONGEST, Array
from dsl.lang.failure import MachineError
from dsl.lang.memory import Event
from dsl.lang.model import Machine, current_machine
from dsl.lang.struct import Struct
from dsl.lang.types import U8, BoolType, ScalarType, StructType, Type
from dsl.lang.words import Word, u8, u64

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
R = TypeVar("R")
Ts = TypeVarTuple("Ts")
_new = object.__new__
_HIGHEST_ALIGN: Final = 1 << 30


# Memory objects


def _names_in_making() -> dict[str, Any]:
    """The names of the module that is being imported."""
    frame = sys._getframe()
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_globals


@dataclass(eq=False, slots=True)
class Declaration:
    """A memory object of a program. Its symbol comes from the name that holds it in the module that declares it.

    kind: static (one Struct), static_array, table (content), supplied (content given at the build), per_cpu (no memory of its own).
    type: the Struct's, or of one element. length: of elements; of a static: 1.
    """

    kind: str
    type: Type
    length: int
    align: int | None = None  # bytes; None: what the type needs
    content: bytes | None = None
    name: str | None = None  # of a supplied table
    names: dict[str, Any] = field(default_factory=_names_in_making, repr=False)  # of the module

    @property
    def symbol(self) -> str | None:
        """`module.NAME`; None if the module has no name for it."""
        found = (name for name, value in self.names.items() if getattr(value, "__declaration__", None) is self)
        return next((f"{self.names['__name__']}.{name}" for name in found), None)

    @property
    def is_writable(self) -> bool:
        """Whether programs write to it (BSS); tables are read-only."""
        return self.kind in ("static", "static_array")

    def alignment(self) -> int:
        """In bytes."""
        return max(self.align or 1, self.type.align)

    def size(self) -> int:
        """In bytes."""
        return self.type.size * self.length

    def bytes(self, supplied: Mapping[str, bytes]) -> bytes:
        """The content of a table. A supplied one that is missing or has another length is an error."""
        content = supplied.get(str(self.name), b"") if self.content is None else self.content
        if len(content) != self.size():
            raise MachineError(f"{len(content) or 'no'} bytes supplied for {self.name!r}, {self.size()} expected")
        return content


def _element(element: Any) -> Type:
    kind = resolve(element, {})
    assert kind.size  # raises TypeError for what has no place in memory
    return kind


class _Placed:
    """Finds an object's memory and address in the current machine, once per machine."""

    __slots__ = ()
    _placed: tuple[Machine, int] | None
    __declaration__: Declaration

    @property
    def _memory(self) -> Any:
        return current_machine().memory

    @property
    def _address(self) -> int:
        machine = current_machine()
        if self._placed is None or self._placed[0] is not machine:
            self._placed = machine, machine.place(self.__declaration__)  # type: ignore[misc]  # a slot of each subclass
        return self._placed[1]


class _PlacedArray(_Placed, Array[Any]):  # type: ignore[override]  # nobody writes its address
    """An array declared at module level."""

    __slots__ = ("__declaration__", "_placed")


def _placed_array(declaration: Declaration) -> Any:
    array: Any = _new(_PlacedArray)
    array.__declaration__, array._placed, array._keeper = declaration, None, None
    array._element, array._length, array._stride = declaration.type, declaration.length, declaration.type.size
    return array


def static(struct: type[S]) -> S:
    """Declare one zeroed Struct object."""
    if not (isinstance(struct, type) and issubclass(struct, Struct)):
        raise TypeError(f"static takes a Struct class, not {struct!r}")
    slots = {"__slots__": ("__declaration__", "_placed"), "__module__": struct.__module__, "_keeper": None}
    meta: Any = type(struct)
    view: Any = _new(meta(struct.__name__, (_Placed, struct), slots))
    view.__declaration__ = Declaration("static", StructType(struct), 1)
    view._placed = None
    return view  # type: ignore[no-any-return]


def static_array(element: type[T], length: int, *, align: int | None = None) -> Array[T]:
    """Declare a zeroed array."""
    _check_length(length)
    if align is not None and (align < 1 or align & (align - 1) or align > _HIGHEST_ALIGN):
        raise TypeError(f"align={align} is no power of two")
    return _placed_array(Declaration("static_array", _element(element), length, align))  # type: ignore[no-any-return]


def _check_length(length: object) -> None:
    if length.__class__ is not int or not 0 < length < 1 << 40:
        raise TypeError(f"a length is a positive int below 2**40, not {length!r}")


@overload
def table(element: type[u8], values: bytes, *, align: int | None = None) -> Array[u8]: ...
@overload
def table(element: type[T], values: Iterable[T | int], *, align: int | None = None) -> Array[T]: ...
def table(element: Any, values: Any, *, align: int | None = None) -> Any:
    """Declare a read-only array with this content. Plain ints take the element's type and must fit."""
    kind = _element(element)
    if not isinstance(kind.plain, ScalarType | BoolType):
        raise TypeError(f"a table has words, bools, Bits, Enums or addresses, not {kind}")
    if isinstance(values, bytes) and kind == U8:
        content = values
    else:
        content = b"".join(_content(kind, element, value) for value in values)
    if not content:
        raise TypeError("a table has at least one element")
    return _placed_array(Declaration("table", kind, len(content) // kind.size, align, content))


def _content(kind: Type, element: Any, value: Any) -> bytes:
    if value.__class__ is int:
        value = element(value)
    kind.require(value, "a table's element")
    return kind.encode(value).to_bytes(kind.size, "little")


def supplied(element: type[T], length: int, name: str) -> Array[T]:
    """Declare a read-only array whose bytes compile_program(supplied=...), or the Machine, gives under this name."""
    _check_length(length)
    return _placed_array(Declaration("supplied", _element(element), length, name=name))  # type: ignore[no-any-return]


class PerCpu(Generic[S]):
    """One T for each CPU, found through GS. Its first field, self_address, holds its own address."""

    __slots__ = ("__declaration__", "_struct")

    def __init__(self, struct: type[S]) -> None:
        first = next(iter(struct.__layout__.fields.values()))
        if first.name != "self_address" or str(first.type) != "HostVirtual":
            raise TypeError(f"{struct.__name__}: a per-CPU Struct begins with self_address: HostVirtual")
        self._struct = struct
        self.__declaration__ = Declaration("per_cpu", StructType(struct), 1)

    def current(self) -> S:
        """The current CPU's object. Under CPython one is made for a CPU whose GS base was never set."""
        machine = current_machine()
        if not machine.gs_base:
            layout = self._struct.__layout__
            address = machine._bump("static", layout.size, layout.align)
            machine.memory.map(address, layout.size, address.to_bytes(8, "little"))
            machine.cpu.msrs[0xC000_0101] = address
        return self._struct._view(machine.memory, machine.memory.load(machine.gs_base, 8), None)


per_cpu = PerCpu  # declares the per-CPU Struct of a program: one in each program


# Dispatch


class Dispatch(Generic[R, *Ts]):
    """A table from keys to functions of one signature: direct branches, in this order."""

    __slots__ = ("_functions", "default", "table", "word")

    def __init__(self, functions: Mapping[Any, Callable[[*Ts], R]], *, default: Callable[[*Ts], R]) -> None:
        if not functions:
            raise TypeError("dispatch needs at least one key")
        self.table: Final = dict(functions)  # as declared: Enum members or ints, hottest first
        self.default = default
        kinds = {key.value.__class__ if isinstance(key, Enum) else int for key in functions}
        if len(kinds) != 1 or not all(kind is int or issubclass(kind, Word) for kind in kinds):
            raise TypeError("the keys of a dispatch are ints, or Enum members of one word")
        self.word = kinds.pop()  # int: keys fit the word of each call
        self._functions = {key.value if isinstance(key, Enum) else key: value for key, value in functions.items()}

    def call(self, key: Word | Enum, *arguments: *Ts) -> R:
        """Call the function of this key with these arguments, or the default."""
        word = key.value if isinstance(key, Enum) else key
        if not isinstance(word, Word) or (self.word is not int and word.__class__ is not self.word):
            raise TypeError(f"this dispatch takes a {self.word.__name__} key, not {key!r}")
        wanted = word if self.word is not int else int(word)
        function = self._functions.get(wanted)
        return (self.default if function is None else function)(*arguments)


dispatch = Dispatch  # declares one: keys are Enum members or ints; all functions take and return the same types


def text(content: str) -> Array[u8]:
    """The text's bytes, UTF-8, as a constant array."""
    encoded = content.encode()
    if not encoded:
        raise TypeError("text has at least one character")
    return _constant(encoded)


def frame_array(element: type[T], length: int) -> Array[T]:
    """A zeroed array in the caller's frame; it may not be returned or stored."""
    _check_length(length)
    current = current_machine()
    kind = _element(element)
    slot = current.frame(kind.size * length, kind.align)
    return Array._view(current.memory, slot.address, length, kind, slot)


def array_at(element: type[T], address: HostVirtual, count: u64 | int) -> Array[T]:
    """The array of count elements at an address. The caller says why that memory holds one."""
    if address.__class__ is not HostVirtual:
        raise TypeError(f"array_at takes a HostVirtual, not {address.__class__.__name__}")
    number = u64(count)
    if int(number) > LONGEST:
        raise ValueError(f"array_at: {int(number):,} elements, expected at most 2**48: no memory holds more")
    return Array._view(current_machine().memory, int(address), int(number), _element(element), None)


def address_of(place: Struct | Array[Any]) -> HostVirtual:
    """Where a Struct or an Array lies."""
    if not isinstance(place, Struct | Array):
        raise TypeError(f"address_of takes a Struct or an Array, not {place.__class__.__name__}")
    return HostVirtual._wrap(place._address)


def function_address(function: Callable[..., Any]) -> HostVirtual:
    """Where a machine function's code begins."""
    if not hasattr(function, "__machine__"):
        raise TypeError(f"function_address takes a machine function, not {function!r}")
    return HostVirtual._wrap(current_machine().function_address(function))


def erase(place: Struct | Array[Any]) -> None:
    """Zero a Struct or an Array. Never removed, merged or moved."""
    if not isinstance(place, Struct | Array):
        raise TypeError(f"erase takes a Struct or an Array, not {place.__class__.__name__}")
    size = place.__class__.__layout__.size if isinstance(place, Struct) else place._length * place._stride
    current = current_machine()
    current.memory.write(place._address, bytes(size))
    current.memory.observe(Event("erase", place._address, size, 0))


def image_base() -> HostVirtual:
    """The address of the program's first byte."""
    return HostVirtual._wrap(current_machine().image[0])


def image_end() -> HostVirtual:
    """The address after the program's last byte, zeroed memory included."""
    return HostVirtual._wrap(current_machine().image[1])


def check_places() -> Array[u8]:
    """Where a failed check stands: rows of 8 bytes, sorted: u32 offset of its ud2 from image_base, u16 file index, u16 line."""
    return _constant(current_machine().check_tables["places"])


def check_files() -> Array[u8]:
    """The names that check_places counts: 32 bytes each, zero-padded."""
    return _constant(current_machine().check_tables["files"])


def _constant(content: bytes) -> Array[u8]:
    current = current_machine()
    return Array._view(current.memory, current.constant(content), len(content), U8, None)
