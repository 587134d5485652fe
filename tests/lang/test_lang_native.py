"""Instructions that need no privilege do on this processor what their models do."""

from __future__ import annotations

from typing import Any, Final

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import (
    Array,
    Bits,
    Device,
    Failure,
    Machine,
    Struct,
    address_of,
    array,
    as_secret,
    atomic_add_u32,
    atomic_compare_exchange_u64,
    atomic_exchange_u64,
    bits,
    checked_multiply,
    copy_bytes,
    copy_words,
    cpuid,
    declassify,
    fill_bytes,
    fill_words,
    frame_array,
    machine,
    maximum,
    minimum,
    multiply_wide,
    rdtsc,
    read_rflags,
    secret,
    static,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
    untrusted,
    upto,
    widen_untrusted,
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


class Gapped(Struct, size=64):
    """An array at an explicit offset, and a device word."""

    first: u64
    device: Device[u32]
    octets: Array[u8] = array(16, at=0x20)


class Nibbles(Bits, storage=u16):
    """Two fields."""

    low: u8 = bits(3, 0)
    high: u8 = bits(15, 12, default=3)


GAPPED: Final = static(Gapped)
TEN: Final = table(u8, bytes(range(10)))
LETTERS: Final = table(u8, b"abc")


@machine
def agreed_forms(a: u64) -> u64:
    """What dsl/README.md settles in passing, folded into a word."""
    leaf = Nibbles(low=(a & 15).truncate(u8)).with_(high=u8(9))
    total = u64(leaf.raw()) + u64(a) + minimum(a, 5) + maximum(a, 7)
    big = checked_multiply(a, 3)
    if isinstance(big, Failure):
        total += big.code << 20
    else:
        total += big
    outside = untrusted(a)
    low = widen_untrusted(u64, outside.truncate(u8)).below(200)
    total += low.code << 30 if isinstance(low, Failure) else low
    GAPPED.octets.store_be32(1, (a >> 5).truncate(u32))
    hidden = as_secret(GAPPED.octets)
    hidden.store_u64(8, hidden.load_u64(0) + secret(a) * 3)
    wide = multiply_wide(hidden.load_u64(4), a)
    total ^= declassify(wide.low ^ wide.high, "a test")
    GAPPED.device = u32(4)
    total += u64(GAPPED.device)
    if TEN.slice(0, 3).equals(LETTERS) or TEN.equals(LETTERS):
        total += 1 << 40
    if text("abc").equals(LETTERS):
        total += 1 << 41
    return total * 31 + u64(GAPPED.octets[9])


@pytest.mark.parametrize("pool", [None, 4])
@pytest.mark.parametrize("seed", [0, 1, 199, 200, 2**62, 2**64 - 1, 0x0123456789ABCDEF])
def test_agreed_forms(seed: int, pool: int | None) -> None:
    """Conversions to their own type, literals in functions, codes of the language's Failures, tainted bytes: one result in both worlds."""
    native = Native(compile_function(agreed_forms, pool=pool))
    with Machine():
        expected = agreed_forms(u64(seed))
    assert native.call(f"{__name__}.agreed_forms", [seed])[0] == int(expected)


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
