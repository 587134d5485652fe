"""Lower a box's folder to a box descriptor and its segments (docs/boxes.md, docs/formats.md).

Every error in a box.toml names the file, the line and the key.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import bzimage, initramfs, layouts, packages
from pipeline.box_file import BoxFile
from pipeline.bzimage import Placed
from vmm import descriptor as layout

MEBIBYTE = 1 << 20
LARGE_PAGE = 2 << 20
LONG_TABLES = 0x10000  # page tables of a box that starts in long mode
DEFAULT_BASE = 0x200000
LABEL = re.compile(r"[a-z0-9-]{1,31}")

DEVICES = {
    "uart": layout.DEVICE_SERIAL,
    "pic-pit": layout.DEVICE_INTERRUPTS_AND_TIMER,
    "rtc": layout.DEVICE_CLOCK,
    "i8042": layout.DEVICE_KEYBOARD,
    "pci": layout.DEVICE_PCI,
}
FILLS = {
    "random": layout.SegmentKind.FILL_RANDOM,
    "tsc-khz": layout.SegmentKind.FILL_TSC_KHZ,
}
STARTS = {
    "protected": layout.StartMode.PROTECTED,
    "real": layout.StartMode.REAL,
    "long": layout.StartMode.LONG,
}
FORMATS = ("bzimage", "program", "flat")
TOP_KEYS = {
    "name": str, "ready": str, "default": bool, "memory_mib": int, "closed": bool, "order": int, "weight": int,
    "hypercalls_from_any_ring": bool, "quiet": bool, "devices": list, "kernel": dict, "fill": list,
}  # fmt: skip
KERNEL_KEYS: dict[str, dict[str, type]] = {
    "bzimage": {
        "format": str, "file": str, "package": str, "member": str, "command_line": str, "initramfs": str, "initramfs_package": str,
    },
    "program": {"format": str, "program": str, "base": int},
    "flat": {"format": str, "file": str, "base": int, "start": str, "entry": int},
}  # fmt: skip
FILL_KEYS = {"address": int, "size": int, "kind": str}

# Compiles `module:function` at a base; returns the flat program's bytes, its memory size, and its entry's address.
Compile = Callable[[str, int], "CompiledProgram"]


@dataclass(frozen=True)
class CompiledProgram:
    """What boxes needs of a compiled program."""

    image: bytes
    memory_size: int
    entry: int


@dataclass(frozen=True)
class Fill:
    """Bytes that the monitor writes at start."""

    address: int
    size: int
    kind: layout.SegmentKind


@dataclass(frozen=True)
class Box:
    """A box, lowered. Addresses are guest-physical; `packages` are the Debian packages it is made of."""

    name: str
    folder: Path
    order: int
    memory: int
    closed: bool
    weight: int
    flags: int
    devices: int
    start: layout.StartMode
    rip: int
    rsp: int = 0
    rsi: int = 0
    cr3: int = 0
    segments: tuple[Placed, ...] = ()
    fills: tuple[Fill, ...] = ()
    packages: tuple[packages.Fetched, ...] = field(default=())
    ready: str = ""  # what its console shows once it is up; not part of its identity

    def descriptor(self) -> bytes:
        """The 4096 bytes whose SHA-256 is the box's identity."""
        rows: list[tuple[int, dict[str, Any]]] = [(s.address, data_row(s)) for s in self.segments]
        rows += [(f.address, {"guest_physical": f.address, "size": f.size, "kind": f.kind}) for f in self.fills]
        rows.sort(key=lambda row: row[0])
        return layouts.pack(
            layout.BoxDescriptor,
            {
                "magic": layout.DESCRIPTOR_MAGIC,
                "version": layout.DESCRIPTOR_VERSION,
                "size": layout.DESCRIPTOR_SIZE,
                "label": self.name.encode(),
                "flags": self.flags,
                "memory_size": self.memory,
                "cpu_count": 1,
                "weight": self.weight,
                "start_mode": self.start,
                "segment_count": len(rows),
                "rip": self.rip,
                "rsp": self.rsp,
                "rsi": self.rsi,
                "cr3": self.cr3,
                "devices": self.devices,
                "segments": [row for _, row in rows],
            },
        )


