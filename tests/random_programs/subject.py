"""A module of programs in the worlds that can run it: CPython, the IR interpreter, machine code.

Each gives an Outcome that can be compared with the others': results, what every writable object holds, the line of a failed check.
"""

from __future__ import annotations

import linecache
import random
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

from dsl.compiler.ir import Module
from dsl.compiler.pipeline import Program
from dsl.lang import Failure, Machine
from dsl.lang.annotations import resolve
from dsl.lang.bits import Bits
from dsl.lang.failure import CheckFailed, Stopped
from dsl.lang.record import Record
from dsl.lang.taint import Tainted
from dsl.lang.types import BitsType, BoolType, FallibleType, QualifiedType, StructType, Type
from tests.execution.support import word
from tests.ir_interpreter import Interpreter


@dataclass(frozen=True)
class Outcome:
    """What one call did: its results, or the line of the check at which it stopped, and the objects' bytes afterwards."""

    results: tuple[int, ...]
    stopped: int | None
    memory: Mapping[str, bytes]

    def difference(self, other: Outcome) -> str:
        """What is not as in the other, in words; empty if all is."""
        if self.stopped != other.stopped:
            return f"{_ended(self.stopped)}, not {_ended(other.stopped)}"
        if self.results != other.results:
            return f"results {_hexadecimal(self.results)}, not {_hexadecimal(other.results)}"
        for name, content in self.memory.items():
            if content != other.memory[name]:
                return f"{name} holds {content.hex()}, not {other.memory[name].hex()}"
        return ""


def _ended(line: int | None) -> str:
    return "returned" if line is None else f"stopped at line {line}"


def _hexadecimal(results: Iterable[int]) -> str:
    return "(" + ", ".join(map(hex, results)) + ")"


@dataclass(frozen=True)
class Call:
    """An entry, its arguments by the names of its parameters, and a seed for what the arrays hold before."""

    entry: str
    arguments: Mapping[str, int]
    seed: int


class World(Protocol):
    """Machine code that can be called."""

    stopped_at: int
    bias: int  # how far from the program's own addresses its memory really lies

    def call(self, symbol: str, arguments: list[int], content: Mapping[int, bytes] = ...) -> tuple[int, ...] | str: ...
    def read(self, address: int, size: int) -> bytes: ...


