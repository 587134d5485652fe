"""Functions of the devices called by themselves, on states at the edges: the emitted ones do what their source does under CPython."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.worlds import CPython, Unicorn
from vmm.devices import pic, pit, uart

pytestmark = pytest.mark.t1
NEVER = 2**64 - 1
STATES = 250
Arguments = list[int | bool | bytearray]


def channel(source: random.Random) -> bytearray:
    """A counter of the timer, whose count is short."""
    count = source.choice((1, 2, 3, 4, 5, 8, 255, 65536))
    words = (source.randrange(6), source.randrange(8), count, source.choice((NEVER, 5)))
    latched = (source.getrandbits(16), source.randrange(3), source.getrandbits(8), source.getrandbits(8))
    modes = (source.randint(1, 3), source.randrange(6), *(source.getrandbits(1) for _ in range(6)), source.randrange(8))
    return bytearray(struct.pack("<4QH12B2x", *words, *latched, *modes))


def chip(source: random.Random) -> bytearray:
    """An interrupt controller."""
    lines = [source.choice((0, 1 << source.randrange(8), source.getrandbits(8))) for _ in range(5)]
    flags = [source.getrandbits(1) for _ in range(8)]
    return bytearray([*lines, source.getrandbits(5) << 3, source.randrange(8), source.randrange(4), *flags])


def port(source: random.Random) -> bytearray:
    """A serial port, whose receiver is empty, full, or nearly."""
    has_fifos = source.getrandbits(1)
    words = (
        source.choice((NEVER, 50)),
        source.randrange(16),
        source.choice((0, 1, 4, 13, 14, 15, 16) if has_fifos else (0, 1)),
    )
    control = source.choice((0, 1, 2, 3)) << 6 | has_fifos
    registers = (source.choice((0, 1, 12)), source.randrange(16), control, 3, source.choice((0, 8, 0x18)), 0)
    flags = [source.getrandbits(1) for _ in range(4)]
    return bytearray(struct.pack("<3QH5B", *words, *registers) + bytes(flags) + source.randbytes(16) + bytes(5))


def tick(source: random.Random) -> int:
    """A time at which one of those counts may have come to an edge."""
    return source.choice((source.randint(6, 20), source.randint(250, 275), 65536 + source.randrange(12)))


def line(source: random.Random) -> int:
    """A line of one chip."""
    return source.randrange(8)


def byte(source: random.Random) -> int:
    """A byte, often with few bits."""
    return source.choice((source.getrandbits(8), 1 << source.randrange(8), 0))


def flag(source: random.Random) -> bool:
    """Yes or no."""
    return bool(source.getrandbits(1))


Maker = Callable[[random.Random], Any]
FUNCTIONS: list[tuple[Callable[..., Any], tuple[Maker, ...]]] = [
    (pit.output, (channel, tick)),
    (pit.schedule, (channel, tick)),
    (pit.current_count, (channel, tick)),
    (pic.request, (chip,)),
    (pic.drive, (chip, byte, flag)),
    (pic.accept, (chip, line)),
    (pic.write_command, (chip, byte)),
    (uart.identify_interrupt, (port,)),
    (uart.restart_timeout, (port, tick)),
]


@pytest.mark.parametrize(("function", "makers"), FUNCTIONS, ids=[function.__name__ for function, _ in FUNCTIONS])
def test_a_function_of_a_device(function: Callable[..., Any], makers: tuple[Maker, ...]) -> None:
    """The same result, and the same state after it, in both worlds."""
    source = random.Random(function.__name__)
    emulator, python = Unicorn(), CPython()
    for _ in range(STATES):
        arguments: Arguments = [make(source) for make in makers]
        copies = [bytearray(each) if isinstance(each, bytearray) else each for each in arguments]
        before = [bytes(each) if isinstance(each, bytearray) else each for each in arguments]
        assert emulator(function, *arguments) == python(function, *copies), before
        assert arguments == copies, before
