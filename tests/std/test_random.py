"""The generator is HMAC-DRBG over its stated sources, and fails when the hardware does."""

from __future__ import annotations

import hashlib
import hmac as host_hmac
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dsl.lang import Array, Failure, Machine, as_secret, frame_array, u8
from dsl.std.random import NO_GENERATOR, NOT_READY, STUCK, RandomState, random_fill, random_start
from tests.worlds import Native

RDSEED_ONLY = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 1 << 18, 0, 0), (1, 0): (0, 0, 0, 0)}
RDRAND_ONLY = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, 0), (1, 0): (0, 0, 1 << 30, 0)}
NEITHER = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, 0), (1, 0): (0, 0, 0, 0)}
OLD_CPU = {(0, 0): (5, 0, 0, 0), (1, 0): (0, 0, 0, 0)}


class Reference:
    """HMAC-DRBG (SP 800-90A, 10.1.2) by the host's library, over words 1, 2, 3... and times 1, 2, 3..."""

    def __init__(self, boot_secret: bytes) -> None:
        self.key, self.value, self.count = bytes(64), b"\x01" * 64, 0
        self.update(self.pool(8) + boot_secret)

    def pool(self, words: int) -> bytes:
        """The next words, each with its time."""
        numbers = range(self.count + 1, self.count + words + 1)
        self.count += words
        return b"".join(number.to_bytes(8, "little") * 2 for number in numbers)

    def code(self, message: bytes) -> bytes:
        """HMAC under the present key."""
        return host_hmac.new(self.key, message, hashlib.sha512).digest()

    def update(self, data: bytes) -> None:
        """HMAC_DRBG_Update with data."""
        for separator in (b"\0", b"\1"):
            self.key = self.code(self.value + separator + data)
            self.value = self.code(self.value)

    def fill(self, size: int) -> bytes:
        """HMAC_DRBG_Generate with fresh words as additional input."""
        fresh, out = self.pool(2), b""
        self.update(fresh)
        while len(out) < size:
            self.value = self.code(self.value)
            out += self.value
        self.update(fresh)
        return out[:size]


@contextmanager
def machine_with(cpuid: dict[tuple[int, int], tuple[int, int, int, int]]) -> Iterator[Machine]:
    """A machine whose generator counts 1, 2, 3..."""
    with Machine() as machine:
        machine.cpuid.update(cpuid)
        numbers = iter(range(1, 1 << 30))
        machine.random = lambda: next(numbers)
        yield machine


def read(array: Array[u8]) -> bytes:
    """An array's bytes."""
    return bytes(int(array[index]) for index in range(int(array.length)))


@pytest.mark.t0
@pytest.mark.parametrize("cpuid", [RDSEED_ONLY, RDRAND_ONLY], ids=["rdseed", "rdrand"])
def test_it_is_hmac_drbg(cpuid: dict[tuple[int, int], tuple[int, int, int, int]]) -> None:
    """Requests of several sizes give what the reference gives."""
    with machine_with(cpuid):
        state, boot_secret = RandomState(), frame_array(u8, 32)
        boot_secret.fill(u8(7))
        assert random_start(state, as_secret(boot_secret)) is None
        reference = Reference(bytes([7]) * 32)
        for size in (1, 64, 100, 0, 256):
            out = frame_array(u8, 256).slice(0, size)
            assert random_fill(state, out) is None
            assert read(out) == reference.fill(size)


@pytest.mark.t0
def test_the_boot_secret_matters() -> None:
    """Two machines whose hardware gives the same differ by their secrets."""
    assert Reference(b"a").fill(32) != Reference(b"b").fill(32)
    outputs = []
    for mark in (1, 2):
        with machine_with(RDSEED_ONLY):
            state, boot_secret, out = RandomState(), frame_array(u8, 1), frame_array(u8, 32)
            boot_secret.fill(u8(mark))
            assert random_start(state, as_secret(boot_secret)) is None
            assert random_fill(state, out) is None
            outputs.append(read(out))
    assert outputs[0] != outputs[1]


@pytest.mark.t0
@pytest.mark.parametrize("cpuid", [NEITHER, OLD_CPU], ids=["neither", "old"])
def test_no_generator(cpuid: dict[tuple[int, int], tuple[int, int, int, int]]) -> None:
    """A CPU without either instruction fails by name."""
    with machine_with(cpuid):
        assert random_start(RandomState(), as_secret(frame_array(u8, 1))) == Failure(NO_GENERATOR)


@pytest.mark.t0
@pytest.mark.parametrize("number", [0, (1 << 64) - 1, 5], ids=["zeros", "ones", "repeated"])
def test_stuck_generator(number: int) -> None:
    """All zeros, all ones, and a number that comes twice running are refused, at the start and later."""
    with machine_with(RDRAND_ONLY) as machine:
        state, out = RandomState(), frame_array(u8, 16)
        assert random_start(state, as_secret(out.slice(0, 0))) is None
        machine.random = lambda: number
        assert random_fill(state, out) == Failure(STUCK)
        assert read(out) == bytes(16)
        assert random_start(RandomState(), as_secret(out)) == Failure(STUCK)


@pytest.mark.t0
def test_generator_that_is_never_ready() -> None:
    """It is asked again, but not for ever."""
    with machine_with(RDSEED_ONLY) as machine:
        machine.random = lambda: None
        assert random_start(RandomState(), as_secret(frame_array(u8, 1))) == Failure(NOT_READY)


@pytest.mark.t0
def test_generator_that_is_ready_sometimes() -> None:
    """A number that comes late is taken."""
    with machine_with(RDSEED_ONLY) as machine:
        answers = iter(None if count % 5 else count + 1 for count in range(1 << 20))
        machine.random = lambda: next(answers)
        assert random_start(RandomState(), as_secret(frame_array(u8, 1))) is None


@pytest.mark.t1
def test_native(native: Native) -> None:
    """On this processor, two generators give different bytes, and no failure."""
    outputs = []
    for _ in range(2):
        state, out = bytearray(144), bytearray(64)
        assert native(random_start, state, b"secret") == 0
        assert native(random_fill, state, out) == 0
        outputs.append(bytes(out))
    assert outputs[0] != outputs[1]
    assert bytes(64) not in outputs
