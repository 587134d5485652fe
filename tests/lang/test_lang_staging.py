"""Module-level objects live in the current Machine; @machine keeps the function; dispatch finds the handler."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

import pytest

from dsl.lang import (
    Array,
    CheckFailed,
    Failure,
    HostVirtual,
    Machine,
    MachineError,
    Stopped,
    Struct,
    address_of,
    array,
    asm,
    check_files,
    check_places,
    dispatch,
    frame_array,
    function_address,
    image_base,
    image_end,
    machine,
    per_cpu,
    static,
    static_array,
    stop,
    supplied,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
)
from dsl.lang.types import StructType, WordType


class Counter(Struct, align=64):
    """A static object."""

    count: u64
    bytes: Array[u8] = array(56)


class PerCpuState(Struct):
    """One for each CPU."""

    self_address: HostVirtual
    number: u64


COUNTER = static(Counter)
OTHER = static(Counter)
BUFFER = static_array(u16, 5000, align=4096)
PRIMES = table(u32, [2, 3, 5])
WORDS = table(u8, b"words")
KEY = supplied(u8, 4, "test.key")
CPU = per_cpu(PerCpuState)


class Key(Enum):
    """Keys of a dispatch."""

    FIRST = u32(1)
    SECOND = u32(2)


@machine
def first(a: u64) -> u64:
    return a + 1


@machine
def second(a: u64) -> u64:
    return a + 2


@machine
def fallback(value: u64) -> u64:
    return value


HANDLERS = dispatch({Key.FIRST: first, Key.SECOND: second}, default=fallback)
NUMBERED = dispatch({30: first, 12: second}, default=fallback)


def test_each_machine_has_its_own_objects() -> None:
    """Statics are zeroed in each machine, at addresses of their alignment, and do not overlap."""
    for _ in range(2):
        with Machine():
            assert COUNTER.count == u64(0)
            COUNTER.count += 1
            COUNTER.bytes[55] = u8(3)
            assert (OTHER.count, OTHER.bytes[0]) == (u64(0), u8(0))
            assert address_of(COUNTER).is_aligned(64)
            assert address_of(BUFFER).is_aligned(4096)
            BUFFER[4999] = u16(1)
            assert address_of(COUNTER) != address_of(OTHER)


def test_the_inner_machine_is_current() -> None:
    """Machines nest; the outer one's objects are untouched."""
    with Machine():
        COUNTER.count = u64(5)
        with Machine():
            assert COUNTER.count == u64(0)
        assert COUNTER.count == u64(5)
    with pytest.raises(MachineError, match="no machine"):
        _ = COUNTER.count


def test_declarations() -> None:
    """The compiler finds kind, type, length, alignment and content."""
    declaration: Any = COUNTER.__declaration__
    assert (declaration.kind, declaration.type, declaration.length) == ("static", StructType(Counter), 1)
    assert (declaration.size(), declaration.alignment()) == (64, 64)
    assert isinstance(COUNTER, Counter)
    declaration = BUFFER.__declaration__
    assert (declaration.kind, declaration.size(), declaration.alignment()) == ("static_array", 10000, 4096)
    declaration = PRIMES.__declaration__
    assert (declaration.kind, declaration.type, declaration.content) == (
        "table",
        WordType(u32),
        bytes.fromhex("020000000300000005000000"),
    )
    declaration = KEY.__declaration__
    assert (declaration.kind, declaration.name, declaration.content) == ("supplied", "test.key", None)
    assert CPU.__declaration__.kind == "per_cpu"
    assert frame_array.__name__ == "frame_array"


def test_tables_are_read_only(model: Machine) -> None:
    """Tables have their content and take no write."""
    assert [int(PRIMES[i]) for i in range(3)] == [2, 3, 5]
    assert WORDS.load_u32(1) == u32(int.from_bytes(b"ords", "little"))
    with pytest.raises(MachineError, match="read-only"):
        PRIMES[0] = u32(1)


def test_wrong_tables_are_refused() -> None:
    """Values that do not fit, of another type, and empty tables."""
    with pytest.raises(ValueError, match="does not fit"):
        table(u8, [256])
    with pytest.raises(TypeError):
        table(u8, [u16(1)])
    with pytest.raises(TypeError):
        table(u8, [])
    with pytest.raises(TypeError):
        static_array(u8, 0)
    with pytest.raises(TypeError):
        static(u64)  # type: ignore[type-var]


def test_supplied_tables() -> None:
    """The machine's bytes, of the declared length; missing or other ones are errors that name both."""
    with Machine(supplied={"test.key": b"\1\2\3\4"}):
        assert KEY[3] == u8(4)
    with (
        Machine(supplied={"test.key": b"\1"}),
        pytest.raises(MachineError, match=r"1 bytes supplied for 'test\.key', 4 expected"),
    ):
        _ = KEY[0]
    with Machine(), pytest.raises(MachineError, match="no bytes supplied"):
        _ = KEY[0]


