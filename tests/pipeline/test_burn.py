"""`burn` writes what it should, to the disk it was told, and refuses every other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import block_devices, burn, disk
from pipeline.block_devices import Device
from pipeline.errors import PipelineError, UsageError

pytestmark = pytest.mark.t0
IMAGE = disk.build_disk(b"\xfa" * 100, b"2" * 5000, b"T" * 500_000)


def node(path: str, **fields: Any) -> dict[str, Any]:
    """One device as lsblk prints it."""
    empty = dict.fromkeys(("model", "tran", "fstype", "label", "pttype"))
    plain = {"size": 1 << 30, "rm": False, "hotplug": False, "ro": False, "type": "disk", "mountpoints": [None]}
    return {"path": path, **empty, **plain, **fields}


def parsed(*nodes: dict[str, Any]) -> list[Device]:
    """What is read from lsblk's list."""
    return block_devices.parse(json.dumps({"blockdevices": nodes}))


STICK = node("/dev/sdb", rm=True, tran="usb", model="Flash Drive ", pttype="dos")


@pytest.fixture
def stick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A file that lsblk lists as a removable disk; further fields as given."""

    def make(size: int = len(IMAGE) + (1 << 20), **fields: Any) -> Path:
        path = tmp_path / "stick"
        path.write_bytes(b"\xee" * size)
        listed = parsed(node(str(path), size=size, **{"rm": True, **fields}))
        monkeypatch.setattr(block_devices, "list_devices", lambda: listed)
        return path

    return make


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small image of ours."""
    path = tmp_path / "terrane.img"
    disk.write_sparse(path, IMAGE)
    return path


def burned(target: Path, image: Path, *allowed: str) -> int:
    """Burn without a question."""
    return burn.burn(str(target), image, frozenset(allowed), sure=True)


def test_the_whole_image_is_on_the_disk_and_nothing_else_changed(stick: Callable[..., Path], image: Path) -> None:
    """Zeros too: a sparse image must not leave what was there before."""
    path = stick()
    assert burned(path, image) == 0
    written = path.read_bytes()
    assert written[: len(IMAGE)] == IMAGE
    assert set(written[len(IMAGE) :]) == {0xEE}


def test_the_old_backup_table_is_erased(stick: Callable[..., Path], image: Path) -> None:
    """Firmware restores a partition table from the backup at the disk's end."""
    path = stick()
    with path.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"EFI PART".ljust(512, b"\x77"))
    burned(path, image)
    assert path.read_bytes()[-512:] == bytes(512)


@pytest.mark.parametrize(
    ("fields", "allowed", "reason"),
    [
        ({"ro": True}, ("fixed", "mounted"), "expected a writable disk"),
        ({"size": 4096}, ("fixed", "mounted"), rf"expected at least {len(IMAGE):,} bytes, found 4,096"),
        ({"rm": False}, (), "expected a removable disk, found a fixed one"),
        ({"mountpoints": ["/mnt"]}, ("fixed",), "stick is mounted on /mnt"),
        ({"children": [node("/dev/x1", mountpoints=["[SWAP]"], type="part")]}, (), "/dev/x1 is swap"),
        ({"children": [node("/dev/dm-0", type="crypt")]}, (), "is part of /dev/dm-0"),
    ],
)
def test_a_wrong_disk_is_refused_and_untouched(
    stick: Callable[..., Path], image: Path, fields: dict[str, Any], allowed: tuple[str, ...], reason: str
) -> None:
    """Read-only, too small, fixed, mounted, swap, part of a volume."""
    path = stick(**fields)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=reason):
        burned(path, image, *allowed)
    assert path.read_bytes() == before


def test_a_fixed_mounted_disk_is_written_when_told_so(stick: Callable[..., Path], image: Path) -> None:
    """Both waivers together."""
    path = stick(rm=False, mountpoints=["/mnt"])
    assert burned(path, image, "fixed", "mounted") == 0


def test_a_file_that_is_no_image_is_refused(stick: Callable[..., Path], tmp_path: Path) -> None:
    """Before anything is written."""
    path, wrong = stick(), tmp_path / "wrong.img"
    wrong.write_bytes(b"\0" * 100_000)
    with pytest.raises(PipelineError, match="expected a GPT header at LBA 1"):
        burned(path, wrong)
    assert set(path.read_bytes()) == {0xEE}


@pytest.mark.parametrize("answer", ["", "y", "yes", "/dev/other"])
def test_any_answer_but_the_name_writes_nothing(
    stick: Callable[..., Path], image: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """One question; the disk's own path is the only yes."""
    path = stick()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    with pytest.raises(UsageError, match="nothing was written"):
        burn.burn(str(path), image, frozenset(), sure=False)
    assert set(path.read_bytes()) == {0xEE}
    monkeypatch.setattr("builtins.input", lambda _: str(path))
    assert burn.burn(str(path), image, frozenset(), sure=False) == 0


def test_without_a_terminal_and_without_yes_nothing_is_written(
    stick: Callable[..., Path], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script must say that it is sure."""
    path = stick()
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="expected a terminal to ask on, or --yes"):
        burn.burn(str(path), image, frozenset(), sure=False)
    assert set(path.read_bytes()) == {0xEE}


@pytest.mark.parametrize("offset", [0, 511, 70_000, len(IMAGE) - 1])
def test_a_byte_that_reads_back_wrong_is_named(
    stick: Callable[..., Path], image: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """A bad stick: what it returns is not what was written."""
    path = stick()

    def spoil(file: int) -> None:
        value = os.pread(file, 1, offset)[0]
        os.pwrite(file, bytes([value ^ 0x10]), offset)

    monkeypatch.setattr(burn, "flush", spoil)
    with pytest.raises(PipelineError, match=rf"expected {IMAGE[offset]:#04x} at byte {offset:#x}, read back"):
        burned(path, image)


def test_lsblk_is_read() -> None:
    """Model, kind, contents and users of a disk and its partitions; empty card readers and CD drives are left out."""
    part = node("/dev/sdb1", type="part", fstype="vfat", label="BACKUP", size=5 << 20, mountpoints=["/media/a b"])
    (device,) = parsed(STICK | {"children": [part]}, node("/dev/sdc", size=0), node("/dev/sr0", type="rom"))
    assert device.line() == "/dev/sdb  1,024 MiB  Flash Drive (usb removable)"
    assert device.contents == ("/dev/sdb: dos partition table, 1,024 MiB", '/dev/sdb1: vfat "BACKUP", 5 MiB')
    assert device.used_by == ("/dev/sdb1 is mounted on /media/a b",)


def test_a_partition_is_refused_with_its_disk() -> None:
    """A user's likely mistake."""
    with pytest.raises(
        UsageError, match=r"expected a whole disk, such as /dev/sdb, found /dev/sdb1; its disk is /dev/sdb"
    ):
        block_devices.find(parsed(STICK), "/dev/sdb1")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"blockdevices": [{}]}', '{"blockdevices": 1}'])
def test_an_answer_of_lsblk_that_is_none_is_refused(text: str) -> None:
    """Old or broken programs: an error, no traceback."""
    with pytest.raises(PipelineError, match="expected a JSON list of block devices"):
        block_devices.parse(text)
