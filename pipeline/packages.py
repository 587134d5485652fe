"""Debian packages that guests are made of: fetched by name with apt-get, checked against a lock file, unpacked in Python.

The lock file (`packages.lock` in a guest's folder, TOML) names for each row the package, the series it belongs to, its version
and SHA-256. When the registry no longer has that version the newest of the series is taken, which is said aloud and recorded in
the reference file: the archive's own signed metadata (checked by apt-get) then vouches for it, not the lock.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.errors import PipelineError, UsageError
from pipeline.progress import say, step


class PackageError(PipelineError):
    """A package that is missing, damaged or not the one that was expected."""


@dataclass(frozen=True)
class Locked:
    """A row of a lock file."""

    row: str
    package: str
    series: str  # a pattern of package names, the locked one among them
    version: str
    sha256: str


@dataclass(frozen=True)
class Fetched:
    """A package on this disk. `locked`: it is the very one of the lock file."""

    package: str
    version: str
    sha256: str
    locked: bool
    path: Path

    def describe(self) -> dict[str, object]:
        """What the reference file records."""
        return {"package": self.package, "version": self.version, "sha256": self.sha256, "locked": self.locked}


def read_lock(path: Path) -> dict[str, Locked]:
    """Read a lock file. Raises UsageError naming the file and what is wrong."""
    try:
        rows = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: expected TOML: {error}") from None
    locked = {}
    for name, row in rows.items():
        keys = {"package", "series", "version", "sha256"}
        if not isinstance(row, dict) or set(row) != keys or not all(isinstance(value, str) for value in row.values()):
            raise UsageError(f"{path}: [{name}]: expected the texts {', '.join(sorted(keys))}, found {row!r}")
        locked[name] = Locked(row=name, **row)
    return locked


def fetch_all() -> None:
    """Fetch the packages of every lock file: the loader's and the guests'."""
    for lock in sorted([*paths.ROOT.glob("boot/packages.lock"), *paths.GUESTS.glob("*/packages.lock")]):
        for row in read_lock(lock).values():
            fetch(row)


def cached_path(locked: Locked, folder: Path) -> Path:
    """Where the locked package lies once fetched: apt-get's own name, with the colon of an epoch escaped."""
    name = f"{locked.package}_{locked.version.replace(':', '%3a')}"
    independent = folder / f"{name}_all.deb"  # of the architecture, which only the registry knows before
    return independent if independent.exists() else folder / f"{name}_amd64.deb"


def fetch(locked: Locked, folder: Path = paths.PACKAGES) -> Fetched:
    """Return the package of a lock row, downloading it where it is not in the cache.

    Raises PackageError, naming both hashes, where the file is not the one that the lock names.
    """
    path = cached_path(locked, folder)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not download(locked.package, locked.version, folder):
            return fetch_newest(locked, folder)
        path = cached_path(locked, folder)
    found = file_sha256(path)
    if found != locked.sha256:
        raise PackageError(
            f"{path.name}: expected SHA-256 {locked.sha256} (the lock file), found {found}; delete {path} to fetch it again"
        )
    return Fetched(locked.package, locked.version, found, locked=True, path=path)


def fetch_newest(locked: Locked, folder: Path) -> Fetched:
    """Take the newest package of the series, because the registry does not have the locked one any more."""
    candidates = [candidate for name in series_names(locked.series) if (candidate := candidate_of(name)) is not None]
    if not candidates:
        raise PackageError(
            f"{locked.package} {locked.version}: not in the registry, and nothing else matches {locked.series}; "
            "run `apt-get update` as root and look at the network"
        )
    package, version, sha256 = max(candidates, key=lambda row: version_key(row[1]))
    newest = Locked(locked.row, package, locked.series, version, sha256)
    if not cached_path(newest, folder).exists() and not download(package, version, folder):
        raise PackageError(f"{package} {version}: apt-get download failed")
    path = cached_path(newest, folder)
    found = file_sha256(path)
    if found != sha256:
        raise PackageError(f"{path.name}: expected SHA-256 {sha256} (the registry's metadata), found {found}")
    say(f"note: {locked.package} {locked.version} is gone from the registry; took {package} {version}, SHA-256 {found}")
    return Fetched(package, version, found, locked=False, path=path)


