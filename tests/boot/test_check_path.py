"""The check path as machine code: an image is taken as it was signed, and never with a byte changed."""

from __future__ import annotations

import ctypes
import functools
import random
from typing import Any

import pytest
import unicorn
from unicorn import x86_const as x86

from boot.refusal import Rule
from dsl.compiler.pipeline import compile_function
from tests.boot.check_path import MONITOR_DIFFERS, check_path
from tests.boot.images import DEVELOPMENT_SECRET, MONITOR, SEGMENT, Part, header_of, partition_of
from tests.boot.keys import OTHER_KEY, SECRET
from tests.execution.native import Native
from tests.system import made

pytestmark = pytest.mark.t1
STAGING, STACK, RETURN = 0x4000000, 0x8000000, 0x9000000
MONITOR_BYTES = bytes(random.Random(1).randbytes(8192))
PARTITION = partition_of([Part(MONITOR, MONITOR_BYTES), Part(SEGMENT, b"s" * 5000), Part(DEVELOPMENT_SECRET, SECRET)])
MONITOR_OFFSET = 8192


@functools.cache
def emulator() -> tuple[Any, int]:
    """An emulator with the compiled check path in it, and the path's address."""
    program = compile_function(check_path)
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    engine.mem_map(program.base, (program.memory_size + 0xFFFF) & ~0xFFFF)
    engine.mem_write(program.base, program.image)
    for base in (STAGING, STACK, RETURN):
        engine.mem_map(base, 0x100000)
    engine.mem_write(RETURN, b"\xf4")
    return engine, program.symbols["tests.boot.check_path.check_path"][0]


def verdict(partition: bytes) -> int:
    """What the path says of these staged bytes."""
    engine, entry = emulator()
    engine.mem_write(STAGING, partition)
    engine.mem_write(STACK + 0xFFFF8, RETURN.to_bytes(8, "little"))
    engine.reg_write(x86.UC_X86_REG_RSP, STACK + 0xFFFF8)
    engine.reg_write(x86.UC_X86_REG_RDI, STAGING)
    engine.reg_write(x86.UC_X86_REG_RSI, len(partition))
    engine.emu_start(entry, RETURN, timeout=20_000_000)
    assert engine.reg_read(x86.UC_X86_REG_RIP) == RETURN
    return int(engine.reg_read(x86.UC_X86_REG_RAX))


def flipped(offset: int, mask: int) -> bytes:
    content = bytearray(PARTITION)
    content[offset] ^= mask
    return bytes(content)


def test_a_signed_image_is_taken() -> None:
    assert verdict(PARTITION) == 0


def test_another_signer_is_refused() -> None:
    assert verdict(partition_of([Part(MONITOR, MONITOR_BYTES)], key=OTHER_KEY)) == int(Rule.HEADER_SIGNATURE.value)


COUNT = 20  # in the emulator; the whole sweep of the loader itself is tests/attacks/flips.py


def test_any_flipped_byte_of_header_or_signature_is_refused() -> None:
    source = random.Random(2)
    offsets = [0, 8, 28, 63, 64, 96, 8127, 8128, 8160, 8191, *(source.randrange(8192) for _ in range(COUNT))]
    for offset in offsets:
        assert verdict(flipped(offset, 1 << source.randrange(8))) == int(Rule.HEADER_SIGNATURE.value), offset


def test_any_flipped_byte_of_the_monitor_is_refused() -> None:
    source = random.Random(3)
    offsets = [0, 1, 63, 64, 4095, 4096, 8191, *(source.randrange(8192) for _ in range(COUNT))]
    for offset in offsets:
        assert verdict(flipped(MONITOR_OFFSET + offset, 1 << source.randrange(8))) == MONITOR_DIFFERS, offset


@pytest.mark.slow
def test_every_flipped_byte_of_header_and_of_the_whole_monitor_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, one at a time, on this processor, with its SHA instructions if it has them: the monitor of this tree."""
    content = made.monitor()
    image = ctypes.create_string_buffer(partition_of([Part(MONITOR, content)]))
    native = Native(compile_function(check_path))
    entry, place, size = "tests.boot.check_path.check_path", ctypes.addressof(image), len(image) - 1
    source = random.Random(4)

    def judged() -> int:
        result = native.call(entry, [place, size])
        assert not isinstance(result, str)
        return result[0]

    assert judged() == 0
    for offset in range(MONITOR_OFFSET + len(content)):
        kept = image[offset]
        image[offset] = bytes([ord(kept) ^ source.randrange(1, 256)])
        wanted = int(Rule.HEADER_SIGNATURE.value) if offset < MONITOR_OFFSET else MONITOR_DIFFERS
        assert judged() == wanted, offset
        image[offset] = kept
    assert judged() == 0
    with capsys.disabled():
        print(f"\n{MONITOR_OFFSET} bytes of the header and {len(content)} of the monitor changed, natively: taken 0")


def test_a_signed_header_that_breaks_a_rule_is_refused_after_its_signature() -> None:
    header, _ = header_of([Part(SEGMENT, b"s")])
    assert verdict(header.ljust(12288, b"\0")) == int(Rule.MONITOR_MISSING.value)


@pytest.mark.parametrize("size", [8192, 8192 + 4096])
def test_a_cut_image_is_refused(size: int) -> None:
    assert verdict(PARTITION[:size]) == int(Rule.HEADER_IMAGE_SIZE.value)
