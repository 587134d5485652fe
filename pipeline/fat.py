"""A FAT32 file system with a few files, for the EFI system partition (Microsoft FAT specification 1.03; UEFI 2.10, section 13.3).

FAT32 is told from FAT16 by its cluster count alone, at least 65525: with one sector a cluster that is 33 MiB, written sparsely.
"""

from __future__ import annotations

import re
import struct

SECTOR = 512
RESERVED_SECTORS = 32
FAT_COPIES = 2
MINIMUM_CLUSTERS = 65525
ROOT_CLUSTER = 2
END_OF_CHAIN = 0x0FFFFFFF
MEDIA = 0xF8
LABEL = b"TERRANE ESP"
FIRST_DAY = 1 << 5 | 1  # 1980-01-01
SHORT_NAME = re.compile(r"[A-Z0-9]{1,8}(\.[A-Z0-9]{1,3})?")


def fat_sectors(total_sectors: int) -> int:
    """Sectors of one FAT: room for every cluster that remains, one sector a cluster."""
    entries_per_sector = SECTOR // 4
    size = 1
    while size * entries_per_sector < total_sectors - RESERVED_SECTORS - FAT_COPIES * size + ROOT_CLUSTER:
        size += 1
    return size


def fat32(total_sectors: int, hidden_sectors: int, serial: int, files: dict[str, bytes]) -> dict[int, bytes]:
    """The sectors that are not zero, by sector number, of a FAT32 with these files; each name a path in capitals, `EFI/BOOT/BOOTX64.EFI`.

    Raises ValueError if it is too small to be one or has no room for the files, or for a name that is not of the short kind.
    """
    per_fat = fat_sectors(total_sectors)
    clusters = total_sectors - RESERVED_SECTORS - FAT_COPIES * per_fat
    if clusters < MINIMUM_CLUSTERS:
        raise ValueError(f"FAT32: expected at least {MINIMUM_CLUSTERS} clusters, found {clusters}")
    chains = lay_out(files)
    used = sum(len(chain) for chain in chains)
    if used > clusters:
        raise ValueError(f"FAT32: expected files of at most {clusters} clusters, found {used}")
    boot = boot_sector(total_sectors, hidden_sectors, serial, per_fat)
    free = struct.pack("<4s480x4sII12xI", b"RRaA", b"rrAa", clusters - used, ROOT_CLUSTER + used, 0xAA550000)
    sectors = {0: boot, 1: free, 6: boot, 7: free}
    table = struct.pack("<II", 0x0FFFFF00 | MEDIA, END_OF_CHAIN)
    data_start = RESERVED_SECTORS + FAT_COPIES * per_fat
    cluster = ROOT_CLUSTER
    for chain in chains:
        links = [*range(cluster + 1, cluster + len(chain)), END_OF_CHAIN]
        table += struct.pack(f"<{len(links)}I", *links)
        for content in chain:
            sectors[data_start + cluster - ROOT_CLUSTER] = content
            cluster += 1
    for copy in range(FAT_COPIES):
        sectors |= {RESERVED_SECTORS + copy * per_fat + at: piece for at, piece in enumerate(pieces(table))}
    return sectors


def lay_out(files: dict[str, bytes]) -> list[list[bytes]]:
    """Folders and files as lists of whole clusters, one after the other from ROOT_CLUSTER on: the root, then what is in it, by name."""
    folders: dict[str, dict[str, bool]] = {"": {}}  # path -> name -> whether that is a folder
    for path in sorted(files):
        names = path.split("/")
        for depth, name in enumerate(names):
            folder = "/".join(names[:depth])
            folders.setdefault(folder, {})[name] = depth < len(names) - 1
    paths = [*sorted(folders), *sorted(files)]
    counts = {path: -(-32 * (len(names) + (2 if path else 1)) // SECTOR) for path, names in folders.items()}
    counts |= {path: len(pieces(data)) for path, data in files.items()}
    first, cluster = {}, ROOT_CLUSTER
    for path in paths:
        first[path] = cluster if counts[path] else 0
        cluster += counts[path]
    chains = [pieces(folder_rows(path, folders[path], first, files)) for path in sorted(folders)]
    return [chain for chain in [*chains, *(pieces(files[path]) for path in sorted(files))] if chain]


def folder_rows(path: str, names: dict[str, bool], first: dict[str, int], files: dict[str, bytes]) -> bytes:
    """A folder's entries: the label, or itself and its parent, then its content."""
    if not path:
        rows = struct.pack("<11sB20x", LABEL, 0x08)
    else:
        parent = path.rpartition("/")[0]
        rows = folder_row(b".".ljust(11), 0x10, first[path], 0)
        rows += folder_row(b"..".ljust(11), 0x10, first[parent] if parent else 0, 0)
    for name, is_folder in sorted(names.items()):
        whole = f"{path}/{name}" if path else name
        size = 0 if is_folder else len(files[whole])
        rows += folder_row(short_name(name), 0x10 if is_folder else 0x20, first[whole], size)
    return rows


def folder_row(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    """One entry; every time in it is the earliest that there is, 1980-01-01."""
    return struct.pack(
        "<11sBBBHHHHHHHI",
        name,
        attributes,
        0,
        0,
        0,
        FIRST_DAY,
        FIRST_DAY,
        cluster >> 16,
        0,
        FIRST_DAY,
        cluster & 0xFFFF,
        size,
    )


def short_name(name: str) -> bytes:
    """A name as a folder holds it. Raises ValueError for one that is not eight capitals or digits, and three."""
    if SHORT_NAME.fullmatch(name) is None:
        raise ValueError(f"FAT32: expected a short name in capitals, found {name!r}")
    stem, _, extension = name.partition(".")
    return stem.encode().ljust(8) + extension.encode().ljust(3)


def pieces(data: bytes) -> list[bytes]:
    """Bytes as whole sectors."""
    return [data[at : at + SECTOR].ljust(SECTOR, b"\0") for at in range(0, len(data), SECTOR)]


def boot_sector(total_sectors: int, hidden_sectors: int, serial: int, per_fat: int) -> bytes:
    """The BIOS parameter block. There is no boot code in it: a jump to itself."""
    common = struct.pack(
        "<3s8sHBHBHHBHHHII",
        b"\xeb\xfe\x90", b"TERRANE ", SECTOR, 1, RESERVED_SECTORS, FAT_COPIES, 0, 0, MEDIA, 0, 63, 255, hidden_sectors, total_sectors,
    )  # fmt: skip
    wide = struct.pack(
        "<IHHIHH12xBBBI11s8s", per_fat, 0, 0, ROOT_CLUSTER, 1, 6, 0x80, 0, 0x29, serial, LABEL, b"FAT32   "
    )
    return (common + wide).ljust(510, b"\0") + b"\x55\xaa"