class Subject:
    """A loaded module: its entries' types, its objects, and calls of it in each world."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.signatures: dict[str, dict[str, Type]] = {}
        self.objects = {
            name: value
            for name, value in vars(module).items()
            if getattr(getattr(value, "__declaration__", None), "is_writable", False)
        }

    def parameters(self, entry: str) -> dict[str, Type]:
        return {name: kind for name, kind in self._signature(entry).items() if name != "return"}

    def result(self, entry: str) -> Type:
        return self._signature(entry)["return"]

    def _signature(self, entry: str) -> dict[str, Type]:
        if entry not in self.signatures:
            annotations = getattr(self.module, entry).__annotations__
            self.signatures[entry] = {name: resolve(text, vars(self.module)) for name, text in annotations.items()}
        return self.signatures[entry]

    def calls(self, entry: str, seed: random.Random, count: int) -> list[Call]:
        """Calls with arguments that are often at an edge."""
        kinds = self.parameters(entry)
        return [
            Call(entry, {name: _fitting(kind, word(seed)) for name, kind in kinds.items()}, seed.randrange(1 << 32))
            for _ in range(count)
        ]

    def contents(self, call: Call) -> dict[str, bytes]:
        """What the arrays of words hold before a call: small numbers, noise, or zeros."""
        found = {}
        for name, value in self.objects.items():
            declaration = value.__declaration__
            if declaration.kind == "static_array" and not isinstance(declaration.type, StructType):
                source = random.Random(f"{call.seed} {name}")
                size = declaration.size()
                most = source.choice((0, 1, 7, 255, 255))
                found[name] = bytes(min(byte, most) for byte in source.randbytes(size))
        return found

    # worlds

    def python(self, call: Call) -> Outcome:
        """Under CPython."""
        with Machine() as machine:
            for name, content in self.contents(call).items():
                machine.memory.write(machine.place(self.objects[name].__declaration__), content)
            kinds = self.parameters(call.entry)
            given = [_value(kinds[name], raw) for name, raw in call.arguments.items()]
            results: tuple[int, ...] = ()
            stopped = None
            try:
                results = _components(
                    getattr(self.module, call.entry)(*given), isinstance(self.result(call.entry), FallibleType)
                )
            except (
                CheckFailed,
                Stopped,
                ValueError,
            ) as error:  # ValueError: what an Enum raises for a word of no member
                stopped = self._line(error)
            return Outcome(
                results,
                stopped,
                self._memory(machine.memory.read, lambda name: machine.place(self.objects[name].__declaration__)),
            )

    def _line(self, error: BaseException) -> int:
        """Where a check failed: the last line of the module's own; a recursion that is too deep, at its function's head."""
        rows = traceback.extract_tb(error.__traceback__)
        inside = [row for row in rows if row.filename == self.module.__file__]
        if rows[-1].name == "counted":
            lines = linecache.getlines(inside[-1].filename)
            return next(number for number, line in enumerate(lines, 1) if line.startswith(f"def {inside[-1].name}("))
        assert inside[-1].lineno is not None
        return inside[-1].lineno

    def interpreted(self, module: Module, call: Call) -> Outcome:
        """The IR."""
        with Machine() as machine:
            world = Interpreter(module, machine)
            addresses = self._addresses(world.addresses)
            for name, content in self.contents(call).items():
                if name in addresses:
                    machine.memory.write(addresses[name], content)
            results: tuple[int, ...] = ()
            stopped = None
            try:
                results = world.call(f"{self.module.__name__}.{call.entry}", *call.arguments.values())
            except (CheckFailed, Stopped):
                assert world.stopped_at is not None
                stopped = world.stopped_at.line
            return Outcome(
                self._cut(call, results), stopped, self._memory(machine.memory.read, addresses.__getitem__, addresses)
            )

    def machine_code(self, program: Program, world: World, call: Call) -> Outcome:
        """The bytes, natively or in Unicorn."""
        addresses = self._addresses({symbol: row[0] for symbol, row in program.symbols.items()})
        content = {addresses[name]: content for name, content in self.contents(call).items() if name in addresses}
        noise = random.Random(call.seed)
        kinds = self.parameters(call.entry)
        given = [_with_noise(kinds[name], raw, noise) for name, raw in call.arguments.items()]
        found = world.call(f"{self.module.__name__}.{call.entry}", given, content)
        memory = self._memory(world.read, addresses.__getitem__, addresses, world.bias)
        if isinstance(found, str):
            return Outcome((), dict(self._places(program))[world.stopped_at], memory)
        return Outcome(self._cut(call, found), None, memory)

    def _places(self, program: Program) -> Iterable[tuple[int, int]]:
        return ((program.base + offset, trap.line) for offset, trap in program.linked.checks)

    def _addresses(self, symbols: Mapping[str, int]) -> dict[str, int]:
        """Where the objects lie that the program kept."""
        prefix = f"{self.module.__name__}."
        return {name: symbols[prefix + name] for name in self.objects if prefix + name in symbols}

    def _cut(self, call: Call, found: tuple[int, ...]) -> tuple[int, ...]:
        """The components of the result, of the registers; of a Failure, its code alone. Of a bool, the whole low byte counts."""
        if not found:
            return ()
        kind = self.result(call.entry)
        cut = tuple(number & (1 << max(width, 8)) - 1 for number, width in zip(found, kind.widths, strict=False))
        return cut[:1] if isinstance(kind, FallibleType) and cut[0] else cut

    def _memory(
        self,
        read: Callable[[int, int], bytes],
        address: Callable[[str], int],
        kept: Iterable[str] | None = None,
        bias: int = 0,
    ) -> dict[str, bytes]:
        """The objects' bytes; a reference in them is written as what it refers to, since each world has addresses of its own."""
        names = list(self.objects if kept is None else kept)
        found = {}
        for name in names:
            content = bytearray(read(address(name), self.objects[name].__declaration__.size()))
            for offset in self._references[name]:
                target = int.from_bytes(content[offset : offset + 8], "little")
                content[offset : offset + 8] = self._place_of(target - bias, address, names) if target else bytes(8)
            found[name] = bytes(content)
        return found

    def _place_of(self, target: int, address: Callable[[str], int], names: list[str]) -> bytes:
        for name in names:
            offset = target - address(name)
            if 0 <= offset < self.objects[name].__declaration__.size():
                return name[:6].encode().ljust(6, b".") + offset.to_bytes(2, "little")
        return b"nowhere!"

    @cached_property
    def _references(self) -> dict[str, list[int]]:
        found = {}
        for name, value in self.objects.items():
            declaration = value.__declaration__
            stride = declaration.size() // declaration.length
            inside = _reference_offsets(declaration.type)
            found[name] = [stride * index + offset for index in range(declaration.length) for offset in inside]
        return found


def _reference_offsets(kind: Type) -> list[int]:
    if not isinstance(kind, StructType):
        return []
    if kind.optional:
        return [0]
    fields = kind.python.__layout__.fields.values()
    return [field.offset + offset for field in fields for offset in _reference_offsets(field.type)]


def _fitting(kind: Type, raw: int) -> int:
    """A number that the type holds."""
    return raw & (1 << kind.widths[0]) - 1


def _value(kind: Any, raw: int) -> Any:
    """A raw number as a value of CPython."""
    if isinstance(kind, BoolType):
        return bool(raw)
    if isinstance(kind, QualifiedType):
        inner = kind.inner.python._wrap(raw)  # type: ignore[attr-defined]
        taint = next(cls for cls in Tainted.__subclasses__() if cls.__name__.lower() == kind.qualifier)
        return taint._of(inner)
    if isinstance(kind, BitsType):
        storage = kind.python.__layout__.storage.python
        return kind.python.from_raw(storage._wrap(raw))
    return kind.python._wrap(raw)


def _with_noise(kind: Type, raw: int, noise: random.Random) -> int:
    """Words come with anything in the bits above theirs; a bool with zeros."""
    width: int = kind.widths[0]
    return raw if width in (1, 64) else raw | noise.getrandbits(64 - width) << width


def _components(value: Any, fallible: bool) -> tuple[int, ...]:
    """A CPython result as raw numbers."""
    if isinstance(value, Failure):
        return (int(value.code),)
    if fallible:
        return (0, *_components(value, fallible=False))
    if value is None:
        return ()
    if isinstance(value, Record):
        return tuple(
            part for name in type(value).__record__ for part in _components(getattr(value, name), fallible=False)
        )
    if isinstance(value, Tainted):
        return _components(value._value, fallible=False)
    if isinstance(value, Bits):
        value = value.raw()
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return (int(value),)
    width = getattr(type(value), "width", 64)
    return (int(value) & (1 << width) - 1,)
