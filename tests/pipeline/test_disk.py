"""The disk image is one that partitioning tools accept, and the same every time."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pipeline import disk, fat

pytestmark = pytest.mark.t0
SGDISK = shutil.which("sgdisk", path="/usr/sbin:/sbin:/usr/bin")
BOOT, STAGE2, TERRANE = b"\xfa" * 100, b"2" * 50_000, b"T" * 5_000_000


def made() -> bytes:
    """A small image."""
    return disk.build_disk(BOOT, STAGE2, TERRANE)


@pytest.mark.skipif(SGDISK is None, reason="sgdisk (Debian package gdisk) is missing")
def test_sgdisk_finds_no_problem(tmp_path: Path) -> None:
    """Headers, CRCs and backup are right; the three partitions are what they say."""
    path = tmp_path / "disk.img"
    disk.write_sparse(path, made())
    verified = subprocess.run([str(SGDISK), "-v", path], capture_output=True, text=True, check=True).stdout
    assert "No problems found" in verified
    printed = subprocess.run([str(SGDISK), "-p", path], capture_output=True, text=True, check=True).stdout
    assert [line.split()[5] for line in printed.splitlines() if line.strip()[:1].isdigit()] == ["EF02", "EF00", "FFFF"]


def test_everything_is_in_its_place() -> None:
    """Boot code in LBA 0, stage 2 at LBA 34, the Terrane partition at its first sector; at least 4 MiB."""
    image = made()
    assert image[: len(BOOT)] == BOOT
    assert image[510:512] == b"\x55\xaa"
    assert image[446] == 0  # the protective entry is not active
    assert image[34 * 512 :].startswith(STAGE2)
    assert image[disk.TERRANE_FIRST * 512 :].startswith(TERRANE)
    assert len(image) >= 4 << 20
    assert len(image) % 512 == 0


def test_the_image_is_bit_identical_and_follows_its_content() -> None:
    """The same content gives the same image; other content other GUIDs."""
    assert made() == made()
    other = disk.build_disk(BOOT, STAGE2, TERRANE + b"x")
    assert other[512 + 56 : 512 + 72] != made()[512 + 56 : 512 + 72]


def test_what_has_no_room_is_refused() -> None:
    """Too much boot code, too large a stage 2."""
    with pytest.raises(disk.ImageError, match="expected at most 440 bytes of code, found 441"):
        disk.build_disk(bytes(441), STAGE2, TERRANE)
    with pytest.raises(disk.ImageError, match="expected at most 1031168 bytes of stage 2"):
        disk.build_disk(BOOT, bytes(1031169), TERRANE)


def test_the_partition_is_found_again(tmp_path: Path) -> None:
    """Reading back gives the partition; what is no image is described."""
    path = tmp_path / "disk.img"
    disk.write_sparse(path, made())
    assert path.read_bytes() == made()
    assert disk.read_terrane_partition(path).startswith(TERRANE)
    path.write_bytes(bytes(100_000))
    with pytest.raises(disk.ImageError, match="expected a GPT header at LBA 1"):
        disk.read_terrane_partition(path)
    with pytest.raises(disk.ImageError, match="expected a readable disk image"):
        disk.read_terrane_partition(tmp_path / "absent")


def test_the_esp_is_an_empty_fat32() -> None:
    """Enough clusters to be FAT32, both FATs alike, the free count right (specification 1.03)."""
    sectors = fat.empty_fat32(disk.ESP_SECTORS, disk.ESP_FIRST, 0x12345678)
    boot = sectors[0]
    reserved, copies = struct.unpack_from("<HB", boot, 14)
    (per_fat,) = struct.unpack_from("<I", boot, 36)
    clusters = disk.ESP_SECTORS - reserved - copies * per_fat
    assert clusters >= fat.MINIMUM_CLUSTERS
    assert per_fat * 128 >= clusters + 2
    assert sectors[reserved] == sectors[reserved + per_fat]
    assert struct.unpack_from("<I", sectors[1], 488)[0] == clusters - 1
    assert sectors[6] == boot
    with pytest.raises(ValueError, match="expected at least 65525 clusters"):
        fat.empty_fat32(4096, 0, 0)
