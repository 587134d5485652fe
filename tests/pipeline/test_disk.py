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


def test_the_esp_is_a_fat32() -> None:
    """Enough clusters to be FAT32, both FATs alike, the free count right (specification 1.03)."""
    sectors = fat.fat32(disk.ESP_SECTORS, disk.ESP_FIRST, 0x12345678, {"A/B.C": bytes(513)})
    boot = sectors[0]
    reserved, copies = struct.unpack_from("<HB", boot, 14)
    (per_fat,) = struct.unpack_from("<I", boot, 36)
    clusters = disk.ESP_SECTORS - reserved - copies * per_fat
    assert clusters >= fat.MINIMUM_CLUSTERS
    assert per_fat * 128 >= clusters + 2
    assert sectors[reserved] == sectors[reserved + per_fat]
    assert struct.unpack_from("<II", sectors[1], 488) == (clusters - 4, 6)  # root, A, and two of B.C
    assert sectors[6] == boot


@pytest.mark.parametrize(
    ("sectors", "files", "message"),
    [
        (4096, {}, "expected at least 65525 clusters"),
        (disk.ESP_SECTORS, {"X": bytes(35 << 20)}, "expected files of at most 68528 clusters, found 71681"),
        (disk.ESP_SECTORS, {"EFI/lower": b""}, "expected a short name in capitals, found 'lower'"),
        (disk.ESP_SECTORS, {"TOOLONGNAME": b""}, "expected a short name"),
    ],
)
def test_what_is_no_fat32_is_refused(sectors: int, files: dict[str, bytes], message: str) -> None:
    """By name, with what was expected and found."""
    with pytest.raises(ValueError, match=message):
        fat.fat32(sectors, 0, 0, files)


FILES = {
    "EFI/BOOT/BOOTX64.EFI": bytes(range(256)) * 300 + b"odd",
    "EFI/EMPTY.TXT": b"",
    "README": b"one cluster".ljust(512),
} | {f"MANY/F{number}.BIN": bytes([number]) * number * 10 for number in range(60)}
FSCK, MTYPE, MDIR = (shutil.which(name, path="/usr/sbin:/sbin:/usr/bin") for name in ("fsck.vfat", "mtype", "mdir"))


@pytest.mark.skipif(
    None in (FSCK, MTYPE, MDIR), reason="fsck.vfat (Debian package dosfstools) and mtools are not both installed"
)
def test_other_programs_read_the_esp(tmp_path: Path) -> None:
    """Fsck finds nothing to say, mtools every file with its bytes, whatever its size."""
    image = bytearray(disk.ESP_SECTORS * 512)
    for sector, content in fat.fat32(disk.ESP_SECTORS, disk.ESP_FIRST, 0x1234ABCD, FILES).items():
        assert len(content) == 512
        image[sector * 512 : sector * 512 + 512] = content
    path = tmp_path / "esp.img"
    disk.write_sparse(path, bytes(image))
    checked = subprocess.run([str(FSCK), "-n", "-v", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert f"{len(FILES) + 4} files" in checked.stdout  # with three folders and the label
    for name, content in FILES.items():
        read = subprocess.run([str(MTYPE), "-i", path, f"::{name}"], capture_output=True, check=True).stdout
        assert read == content, name
    listed = subprocess.run([str(MDIR), "-i", path, "-b", "::MANY"], capture_output=True, text=True, check=True).stdout
    assert len(listed.split()) == 60


def test_an_image_holds_the_application_where_firmware_looks() -> None:
    """The same place whatever else is in the image; the ESP's identifier follows it."""
    image = disk.build_disk(BOOT, STAGE2, TERRANE, {disk.APPLICATION: b"MZ application"})
    assert b"BOOTX64 EFI" in image[disk.ESP_FIRST * 512 : disk.TERRANE_FIRST * 512]
    assert b"MZ application" in image[disk.ESP_FIRST * 512 : disk.TERRANE_FIRST * 512]
    assert image[1024:17408] != made()[1024:17408]
    with pytest.raises(disk.ImageError, match="EFI system partition: FAT32: expected files of at most"):
        disk.build_disk(BOOT, STAGE2, TERRANE, {disk.APPLICATION: bytes(35 << 20)})