def data_row(segment: Placed) -> dict[str, Any]:
    """The descriptor's row of a data segment."""
    return {
        "guest_physical": segment.address,
        "size": len(segment.data),
        "kind": layout.SegmentKind.DATA,
        "sha256": hashlib.sha256(segment.data).digest(),
    }


def lower_box(folder: Path, compile_program: Compile) -> Box:
    """Lower the box in a folder. Raises BoxError."""
    file = BoxFile(folder / "box.toml")
    file.check_keys(file.values, TOP_KEYS)
    name = file.required("name", file.values)
    if not LABEL.fullmatch(name):
        raise file.fail("name", f"expected 1 to 31 of a-z, 0-9 and '-', found {name!r}")
    if name == layout.MONITOR_LABEL.decode():
        raise file.fail("name", f"expected another name: lines that begin with {name!r} are the monitor's")
    memory = file.number("memory_mib", 2, 1 << 20, None) * MEBIBYTE
    if memory % LARGE_PAGE:
        raise file.fail("memory_mib", f"expected a multiple of 2, found {memory // MEBIBYTE}")
    kernel = file.required("kernel", file.values)
    form = file.required("format", kernel, "kernel")
    if form not in FORMATS:
        raise file.fail("format", f"expected one of {', '.join(FORMATS)}, found {form!r}", "kernel")
    file.check_keys(kernel, KERNEL_KEYS[form], "kernel")
    blank = Box(
        name=name,
        folder=folder,
        order=file.number("order", 0, 1 << 31, 100),
        memory=memory,
        closed=file.values.get("closed", False),
        weight=file.number("weight", 1, layout.WEIGHT_LIMIT, 100),
        flags=flags_of(file.values),
        devices=devices_of(file),
        start=layout.StartMode.PROTECTED,
        rip=0,
        ready=file.values.get("ready", ""),
        fills=tuple(fill_of(file, row, index) for index, row in enumerate(file.values.get("fill", []))),
    )
    box = lower_kernel(file, blank, form, compile_program)
    check_segments(file, box)
    return box


def flags_of(values: dict[str, Any]) -> int:
    """The descriptor's flags."""
    flags = layout.FLAG_CLOSED if values.get("closed", False) else 0
    flags |= layout.FLAG_HYPERCALLS_FROM_ANY_RING if values.get("hypercalls_from_any_ring", False) else 0
    flags |= layout.FLAG_QUIET if values.get("quiet", False) else 0
    return flags


def devices_of(file: BoxFile) -> int:
    """The descriptor's bit mask of devices."""
    mask = 0
    for name in file.values.get("devices", []):
        if name not in DEVICES:
            raise file.fail("devices", f"expected some of {', '.join(DEVICES)}, found {name!r}")
        mask |= DEVICES[name]
    return mask


def fill_of(file: BoxFile, row: Any, index: int) -> Fill:
    """One [[fill]]."""
    if not isinstance(row, dict):
        raise file.fail("fill", f"expected tables, found {row!r}")
    file.check_keys(row, FILL_KEYS, "fill", index)
    kind = file.required("kind", row, "fill", index)
    if kind not in FILLS:
        raise file.fail("kind", f"expected one of {', '.join(FILLS)}, found {kind!r}", "fill", index)
    size = file.required("size", row, "fill", index)
    if size <= 0 or (kind == "tsc-khz" and size != 4):
        raise file.fail(
            "size", f"expected {4 if kind == 'tsc-khz' else 'a positive number'}, found {size}", "fill", index
        )
    return Fill(file.required("address", row, "fill", index), size, FILLS[kind])


