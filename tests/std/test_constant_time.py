"""Secrets steer neither control flow nor addresses: the trace of blocks and memory accesses is one, whatever the secret."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from typing import Any, Final

import pytest

from dsl.lang import Array, Secret, declassify, frame_array, machine, secret, size_of, u8, upto
from dsl.std.dice import derive_key_pair, derive_layer
from dsl.std.ed25519 import ed25519_public_key, ed25519_sign
from dsl.std.hkdf import hkdf, hmac
from dsl.std.sha512 import sha512
from dsl.std.x509 import KeyPair
from dsl.std.x25519 import x25519
from tests.worlds import Argument, Unicorn

KINDS: Final = {"block": 0, "memory": 1}


@machine
def leaks_by_address(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Read where a secret says: what the test must find."""
    out[0] = out[declassify(key[0], "a planted leak") & 15]


@machine
def leaks_by_branch(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Branch on a secret: what the test must find."""
    if declassify(key[0], "a planted leak") & 1 == 1:
        out[0] = u8(1)


@machine
def leaves_a_secret(out: Array[Secret[u8]], key: Array[Secret[u8]]) -> None:
    """Copy a secret to a frame and leave it there: what the test must find."""
    frame = frame_array(Secret[u8], 32)
    frame.copy_from(key)
    for index in upto(out.length):
        out[index] = frame[index]


@machine
def does_not_leak(out: Array[Secret[u8]], key: Array[Secret[u8]]) -> None:
    """Compute on a secret without showing it."""
    out[0] = (key[0] ^ secret(u8(0x55))) + 1


def trace_of(function: Callable[..., Any], *arguments: Argument) -> str:
    """The hash of every block entered and every address touched, in order."""
    places = array("Q")

    def note(kind: str, address: int) -> None:
        places.append(address << 1 | KINDS[kind])

    Unicorn(note).call(function, *arguments)
    assert len(places) > 1
    return hashlib.sha256(places.tobytes()).hexdigest()


def secrets(count: int, size: int) -> list[bytes]:
    """All zeros, all ones, and others that look random."""
    others = (hashlib.shake_128(number.to_bytes(4, "little")).digest(size) for number in range(count - 2))
    return [bytes(size), b"\xff" * size, *others]


ROUTINES: Final[dict[str, Callable[[bytes], tuple[Any, ...]]]] = {
    "sha512": lambda key: (sha512, bytearray(64), key),
    "hmac": lambda key: (hmac, bytearray(64), key, key),
    "hkdf": lambda key: (hkdf, bytearray(32), key, b"salt", b"information"),
    "derive_layer": lambda key: (derive_layer, bytearray(64), key + key, bytes(257)),
    "derive_key_pair": lambda key: (derive_key_pair, bytearray(size_of(KeyPair)), key),
    "ed25519_public_key": lambda key: (ed25519_public_key, bytearray(32), key),
    "ed25519_sign": lambda key: (ed25519_sign, bytearray(64), b"message", key, bytes(32)),
    "x25519": lambda key: (x25519, bytearray(32), key, key),
}
LIGHT: Final = ("sha512", "hmac", "hkdf", "derive_layer")


@pytest.mark.t1
@pytest.mark.parametrize("name", ROUTINES)
def test_one_trace(name: str) -> None:
    """A few secrets leave one trace."""
    count = 10 if name in LIGHT else 3
    traces = [trace_of(*ROUTINES[name](key)) for key in secrets(count, 32)]
    assert len(traces) == count
    assert len(set(traces)) == 1


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTINES)
def test_one_trace_of_forty_secrets(name: str) -> None:
    """Forty secrets leave one trace."""
    traces = [trace_of(*ROUTINES[name](key)) for key in secrets(40, 32)]
    assert len(traces) == 40
    assert len(set(traces)) == 1


@pytest.mark.t1
@pytest.mark.parametrize(("function", "count"), [(leaks_by_address, 16), (leaks_by_branch, 2), (does_not_leak, 1)])
def test_the_test_finds_leaks(function: Callable[..., Any], count: int) -> None:
    """Planted leaks by address and by branch are seen; their absence too."""
    traces = [trace_of(function, bytearray(16), bytes([number])) for number in range(64)]
    assert len(set(traces)) == count


WIPING: Final = ("hkdf", "derive_layer", "derive_key_pair", "ed25519_public_key", "ed25519_sign", "x25519")


@pytest.mark.t1
@pytest.mark.parametrize("name", WIPING)
def test_what_is_left_on_the_stack_does_not_depend_on_the_secret(name: str) -> None:
    """After each routine that wipes, everything below the caller's stack pointer is the same for all secrets."""
    left = set()
    for key in secrets(4, 32):
        engine = Unicorn()
        engine.call(*ROUTINES[name](key))
        left.add(engine.stack)
    assert len(left) == 1
    assert left.pop().strip(b"\xcc"), "it used the stack"


@pytest.mark.t1
def test_the_stack_test_finds_what_is_left() -> None:
    """A routine that leaves its caller's secret in its frame is seen."""
    left = set()
    for key in secrets(4, 32):
        engine = Unicorn()
        engine.call(leaves_a_secret, bytearray(8), key)
        left.add(engine.stack)
    assert len(left) == 4
