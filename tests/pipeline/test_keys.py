"""Keys are made once, kept to their owner, never overwritten; a damaged one is named and left alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline import keys
from pipeline.errors import UsageError

pytestmark = pytest.mark.t0


def test_keys_are_made_once(tmp_path: Path) -> None:
    """The second load makes nothing and finds the same."""
    folder = tmp_path / "keys"
    first, second = keys.load(folder), keys.load(folder)
    assert set(first.created) == {*keys.SIGNING_KEYS, keys.DEVELOPMENT_SECRET}
    assert second.created == ()
    assert keys.public_bytes(first.header) == keys.public_bytes(second.header)
    assert first.development_secret == second.development_secret
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len({path.read_text() for path in folder.iterdir()}) == 6


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31, "AB" * 32])
def test_a_damaged_key_is_named_and_kept(tmp_path: Path, content: str) -> None:
    """The error names the file; the file does not change."""
    keys.load(tmp_path)
    (tmp_path / "boot").write_text(content)
    with pytest.raises(UsageError, match=r"/boot: expected 64 lower-case hex digits"):
        keys.load(tmp_path)
    assert (tmp_path / "boot").read_text() == content


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Mode 0644 is an error that says so."""
    keys.load(tmp_path)
    (tmp_path / "root").chmod(0o644)
    with pytest.raises(UsageError, match="expected mode 0600, found 0644"):
        keys.load(tmp_path)


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    """Whoever loses the race keeps the winner's key."""
    path = tmp_path / "key"
    path.write_text("first")
    keys.write_new(path, "second")
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
