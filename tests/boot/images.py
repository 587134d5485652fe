"""Small signed images for the boot tests, and the loader that boots them. Kept apart from the pipeline: two writers of one format."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from boot.handoff import MONITOR_BASE
from boot.header import HEADER_SIZE
from boot.main import start
from boot.stages import BODY_BASE, SECTOR_SIZE, STAGE2_SIZE, emit_stage1, emit_stage2
from tests.boot.keys import FONT, KEY, PUBLIC_KEY, SECRET

if TYPE_CHECKING:
    from dsl.compiler.pipeline import Program

STAGE2_LBA = 34
PARTITION_LBA = 2048
MONITOR, DESCRIPTOR, SEGMENT, RELEASE_CHAIN, DEVELOPMENT_SECRET = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Part:
    """One entry: its kind, its bytes, its security version."""

    kind: int
    content: bytes
    security_version: int = 0


def header_of(
    parts: list[Part], *, key: Ed25519PrivateKey = KEY, flags: int = 1, security_version: int = 7
) -> tuple[bytes, int]:
    """The signed header of these entries, and the size of the image."""
    rows, offset, end = b"", HEADER_SIZE, HEADER_SIZE
    for part in parts:
        digest = hashlib.sha256(part.content).digest()
        rows += struct.pack("<IIQQ32sQ", part.kind, part.security_version, offset, len(part.content), digest, 0)
        end = offset + len(part.content)
        offset = -(-end // 4096) * 4096
    fields = struct.pack("<8sIIIIQQ", b"TERRANE1", 1, HEADER_SIZE, len(parts), flags, security_version, end)
    signed = (fields.ljust(64, b"\0") + rows).ljust(HEADER_SIZE - 64, b"\0")
    return signed + key.sign(signed), end


def partition_of(parts: list[Part], **options: object) -> bytes:
    """The Terrane partition: header and entries, in whole sectors."""
    header, end = header_of(parts, **options)  # type: ignore[arg-type]
    content = bytearray(header)
    for part in parts:
        content += bytes(-len(content) % 4096) + part.content
    assert len(content) == end
    return bytes(content) + bytes(-end % SECTOR_SIZE)


@functools.cache
def loader() -> Program:
    """The loader body, trusting KEY."""
    from dsl.compiler.pipeline import compile_program

    return compile_program(start, base=BODY_BASE, supplied={"boot.header_key": PUBLIC_KEY, "std.font": FONT})


@functools.cache
def small_monitor() -> bytes:
    """A monitor that prints its handoff and stops."""
    from dsl.compiler.pipeline import compile_program
    from tests.boot.small_monitor import monitor_start

    return compile_program(monitor_start, base=MONITOR_BASE).image


def usual_parts() -> list[Part]:
    return [
        Part(MONITOR, small_monitor(), 5),
        Part(DESCRIPTOR, b"TRNBOX01".ljust(4096, b"d")),
        Part(SEGMENT, bytes(range(256)) * 300 + b"odd end"),
        Part(RELEASE_CHAIN, b"chain"),
        Part(DEVELOPMENT_SECRET, SECRET),
    ]


def program_disk(entry: Callable[[], None]) -> bytes:
    """A disk whose loader body is another program."""
    from dsl.compiler.pipeline import compile_program

    return disk_of(bytes(SECTOR_SIZE), body=compile_program(entry, base=BODY_BASE, supplied={"std.font": FONT}).image)


def disk_of(partition: bytes, *, partition_sectors: int | None = None, body: bytes | None = None) -> bytes:
    """A disk without partition tables: boot code, stage 2 with the loader body, the partition."""
    body = body or loader().image
    disk = bytearray(PARTITION_LBA * SECTOR_SIZE)
    body_lba = STAGE2_LBA + STAGE2_SIZE // SECTOR_SIZE
    stage2 = emit_stage2(PARTITION_LBA, partition_sectors or len(partition) // SECTOR_SIZE, body_lba, len(body))
    stage1 = emit_stage1(STAGE2_LBA)
    disk[: len(stage1)] = stage1
    disk[510:512] = b"\x55\xaa"
    place = STAGE2_LBA * SECTOR_SIZE
    disk[place : place + len(stage2)] = stage2
    disk[place + STAGE2_SIZE : place + STAGE2_SIZE + len(body)] = body
    return bytes(disk) + partition
