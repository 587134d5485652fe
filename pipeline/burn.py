"""Write the image to a disk, read it back, compare."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import block_devices
from pipeline.block_devices import Device
from pipeline.disk import SECTOR, read_terrane_partition
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.progress import beat_seconds, say, show_alive

CHUNK = 4 << 20
BLKRRPART, BLKFLSBUF = 0x125F, 0x1261  # linux/fs.h: read the partition table again; write out and drop the cache


def burn(target: str | None, image: Path, allowed: frozenset[str], sure: bool) -> int:
    """List the disks that may be written, or overwrite one with the image. Raises UsageError, PipelineError."""
    devices = block_devices.list_devices()
    if target is None:
        return show(devices)
    device = block_devices.find(devices, target)
    read_terrane_partition(image)  # refuses what is no image of ours
    size = image.stat().st_size
    reasons = block_devices.objections(device, size, allowed)
    if reasons:
        raise UsageError(f"{device.path}: " + "; ".join(reasons))
    if not (sure or agreed(device)):
        raise UsageError("nothing was written")
    with image.open("rb") as source, opened(device.path, "mounted" not in allowed) as disk:
        copy(source.fileno(), disk, size)
        erase_stale_table(disk, device.size, size)
        flush(disk)
        compare(source.fileno(), disk, size, device.path)
        with suppress(OSError):  # a convenience: the kernel learns of the new partitions
            fcntl.ioctl(disk, BLKRRPART)
    print(f"{device.path}: {size:,} bytes written, read back and found equal to {image}")
    return OK


def show(devices: list[Device]) -> int:
    """Print every disk that a stick could be, and what is on it; fixed disks are counted alone."""
    candidates = [device for device in devices if device.removable]
    for device in candidates:
        print(device.line())
        for line in device.contents or ("nothing that lsblk knows",):
            print(f"    {line}")
        for line in device.used_by:
            print(f"    in use: {line}")
    print(f"{len(candidates)} removable, {len(devices) - len(candidates)} fixed (not shown)")
    return OK


def agreed(device: Device) -> bool:
    """Ask once. Raises UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError("expected a terminal to ask on, or --yes, found neither; nothing was written")
    say(device.line())
    for line in device.contents or ("nothing that lsblk knows",):
        say(f"    {line}")
    return input(f"All of this will be lost. Type {device.path} to go on: ").strip() == device.path


@contextmanager
def opened(path: str, alone: bool) -> Iterator[int]:
    """A disk; `alone`: the kernel refuses one that is mounted (open(2), O_EXCL). Raises PipelineError."""
    try:
        disk = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if alone else 0))
    except OSError as error:
        hint = "; run it as root" if isinstance(error, PermissionError) else ""
        raise PipelineError(f"{path}: expected to open it for writing, found: {error.strerror}{hint}") from None
    try:
        yield disk
    except OSError as error:
        raise PipelineError(
            f"{path}: expected to write and read it, found: {error.strerror}; it is incomplete"
        ) from None
    finally:
        os.close(disk)


def chunks(size: int, doing: str) -> Iterator[tuple[int, int]]:
    """Offset and length of each piece, saying how far it is."""
    began = said = time.monotonic()
    for offset in range(0, size, CHUNK):
        now = time.monotonic()
        if now - said >= beat_seconds():
            said = now
            show_alive(f"{doing}: {offset / size:.0%} of {size >> 20} MiB", now - began)
        yield offset, min(CHUNK, size - offset)


def write_all(disk: int, data: bytes, offset: int) -> None:
    """Write all of `data`, however little the kernel takes at a time."""
    while data:
        written = os.pwrite(disk, data, offset)
        data, offset = data[written:], offset + written


def read_all(file: int, size: int, offset: int) -> bytes:
    """Read `size` bytes, fewer only at the end of the file."""
    pieces = []
    while size and (piece := os.pread(file, size, offset)):
        pieces.append(piece)
        size, offset = size - len(piece), offset + len(piece)
    return b"".join(pieces)


def copy(source: int, disk: int, size: int) -> None:
    """Write the image. LBA 0 comes last, so that a copy that was cut short does not start."""
    for offset, length in chunks(size, "writing"):
        data = read_all(source, length, offset)
        write_all(disk, bytes(SECTOR) + data[SECTOR:] if offset == 0 else data, offset)
        os.fsync(disk)  # a stick is slow: without this the progress would be that of the page cache
    write_all(disk, read_all(source, SECTOR, 0), 0)


def erase_stale_table(disk: int, device_size: int, image_size: int) -> None:
    """Erase the backup GPT header of what was on the disk before: firmware may restore the old table from it."""
    last = device_size - SECTOR
    if last >= image_size and read_all(disk, 8, last) == b"EFI PART":
        write_all(disk, bytes(SECTOR), last)


def flush(disk: int) -> None:
    """Write everything out and forget it, so that what is read next comes from the disk."""
    os.fsync(disk)
    with suppress(OSError):  # not a block device
        fcntl.ioctl(disk, BLKFLSBUF)
    os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)


def compare(source: int, disk: int, size: int, name: str) -> None:
    """Read the disk back. Raises PipelineError with the first byte that differs."""
    for offset, length in chunks(size, "reading back"):
        wanted, found = read_all(source, length, offset), read_all(disk, length, offset)
        if wanted != found:
            pairs = zip(wanted, found, strict=False)
            first = next((index for index, pair in enumerate(pairs) if pair[0] != pair[1]), len(found))
            expected = f"{wanted[first]:#04x}"
            got = f"{found[first]:#04x}" if first < len(found) else "the end of the disk"
            raise PipelineError(
                f"{name}: expected {expected} at byte {offset + first:#x}, read back {got}; the disk is bad"
            )