def lower_kernel(file: BoxFile, box: Box, form: str, compile_program: Compile) -> Box:
    """Add what the kernel's format asks for."""
    if form == "bzimage":
        return lower_bzimage(file, box)
    if form == "program":
        return lower_program(file, box, compile_program)
    return lower_flat(file, box)


def lower_bzimage(file: BoxFile, box: Box) -> Box:
    """A Linux kernel, from a file or a locked package, with an initramfs if it has one."""
    kernel = file.values["kernel"]
    fetched: list[packages.Fetched] = []
    if ("file" in kernel) == ("package" in kernel):
        raise file.fail("package", "expected either file or package", "kernel")
    if "file" in kernel:
        key, name, data = "file", str(kernel["file"]), file.read("file", "kernel")
    else:
        key, name = "package", str(kernel["package"])
        data = package_member(file, "package", file.required("member", kernel, "kernel"), fetched)
    archive = initramfs_of(file, fetched)
    line = kernel.get("command_line", "")
    if not line.isascii():
        raise file.fail("command_line", f"expected ASCII, found {line!r}", "kernel")
    try:
        lowered = bzimage.lower(data, line, archive, box.memory, name)
    except bzimage.KernelError as error:
        raise file.fail(key, str(error), "kernel") from None
    seed = Fill(lowered.seed_address, bzimage.SEED_SIZE, layout.SegmentKind.FILL_RANDOM)
    return replace(
        box,
        rip=lowered.entry,
        rsi=lowered.boot_parameters,
        segments=lowered.segments,
        fills=(*box.fills, seed),
        packages=tuple(fetched),
    )


def initramfs_of(file: BoxFile, fetched: list[packages.Fetched]) -> bytes | None:
    """The initramfs that the kernel's table names, or none."""
    kernel = file.values["kernel"]
    if "initramfs" in kernel and "initramfs_package" in kernel:
        raise file.fail("initramfs", "expected either initramfs or initramfs_package, found both", "kernel")
    if "initramfs" in kernel:
        return file.read("initramfs", "kernel")
    if "initramfs_package" not in kernel:
        return None
    busybox = package_member(file, "initramfs_package", "./bin/busybox", fetched)
    try:
        init = (file.path.parent / "init").read_bytes()
    except OSError as error:
        raise file.fail(
            "initramfs_package", f"expected a file init beside box.toml: {error.strerror}", "kernel"
        ) from None
    return initramfs.busybox_initramfs(busybox, init)


def package_member(file: BoxFile, key: str, member: str, fetched: list[packages.Fetched]) -> bytes:
    """A file out of the package that a key of [kernel] names by its row in packages.lock."""
    lock = packages.read_lock(file.path.parent / "packages.lock")
    row = file.values["kernel"][key]
    if row not in lock:
        raise file.fail(key, f"expected a row of packages.lock ({', '.join(lock)}), found {row!r}", "kernel")
    package = packages.fetch(lock[row])
    fetched.append(package)
    return packages.read_member(package, member)


def lower_program(file: BoxFile, box: Box, compile_program: Compile) -> Box:
    """A program in the language: compiled at its base, started in long mode over page tables of our making."""
    name = file.required("program", file.values["kernel"], "kernel")
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise file.fail("program", f"expected module:function, found {name!r}", "kernel")
    base = file.number("base", 0x1000, box.memory - 1, DEFAULT_BASE, "kernel")
    if base % bzimage.PAGE:
        raise file.fail("base", f"expected a multiple of 4096, found {base:#x}", "kernel")
    program = compile_program(name, base)
    tables = identity_tables(box.memory)
    if base < LONG_TABLES + len(tables) and base + program.memory_size > LONG_TABLES:
        raise file.fail(
            "base", f"expected a place clear of the page tables at {LONG_TABLES:#x}, found {base:#x}", "kernel"
        )
    if base + program.memory_size > box.memory:
        need = base + program.memory_size
        raise file.fail("memory_mib", f"expected at least {-(-need // LARGE_PAGE) * 2}, found {box.memory // MEBIBYTE}")
    return replace(
        box,
        start=layout.StartMode.LONG,
        rip=program.entry,
        rsp=box.memory,
        cr3=LONG_TABLES,
        segments=(Placed(LONG_TABLES, tables), Placed(base, program.image)),
    )


