"""A test that lets mutants live: it looks at one input."""

from __future__ import annotations

import pytest

from tests.pipeline.mutated.program import largest_below
from tests.worlds import Native

pytestmark = pytest.mark.t1


def test_largest(native: Native) -> None:
    """One input, of which the answer comes first."""
    assert native(largest_below, b"\x05\x02\x01", 9) == 5