def test_per_cpu() -> None:
    """Each CPU has its own object, found through its GS base."""
    with Machine(cpus=2) as model:
        CPU.current().number = u64(1)
        model.switch(1)
        assert CPU.current().number == u64(0)
        assert CPU.current().self_address == address_of(CPU.current())
        model.switch(0)
        assert CPU.current().number == u64(1)

    with pytest.raises(TypeError, match="self_address"):
        per_cpu(Counter)


def test_machine_functions_are_themselves() -> None:
    """The decorator returns the function and leaves its options on it."""

    def plain(a: u64) -> u64:
        return a

    same: Any = plain
    marked: Any = machine(same)
    assert marked is plain
    assert getattr(plain, "__machine__").naked is False  # noqa: B009
    optioned: Any = machine(naked=True)(plain)
    assert optioned is plain
    assert optioned.__machine__.naked is True

    def with_default(a: u64 = u64(1)) -> u64:
        return a

    with pytest.raises(TypeError, match="default"):
        machine(with_default)
    with pytest.raises(TypeError):
        machine(3)  # type: ignore[call-overload]


def model_of_double(a: u64) -> u64:
    return a * 2


@machine(naked=True, model=model_of_double)
def double(a: u64) -> u64:
    asm("lea rax, [rdi + rdi]; ret")


@machine(naked=True)
def bare(a: u64) -> u64:
    asm("ret")


@machine(depth=3)
def depth_of(n: u64) -> u64:
    if n == 0:
        return u64(0)
    return depth_of(n - 1) + 1


def test_naked_functions() -> None:
    """A model runs in place of asm, which alone is an error."""
    assert double(u64(4)) == u64(8)
    marked: Any = double
    assert marked.__machine__.naked is True
    assert marked.__name__ == "double"
    assert inspect.getsource(marked).startswith("@machine(naked=True")
    with pytest.raises(MachineError, match="asm"):
        bare(u64(1))


def test_depth() -> None:
    """Recursion up to the declared depth runs; one deeper fails a check and leaves the count right."""
    assert depth_of(u64(2)) == u64(2)
    with pytest.raises(CheckFailed, match="depth_of is active 3 times"):
        depth_of(u64(3))
    assert depth_of(u64(2)) == u64(2)


def test_dispatch() -> None:
    """Enum members, their words and ints find their function; any other key the default; another width is refused."""
    assert HANDLERS.call(Key.SECOND, u64(10)) == u64(12)
    assert HANDLERS.call(u32(1), u64(10)) == u64(11)
    assert HANDLERS.call(u32(9), u64(10)) == u64(10)
    assert NUMBERED.call(u8(12), u64(10)) == u64(12)
    assert NUMBERED.call(u64(30), u64(10)) == u64(11)
    with pytest.raises(TypeError):
        HANDLERS.call(u64(1), u64(10))
    with pytest.raises(TypeError):
        dispatch({Key.FIRST: first, 2: second}, default=fallback)
    with pytest.raises(TypeError):
        dispatch({}, default=fallback)
    assert list(HANDLERS.table) == [Key.FIRST, Key.SECOND]


def test_texts_and_functions(model: Machine) -> None:
    """Texts are read-only bytes, one copy each; functions have addresses that lead back to them."""
    hello = text("hello")
    assert bytes(int(hello[i]) for i in range(5)) == b"hello"
    assert address_of(text("hello")) == address_of(hello)
    with pytest.raises(MachineError, match="read-only"):
        hello[0] = u8(0)
    assert function_address(first) != function_address(second)
    assert model.function_at(int(function_address(first))) is first
    with pytest.raises(TypeError):
        function_address(print)


def test_image_and_checks() -> None:
    """The machine says where the image lies and what its check tables hold."""
    with Machine(image=(0x1000, 0x3000), check_places=bytes(16), check_files=b"a.py".ljust(32, b"\0")):
        assert (image_base(), image_end()) == (HostVirtual(0x1000), HostVirtual(0x3000))
        assert check_places().length == u64(16)
        assert check_files()[0] == u8(ord("a"))
    with Machine():
        assert check_places().length == u64(0)


def test_stop_and_assert() -> None:
    """Stop ends the program; assert is a failed check like any other."""
    with pytest.raises(Stopped, match="no more"):
        stop("no more")
    with pytest.raises(CheckFailed):
        assert u64(1) == 2, "a check"
    assert isinstance(Failure(1), Failure)
