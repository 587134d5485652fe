"""What the cryptography bench calls: hashes with the processor's own instructions, which a program has to ask for."""

from __future__ import annotations

from dsl.lang import Array, machine, u8, u32
from dsl.std.sha256 import ROUND_CONSTANTS, compress_two_extension, sha256, use_sha_extensions


@machine
def sha256_extensions(digest: Array[u8], data: Array[u8], first: bool) -> None:
    """Hash, and the first time take up the SHA extensions: CPUID is slow where a hypervisor answers it."""
    if first:
        use_sha_extensions()
    sha256(digest, data)


@machine
def sha256_two_streams(states: Array[u32], left: Array[u8], right: Array[u8]) -> None:
    """Two hashes of whole blocks at once, for a processor with the SHA extensions."""
    compress_two_extension(states, left, right, ROUND_CONSTANTS)
