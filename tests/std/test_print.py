"""Lines of text: each piece is appended as Python would print it, up to the capacity, where a full line says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsl.std import print as printing
from dsl.std.print import LINE_CAPACITY
from tests.std.ported import Ported
from tests.worlds import CPython, Native, Unicorn, World

worlds = pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPython(), marks=pytest.mark.t0, id="cpython"),
        pytest.param(Native(), marks=pytest.mark.t1, id="native"),
        pytest.param(Unicorn(), marks=pytest.mark.t1, id="unicorn"),
    ],
)
LENGTHS = [0, 1, 100, LINE_CAPACITY - 20, LINE_CAPACITY - 2, LINE_CAPACITY - 1, LINE_CAPACITY]
NUMBERS = [0, 1, 9, 10, 11, 99, 100, 1007, 0xDEADBEEF, 10**19 - 1, 10**19, 10**19 + 1, (1 << 64) - 1]
TEXTS = [b"", b"a", b"A line\n", b"one\0two", b"\0", bytes(range(256)), b"x" * 300]


def line_of(length: int) -> bytearray:
    """A line of so many dots; behind them stands what must stay."""
    return bytearray(length.to_bytes(8, "little") + (b"." * length).ljust(LINE_CAPACITY, b"\xee"))


def appended(length: int, added: bytes) -> bytes:
    """The same line with bytes behind it."""
    whole = b"." * length + added
    kept = whole[:LINE_CAPACITY]
    if len(whole) > LINE_CAPACITY:
        kept = kept[:-1] + b"~"
    return len(kept).to_bytes(8, "little") + kept.ljust(LINE_CAPACITY, b"\xee")


def check(world: World, function: Callable[..., Any], length: int, argument: Any, added: bytes) -> None:
    """A function appends these bytes."""
    line = line_of(length)
    world.call(function, line, argument)
    assert bytes(line) == appended(length, added), (function.__name__, length, argument)


@worlds
def test_text(world: World) -> None:
    """Bytes as they are, or up to the first zero."""
    for length in LENGTHS:
        for characters in TEXTS:
            check(world, printing.append_text, length, characters, characters)
            check(world, printing.append_padded_text, length, characters, characters.partition(b"\0")[0])
        check(world, printing.append_byte, length, 0x7B, b"{")


@pytest.mark.t1
def test_the_bytes_of_a_line() -> None:
    """Its text, in place; a line that says it has more than it has room for stops the program."""
    world = Ported(printing.line_bytes)
    for length in (*LENGTHS, LINE_CAPACITY + 1, LINE_CAPACITY + 8, 1 << 32, 1 << 63, (1 << 64) - 1):
        line = world.write(0, bytes(line_of(0)))
        world.write(0, length.to_bytes(8, "little"))
        results = world.emulated.call(world.symbol, [line])
        assert results == "stopped" if length > LINE_CAPACITY else results[:2] == (line + 8, length), length


@worlds
def test_numbers(world: World) -> None:
    """Decimal without leading zeros, hexadecimal with all of them."""
    for length in (0, 7, LINE_CAPACITY - 19, LINE_CAPACITY - 1):
        for number in NUMBERS:
            check(world, printing.append_decimal, length, number, str(number).encode())
            check(world, printing.append_hexadecimal, length, number, f"0x{number:016x}".encode())


@worlds
def test_bytes_in_hexadecimal(world: World) -> None:
    """Two digits a byte, first byte first."""
    for length in (0, LINE_CAPACITY - 5):
        for data in TEXTS:
            check(world, printing.append_hexadecimal_bytes, length, data, data.hex().encode())


@worlds
def test_a_cleared_line_is_empty(world: World) -> None:
    """Its length alone changes."""
    line = line_of(30)
    before = bytes(line)
    world.call(printing.line_clear, line)
    assert bytes(line) == bytes(8) + before[8:]
