"""SHA-256 of much data: whole blocks by the processor's SHA extensions, where a program has taken them up, one stream or two at once.

For programs that own the XMM registers and have SSE switched on (CR4.OSFXSR). Without the extensions the general registers do the work.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import (
    CPUID_7_EBX_SHA,
    CPUID_ECX_SSE4_1,
    CPUID_FEATURES,
    CPUID_STRUCTURED_FEATURES,
    CPUID_VENDOR,
)
from dsl.lang import Array, Struct, frame_array, machine, minimum, static, u8, u32, u64
from dsl.lang.intrinsics import cpuid
from dsl.std.sha256 import (
    BLOCK_SIZE,
    ROUND_CONSTANTS,
    Sha256,
    compress_blocks,
    sha256_begin,
    sha256_finish,
    take_blocks,
)


class Extensions(Struct):
    """What the processor offers and the program has taken up."""

    sha: bool


EXTENSIONS: Final = static(Extensions)


@machine
def use_sha_extensions() -> None:
    """Take up the SHA instructions, where CPUID shows them (and SSE4.1, which no such processor lacks)."""
    highest = cpuid(u32(CPUID_VENDOR), u32(0)).eax
    if highest >= CPUID_STRUCTURED_FEATURES and cpuid(u32(CPUID_FEATURES), u32(0)).ecx & CPUID_ECX_SSE4_1 != 0:
        EXTENSIONS.sha = cpuid(u32(CPUID_STRUCTURED_FEATURES), u32(0)).ebx & CPUID_7_EBX_SHA != 0


@machine(kernel="dsl.std.kernels.sha256.compress")
def compress_extension(state: Array[u32], blocks: Array[u8], constants: Array[u32]) -> None:
    """Mix whole blocks into the state with the SHA extensions; uses XMM0 to XMM8."""
    compress_blocks(state, blocks)


@machine(kernel="dsl.std.kernels.sha256.compress_two")
def compress_two_extension(states: Array[u32], first: Array[u8], second: Array[u8], constants: Array[u32]) -> None:
    """Mix whole blocks, equally many and at least one, into each of two states with the SHA extensions; uses XMM0 to XMM14."""
    compress_blocks(states.slice(0, 8), first)
    compress_blocks(states.slice(8, 8), second)


@machine
def bulk_update(stream: Sha256, data: Array[u8]) -> None:
    """Take more bytes into a stream that has had whole blocks so far."""
    whole = u64(0)
    if EXTENSIONS.sha:
        whole = data.length // BLOCK_SIZE * BLOCK_SIZE
        compress_extension(stream.state, data.slice(0, whole), ROUND_CONSTANTS)
    stream.length += data.length
    take_blocks(stream, data.slice(whole, data.length - whole))


@machine
def sha256_bulk(digest: Array[u8], data: Array[u8]) -> None:
    """Write the 32-byte digest of data."""
    stream = Sha256()
    sha256_begin(stream)
    bulk_update(stream, data)
    sha256_finish(digest, stream)


@machine
def sha256_bulk_two(first_digest: Array[u8], first: Array[u8], second_digest: Array[u8], second: Array[u8]) -> None:
    """Write the digests of two messages; as much as both have of whole blocks is hashed at once."""
    stream = Sha256()
    other = Sha256()
    sha256_begin(stream)
    sha256_begin(other)
    both = u64(0)
    if EXTENSIONS.sha:
        both = minimum(first.length, second.length) // BLOCK_SIZE * BLOCK_SIZE
    if both > 0:
        states = frame_array(u32, 16)
        states.slice(0, 8).copy_from(stream.state)
        states.slice(8, 8).copy_from(other.state)
        compress_two_extension(states, first.slice(0, both), second.slice(0, both), ROUND_CONSTANTS)
        stream.state.copy_from(states.slice(0, 8))
        other.state.copy_from(states.slice(8, 8))
        stream.length = both
        other.length = both
    bulk_update(stream, first.slice(both, first.length - both))
    bulk_update(other, second.slice(both, second.length - both))
    sha256_finish(first_digest, stream)
    sha256_finish(second_digest, other)
