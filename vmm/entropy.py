"""Random bytes: the processor's generators, retried and tested, mixed with the monitor's secret and a counter (SHA-512).

Without a working RDRAND or RDSEED there are no random bytes: nothing here falls back to the clock alone.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Failure,
    Secret,
    Struct,
    array,
    declassify_array,
    erase,
    frame_array,
    machine,
    minimum,
    secret,
    static,
    u8,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import cpuid, rdrand, rdseed, rdtsc
from dsl.std.sha512 import sha512

NO_ENTROPY: Final = 1  # failure
RETRIES: Final = 16  # Intel's guidance is 10 for RDRAND
SAMPLES: Final = 4  # 64-bit words a block of output
BLOCK_SIZE: Final = 64
POOL_SIZE: Final = 32 + 8 * (2 * SAMPLES + 2)
CPUID_RDRAND: Final = 1 << 30  # leaf 1, ECX
CPUID_RDSEED: Final = 1 << 18  # leaf 7, EBX


class Entropy(Struct):
    """What the generator keeps. Reached by one CPU at a time."""

    key: Array[Secret[u8]] = array(32)
    counter: u64
    last: u64  # the last word, for the stuck test
    has_rdrand: bool
    has_rdseed: bool
    padding: Array[u8] = array(6)


ENTROPY: Final = static(Entropy)


@machine
def prepare_entropy(seed: Array[Secret[u8]]) -> None:
    """Take the monitor's secret (32 bytes) as key, and look which generators there are."""
    ENTROPY.key.copy_from(seed)
    ENTROPY.has_rdrand = cpuid(u32(1), u32(0)).ecx & CPUID_RDRAND != 0
    if cpuid(u32(0), u32(0)).eax >= 7:
        ENTROPY.has_rdseed = cpuid(u32(7), u32(0)).ebx & CPUID_RDSEED != 0


@machine
def hardware_word(use_seed: bool) -> u64 | Failure:
    """One word of RDSEED or RDRAND. A generator that is not ready after RETRIES, or gives the same word twice running, has failed."""
    for _ in upto(RETRIES):
        result = rdseed() if use_seed else rdrand()
        if result.ok:
            if result.value == ENTROPY.last:
                return Failure(NO_ENTROPY)
            ENTROPY.last = result.value
            return result.value
    return Failure(NO_ENTROPY)


@machine
def fill_pool(pool: Array[Secret[u8]]) -> Failure | None:
    """Key, counter, time, and the words of every generator there is."""
    pool.slice(u64(0), u64(32)).copy_from(ENTROPY.key)
    ENTROPY.counter += 1
    pool.store_u64(u64(32), secret(ENTROPY.counter))
    pool.store_u64(u64(40), secret(rdtsc()))
    if not ENTROPY.has_rdrand and not ENTROPY.has_rdseed:
        return Failure(NO_ENTROPY)
    for index in upto(SAMPLES):
        if ENTROPY.has_rdrand:
            word = hardware_word(False)
            if isinstance(word, Failure):
                return word
            pool.store_u64(48 + index * 8, secret(word))
        if ENTROPY.has_rdseed:
            seed = hardware_word(True)
            if isinstance(seed, Failure):
                return seed
            pool.store_u64(48 + (SAMPLES + index) * 8, secret(seed))
    return None


@machine
def random_bytes(out: Array[u8]) -> Failure | None:
    """Fill `out` with random bytes. On failure it is zero."""
    out.fill(u8(0))
    pool = frame_array(Secret[u8], POOL_SIZE)
    block = frame_array(Secret[u8], BLOCK_SIZE)
    done = u64(0)
    while done < out.length:
        filled = fill_pool(pool)
        if isinstance(filled, Failure):
            out.fill(u8(0))
            return filled
        sha512(block, pool)
        piece = minimum(out.length - done, u64(BLOCK_SIZE))
        public = declassify_array(block, "random output is for its receiver")
        out.slice(done, piece).copy_from(public.slice(u64(0), piece))
        done += piece
    erase(pool)
    erase(block)
    return None
