"""No mistake makes the compiler fall over: changed programs compile to legal IR, or get errors that point at the right place."""

from __future__ import annotations

import random

import pytest

from tests.diagnostics import fuzz
from tests.diagnostics.mutations import mutate

BATCH = 100


@pytest.mark.parametrize("batch", [0, *(pytest.param(batch, marks=pytest.mark.slow) for batch in range(1, 10))])
def test_wrong_sources_get_errors_never_a_traceback(batch: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Some of each sort of change; `build.py test --long` tries ten thousand."""
    total = fuzz.run(batch * BATCH, BATCH, jobs=1, quiet=True)
    assert not total.wrong, capsys.readouterr().out
    assert total.count == BATCH
    assert total.outcomes["refused"] > BATCH // 3
    assert total.outcomes["compiled"] > BATCH // 20
    assert len(total.codes) >= 6  # which ones come up depends on the sources, which change


def test_changes_come_from_their_seeds_alone() -> None:
    """A seed that is reported gives the same source again."""
    for seed, text in enumerate(group[0] for group in fuzz.originals()):
        assert mutate(text, random.Random(seed)) == mutate(text, random.Random(seed))


def test_a_wrong_place_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the errors' places can fail: spans one line further down are noticed."""
    from dsl.compiler import source

    right = source.SourceFile.line
    monkeypatch.setattr(source.SourceFile, "line", lambda self, number: right(self, number + 1))
    total = fuzz.run(0, 30, jobs=1, quiet=True)
    assert any("shows" in wrong for wrong in total.wrong.values())
