"""SHA-256 with the SHA extensions gives NIST's digests, on one stream and on two, and the same without them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
import unicorn as uc
from unicorn import x86_const as x86

from dsl.lang import Array, machine, u8
from dsl.std.sha256 import BLOCK_SIZE
from dsl.std.sha256_bulk import (
    EXTENSIONS,
    bulk_update,
    compress_extension,
    compress_two_extension,
    sha256_bulk,
    sha256_bulk_two,
    use_sha_extensions,
)
from dsl.std.sha_constants import root_fractions
from tests.std.inside import Inside
from tests.std.ported import MEMORY, Ported
from tests.std.vectors import digests
from tests.worlds import CPython, FailedCheck, Native

EDGES: Final = (0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 191, 192, 1000)
FLAG: Final = "dsl.std.sha256_bulk.EXTENSIONS"
HAS_EXTENSIONS: Final = "sha_ni" in Path("/proc/cpuinfo").read_text().split()
needs_extensions: Final = pytest.mark.skipif(not HAS_EXTENSIONS, reason="this processor has no SHA extensions")
WITHOUT, WITH = Native({FLAG: b"\0"}), Native({FLAG: b"\1"})
worlds: Final = pytest.mark.parametrize(
    "world", [pytest.param(WITHOUT, id="without"), pytest.param(WITH, id="with", marks=needs_extensions)]
)
SSE4_1, SHA = 1 << 19, 1 << 29  # CPUID.1:ECX, CPUID.(7, 0):EBX (SDM Vol. 2A, CPUID)
ALL: Final = 0xFFFF_FFFF
CONSTANTS: Final = b"".join(word.to_bytes(4, "little") for word in root_fractions(3, 64, 32))
KERNELS: Final = (compress_extension, compress_two_extension)


STREAM: Final = random.Random(5).randbytes(96) + (1 << 20).to_bytes(8, "little")  # any state, and a mebibyte so far


def inside_two(objects: Mapping[str, bytes]) -> Inside:
    """What sha256_bulk_two calls, with these objects."""
    world = Inside(sha256_bulk_two)
    world.objects = objects
    return world


def one(world: Native, message: bytes) -> bytes:
    """The digest of a message, over noise."""
    out = bytearray(b"\xa5" * 32)
    world.call(sha256_bulk, out, message)
    return bytes(out)


def two(world: Native, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """The digests of two messages."""
    out, other = bytearray(b"\xa5" * 32), bytearray(b"\x5a" * 32)
    world.call(sha256_bulk_two, out, first, other, second)
    return bytes(out), bytes(other)


def taken_up(highest: int, features: int, structured: int) -> int:
    """The flag once a processor was asked that answers so; all that is not to be looked at is the opposite."""
    world = Ported(use_sha_extensions)
    leaves = {
        (0, 0): (highest, ~highest, ~highest, ~highest),
        (1, 0): (~features, ~features, features, ~features),
        (7, 0): (~structured, structured, ~structured, ~structured),
    }

    def identify(_text: str) -> None:
        leaf = world.engine.reg_read(x86.UC_X86_REG_RAX), world.engine.reg_read(x86.UC_X86_REG_RCX)
        registers = x86.UC_X86_REG_RAX, x86.UC_X86_REG_RBX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX
        for register, value in zip(registers, leaves[leaf], strict=True):
            world.engine.reg_write(register, value & ALL)

    world.replace("cpuid", identify)
    world.call()
    return world.emulated.read(world.emulated.program.symbols[FLAG][0], 1)[0]


@pytest.mark.t1
def test_the_extensions_are_taken_up_where_there_are_any() -> None:
    """This processor's are."""
    Native().call(use_sha_extensions)
    loaded, _ = Native().code(use_sha_extensions)
    assert loaded.read(loaded.program.symbols[FLAG][0], 1) == bytes([HAS_EXTENSIONS])


@pytest.mark.t1
@pytest.mark.parametrize("bit", range(32))
def test_two_bits_of_cpuid_tell_of_the_extensions(bit: int) -> None:
    """SSE4.1 and SHA, both; no other bit stands for one of them, or takes one away."""
    alone, others = 1 << bit, ALL ^ 1 << bit
    assert taken_up(7, alone, ALL) == (alone == SSE4_1)
    assert taken_up(7, others, ALL) == (alone != SSE4_1)
    assert taken_up(7, ALL, alone) == (alone == SHA)
    assert taken_up(7, ALL, others) == (alone != SHA)


@pytest.mark.t1
@pytest.mark.parametrize("highest", [0, 1, 3, 6, 7, 8, 15, 0x20, 0x8000_0000, ALL])
def test_a_leaf_that_is_not_there_says_nothing(highest: int) -> None:
    """The bits count where leaf 7 is there."""
    assert taken_up(highest, SSE4_1, SHA) == (highest >= 7)


