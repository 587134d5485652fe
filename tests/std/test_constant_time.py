"""Secrets steer neither control flow nor addresses: the trace of blocks and memory accesses is one, whatever the secret."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import Array, Secret, declassify, frame_array, machine, secret, size_of, u8, u16, upto
from dsl.std.dice import derive_key_pair, derive_layer
from dsl.std.ed25519 import ed25519_public_key, ed25519_sign
from dsl.std.hkdf import hkdf
from dsl.std.x509 import KeyPair
from dsl.std.x25519 import x25519
from tests.execution.emulated import Emulated
from tests.execution.traced import Tracer
from tests.std.secret_takers import SHAPES, Arguments, functions, parameters, takes_secret
from tests.worlds import Unicorn


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
def leaks_by_size(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Read a word or a byte of it, as a secret says: what the test must find where both ways are one block."""
    if declassify(key[0], "a planted leak") & 1 == 1:
        out.store_u16(0, u16(1))
    else:
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


PLACE: Final = 0x4000_0000  # arguments in Unicorn
TAKERS: Final = functions()
DECLASSIFYING: Final = {  # what may leave more than one trace, and why
    "dsl.std.edwards25519.point_is_identity": "the point of a public key or a signature; the answer is public",
    "dsl.std.edwards25519.recover_x": "the same: whether a public encoding is a point",
    "boot.device.derive_monitor": "the identifier in the monitor's certificate is public, and its hex digits are read from a table",
}


class Traced:
    """One function in an emulated machine that is followed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.machine = Emulated(compile_function(function))
        self.machine.engine.mem_map(PLACE, 1 << 20)
        self.tracer = Tracer(self.machine.engine)

    def trace(self, key: bytes) -> tuple[int, int, int]:
        """What a run with this secret shows."""
        arguments = Arguments(self.function, key, PLACE)
        for address, content in arguments.buffers:
            self.machine.engine.mem_write(address, content)
        self.tracer.clear()
        ended = self.machine.call(self.machine.program.entry, arguments.components)
        assert ended != "stopped", (
            f"{self.function.__name__}: a failed check: does secret_takers.SHAPES need a row for it?"
        )
        assert self.tracer.count > 1
        return self.tracer.digest()

    def traces(self, count: int) -> set[tuple[int, int, int]]:
        """What runs with so many secrets show: all zeros, all ones, and others that look random."""
        return {self.trace(key) for key in secrets(count, 32)}


def secrets(count: int, size: int) -> list[bytes]:
    """All zeros, all ones, and others that look random."""
    others = (hashlib.shake_128(number.to_bytes(4, "little")).digest(size) for number in range(count - 2))
    return [bytes(size), b"\xff" * size, *others]


@pytest.mark.t1
@pytest.mark.parametrize("symbol", [symbol for symbol in TAKERS if symbol not in DECLASSIFYING])
def test_one_trace(symbol: str) -> None:
    """A few secrets leave one trace."""
    assert len(Traced(TAKERS[symbol]).traces(3)) == 1


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("symbol", [symbol for symbol in TAKERS if symbol not in DECLASSIFYING])
def test_one_trace_of_two_hundred_secrets(symbol: str) -> None:
    """Two hundred secrets leave one trace."""
    assert len(Traced(TAKERS[symbol]).traces(200)) == 1


@pytest.mark.t1
@pytest.mark.parametrize("symbol", DECLASSIFYING)
def test_an_exception_is_one(symbol: str) -> None:
    """What is said to show something that is public does so."""
    assert len(Traced(TAKERS[symbol]).traces(3)) > 1


@pytest.mark.t0
def test_takers_are_found_by_what_they_take() -> None:
    """By a secret word, an array, a field of a Struct and one of a Record; a function of public things is none."""
    found = {symbol.rpartition(".")[2] for symbol in TAKERS}
    assert {
        "addend_negate_if",
        "hmac_update",
        "field_square",
        "pad_block",
        "derive_monitor",
        "write_endorsement",
    } <= found
    assert not {"ed25519_verify", "derive_identifier", "sha256", "fill_names"} & found
    assert all(takes_secret(function) for function in (leaks_by_address, leaks_by_branch, leaks_by_size))


@pytest.mark.t0
def test_no_row_of_the_shapes_is_left_over() -> None:
    """Each names a parameter that there is."""
    names = {name for function in TAKERS.values() for name in parameters(function)}
    names |= {f"{function.__name__}.{name}" for function in TAKERS.values() for name in parameters(function)}
    assert set(SHAPES) <= names


@pytest.mark.t1
@pytest.mark.parametrize(
    ("function", "count"), [(leaks_by_address, 16), (leaks_by_branch, 2), (leaks_by_size, 2), (does_not_leak, 1)]
)
def test_the_test_finds_leaks(function: Callable[..., Any], count: int) -> None:
    """Planted leaks by address, by branch and by an access's width are seen; their absence too."""
    assert len(Traced(function).traces(200)) == count


WIPING: Final[dict[str, Callable[[bytes], tuple[Any, ...]]]] = {
    "hkdf": lambda key: (hkdf, bytearray(32), key, b"salt", b"information"),
    "derive_layer": lambda key: (derive_layer, bytearray(64), key + key, bytes(257)),
    "derive_key_pair": lambda key: (derive_key_pair, bytearray(size_of(KeyPair)), key),
    "ed25519_public_key": lambda key: (ed25519_public_key, bytearray(32), key),
    "ed25519_sign": lambda key: (ed25519_sign, bytearray(64), b"message", key, bytes(32)),
    "x25519": lambda key: (x25519, bytearray(32), key, key),
}


@pytest.mark.t1
@pytest.mark.parametrize("name", WIPING)
def test_what_is_left_on_the_stack_does_not_depend_on_the_secret(name: str) -> None:
    """After each routine that wipes, everything below the caller's stack pointer is the same for all secrets."""
    left = set()
    for key in secrets(4, 32):
        engine = Unicorn()
        engine.call(*WIPING[name](key))
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
