"""What `bench crypto` says of what it measured: who is the anchor, which way the ratio goes, and that wrong results are not timed."""

from __future__ import annotations

import ctypes
import hashlib
import json

import pytest

from dsl.std.sha512 import sha512
from pipeline import bench_crypto
from pipeline.bench_crypto import CryptoBenchError, Native, Subject, measure, room, row, table


def timed(size: int) -> Subject:
    """A subject with three rounds behind it, one of them disturbed."""
    times = {
        "ours": [500.0, 400.0, 9000.0],
        "OpenSSL (wheel)": [1000.0, 900.0, 1100.0],
        "OpenSSL (system)": [800.0, 850.0, 750.0],
        "libsodium": [100.0, 100.0, 100.0],
    }
    return Subject("it", size, dict.fromkeys(times, lambda: None), times=times)


def test_the_anchor_is_the_faster_openssl() -> None:
    """By medians; a ratio above one means that ours is faster; libsodium is shown and no anchor."""
    found = row(timed(0))
    assert (found["ours"], found["anchor"], found["unit"], found["ratio"]) == (0.5, 0.8, "us", 1.6)
    assert "OpenSSL (system)" in str(found["how"])
    assert found["all"] == {"ours": 0.5, "OpenSSL (wheel)": 1.0, "OpenSSL (system)": 0.8, "libsodium": 0.1}
    assert json.dumps(found)


def test_bulk_is_bytes_a_nanosecond() -> None:
    """Gigabytes a second, and the same ratio."""
    found = row(timed(1000))
    assert (found["ours"], found["anchor"], found["unit"], found["ratio"]) == (2.0, 1.25, "GB/s", 1.6)


def test_the_table_has_a_dash_for_who_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column for each, versions below."""
    monkeypatch.setattr(bench_crypto, "versions", lambda: {"OpenSSL (wheel)": "OpenSSL 9"})
    subject = timed(0)
    del subject.calls["libsodium"]
    lines = table([subject]).splitlines()
    assert lines[1].split() == ["it", "0.500", "us", "1.000", "us", "0.800", "us", "-", "1.6"]
    assert lines[2] == "OpenSSL (wheel): OpenSSL 9"


def test_a_wrong_result_is_not_timed() -> None:
    """The check comes first."""
    subject = Subject("it", 0, {"ours": lambda: None, "OpenSSL (wheel)": lambda: None}, check=lambda: False)
    with pytest.raises(CryptoBenchError, match="it: expected the result of OpenSSL, found another"):
        measure(subject, rounds=1)
    assert subject.times == {}


@pytest.mark.t1
def test_our_functions_are_called() -> None:
    """Emitted bytes in this process, with buffers that come back."""
    digest = room(64)
    Native(sha512).bind(digest, b"abc")()
    assert digest.raw == hashlib.sha512(b"abc").digest()
    assert isinstance(digest, ctypes.Array)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Debian package that has it."""
    monkeypatch.setattr(bench_crypto, "find_library", lambda _: None)
    with pytest.raises(CryptoBenchError, match=r"libsodium: expected the library .* \(Debian package libsodium23\)"):
        bench_crypto.library("sodium", "libsodium23")