@pytest.mark.t1
@worlds
@pytest.mark.parametrize("kind", ["Short", "Long"])
def test_native_nist(world: Native, kind: str) -> None:
    """All of NIST's messages, alone and beside another."""
    vectors = digests(f"hashes/SHA2/SHA256{kind}Msg.rsp")
    before = vectors[0]
    for vector in vectors:
        assert one(world, vector.message) == vector.digest
        assert two(world, vector.message, before.message) == (vector.digest, before.digest)
        before = vector
    assert len(vectors) == (65 if kind == "Short" else 64)


@pytest.mark.t1
@worlds
def test_edges_of_blocks(world: Native) -> None:
    """All lengths of some blocks; every pair of those where blocks and padding change."""
    source = random.Random(7)
    for size in range(4 * BLOCK_SIZE + 2):
        message = source.randbytes(size)
        assert one(world, message) == hashlib.sha256(message).digest()
    messages = [source.randbytes(size) for size in EDGES]
    for first, second in product(messages, messages):
        assert two(world, first, second) == (hashlib.sha256(first).digest(), hashlib.sha256(second).digest())


@pytest.mark.t1
@pytest.mark.parametrize("function", [sha256_bulk, sha256_bulk_two, bulk_update])
@pytest.mark.parametrize("flag", [2, 3, 4, 6, 0x10, 0x80, 0xFF])
def test_the_flag_is_0_or_1(function: Callable[..., Any], flag: int) -> None:
    """Any other byte stops the program, where it is first looked at."""
    world = inside_two({FLAG: bytes([flag])}) if function is bulk_update else Native({FLAG: bytes([flag])})
    arguments = {sha256_bulk: (bytes(32), b""), sha256_bulk_two: (bytes(32), b"") * 2, bulk_update: (STREAM, b"")}
    with pytest.raises(FailedCheck):
        world.call(function, *arguments[function])
    loaded, symbol = world.code(function)
    start, size = loaded.program.symbols[symbol][:2]
    assert start <= loaded.stopped_at < start + size


@pytest.mark.t1
@worlds
@pytest.mark.parametrize("size", [0, 1, 28, 31])
def test_a_digest_has_room(world: Native, size: int) -> None:
    """Less than 32 bytes of it stop the program."""
    for message in (b"", bytes(64), bytes(200)):
        for sizes in ((size, 32), (32, size)):
            with pytest.raises(FailedCheck):
                world.call(sha256_bulk_two, bytearray(sizes[0]), message, bytearray(sizes[1]), message)
        with pytest.raises(FailedCheck):
            world.call(sha256_bulk, bytearray(size), message)


@pytest.mark.t1
@worlds
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 130, 192])
def test_a_stream_of_whole_blocks_goes_on(world: Native, size: int) -> None:
    """From any state; what does not fill a block waits, and nothing else is written."""
    data = random.Random(size).randbytes(size)
    expected, stream = bytearray(STREAM), bytearray(STREAM)
    CPython().call(bulk_update, expected, data)
    inside_two(world.objects).call(bulk_update, stream, data)
    assert stream == expected


def name_of(function: Callable[..., Any]) -> str:
    """Its symbol."""
    return f"{function.__module__}.{function.__name__}"


