"""The check path as machine code over whole images: a changed byte anywhere is refused, and the entry that holds it is named."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
import unicorn
from unicorn import x86_const as x86

from boot.refusal import Rule
from dsl.compiler.pipeline import compile_function
from tests.boot.images import DESCRIPTOR, DEVELOPMENT_SECRET, MONITOR, RELEASE_CHAIN, SEGMENT, Part, partition_of
from tests.boot.keys import SECRET
from tests.system.whole_check import ENTRY_DIFFERS, check_whole_image

pytestmark = [pytest.mark.t1]
STAGING, STACK, RETURN = 0x4000000, 0x8000000, 0x9000000
SOURCE = random.Random(5)
PARTS = [
    Part(MONITOR, SOURCE.randbytes(4097)),
    Part(DESCRIPTOR, SOURCE.randbytes(4096)),
    Part(DESCRIPTOR, SOURCE.randbytes(4096)),
    Part(SEGMENT, SOURCE.randbytes(63)),
    Part(SEGMENT, SOURCE.randbytes(8192)),
    Part(RELEASE_CHAIN, SOURCE.randbytes(1)),
    Part(DEVELOPMENT_SECRET, SECRET),
]
PARTITION = partition_of(PARTS)
NAMES = ["monitor", "first descriptor", "second descriptor", "small segment", "kernel", "chain", "secret"]


@functools.cache
def emulator() -> tuple[Any, int]:
    """An emulator with the compiled check in it, and its address."""
    program = compile_function(check_whole_image)
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    engine.mem_map(program.base, (program.memory_size + 0xFFFF) & ~0xFFFF)
    engine.mem_write(program.base, program.image)
    for base in (STAGING, STACK, RETURN):
        engine.mem_map(base, 0x100000)
    return engine, program.symbols["tests.system.whole_check.check_whole_image"][0]


def verdict(partition: bytes) -> int:
    """What the check says of these bytes."""
    engine, entry = emulator()
    engine.mem_write(STAGING, partition)
    engine.mem_write(STACK + 0xFFFF8, RETURN.to_bytes(8, "little"))
    for register, value in (("RSP", STACK + 0xFFFF8), ("RDI", STAGING), ("RSI", len(partition))):
        engine.reg_write(getattr(x86, f"UC_X86_REG_{register}"), value)
    engine.emu_start(entry, RETURN, timeout=20_000_000)
    assert engine.reg_read(x86.UC_X86_REG_RIP) == RETURN
    return int(engine.reg_read(x86.UC_X86_REG_RAX))


def places() -> list[int]:
    """Where each entry begins."""
    offsets, offset = [], 8192
    for part in PARTS:
        offsets.append(offset)
        offset += -(-len(part.content) // 4096) * 4096
    return offsets


def flipped(offset: int, mask: int) -> bytes:
    """The image with one bit changed."""
    content = bytearray(PARTITION)
    content[offset] ^= mask
    return bytes(content)


def test_the_image_is_taken() -> None:
    """As it was signed. A byte between two entries belongs to none, and is never looked at."""
    assert verdict(PARTITION) == 0
    assert verdict(flipped(places()[1] - 1, 1)) == 0


@pytest.mark.parametrize("count", [2, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", range(len(PARTS)), ids=NAMES)
def test_any_flipped_bit_of_an_entry_names_it(row: int, count: int) -> None:
    """First, last and random bytes."""
    source, size = random.Random(row), len(PARTS[row].content)
    for offset in [0, size - 1, *(source.randrange(size) for _ in range(count))]:
        assert verdict(flipped(places()[row] + offset, 1 << source.randrange(8))) == ENTRY_DIFFERS + row, offset


@pytest.mark.parametrize("count", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_any_flipped_bit_of_the_header_breaks_the_signature(count: int) -> None:
    """Fields, rows, the unused space and the signature itself."""
    source = random.Random(6)
    for offset in [0, 63, 64, 64 + 64 * len(PARTS), 8127, 8128, 8191, *(source.randrange(8192) for _ in range(count))]:
        assert verdict(flipped(offset, 1 << source.randrange(8))) == int(Rule.HEADER_SIGNATURE.value), offset


def test_two_entries_exchanged_are_refused() -> None:
    """Genuine bytes in another entry's place."""
    first, second = places()[1], places()[2]
    content = bytearray(PARTITION)
    content[first : first + 4096], content[second : second + 4096] = (
        PARTITION[second : second + 4096],
        PARTITION[first : first + 4096],
    )
    assert verdict(bytes(content)) == ENTRY_DIFFERS + 1
