"""HMAC-SHA-512 (RFC 2104) and HKDF-SHA-512 (RFC 5869, one block of output) on secrets, in constant time; lengths are public."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Secret, Struct, frame_array, machine, secret, u8, upto
from dsl.std.sha512 import Sha512, sha512, sha512_begin, sha512_finish, sha512_update

BLOCK_SIZE: Final = 128
HASH_SIZE: Final = 64
INNER_PAD: Final = 0x36
OUTER_PAD: Final = 0x5C


class Hmac(Struct, size=400):
    """A message authentication code under way: the caller's."""

    inner: Sha512
    outer: Sha512


@machine
def hmac_begin(stream: Hmac, key: Array[Secret[u8]]) -> None:
    """Start a new stream, all zero so far, with a key of any length."""
    block = frame_array(Secret[u8], BLOCK_SIZE)
    if key.length > BLOCK_SIZE:
        sha512(block.slice(0, HASH_SIZE), key)
    else:
        block.slice(0, key.length).copy_from(key)
    for index in upto(BLOCK_SIZE):
        block[index] ^= INNER_PAD
    sha512_begin(stream.inner)
    sha512_update(stream.inner, block)
    for index in upto(BLOCK_SIZE):
        block[index] ^= INNER_PAD ^ OUTER_PAD
    sha512_begin(stream.outer)
    sha512_update(stream.outer, block)


@machine
def hmac_update(stream: Hmac, data: Array[Secret[u8]]) -> None:
    """Take more of the message."""
    sha512_update(stream.inner, data)


@machine
def hmac_finish(code: Array[Secret[u8]], stream: Hmac) -> None:
    """Write the 64-byte code; the stream is used up."""
    digest = frame_array(Secret[u8], HASH_SIZE)
    sha512_finish(digest, stream.inner)
    sha512_update(stream.outer, digest)
    sha512_finish(code, stream.outer)


@machine
def hmac(code: Array[Secret[u8]], key: Array[Secret[u8]], message: Array[Secret[u8]]) -> None:
    """Write the 64-byte HMAC-SHA-512 of message under key."""
    stream = Hmac()
    hmac_begin(stream, key)
    hmac_update(stream, message)
    hmac_finish(code, stream)


@machine
def hkdf_extract(pseudorandom_key: Array[Secret[u8]], salt: Array[Secret[u8]], secret_input: Array[Secret[u8]]) -> None:
    """Write the 64-byte pseudorandom key."""
    hmac(pseudorandom_key, salt, secret_input)


@machine
def hkdf_expand(out: Array[Secret[u8]], pseudorandom_key: Array[Secret[u8]], information: Array[Secret[u8]]) -> None:
    """Fill out, at most HASH_SIZE bytes (more stops the machine), from a pseudorandom key."""
    assert out.length <= HASH_SIZE, "this HKDF gives one block"
    block = frame_array(Secret[u8], HASH_SIZE)
    counter = frame_array(Secret[u8], 1)
    counter[0] = secret(u8(1))
    stream = Hmac()
    hmac_begin(stream, pseudorandom_key)
    hmac_update(stream, information)
    hmac_update(stream, counter)
    hmac_finish(block, stream)
    out.copy_from(block.slice(0, out.length))


@machine
def hkdf(
    out: Array[Secret[u8]], secret_input: Array[Secret[u8]], salt: Array[Secret[u8]], information: Array[Secret[u8]]
) -> None:
    """Fill out from secret input, salt and information: extract, then expand."""
    pseudorandom_key = frame_array(Secret[u8], HASH_SIZE)
    hkdf_extract(pseudorandom_key, salt, secret_input)
    hkdf_expand(out, pseudorandom_key, information)
