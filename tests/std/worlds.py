"""One way to call a machine function in three worlds: under CPython, as emitted bytes natively, and as emitted bytes in Unicorn.

Arguments: int and bool for words, bytes for an array to read, bytearray for an array or a Struct whose content comes back.
"""

from __future__ import annotations

import ctypes
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

from dsl.lang import Array, Failure, HostVirtual, Machine, Struct, array_at, size_of

Argument = int | bool | bytes | bytearray
ARENA: Final = 0x2000_0000_0000  # of the CPython model: arguments lie from here on
LINKED_BASE: Final = 0x100_0000
STACK_SIZE: Final = 0x10000


class World(ABC):
    """Somewhere a machine function can run."""

    @abstractmethod
    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it; write bytearrays back; give its one result as a number (0 for none)."""


def parameter_types(function: Callable[..., Any]) -> list[Any]:
    """The annotations of a function's parameters, in order."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    return list(hints.values())


def is_array(kind: Any) -> bool:
    """Whether an annotation is Array[...]."""
    return get_origin(kind) is Array


def flatten(function: Callable[..., Any], arguments: tuple[Argument, ...], place: Callable[[bytes], int]) -> list[int]:
    """The System V components of the arguments, once `place` has put each buffer somewhere."""
    components: list[int] = []
    for kind, value in zip(parameter_types(function), arguments, strict=True):
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
                    values.append(value if kind is bool else kind(value))
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
            return 0 if result is None else int(result)


@cache
def program_of(function: Callable[..., Any]) -> Any:
    """The compiled program with this function as its entry."""
    from dsl.compiler.pipeline import compile_function

    return compile_function(function)


@cache
def native_entry(function: Callable[..., Any]) -> tuple[mmap.mmap, int]:
    """The program in executable memory of this process, and the address of its entry."""
    program = program_of(function)
    memory = mmap.mmap(-1, program.memory_size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(program.image)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, base + int.from_bytes(program.image[8:12], "little")


class Native(World):
    """The emitted bytes on this processor, called through ctypes."""

    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it over copies of the arguments."""
        _memory, entry = native_entry(function)
        buffers: list[Any] = []

        def place(content: bytes) -> int:
            buffers.append(ctypes.create_string_buffer(content, len(content) or 1))
            return ctypes.addressof(buffers[-1])

        components = flatten(function, arguments, place)
        prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * len(components))
        result = int(prototype(entry)(*components))
        given = [value for value in arguments if not isinstance(value, int)]
        for value, buffer in zip(given, buffers, strict=True):
            if isinstance(value, bytearray):
                value[:] = buffer.raw[: len(value)]
        return plain_result(function, result)


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
    """The emitted bytes in Unicorn, which counts what was executed. trace: called with (kind, address), kind "block" or "memory"."""

    def __init__(self, trace: Callable[[str, int], None] | None = None) -> None:
        self.trace = trace
        self.instructions = 0
        self.stack = b""  # what the last call left below its caller's stack pointer

    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it over copies of the arguments; self.instructions is then the number executed."""
        import unicorn as uc
        from unicorn import x86_const as x86

        program = program_of(function)
        engine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        engine.mem_map(LINKED_BASE, -(-program.memory_size // 4096) * 4096)
        engine.mem_write(LINKED_BASE, program.image)
        arena, next_place = 0x4000_0000, [0x4000_0000]
        total = sum(-(-(len(v) + 1) // 4096) * 4096 for v in arguments if not isinstance(v, int))
        engine.mem_map(arena, total + 4096)
        engine.mem_map(0x6000_0000, STACK_SIZE)
        engine.mem_write(0x6000_0000, b"\xcc" * STACK_SIZE)  # so that what was used can be told

        def place(content: bytes) -> int:
            address = next_place[0]
            engine.mem_write(address, content)
            next_place[0] += -(-(len(content) + 1) // 4096) * 4096
            return address

        components = flatten(function, arguments, place)
        top, back = 0x6000_0000 + STACK_SIZE - 0x1000, arena + total
        registers = (
            x86.UC_X86_REG_RDI,
            x86.UC_X86_REG_RSI,
            x86.UC_X86_REG_RDX,
            x86.UC_X86_REG_RCX,
            x86.UC_X86_REG_R8,
            x86.UC_X86_REG_R9,
        )
        for register, component in zip(registers, components, strict=False):
            engine.reg_write(register, component)
        stack = [back, *components[6:]]
        engine.mem_write(top, b"".join(word.to_bytes(8, "little") for word in stack))
        engine.reg_write(x86.UC_X86_REG_RSP, top)
        self._observe(engine, uc)
        engine.emu_start(LINKED_BASE + int.from_bytes(program.image[8:12], "little"), back)
        self.stack = bytes(engine.mem_read(0x6000_0000, top - 0x6000_0000))
        address = arena
        for value in arguments:
            if not isinstance(value, int):
                if isinstance(value, bytearray):
                    value[:] = engine.mem_read(address, len(value))
                address += -(-(len(value) + 1) // 4096) * 4096
        return plain_result(function, engine.reg_read(x86.UC_X86_REG_RAX))

    def _observe(self, engine: Any, uc: Any) -> None:
        """Count instructions by blocks; tell the trace of blocks and memory accesses."""
        sizes: dict[tuple[int, int], int] = {}
        self.instructions = 0

        def block(engine: Any, address: int, size: int, _data: object) -> None:
            count = sizes.get((address, size))
            if count is None:
                count = sizes[(address, size)] = instruction_count(bytes(engine.mem_read(address, size)), address)
            self.instructions += count
            if self.trace is not None:
                self.trace("block", address)

        def memory(_engine: Any, _access: int, address: int, _size: int, _value: int, _data: object) -> None:
            assert self.trace is not None
            self.trace("memory", address)

        engine.hook_add(uc.UC_HOOK_BLOCK, block)
        if self.trace is not None:
            engine.hook_add(uc.UC_HOOK_MEM_READ | uc.UC_HOOK_MEM_WRITE, memory)


def instruction_count(code: bytes, address: int) -> int:
    """How many instructions these bytes are."""
    import capstone

    return sum(1 for _ in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite(code, address))
