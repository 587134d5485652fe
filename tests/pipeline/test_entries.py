"""The folder of entries: whole or absent, and bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.entries import Entries

pytestmark = pytest.mark.t0


def test_entries_outlive_their_mapping(tmp_path: Path) -> None:
    """Written, overwritten and removed through one, seen by another; nothing else is left in the folder."""
    folder = tmp_path / "deep" / "entries"
    first = Entries(folder, 1000)
    assert first.get("a") is None
    assert list(first) == []
    first["a"], first["b"], first["a"] = b"old", b"two", b"new"
    second = Entries(folder, 1000)
    assert dict(second) == {"a": b"new", "b": b"two"}
    del second["a"]
    assert "a" not in first
    with pytest.raises(KeyError):
        del first["a"]
    assert os.listdir(folder) == ["b"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half an entry nor a temporary file."""
    entries = Entries(tmp_path, 1000)
    entries["a"] = b"whole"

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        entries["a"] = b"half"
    assert dict(entries) == {"a": b"whole"}


def test_the_oldest_go_first(tmp_path: Path) -> None:
    """Past the limit the entries written longest ago go, down to half of it; those of a run before count."""
    before = Entries(tmp_path, 100)
    for number in range(9):
        before[f"e{number}"] = bytes(10)
        os.utime(tmp_path / f"e{number}", (number, number))
    after = Entries(tmp_path, 100)
    after["last"] = bytes(20)
    assert list(after) == ["e6", "e7", "e8", "last"]
