"""Bytes of header and monitor changed: a sample of the sweep in tests/attacks/flips.py, judged by the loader's emitted bytes."""

from __future__ import annotations

import pytest

from tests.attacks.flips import HASH, HEADER_SIZE, Judge, sweep

pytestmark = [pytest.mark.t1, pytest.mark.slow]
STRIDE = 499  # no power of two: every place of a block, of a row and of a field has its turn


def test_no_changed_byte_boots(capsys: pytest.CaptureFixture[str]) -> None:
    """One byte at a time, from the first: refused, with the line that names it."""
    total = sweep(STRIDE, 1, quiet=True)
    with capsys.disabled():
        print(f"\n{total.line()}")
    assert total.proceeded == []
    assert total.header > 10
    assert total.monitor > 150


def test_an_unchanged_image_boots_and_an_unchecked_one_is_seen() -> None:
    """No change is taken; and with a `ret` for the comparison of hashes, a change would be found to boot."""
    judge = Judge()
    judge.go_to(HEADER_SIZE // 64)
    assert judge.body.run(), "nothing changed"
    unchecked = Judge()
    unchecked.body.engine.mem_write(unchecked.body.program.symbols[HASH][0], b"\xc3")
    unchecked.saved = unchecked.body.save()
    assert not unchecked.refuses(HEADER_SIZE + 70000, 1)
