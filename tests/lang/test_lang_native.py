"""Instructions that need no privilege do on this processor what their models do."""

from __future__ import annotations

from typing import Any

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import (
    Machine,
    address_of,
    atomic_add_u32,
    atomic_compare_exchange_u64,
    atomic_exchange_u64,
    copy_bytes,
    copy_words,
    cpuid,
    fill_bytes,
    fill_words,
    frame_array,
    machine,
    rdtsc,
    read_rflags,
    u8,
    u32,
    u64,
    upto,
)
from tests.execution.native import Native

pytestmark = pytest.mark.t1


@machine
def memory_program(seed: u64) -> u64:
    """Every bulk and atomic form over one array, folded into a word."""
    words = frame_array(u64, 8)
    start = address_of(words)
    fill_words(start, seed, u64(8))
    fill_bytes(start + 3, seed.truncate(u8), u64(7))
    copy_bytes(start + 17, start + 1, u64(9))
    copy_words(start + 40, start, u64(2))
    total = atomic_exchange_u64(start + 8, seed + 1)
    total += atomic_compare_exchange_u64(start + 16, seed, u64(5))
    total += atomic_compare_exchange_u64(start + 24, seed, u64(5))
    total += u64(atomic_add_u32(start + 32, (seed >> 7).truncate(u32)))
    for i in upto(8):
        total = total * 31 + words[i]
    return total


@machine
def highest_leaf() -> u64:
    """EAX of leaf 0, and the flags' fixed bit, and time that does not stand still."""
    earlier = rdtsc()
    answer = cpuid(u32(0), u32(0))
    later = rdtsc()
    assert later > earlier, "time stands still"
    assert read_rflags() & 2 != 0, "bit 1 of RFLAGS is always set"
    return u64(answer.eax)


@pytest.mark.parametrize("pool", [None, 4])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1, 0x0123456789ABCDEF])
def test_memory_forms(seed: int, pool: int | None) -> None:
    """Copies, fills and atomics: the model's result is the processor's, also with four registers."""
    function: Any = memory_program
    native = Native(compile_function(function, pool=pool))
    with Machine():
        expected = memory_program(u64(seed))
    assert native.call(f"{__name__}.memory_program", [seed])[0] == int(expected)


def test_cpuid_and_time() -> None:
    """CPUID's four registers survive the allocator; RDTSC and RFLAGS read."""
    found = Native(compile_function(highest_leaf)).call(f"{__name__}.highest_leaf", [])
    assert found != "stopped"
    assert 1 <= int(found[0]) & 0xFFFFFFFF < 0x1000