def identity_tables(memory: int) -> bytes:
    """Page tables at LONG_TABLES: identity over the box's memory in 2 MiB pages, present and writable (SDM Vol. 3A, 4.5)."""
    present_writable, large = 0b11, 0x80
    directories = -(-memory // (512 * LARGE_PAGE))
    pml4 = struct.pack("<Q", LONG_TABLES + 0x1000 | present_writable).ljust(4096, b"\0")
    pointers = b"".join(
        struct.pack("<Q", LONG_TABLES + 0x2000 + 0x1000 * i | present_writable) for i in range(directories)
    )
    pages = b"".join(struct.pack("<Q", page | large | present_writable) for page in range(0, memory, LARGE_PAGE))
    return pml4 + pointers.ljust(4096, b"\0") + pages.ljust(4096 * directories, b"\0")


def lower_flat(file: BoxFile, box: Box) -> Box:
    """A flat binary at its base."""
    kernel = file.values["kernel"]
    file.required("file", kernel, "kernel")
    base = file.number("base", 0, box.memory - 1, DEFAULT_BASE, "kernel")
    start = kernel.get("start", "protected")
    if start not in STARTS:
        raise file.fail("start", f"expected one of {', '.join(STARTS)}, found {start!r}", "kernel")
    segments: tuple[Placed, ...] = (Placed(base, file.read("file", "kernel")),)
    if start == "long":
        segments = (Placed(LONG_TABLES, identity_tables(box.memory)), *segments)
    return replace(
        box,
        start=STARTS[start],
        rip=file.number("entry", 0, box.memory - 1, base, "kernel"),
        rsp=box.memory if start != "real" else 0,
        cr3=LONG_TABLES if start == "long" else 0,
        segments=segments,
    )


def check_segments(file: BoxFile, box: Box) -> None:
    """Segments must be few enough, hold something, lie in memory and not overlap."""
    ranges = sorted([(s.address, len(s.data)) for s in box.segments] + [(f.address, f.size) for f in box.fills])
    if len(ranges) > layout.SEGMENT_LIMIT:
        raise file.fail("fill", f"expected at most {layout.SEGMENT_LIMIT} segments, found {len(ranges)}")
    end = 0
    for address, size in ranges:
        if size == 0:
            raise file.fail("file", f"expected bytes for the segment at {address:#x}, found none", "kernel")
        if address < end:
            raise file.fail("fill", f"segments overlap at {address:#x}: one before ends at {end:#x}")
        end = address + size
        if end > box.memory:
            raise file.fail("memory_mib", f"expected memory up to {end:#x}, found {box.memory:#x}")


def lower_boxes(folders: list[Path], machine_memory: int, reserved: int, compile_program: Compile) -> list[Box]:
    """Lower several boxes, in image order, and check them together. Sizes in bytes; `reserved` is what the monitor needs.

    Raises BoxError for two of one name, or more memory than the machine has.
    """
    boxes = sorted((lower_box(folder, compile_program) for folder in folders), key=lambda box: (box.order, box.name))
    seen: dict[str, Box] = {}
    total = 0
    for box in boxes:
        file = BoxFile(box.folder / "box.toml")
        if box.name in seen:
            raise file.fail("name", f"{box.name!r} is the name of the box in {seen[box.name].folder} too")
        seen[box.name] = box
        total += box.memory
        if total + reserved > machine_memory:
            free = (machine_memory - reserved - (total - box.memory)) // LARGE_PAGE * 2
            raise file.fail(
                "memory_mib",
                f"expected at most {max(free, 0)} on a machine of {machine_memory // MEBIBYTE} MiB beside the boxes before it,"
                f" found {box.memory // MEBIBYTE}",
            )
    return boxes
