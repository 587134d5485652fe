"""The disks of this machine, as lsblk tells them, and whether one may be overwritten."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, UsageError

COLUMNS = "PATH,SIZE,MODEL,TRAN,RM,HOTPLUG,RO,TYPE,MOUNTPOINTS,FSTYPE,LABEL,PTTYPE"
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Device:
    """A whole disk. `contents`: a line for each thing on it; `used_by`: what holds it now, such as mount points."""

    path: str
    size: int  # bytes
    model: str
    transport: str  # usb, sata, nvme, ...; empty if unknown
    removable: bool
    read_only: bool
    contents: tuple[str, ...]
    used_by: tuple[str, ...]

    def line(self) -> str:
        """One line for a person."""
        kind = " ".join(filter(None, (self.transport, "removable" if self.removable else "fixed")))
        return f"{self.path}  {self.size / MEBIBYTE:,.0f} MiB  {self.model or 'no model name'} ({kind})"


def subtree(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A device of lsblk's tree and all that lies on it."""
    yield node
    for child in node.get("children", ()):
        yield from subtree(child)


def describe(node: dict[str, Any]) -> str:
    """What one partition or disk holds; empty if nothing is known."""
    parts = [node["fstype"] or "", f'"{node["label"]}"' if node["label"] else ""]
    text = " ".join(filter(None, parts)) or (f"{node['pttype']} partition table" if node["pttype"] else "")
    return f"{node['path']}: {text}, {node['size'] / MEBIBYTE:,.0f} MiB" if text else ""


def users(node: dict[str, Any]) -> Iterator[str]:
    """What holds a device: mounted file systems, swap, and volumes (LVM, RAID, dm-crypt) that are made of it."""
    for point in filter(None, node["mountpoints"] or ()):
        yield f"{node['path']} is {'swap' if point == '[SWAP]' else f'mounted on {point}'}"
    yield from (
        f"{node['path']} is part of {child['path']}" for child in node.get("children", ()) if child["type"] != "part"
    )


def parse(text: str) -> list[Device]:
    """The whole disks in lsblk's JSON, without empty drives. Raises PipelineError."""
    try:
        nodes = json.loads(text)["blockdevices"]
        return [device_of(node) for node in nodes if node["type"] in ("disk", "loop") and node["size"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"lsblk: expected a JSON list of block devices, found something else ({error})") from None


def device_of(node: dict[str, Any]) -> Device:
    """One disk of lsblk's list."""
    below = list(subtree(node))
    return Device(
        path=node["path"],
        size=int(node["size"]),
        model=(node["model"] or "").strip(),
        transport=node["tran"] or "",
        removable=bool(node["rm"] or node["hotplug"]),
        read_only=bool(node["ro"]),
        contents=tuple(filter(None, map(describe, below))),
        used_by=tuple(user for part in below for user in users(part)),
    )


def list_devices() -> list[Device]:
    """The disks of this machine. Raises UsageError where lsblk is missing or fails."""
    command = ["lsblk", "--json", "--bytes", "--output", COLUMNS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except FileNotFoundError:
        raise UsageError("expected the program lsblk (Debian package util-linux), found none") from None
    except subprocess.SubprocessError as error:
        raise UsageError(f"expected lsblk to list the block devices, found: {error}") from None
    return parse(done.stdout)


def find(devices: list[Device], name: str) -> Device:
    """The disk of a path, links such as /dev/disk/by-id/ followed. Raises UsageError."""
    path = str(Path(name).resolve())
    for device in devices:
        if device.path == path:
            return device
    whole = next((device.path for device in devices if path.startswith(device.path)), None)
    hint = f"; its disk is {whole}" if whole else ""
    raise UsageError(f"expected a whole disk, such as /dev/sdb, found {name}{hint}")


def objections(device: Device, image_size: int, allowed: frozenset[str]) -> list[str]:
    """Why a disk is not to be overwritten with `image_size` bytes; `allowed`: those reasons that the user has waived."""
    reasons = []
    if device.read_only:
        reasons.append("expected a writable disk, found a read-only one")
    if device.size < image_size:
        reasons.append(f"expected at least {image_size:,} bytes, found {device.size:,}")
    if device.used_by and "mounted" not in allowed:
        reasons.append(f"expected a disk that nothing uses, found: {'; '.join(device.used_by)} (--allow mounted)")
    if not device.removable and "fixed" not in allowed:
        reasons.append("expected a removable disk, found a fixed one (--allow fixed)")
    return reasons
