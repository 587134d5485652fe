"""A test that kills mutants: every byte and limit that tell one program from another."""

from __future__ import annotations

import pytest

from tests.pipeline.mutated.program import largest_below
from tests.worlds import Native

pytestmark = pytest.mark.t1
INPUTS = [
    b"",
    b"\x07",
    b"\x01\x02\x03",
    b"\x03\x02\x01",
    b"\xff\x80\x7f\x00",
    bytes(range(0, 256, 5)),
    b"\x09" * 40 + b"\x0a",
]


def test_largest(native: Native) -> None:
    """All of them, at limits around each byte."""
    for data in INPUTS:
        limits = {0, 1, 256, 1 << 32, (1 << 64) - 1, *(byte + step for byte in data for step in (0, 1))}
        for limit in sorted(limits):
            expected = max((byte for byte in data if byte < limit), default=0)
            assert native(largest_below, data, limit) == expected
