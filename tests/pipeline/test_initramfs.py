"""The archive is one that cpio reads, and the same every time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.initramfs import busybox_initramfs

pytestmark = pytest.mark.t0


def members(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a newc archive: name -> (mode, data)."""
    found: dict[str, tuple[int, bytes]] = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        numbers = [int(archive[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        start = offset + 110
        name = archive[start : start + name_size - 1].decode()
        data_start = (start + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[data_start : data_start + size])
        offset = (data_start + size + 3) // 4 * 4


def test_members() -> None:
    """Busybox, the shell's link, init, the console, and the folders that init mounts on."""
    found = members(busybox_initramfs(b"BUSYBOX", b"#!init\n"))
    assert found["bin/busybox"] == (0o100755, b"BUSYBOX")
    assert found["bin/sh"] == (0o120777, b"busybox")
    assert found["init"] == (0o100755, b"#!init\n")
    assert found["dev/console"][0] == 0o020600
    assert {name for name, (mode, _) in found.items() if mode >> 12 == 4} >= {"proc", "sys", "dev"}


def test_deterministic() -> None:
    """Twice the same bytes, a whole number of 512-byte blocks."""
    first = busybox_initramfs(b"B" * 1001, b"init")
    assert first == busybox_initramfs(b"B" * 1001, b"init")
    assert len(first) % 512 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is missing")
def test_cpio_lists_it(tmp_path: Path) -> None:
    """The reference tool agrees."""
    listed = subprocess.run(["cpio", "-t"], input=busybox_initramfs(b"B", b"i"), capture_output=True, check=True).stdout
    assert b"bin/busybox" in listed.splitlines()
