"""The keys of this checkout: made once in keys/, mode 0600, never overwritten, never committed.

Five Ed25519 keys as 32 raw bytes in hex, one a file: `header` signs the image's header; `root`, `boot`, `vmm` and `box` are the release
chain. `development-secret` stands in for a device secret: whoever has it can forge evidence, which is why mode is debug.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline import paths
from pipeline.errors import UsageError

SIGNING_KEYS = ("header", "root", "boot", "vmm", "box")
DEVELOPMENT_SECRET = "development-secret"
SEED_SIZE = 32  # bytes


@dataclass(frozen=True)
class Keys:
    """All keys of a checkout. `created` names those that were made just now."""

    header: Ed25519PrivateKey
    root: Ed25519PrivateKey
    boot: Ed25519PrivateKey
    vmm: Ed25519PrivateKey
    box: Ed25519PrivateKey
    development_secret: bytes
    created: tuple[str, ...]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public key."""
    return key.public_key().public_bytes_raw()


def load(folder: Path = paths.KEYS) -> Keys:
    """Read the keys, making those that are missing. Raises UsageError for a damaged file, and changes none."""
    made: list[str] = []
    seeds = {name: load_seed(folder, name, made) for name in (*SIGNING_KEYS, DEVELOPMENT_SECRET)}
    signing = {name: Ed25519PrivateKey.from_private_bytes(seeds[name]) for name in SIGNING_KEYS}
    return Keys(**signing, development_secret=seeds[DEVELOPMENT_SECRET], created=tuple(made))


def load_seed(folder: Path, name: str, made: list[str]) -> bytes:
    """Read one seed, or make it and add its name to `made`."""
    path = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_new(path, secrets.token_bytes(SEED_SIZE).hex() + "\n")
            made.append(name)
        check_mode(path)
        text = path.read_text("ascii", "replace").strip()
    except OSError as error:
        raise UsageError(f"{path}: expected a readable key file, found: {error.strerror}") from None
    if len(text) != 2 * SEED_SIZE or any(digit not in "0123456789abcdef" for digit in text):
        raise UsageError(
            f"{path}: expected {2 * SEED_SIZE} lower-case hex digits, found {len(text)} characters"
            "; it is never overwritten: restore it, or move it away to have a new one made"
        )
    return bytes.fromhex(text)


def check_mode(path: Path) -> None:
    """Refuse a key that others may have read. Raises UsageError, and OSError for a file that cannot be read."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(
            f"{path}: expected mode 0600, found {mode:04o}; others may have read this key: chmod it or remove it"
        )


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet, readable by its owner alone; complete or not there at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # the file came into being meanwhile: that one is kept
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
