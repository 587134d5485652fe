"""One way to call a machine function in three worlds: under CPython, as emitted bytes natively, and as emitted bytes in Unicorn.

Arguments: int and bool for words, bytes for an array to read, bytearray for an array or a Struct whose content comes back. Tests take the
fixtures `native` and `emu` (plugin.py) or make worlds of their own.
"""

from __future__ import annotations

import ctypes
import mmap
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

from dsl.compiler.pipeline import Program, compile_function
from dsl.lang import Array, Failure, HostVirtual, Machine, Secret, Struct, array_at, declassify, secret, size_of
from tests.execution import emulated, native

Argument = int | bool | bytes | bytearray
ARENA: Final = 0x2000_0000_0000  # of the CPython model: arguments lie from here on
BUFFERS: Final = 0x4000_0000  # arguments in Unicorn


class FailedCheck(AssertionError):
    """The machine code stopped at a failed check."""


class World(ABC):
    """Somewhere a machine function can run. Calling the world is the same as `call`."""

    def __call__(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it."""
        return self.call(function, *arguments)

    @abstractmethod
    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it; write bytearrays back; give its one result as an unsigned number (0 for none; of a fallible function, its code or 0)."""


def parameter_types(function: Callable[..., Any]) -> list[Any]:
    """The annotations of a function's parameters, in order."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    return list(hints.values())


def word_of(kind: Any, value: int) -> Any:
    """A number as the word, or the secret word, that an annotation asks for."""
    if get_origin(kind) is Secret:
        return secret(get_args(kind)[0](value))
    return value if kind is bool else kind(value)


def is_array(kind: Any) -> bool:
    """Whether an annotation is Array[...]."""
    return get_origin(kind) is Array


def flatten(function: Callable[..., Any], arguments: tuple[Argument, ...], place: Callable[[bytes], int]) -> list[int]:
    """The System V components of the arguments, once `place` has put each buffer somewhere."""
    components: list[int] = []
    kinds, name = parameter_types(function), function.__name__
    if len(kinds) != len(arguments):
        raise TypeError(f"{name}: expected {len(kinds)} arguments, found {len(arguments)}")
    for number, (kind, value) in enumerate(zip(kinds, arguments, strict=True), 1):
        in_memory = is_array(kind) or (isinstance(kind, type) and issubclass(kind, Struct))
        if not isinstance(value, bytes | bytearray if in_memory else int):
            wanted = "bytes or a bytearray" if in_memory else "an int or a bool"
            raise TypeError(f"{name}: argument {number}: expected {wanted}, found {value!r}")
        if isinstance(value, int):
            components.append(int(value))
        elif is_array(kind):
            components += [place(bytes(value)), len(value) // element_size(get_args(kind)[0])]
        else:
            assert issubclass(kind, Struct), f"{kind} cannot be given as bytes"
            assert len(value) == size_of(kind), f"{kind.__name__}: expected {size_of(kind)} bytes, found {len(value)}"
            components.append(place(bytes(value)))
    return components


def element_size(element: Any) -> int:
    """The size of an array's element: u8, u32, u64, or one of those, secret."""
    inner = get_args(element)[0] if get_args(element) else element
    return int(inner.width) // 8


class CPython(World):
    """The function as Python runs it, over a Machine of its own."""

    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it over copies of the arguments."""
        with Machine() as machine:
            values: list[Any] = []
            places: list[tuple[bytearray, int]] = []
            address = ARENA
            for kind, value in zip(parameter_types(function), arguments, strict=True):
                if isinstance(value, int):
                    values.append(word_of(kind, value))
                    continue
                machine.memory.map(address, max(len(value), 1), bytes(value))
                here = HostVirtual(address)
                if is_array(kind):
                    element = get_args(kind)[0]
                    values.append(array_at(element, here, len(value) // element_size(element)))
                else:
                    values.append(kind.at(here))
                if isinstance(value, bytearray):
                    places.append((value, address))
                address += len(value) // mmap.PAGESIZE * mmap.PAGESIZE + mmap.PAGESIZE
            result = function(*values)
            for content, place in places:
                content[:] = machine.memory.read(place, len(content))
            if isinstance(result, Failure):
                return int(result.code)
            if isinstance(result, Secret):
                result = declassify(result, "what a test compares")
            fallible = Failure in get_args(get_type_hints(function).get("return"))
            return 0 if result is None or fallible else plain_result(function, int(result))


@cache
def program_of(function: Callable[..., Any]) -> Program:
    """The compiled program with this function as its entry."""
    return compile_function(function)


class Rooms:
    """Memory for the arguments of a native call. Each ends where a page begins that cannot be touched; before it lies what must stay."""

    COUNT: Final = 10
    SIZE: Final = 1 << 20
    PAGE: Final = mmap.PAGESIZE
    FENCE: Final = bytes(range(0x80, 0xC0))

    def __init__(self) -> None:
        each = self.SIZE + self.PAGE
        self.memory = mmap.mmap(-1, self.COUNT * each, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.ends = [number * each + self.SIZE for number in range(self.COUNT)]
        self.held: list[bytes] = []
        for end in self.ends:
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.address + end), self.PAGE, 0) == 0

    def place(self, content: bytes) -> int:
        """Put bytes into the next room; their address."""
        end = self.ends[len(self.held)]
        before = end - len(content) - len(self.FENCE)
        assert before >= end - self.SIZE, f"expected at most {self.SIZE} bytes of an argument, found {len(content)}"
        self.memory[before:end] = self.FENCE + content
        self.held.append(content)
        return self.address + end - len(content)

    def contents(self) -> list[bytes]:
        """What the bytes are now; nothing was written before them."""
        found = []
        for content, end in zip(self.held, self.ends, strict=False):
            start = end - len(content)
            assert self.memory[start - len(self.FENCE) : start] == self.FENCE, "written before an argument"
            found.append(self.memory[start:end])
        return found


@cache
def rooms() -> Rooms:
    """The rooms of this process."""
    return Rooms()


@cache
def native_of(function: Callable[..., Any]) -> native.Native:
    """The program in executable memory of this process."""
    return native.Native(program_of(function))


class Native(World):
    """The emitted bytes on this processor, where they touch nothing beside their arguments. last: what was called last, with what.

    objects: what the program's objects hold when a call begins, by symbol; any other is zero.
    """

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self.last: tuple[Callable[..., Any], tuple[Argument, ...]] | None = None
        self.objects = objects or {}

    def code(self, function: Callable[..., Any]) -> tuple[native.Native, str]:
        """The program that holds a function, and the function's symbol there."""
        loaded = native_of(function)
        return loaded, loaded.program.entry

    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it over copies of the arguments. Raises FailedCheck."""
        loaded, symbol = self.code(function)
        self.last = function, tuple(bytes(value) if isinstance(value, bytearray) else value for value in arguments)
        memory = rooms()
        memory.held.clear()
        held = {loaded.program.symbols[name][0]: content for name, content in self.objects.items()}
        results = loaded.call(symbol, flatten(function, arguments, memory.place), held)
        if isinstance(results, str):
            raise FailedCheck(f"{symbol}{reprlib.repr(arguments)}: a check failed")
        given = [value for value in arguments if not isinstance(value, int)]
        for value, content in zip(given, memory.contents(), strict=True):
            if isinstance(value, bytearray):
                value[:] = content
            else:
                assert value == content, "an argument that is only to be read has been written"
        return plain_result(function, results[0])


def plain_result(function: Callable[..., Any], result: int) -> int:
    """What of rax counts: nothing for None, a byte for bool, the code for a fallible function."""
    kind = get_type_hints(function).get("return")
    if kind is None or kind is type(None):
        return 0
    if Failure in get_args(kind):
        return result
    word = get_args(kind)[0] if get_args(kind) else kind  # the word inside Secret
    return result & 0xFF if word is bool else result & ((1 << int(word.width)) - 1)


class Unicorn(World):
    """The emitted bytes in Unicorn, which counts what was executed."""

    def __init__(self) -> None:
        self.instructions = 0  # executed by the last call
        self.stack = b""  # what the last call left below its caller's stack pointer
        self.last: emulated.Emulated | None = None  # the machine of the last call

    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it over copies of the arguments, in a machine of its own. Raises FailedCheck naming the check's place."""
        program = program_of(function)
        machine = self.last = emulated.Emulated(program, record=True)
        engine = machine.engine
        buffers = [value for value in arguments if not isinstance(value, int)]
        places = [BUFFERS]
        for value in buffers:
            places.append(places[-1] + -(-(len(value) + 1) // 4096) * 4096)
        engine.mem_map(BUFFERS, places[-1] - BUFFERS + 4096)
        waiting = iter(places)

        def place(content: bytes) -> int:
            address = next(waiting)
            engine.mem_write(address, content)
            return address

        components = flatten(function, arguments, place)
        engine.mem_write(emulated.STACK, b"\xcc" * emulated.STACK_SIZE)  # so that what was used can be told
        results = machine.call(program.entry, components)
        self.instructions = machine.instructions
        self.stack = machine.stack_below()
        if isinstance(results, str):
            raise FailedCheck(
                f"{program.entry}{reprlib.repr(arguments)}: a check failed\n{machine.last_instructions()}"
            )
        for address, value in zip(places, buffers, strict=False):
            if isinstance(value, bytearray):
                value[:] = engine.mem_read(address, len(value))
        return plain_result(function, results[0])