def download(package: str, version: str, folder: Path) -> bool:
    """Run apt-get download. As root, refreshes apt's lists once where they do not know the package. False: not to be had."""
    if shutil.which("apt-get") is None:
        raise UsageError(
            f"expected apt-get to fetch {package} {version}, found none; put the .deb into {folder} yourself"
        )
    command = ["apt-get", "-q", "download", f"{package}={version}"]
    with step(f"Fetching {package} {version}"):
        if run(command, folder) == 0:
            return True
        if os.geteuid() == 0 and not _lists_are_fresh:
            run(["apt-get", "-q", "update"], folder)
            _lists_are_fresh.append(True)
            return run(command, folder) == 0
    return False


_lists_are_fresh: list[bool] = []  # apt-get update is worth one try in a process


def run(command: list[str], folder: Path) -> int:
    """Run a command there, silently; its status."""
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def series_names(pattern: str) -> list[str]:
    """All package names that apt knows and the pattern matches."""
    prefix = pattern.split("*", 1)[0]
    names = subprocess.run(
        ["apt-cache", "pkgnames", prefix], capture_output=True, text=True, check=False
    ).stdout.split()
    return sorted(fnmatch.filter(names, pattern))


def candidate_of(package: str) -> tuple[str, str, str] | None:
    """The newest (package, version, SHA-256) that apt can download, or None."""
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", package], capture_output=True, text=True, check=False
    )
    fields = dict(line.split(": ", 1) for line in shown.stdout.splitlines() if ": " in line and line[0] != " ")
    if "Version" not in fields or "SHA256" not in fields:
        return None
    return package, fields["Version"], fields["SHA256"]


def version_key(version: str) -> list[tuple[int, int | str]]:
    """A sort key for Debian versions of one series: numbers as numbers, the rest as text (enough within a series)."""
    parts: list[tuple[int, int | str]] = []
    digits = ""
    for character in version + "\0":
        if character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((1, int(digits)))
            digits = ""
        parts.append((0, character))
    return parts


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def archive_members(data: bytes, name: str) -> dict[str, bytes]:
    """Split an `ar` archive, which a .deb is, into its members."""
    magic = b"!<arch>\n"
    if data[:8] != magic:
        raise PackageError(f"{name}: expected a Debian package beginning {magic!r}, found {data[:8]!r}")
    members, offset = {}, 8
    while offset + 60 <= len(data):
        header = data[offset : offset + 60]
        if header[58:60] != b"`\n":
            raise PackageError(f"{name}: damaged member header at byte {offset}")
        size = int(header[48:58])
        members[header[:16].decode("ascii").strip().rstrip("/")] = data[offset + 60 : offset + 60 + size]
        offset += 60 + size + size % 2
    return members


def read_member(fetched: Fetched, pattern: str) -> bytes:
    """The one regular file of a package whose path (`./usr/bin/x`) matches the pattern.

    Kept unpacked beside the package, because decompression takes seconds; the copy is used only if it is whole.
    """
    name = f"{fetched.sha256}-{hashlib.sha256(pattern.encode()).hexdigest()[:16]}"
    copy, digest = fetched.path.with_name(name), fetched.path.with_name(name + ".sha256")
    if copy.exists() and digest.exists():
        data = copy.read_bytes()
        if hashlib.sha256(data).hexdigest() == digest.read_text():
            return data
    with step(f"Unpacking {fetched.package}"):
        data = unpack_member(fetched, pattern)
    copy.write_bytes(data)
    digest.write_text(hashlib.sha256(data).hexdigest())
    return data


def unpack_member(fetched: Fetched, pattern: str) -> bytes:
    """Read that file out of the package itself."""
    members = archive_members(fetched.path.read_bytes(), fetched.path.name)
    packed = members.get("data.tar.xz")
    if packed is None:
        raise PackageError(f"{fetched.path.name}: expected a member data.tar.xz, found {sorted(members)}")
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(packed))) as tar:
            matches = [entry for entry in tar.getmembers() if entry.isfile() and fnmatch.fnmatch(entry.name, pattern)]
            if len(matches) != 1:
                raise PackageError(
                    f"{fetched.path.name}: expected one file {pattern}, found {[entry.name for entry in matches]}"
                )
            file = tar.extractfile(matches[0])
            assert file is not None
            return file.read()
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise PackageError(f"{fetched.path.name}: damaged: {error}") from None
