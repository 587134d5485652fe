"""Packages are what the lock file says, or the failure names both hashes; .deb files are read without installing."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from pipeline import packages, paths
from pipeline.errors import UsageError
from pipeline.packages import Locked, PackageError

pytestmark = pytest.mark.t0


def deb(files: dict[str, bytes]) -> bytes:
    """A package with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(buffer.getvalue())}
    body = b"!<arch>\n"
    for name, data in members.items():
        body += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name.encode(), 0, 0, 0, 0o644, len(data))
        body += data + b"\n" * (len(data) % 2)
    return body


def locked(folder: Path, content: bytes, sha256: str | None = None) -> Locked:
    """A lock row whose package is in the cache folder already."""
    row = Locked("kernel", "thing", "thing", "1:2.0-1", sha256 or hashlib.sha256(content).hexdigest())
    packages.cached_path(row, folder).write_bytes(content)
    return row


def test_a_file_comes_out_of_a_package(tmp_path: Path) -> None:
    """By pattern, and again from the unpacked copy; a damaged copy is not used."""
    fetched = packages.fetch(locked(tmp_path, deb({"./boot/vmlinuz-6.1": b"kernel", "./boot/config": b"x"})), tmp_path)
    assert fetched.locked
    assert packages.read_member(fetched, "./boot/vmlinuz-*") == b"kernel"
    (copy,) = [
        path for path in tmp_path.iterdir() if path.suffix == "" and path != fetched.path and "sha256" not in path.name
    ]
    copy.write_bytes(b"changed")
    assert packages.read_member(fetched, "./boot/vmlinuz-*") == b"kernel"
    with pytest.raises(PackageError, match=r"expected one file \./bin/\*, found \[\]"):
        packages.read_member(fetched, "./bin/*")


def test_a_wrong_hash_names_both(tmp_path: Path) -> None:
    """The lock file's and the file's."""
    content = deb({})
    row = locked(tmp_path, content, "ab" * 32)
    with pytest.raises(PackageError) as caught:
        packages.fetch(row, tmp_path)
    assert "ab" * 32 in str(caught.value)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a package", "expected a Debian package"),
        (b"!<arch>\n" + b"x" * 60, "damaged member header at byte 8"),
        (b"!<arch>\n", "expected a member data.tar.xz, found"),
        (deb({}).replace(b"\xfd7zXZ", b"\xfd7zXY"), "damaged"),
    ],
)
def test_a_damaged_package_is_described(tmp_path: Path, content: bytes, message: str) -> None:
    """With the package's name."""
    with pytest.raises(PackageError, match=message):
        packages.read_member(packages.fetch(locked(tmp_path, content), tmp_path), "*")


def test_a_package_that_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest of the series is taken, said aloud, and marked as not the locked one."""
    content = deb({"./f": b"1"})
    sha256 = hashlib.sha256(content).hexdigest()
    offered = {"thing-9": "9", "thing-10": "10"}

    def download(package: str, version: str, folder: Path) -> bool:
        if package not in offered:
            return False
        packages.cached_path(Locked("", package, "", version, ""), folder).write_bytes(content)
        return True

    monkeypatch.setattr(packages, "download", download)
    monkeypatch.setattr(packages, "series_names", lambda pattern: sorted(offered))
    monkeypatch.setattr(packages, "candidate_of", lambda name: (name, offered[name], sha256))
    fetched = packages.fetch(Locked("kernel", "thing-8", "thing-*", "8", "00" * 32), tmp_path)
    assert (fetched.package, fetched.version, fetched.locked, fetched.sha256) == ("thing-10", "10", False, sha256)
    assert "thing-8 8 is gone from the registry; took thing-10 10" in capsys.readouterr().err
    monkeypatch.setattr(packages, "series_names", lambda pattern: [])
    with pytest.raises(PackageError, match="not in the registry, and nothing else matches"):
        packages.fetch(Locked("kernel", "thing-8", "none-*", "8", "00" * 32), tmp_path)


def test_versions_sort_by_number() -> None:
    """6.1.0-9 is older than 6.1.0-10."""
    versions = ["6.1.192-10", "6.1.192-9", "6.1.9-1", "6.1.192-2"]
    assert sorted(versions, key=packages.version_key) == ["6.1.9-1", "6.1.192-2", "6.1.192-9", "6.1.192-10"]


def test_a_bad_lock_file_is_described(tmp_path: Path) -> None:
    """Missing, no TOML, or a row that lacks a text."""
    path = tmp_path / "packages.lock"
    with pytest.raises(UsageError, match="cannot be read"):
        packages.read_lock(path)
    path.write_text("[kernel\n")
    with pytest.raises(UsageError, match="expected TOML"):
        packages.read_lock(path)
    path.write_text('[kernel]\npackage = "x"\n')
    with pytest.raises(UsageError, match=r"\[kernel\]: expected the texts package, series, sha256, version"):
        packages.read_lock(path)


def test_the_debian_lock_names_what_the_box_uses() -> None:
    """Both rows are there, and their series matches their own package."""
    import fnmatch

    rows = packages.read_lock(paths.GUESTS / "debian" / "packages.lock")
    assert set(rows) == {"kernel", "busybox"}
    assert all(fnmatch.fnmatch(row.package, row.series) for row in rows.values())
    assert all(len(bytes.fromhex(row.sha256)) == 32 for row in rows.values())
