"""The monitor's random bytes come from the one generator there is, and never from less."""

from __future__ import annotations

import hashlib

import pytest

from dsl.lang import Failure, Machine, as_secret, frame_array, u8
from dsl.std.random import NO_GENERATOR, NOT_READY, RandomState, random_fill, random_start
from vmm.entropy import ENTROPY, forget_entropy, prepare_entropy, random_bytes

pytestmark = pytest.mark.t0
WITH_RDRAND = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, 0), (1, 0): (0, 0, 1 << 30, 0)}
WITH_NEITHER = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, 0), (1, 0): (0, 0, 0, 0)}
SEED = hashlib.sha256(b"seal").digest()


def drawn(cpuid: dict[tuple[int, int], tuple[int, int, int, int]], seed: bytes) -> bytes:
    """What the monitor draws first on such a machine."""
    with Machine() as machine:
        machine.cpuid.update(cpuid)
        secret = frame_array(u8, 32)
        for index, byte in enumerate(seed):
            secret[index] = u8(byte)
        prepare_entropy(as_secret(secret))
        out = frame_array(u8, 48)
        assert random_bytes(out) is None
        return bytes(int(out[index]) for index in range(48))


def test_it_is_the_generator_of_the_library() -> None:
    """The same machine and secret give what dsl.std.random gives; another secret gives other bytes."""
    with Machine() as machine:
        machine.cpuid.update(WITH_RDRAND)
        secret = frame_array(u8, 32)
        for index, byte in enumerate(SEED):
            secret[index] = u8(byte)
        state = RandomState()
        assert random_start(state, as_secret(secret)) is None
        out = frame_array(u8, 48)
        assert random_fill(state, out) is None
        expected = bytes(int(out[index]) for index in range(48))
    assert drawn(WITH_RDRAND, SEED) == expected
    assert drawn(WITH_RDRAND, bytes(32)) != expected


@pytest.mark.parametrize("has", [True, False])
def test_no_generator_no_bytes(model: Machine, has: bool) -> None:
    """Without RDRAND and RDSEED, or with one that never answers, each request fails and the buffer stays as it was."""
    model.cpuid.update(WITH_RDRAND if has else WITH_NEITHER)
    model.random = lambda: None
    prepare_entropy(as_secret(frame_array(u8, 32)))
    out = frame_array(u8, 16)
    out.fill(u8(0xA5))
    failed = random_bytes(out)
    assert isinstance(failed, Failure)
    assert failed.code == NO_GENERATOR
    assert all(out[index] == 0xA5 for index in range(16))


def test_a_generator_that_dies_later(model: Machine) -> None:
    """What worked at the start and stops later fails the request."""
    model.cpuid.update(WITH_RDRAND)
    prepare_entropy(as_secret(frame_array(u8, 32)))
    model.random = lambda: None
    failed = random_bytes(frame_array(u8, 16))
    assert isinstance(failed, Failure)
    assert failed.code == NOT_READY


def test_forgotten(model: Machine) -> None:
    """After the end nothing of the state is left."""
    model.cpuid.update(WITH_RDRAND)
    prepare_entropy(as_secret(frame_array(u8, 32)))
    forget_entropy()
    assert isinstance(random_bytes(frame_array(u8, 1)), Failure)
    assert int(ENTROPY.state.last_word) == 0
