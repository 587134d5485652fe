"""An empty FAT32 file system, for the EFI system partition (Microsoft FAT specification 1.03; UEFI 2.10, section 13.3).

FAT32 is told from FAT16 by its cluster count alone, at least 65525: with one sector a cluster that is 33 MiB, written sparsely.
"""

from __future__ import annotations

import struct

SECTOR = 512
RESERVED_SECTORS = 32
FAT_COPIES = 2
MINIMUM_CLUSTERS = 65525
ROOT_CLUSTER = 2
END_OF_CHAIN = 0x0FFFFFFF
MEDIA = 0xF8


def fat_sectors(total_sectors: int) -> int:
    """Sectors of one FAT: room for every cluster that remains, one sector a cluster."""
    entries_per_sector = SECTOR // 4
    size = 1
    while size * entries_per_sector < total_sectors - RESERVED_SECTORS - FAT_COPIES * size + ROOT_CLUSTER:
        size += 1
    return size


def empty_fat32(total_sectors: int, hidden_sectors: int, serial: int) -> dict[int, bytes]:
    """The sectors of an empty FAT32 that are not zero, by sector number. Raises ValueError if it is too small to be one."""
    per_fat = fat_sectors(total_sectors)
    clusters = total_sectors - RESERVED_SECTORS - FAT_COPIES * per_fat
    if clusters < MINIMUM_CLUSTERS:
        raise ValueError(f"FAT32: expected at least {MINIMUM_CLUSTERS} clusters, found {clusters}")
    boot = boot_sector(total_sectors, hidden_sectors, serial, per_fat)
    info = struct.pack("<4s480x4sII12xI", b"RRaA", b"rrAa", clusters - 1, ROOT_CLUSTER + 1, 0xAA550000)
    table = struct.pack("<III", 0x0FFFFF00 | MEDIA, END_OF_CHAIN, END_OF_CHAIN).ljust(SECTOR, b"\0")
    label = struct.pack("<11sB20x", b"TERRANE ESP", 0x08).ljust(SECTOR, b"\0")
    data_start = RESERVED_SECTORS + FAT_COPIES * per_fat
    sectors = {0: boot, 1: info, 6: boot, 7: info, data_start: label}
    sectors.update({RESERVED_SECTORS + copy * per_fat: table for copy in range(FAT_COPIES)})
    return sectors


def boot_sector(total_sectors: int, hidden_sectors: int, serial: int, per_fat: int) -> bytes:
    """The BIOS parameter block. There is no boot code in it: a jump to itself."""
    common = struct.pack(
        "<3s8sHBHBHHBHHHII",
        b"\xeb\xfe\x90", b"TERRANE ", SECTOR, 1, RESERVED_SECTORS, FAT_COPIES, 0, 0, MEDIA, 0, 63, 255, hidden_sectors, total_sectors,
    )  # fmt: skip
    wide = struct.pack(
        "<IHHIHH12xBBBI11s8s", per_fat, 0, 0, ROOT_CLUSTER, 1, 6, 0x80, 0, 0x29, serial, b"TERRANE ESP", b"FAT32   "
    )
    return (common + wide).ljust(510, b"\0") + b"\x55\xaa"
