"""Random bytes: HMAC-DRBG with SHA-512 (NIST SP 800-90A, 10.1.2) over several sources that are never trusted alone.

Sources: RDSEED or RDRAND, whichever the CPU has (each with retries and a test for a stuck generator), the jitter of the
time-stamp counter, and a secret of this boot that the caller gives. Fresh hardware words enter before every request. When
the hardware gives nothing, or one value again and again, the request fails: it never goes on with less.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Failure,
    Secret,
    Struct,
    array,
    as_secret,
    cpuid,
    declassify_array,
    frame_array,
    machine,
    minimum,
    pause,
    rdrand,
    rdseed,
    rdtsc,
    secret,
    u8,
    u32,
    u64,
    upto,
)
from dsl.std.hkdf import Hmac, hmac_begin, hmac_finish, hmac_update
from dsl.std.wipe import WIPED_SIZE

NO_GENERATOR: Final = 1  # the CPU has neither RDSEED nor RDRAND
NOT_READY: Final = 2  # it gave no number in any of its tries
STUCK: Final = 3  # it gave all zeros, all ones, or one number twice running

TRIES: Final = 1000  # of one word; Intel's guide asks for 10 of RDRAND, and more of RDSEED
START_WORDS: Final = 8  # 512 bits of hardware words at the start
FRESH_WORDS: Final = 2  # 128 bits before each request
REQUEST_LIMIT: Final = 256  # bytes of one request; SP 800-90A allows 65536, nothing here asks for more

RDRAND_BIT: Final = 30  # CPUID.1:ECX
RDSEED_BIT: Final = 18  # CPUID.7.0:EBX


class RandomState(Struct, size=144):
    """A generator: its owner's, erased with the owner. One caller at a time."""

    key: Array[Secret[u8]] = array(64)
    value: Array[Secret[u8]] = array(64)
    last_word: u64  # the hardware's last, for the stuck test
    has_seed: bool  # RDSEED, else RDRAND
    reserved: Array[u8] = array(7)


@machine
def find_generator(state: RandomState) -> Failure | None:
    """Note which instruction the CPU has. Failure: NO_GENERATOR."""
    if cpuid(u32(0), u32(0)).eax >= 7 and (cpuid(u32(7), u32(0)).ebx >> RDSEED_BIT) & 1 == 1:
        state.has_seed = True
        return None
    if (cpuid(u32(1), u32(0)).ecx >> RDRAND_BIT) & 1 == 1:
        state.has_seed = False
        return None
    return Failure(NO_GENERATOR)


@machine
def hardware_word(state: RandomState) -> u64 | Failure:
    """A word of the hardware's generator. Failure: NOT_READY or STUCK."""
    for _ in upto(TRIES):
        answer = rdseed() if state.has_seed else rdrand()
        if answer.ok:
            if answer.value == state.last_word or answer.value == 0 or ~answer.value == 0:
                return Failure(STUCK)
            state.last_word = answer.value
            return answer.value
        pause()
    return Failure(NOT_READY)


@machine
def gather(state: RandomState, pool: Array[u8]) -> Failure | None:
    """Fill the pool with pairs of a hardware word and the time it came. Failure: what hardware_word says."""
    for index in upto(pool.length // 16, at_most=START_WORDS):
        word = hardware_word(state)
        if isinstance(word, Failure):
            return word
        pool.store_u64(index * 16, word)
        pool.store_u64(index * 16 + 8, rdtsc())
    return None


@machine
def mix(state: RandomState, pool: Array[Secret[u8]], extra: Array[Secret[u8]], separator: u8) -> None:
    """Half of an update: key = HMAC(key, value | separator | pool | extra), value = HMAC(key, value)."""
    stream = Hmac()
    hmac_begin(stream, state.key)
    hmac_update(stream, state.value)
    mark = frame_array(Secret[u8], 1)
    mark[0] = secret(separator)
    hmac_update(stream, mark)
    hmac_update(stream, pool)
    hmac_update(stream, extra)
    hmac_finish(state.key, stream)
    advance(state)


@machine
def advance(state: RandomState) -> None:
    """Set value to HMAC(key, value)."""
    stream = Hmac()
    hmac_begin(stream, state.key)
    hmac_update(stream, state.value)
    hmac_finish(state.value, stream)


@machine(wipes=WIPED_SIZE)
def random_start(state: RandomState, boot_secret: Array[Secret[u8]]) -> Failure | None:
    """Make a generator from fresh hardware words, their times, and a secret of this boot (any length, also none).

    Failure: NO_GENERATOR, NOT_READY, STUCK; the state is then not to be used.
    """
    found = find_generator(state)
    if isinstance(found, Failure):
        return found
    pool = frame_array(u8, START_WORDS * 16)
    gathered = gather(state, pool)
    if isinstance(gathered, Failure):
        return gathered
    state.key.fill(secret(u8(0)))
    state.value.fill(secret(u8(1)))
    mix(state, as_secret(pool), boot_secret, u8(0))
    mix(state, as_secret(pool), boot_secret, u8(1))
    return None


@machine(wipes=WIPED_SIZE)
def random_fill(state: RandomState, out: Array[u8]) -> Failure | None:
    """Fill out, at most REQUEST_LIMIT bytes, with random bytes. Failure: NOT_READY, STUCK; out is then unchanged."""
    assert out.length <= REQUEST_LIMIT, "too many random bytes in one request"
    pool = frame_array(u8, FRESH_WORDS * 16)
    gathered = gather(state, pool)
    if isinstance(gathered, Failure):
        return gathered
    nothing = as_secret(pool.slice(0, 0))
    mix(state, as_secret(pool), nothing, u8(0))
    mix(state, as_secret(pool), nothing, u8(1))
    for block in upto((out.length + 63) // 64, at_most=REQUEST_LIMIT // 64):
        advance(state)
        done = block * 64
        count = minimum(out.length - done, u64(64))
        drawn = declassify_array(state.value.slice(0, count), "the caller decides what these bytes are for")
        out.slice(done, count).copy_from(drawn)
    # What was given cannot be computed from the state that stays.
    mix(state, as_secret(pool), nothing, u8(0))
    mix(state, as_secret(pool), nothing, u8(1))
    return None