class Recorder(Ported):
    """A hash whose kernels do nothing but note what they are given: each array's first byte and length."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.calls: list[tuple[str, bytes, bytes]] = []  # the kernel and its blocks; no second ones
        for kernel in KERNELS:
            if name_of(kernel) in self.emulated.program.symbols:
                at = self.emulated.program.symbols[name_of(kernel)][0]
                self.engine.hook_add(uc.UC_HOOK_CODE, self.note, kernel, begin=at, end=at)

    def note(self, _engine: object, _at: int, _size: int, kernel: Callable[..., Any]) -> None:
        """Note the arguments of a call, and return."""
        stack = self.engine.reg_read(x86.UC_X86_REG_RSP)
        back, *pushed = (int.from_bytes(self.emulated.read(stack + at, 8), "little") for at in (0, 8, 16))
        registers = ("RSI", "RDX", "RCX", "R8", "R9")
        words, first, size, third, fourth = (
            self.engine.reg_read(getattr(x86, f"UC_X86_REG_{name}")) for name in registers
        )
        is_two = kernel is compress_two_extension
        constants = tuple(pushed) if is_two else (third, fourth)
        assert words == (16 if is_two else 8)
        assert constants == (self.emulated.program.symbols["dsl.std.sha256.ROUND_CONSTANTS"][0], 64)
        blocks = self.emulated.read(first, size)
        self.calls.append((name_of(kernel), blocks, self.emulated.read(third, fourth) if is_two else b""))
        self.engine.reg_write(x86.UC_X86_REG_RSP, stack + 8)
        self.engine.reg_write(x86.UC_X86_REG_RIP, back)

    def given(self, flag: int, *messages: bytes) -> list[tuple[str, bytes, bytes]]:
        """What the kernels are given for these messages; a kernel that is given nothing does not count."""
        self.calls.clear()
        arguments: list[int] = []
        for number, message in enumerate(messages):
            start = 0x4000 * number
            arguments += [MEMORY + start, 32, self.write(start + 0x1000, message), len(message)]
        place = self.emulated.program.symbols[FLAG][0]
        assert not isinstance(self.emulated.call(self.symbol, arguments, {place: bytes([flag])}), str)
        return [call for call in self.calls if call[1]]


def whole(message: bytes) -> bytes:
    """Its whole blocks."""
    return message[: len(message) // BLOCK_SIZE * BLOCK_SIZE]


@pytest.mark.t1
def test_the_kernels_are_given_all_whole_blocks() -> None:
    """Where the extensions were taken up, and else none: what both messages have goes to the kernel for two, the rest to that for one."""
    source = random.Random(8)
    messages = [source.randbytes(size) for size in EDGES]
    single, double = Recorder(sha256_bulk), Recorder(sha256_bulk_two)
    alone, beside = (name_of(kernel) for kernel in KERNELS)
    for first, second in product(messages, messages):
        both = min(len(whole(first)), len(whole(second)))
        together = [(beside, first[:both], second[:both])]
        apart = [(alone, whole(message)[both:], b"") for message in (first, second)]
        assert double.given(1, first, second) == [call for call in together + apart if call[1]]
        assert double.given(0, first, second) == []
    for message in messages:
        assert single.given(1, message) == [(alone, whole(message), b"")][: len(whole(message))]
        assert single.given(0, message) == []


@pytest.mark.t1
@needs_extensions
@pytest.mark.parametrize("count", range(4))
def test_a_kernel_takes_as_many_blocks_as_it_is_given(count: int) -> None:
    """Also none; on its own, where the registers that it does not use hold other things."""
    blocks, state = bytes(range(256))[: 64 * count], bytearray(range(32))
    expected = bytearray(state)
    CPython().call(compress_extension, expected, blocks, CONSTANTS)
    Native().call(compress_extension, state, blocks, CONSTANTS)
    assert state == expected


@pytest.mark.t1
@needs_extensions
@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_streams_are_mixed_as_each_alone(count: int) -> None:
    """From two states that have nothing in common."""
    source = random.Random(count)
    first, second = source.randbytes(64 * count), source.randbytes(64 * count)
    states = bytearray(source.randbytes(64))
    alone = [bytearray(states[:32]), bytearray(states[32:])]
    for state, blocks in zip(alone, (first, second), strict=True):
        Native().call(compress_extension, state, blocks, CONSTANTS)
    Native().call(compress_two_extension, states, first, second, CONSTANTS)
    assert states == b"".join(alone)


@pytest.mark.t0
def test_cpython() -> None:
    """What the kernels' bodies say is SHA-256 too."""
    state = bytearray(32)
    CPython().call(sha256_bulk, state, b"a" * 130)
    assert bytes(state) == hashlib.sha256(b"a" * 130).digest()
    other = bytearray(32)
    CPython().call(sha256_bulk_two, state, b"b" * 70, other, b"c" * 140)
    assert bytes(state) == hashlib.sha256(b"b" * 70).digest()
    assert bytes(other) == hashlib.sha256(b"c" * 140).digest()


@machine
def kernels_as_python(digest: Array[u8], data: Array[u8]) -> None:
    """Hash as if the processor had the extensions: under CPython the kernels' bodies, natively their bytes."""
    EXTENSIONS.sha = True
    sha256_bulk(digest, data)


@machine
def two_kernels_as_python(
    first_digest: Array[u8], first: Array[u8], second_digest: Array[u8], second: Array[u8]
) -> None:
    """The same for two messages."""
    EXTENSIONS.sha = True
    sha256_bulk_two(first_digest, first, second_digest, second)


@pytest.mark.t0
@pytest.mark.parametrize("size", [64, 65, 191])
def test_the_models_of_the_kernels(size: int) -> None:
    """What runs under CPython in a kernel's place gives the digest."""
    message, other = bytes(range(64)) * 3, bytes(200)
    out, second = bytearray(32), bytearray(32)
    CPython().call(kernels_as_python, out, message[:size])
    assert bytes(out) == hashlib.sha256(message[:size]).digest()
    CPython().call(two_kernels_as_python, out, message[:size], second, other)
    assert (bytes(out), bytes(second)) == (hashlib.sha256(message[:size]).digest(), hashlib.sha256(other).digest())
