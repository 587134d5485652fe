"""What callers must give: an array that is too short, or of another length where two must match, stops at a check and is never overrun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from dsl.lang import size_of
from dsl.std import dice, ed25519, edwards25519, field25519, hkdf, scalar25519, sha256, sha512, x509, x25519
from tests.worlds import Argument, FailedCheck, Native, Unicorn

pytestmark = pytest.mark.t1
FIELD = size_of(field25519.FieldElement)
POINT = size_of(edwards25519.Point)
PAIR = size_of(x509.KeyPair)

# Each routine with arguments that it takes; for each argument that is an array, lengths that it does not take.
CASES: Final[dict[Callable[..., Any], tuple[tuple[Argument, ...], dict[int, list[int]]]]] = {
    sha256.sha256: ((bytearray(32), b"abc"), {0: [0, 1, 28, 31]}),
    sha256.sha256_finish: ((bytearray(32), bytearray(104)), {0: [0, 4, 31]}),
    sha512.sha512: ((bytearray(64), b"abc"), {0: [0, 8, 63]}),
    sha512.sha512_finish: ((bytearray(64), bytearray(200)), {0: [0, 8, 56, 63]}),
    field25519.field_load: ((bytearray(FIELD), bytes(32)), {1: [0, 7, 8, 16, 24, 31]}),
    field25519.field_store: ((bytearray(32), bytes(FIELD)), {0: [0, 7, 8, 16, 24, 31]}),
    scalar25519.scalar_load: ((bytearray(32), bytes(32)), {1: [0, 8, 24, 31]}),
    scalar25519.scalar_store: ((bytearray(32), bytes(32)), {0: [0, 8, 24, 31]}),
    scalar25519.scalar_reduce_hash: ((bytearray(32), bytes(64)), {0: [0, 8, 24], 1: [0, 8, 56, 63]}),
    scalar25519.scalar_is_reduced: ((bytes(32),), {0: [0, 8, 16, 24]}),
    edwards25519.point_encode: ((bytearray(32), b"\x01" + bytes(POINT - 1)), {0: [0, 8, 31]}),
    edwards25519.point_decode: ((bytearray(POINT), b"\x01" + bytes(31)), {1: [0, 8, 31]}),
    ed25519.ed25519_public_key: ((bytearray(32), bytes(32)), {0: [0, 31]}),
    ed25519.ed25519_sign: ((bytearray(64), b"abc", bytes(32), bytes(32)), {0: [0, 31, 32, 63]}),
    x25519.x25519: ((bytearray(32), bytes(32), b"\x09" + bytes(31)), {0: [0, 24, 31], 1: [0, 8, 31], 2: [0, 8, 31]}),
    hkdf.hmac: ((bytearray(64), b"key", b"message"), {0: [0, 8, 63]}),
    dice.write_configuration: ((bytearray(68), b"name", 1, 2), {0: [0, 16, 60, 67]}),
    dice.write_device_certificate: ((bytearray(x509.CERTIFICATE_LIMIT), bytes(PAIR)), {0: [0, 100, 300]}),
}


def called(function: Callable[..., Any], arguments: tuple[Argument, ...]) -> bool:
    """Whether a call returns; both worlds must say the same."""
    outcomes = set()
    for world in (Native(), Unicorn()):
        try:
            world.call(function, *(type(argument)(argument) for argument in arguments))
            outcomes.add(True)
        except FailedCheck:
            outcomes.add(False)
    assert len(outcomes) == 1
    return outcomes.pop()


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_short_arrays_are_refused(function: Callable[..., Any]) -> None:
    """Every length that is too short, for every array that has one."""
    good, wrong = CASES[function]
    assert called(function, good)
    for index, lengths in wrong.items():
        whole = good[index]
        assert isinstance(whole, (bytes, bytearray))
        for length in lengths:
            short = (*good[:index], whole[:length], *good[index + 1 :])
            assert not called(function, short), (index, length)
