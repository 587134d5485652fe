"""What the cryptography bench calls: hashes with the processor's own instructions, which a program has to take up first."""

from __future__ import annotations

from dsl.lang import Array, machine, u8
from dsl.std.sha256_bulk import sha256_bulk, sha256_bulk_two, use_sha_extensions


@machine
def one_stream(digest: Array[u8], data: Array[u8], first: bool) -> None:
    """Hash; the first time take up the SHA extensions: CPUID is slow where a hypervisor answers it."""
    if first:
        use_sha_extensions()
    sha256_bulk(digest, data)


@machine
def two_streams(
    left_digest: Array[u8], left: Array[u8], right_digest: Array[u8], right: Array[u8], first: bool
) -> None:
    """Hash two messages at once, in the same way."""
    if first:
        use_sha_extensions()
    sha256_bulk_two(left_digest, left, right_digest, right)
