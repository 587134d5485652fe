"""The raw disk image: protective MBR, GPT, BIOS boot partition, EFI system partition, Terrane partition (UEFI 2.10, chapter 5).

Bit-identical: every GUID is derived from the content.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.fat import fat32

SECTOR = 512
ENTRY_COUNT = 128
ENTRY_SIZE = 128
TABLE_SECTORS = ENTRY_COUNT * ENTRY_SIZE // SECTOR
BOOT_CODE_SIZE = 440
BIOS_BOOT_FIRST = 34
BIOS_BOOT_LAST = 2047
ESP_FIRST = 2048
ESP_SECTORS = 34 << 11  # 34 MiB: the least that FAT32 can be, rounded up
TERRANE_FIRST = ESP_FIRST + ESP_SECTORS
APPLICATION = "EFI/BOOT/BOOTX64.EFI"  # where UEFI looks on a disk that it knows nothing about (UEFI 2.10, 3.5.1.1)
ALIGNMENT = 2048  # sectors: partitions begin on 1 MiB

BIOS_BOOT_TYPE = uuid.UUID("21686148-6449-6E6F-744E-656564454649")
ESP_TYPE = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
TERRANE_TYPE = uuid.UUID("7e5d1c3a-52b6-4f4f-9f70-7465727261e1")


class ImageError(PipelineError):
    """A disk image that is not one of ours, or cannot be made."""


@dataclass(frozen=True)
class Partition:
    """A row of the GPT; sectors, both ends included."""

    name: str
    type: uuid.UUID
    first: int
    last: int
    content: bytes  # what its identifier is derived from

    def entry(self) -> bytes:
        """Its 128 bytes in the table."""
        name = self.name.encode("utf-16-le").ljust(72, b"\0")
        return struct.pack(
            "<16s16sQQQ72s",
            self.type.bytes_le,
            content_uuid(self.name, self.content).bytes_le,
            self.first,
            self.last,
            0,
            name,
        )


def content_uuid(name: str, content: bytes) -> uuid.UUID:
    """A version 8 UUID (RFC 9562: free use) of a name and content."""
    digest = bytearray(hashlib.sha256(name.encode() + b"\0" + content).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(digest))


def sectors_of(size: int) -> int:
    """Sectors that `size` bytes take."""
    return -(-size // SECTOR)


def protective_mbr(boot_code: bytes, total_sectors: int) -> bytes:
    """LBA 0: the boot code, and one entry of type EE over the whole disk, not active."""
    size = min(total_sectors - 1, 0xFFFFFFFF)
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, size)
    return boot_code.ljust(BOOT_CODE_SIZE, b"\0") + bytes(6) + entry + bytes(48) + b"\x55\xaa"


def gpt_header(here: int, other: int, table: int, total_sectors: int, disk: uuid.UUID, table_crc: int) -> bytes:
    """One GPT header, its CRC filled in."""
    first_usable, last_usable = 2 + TABLE_SECTORS, total_sectors - 2 - TABLE_SECTORS
    fields = (
        b"EFI PART",
        0x10000,
        92,
        0,
        0,
        here,
        other,
        first_usable,
        last_usable,
        disk.bytes_le,
        table,
        ENTRY_COUNT,
        ENTRY_SIZE,
        table_crc,
    )
    header = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
    header[16:20] = struct.pack("<I", zlib.crc32(header))
    return bytes(header).ljust(SECTOR, b"\0")


def check_fits(boot_code: bytes, stage2: bytes) -> None:
    """Refuse what has no room. Raises ImageError."""
    if len(boot_code) > BOOT_CODE_SIZE:
        raise ImageError(f"boot sector: expected at most {BOOT_CODE_SIZE} bytes of code, found {len(boot_code)}")
    room = (BIOS_BOOT_LAST - BIOS_BOOT_FIRST + 1) * SECTOR
    if len(stage2) > room:
        raise ImageError(
            f"BIOS boot partition: expected at most {room} bytes of stage 2 and loader, found {len(stage2)}"
        )


def build_disk(boot_code: bytes, stage2: bytes, terrane: bytes, files: dict[str, bytes] | None = None) -> bytes:
    """The whole image. Raises ImageError.

    `stage2`: what the BIOS boot partition holds; `terrane`: the Terrane partition; `files`: the EFI system partition's, by path: with
    APPLICATION among them, UEFI starts the image too.
    """
    files = files or {}
    check_fits(boot_code, stage2)
    last = TERRANE_FIRST + -(-sectors_of(len(terrane)) // ALIGNMENT) * ALIGNMENT - 1
    total = last + 1 + TABLE_SECTORS + 1
    total = -(-total // ALIGNMENT) * ALIGNMENT
    partitions = (
        Partition("Terrane BIOS boot", BIOS_BOOT_TYPE, BIOS_BOOT_FIRST, BIOS_BOOT_LAST, stage2),
        Partition("Terrane ESP", ESP_TYPE, ESP_FIRST, TERRANE_FIRST - 1, b"".join(files.values())),
        Partition("Terrane", TERRANE_TYPE, TERRANE_FIRST, last, terrane),
    )
    table = b"".join(partition.entry() for partition in partitions).ljust(ENTRY_COUNT * ENTRY_SIZE, b"\0")
    disk = content_uuid("Terrane disk", boot_code + table)
    crc = zlib.crc32(table)
    image = bytearray(total * SECTOR)

    def place(sector: int, data: bytes) -> None:
        image[sector * SECTOR : sector * SECTOR + len(data)] = data

    place(0, protective_mbr(boot_code, total))
    place(1, gpt_header(1, total - 1, 2, total, disk, crc))
    place(2, table)
    place(BIOS_BOOT_FIRST, stage2)
    try:
        esp = fat32(ESP_SECTORS, ESP_FIRST, zlib.crc32(disk.bytes), files)
    except ValueError as error:
        raise ImageError(f"EFI system partition: {error}") from None
    for sector, data in esp.items():
        place(ESP_FIRST + sector, data)
    place(TERRANE_FIRST, terrane)
    place(total - 1 - TABLE_SECTORS, table)
    place(total - 1, gpt_header(total - 1, 1, total - 1 - TABLE_SECTORS, total, disk, crc))
    return bytes(image)


def write_sparse(path: Path, image: bytes) -> None:
    """Write an image, leaving holes for zeros; complete or not at all."""
    temporary = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    chunk, zeros = 1 << 16, bytes(1 << 16)
    with temporary.open("wb") as file:
        for offset in range(0, len(image), chunk):
            piece = image[offset : offset + chunk]
            if piece != zeros[: len(piece)]:
                file.seek(offset)
                file.write(piece)
        file.truncate(len(image))
    temporary.replace(path)


def read_terrane_partition(path: Path) -> bytes:
    """The Terrane partition of an image. Raises ImageError saying what was expected and found."""
    try:
        with path.open("rb") as file:
            head = file.read((2 + TABLE_SECTORS) * SECTOR)
            if head[SECTOR : SECTOR + 8] != b"EFI PART":
                raise ImageError(f"{path}: expected a GPT header at LBA 1, found {head[SECTOR : SECTOR + 8]!r}")
            for index in range(ENTRY_COUNT):
                entry = head[2 * SECTOR + index * ENTRY_SIZE :][:ENTRY_SIZE]
                if entry[:16] == TERRANE_TYPE.bytes_le:
                    first, last = struct.unpack_from("<QQ", entry, 32)
                    file.seek(first * SECTOR)
                    size = (last - first + 1) * SECTOR
                    data = file.read(size)
                    if len(data) != size:
                        raise ImageError(
                            f"{path}: expected {size} bytes from byte {first * SECTOR} on, found {len(data)}"
                        )
                    return data
    except OSError as error:
        raise ImageError(f"{path}: expected a readable disk image, found: {error.strerror}") from None
    raise ImageError(f"{path}: expected a partition of type {TERRANE_TYPE}, found none")
