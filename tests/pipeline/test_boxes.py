"""A box.toml becomes a descriptor; a bad one gets an error that names file, line and key."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import bzimage, layouts
from pipeline.box_file import BoxError
from pipeline.boxes import CompiledProgram, identity_tables, lower_box, lower_boxes
from vmm.descriptor import BoxDescriptor

pytestmark = pytest.mark.t0
MEBIBYTE = 1 << 20
LINUX = """\
name = "linux"
memory_mib = 64
weight = 7
devices = ["uart", "rtc"]

[kernel]
format = "bzimage"
file = "kernel"
command_line = "quiet"
initramfs = "initramfs"
"""
PROGRAM = """\
name = "closed-1"
memory_mib = 4
closed = true

[kernel]
format = "program"
program = "guests.x.main:start"

[[fill]]
kind = "random"
address = 0x1000
size = 32
"""
FLAT = 'name = "flat"\nmemory_mib = 2\n\n[kernel]\nformat = "flat"\nfile = "kernel"\nstart = "real"\nbase = 0x7c00\n'


def small_kernel(init_size: int = 0x800000) -> bytes:
    """A bzImage as far as a boot loader looks: four setup sectors, then code."""
    kernel = bytearray(5 * 512 + 4096)
    kernel[0x1F1] = 4
    struct.pack_into("<I", kernel, 0x1F4, 4096 // 16)
    kernel[0x201] = 0x66
    kernel[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", kernel, 0x206, 0x020F)
    kernel[0x211] = 1
    struct.pack_into("<I", kernel, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<I", kernel, 0x238, 2047)
    struct.pack_into("<QI", kernel, 0x258, 0x1000000, init_size)
    kernel[5 * 512 :] = b"K" * 4096
    return bytes(kernel)


def compiled(name: str, base: int) -> CompiledProgram:
    """A placeholder for the compiler."""
    return CompiledProgram(f"{name} at {base}".encode(), 0x3000, base + 64)


def folder_with(tmp_path: Path, text: str, name: str = "box") -> Path:
    """A box's folder."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "box.toml").write_text(text)
    (folder / "kernel").write_bytes(small_kernel())
    (folder / "initramfs").write_bytes(b"I" * 5000)
    return folder


def descriptor(folder: Path) -> dict[str, Any]:
    """The lowered box's descriptor, unpacked."""
    packed = lower_box(folder, compiled).descriptor()
    assert len(packed) == 4096
    return layouts.unpack(BoxDescriptor, packed)


def test_a_linux_box(tmp_path: Path) -> None:
    """Boot parameters, kernel and initramfs lie where they should; the seed is a fill; rsi names the parameters."""
    found = descriptor(folder_with(tmp_path, LINUX))
    assert found["magic"] == int.from_bytes(b"TRNBOX01", "little")
    assert found["label"] == b"linux".ljust(32, b"\0")
    assert (found["flags"], found["weight"], found["start_mode"], found["devices"]) == (0, 7, 1, 0b101)
    assert found["memory_size"] == 64 * MEBIBYTE
    assert (found["rip"], found["rsi"]) == (0x1000000, bzimage.BOOT_PARAMETERS)
    rows = found["segments"][: found["segment_count"]]
    assert [(row["guest_physical"], row["size"], row["kind"]) for row in rows] == [
        (0x10000, 0x2010, 1),
        (0x12010, 32, 2),
        (0x1000000, 4096, 1),
        (64 * MEBIBYTE - 8192, 5000, 1),
    ]
    assert rows[2]["sha256"] == hashlib.sha256(b"K" * 4096).digest()
    assert rows[1]["sha256"] == bytes(32)
    assert found["segments"][4]["size"] == 0


def test_the_monitor_s_name_is_no_box_s(tmp_path: Path) -> None:
    """A box cannot be named as the monitor's own lines are."""
    folder = folder_with(tmp_path, LINUX.replace("linux", "terrane"))
    with pytest.raises(
        BoxError, match=r"box/box.toml:1: name: expected another name: lines .* 'terrane' are the monitor's"
    ):
        lower_box(folder, compiled)


def test_the_boot_parameters(tmp_path: Path) -> None:
    """Setup header copied, our fields set, the memory map complete with a reserved hole."""
    box = lower_box(folder_with(tmp_path, LINUX), compiled)
    low = box.segments[0].data
    page = low[:4096]
    assert page[0x202:0x206] == b"HdrS"
    assert page[0x210] == 0xFF
    assert struct.unpack_from("<I", page, 0x228)[0] == bzimage.COMMAND_LINE
    assert struct.unpack_from("<II", page, 0x218) == (64 * MEBIBYTE - 8192, 5000)
    assert struct.unpack_from("<Q", page, 0x250)[0] == bzimage.SETUP_DATA
    assert low[4096 : 4096 + 6] == b"quiet\0"
    assert low[8192:] == struct.pack("<QII", 0, 9, 32)
    table = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * index) for index in range(page[0x1E8])]
    assert [row[2] for row in table] == [1, 2, 1]
    assert sum(row[1] for row in table) == 64 * MEBIBYTE
    assert [row[0] for row in table[1:]] == [row[0] + row[1] for row in table[:-1]]


def test_a_program(tmp_path: Path) -> None:
    """Long mode, page tables of the pipeline's making, the stack at the end of memory."""
    found = descriptor(folder_with(tmp_path, PROGRAM))
    assert (found["flags"], found["start_mode"], found["cr3"]) == (1, 3, 0x10000)
    assert (found["rip"], found["rsp"]) == (0x200040, 4 * MEBIBYTE)
    rows = found["segments"][: found["segment_count"]]
    assert [(row["guest_physical"], row["kind"]) for row in rows] == [(0x1000, 2), (0x10000, 1), (0x200000, 1)]


def walk(tables: bytes, virtual: int) -> int | None:
    """Translate through identity_tables' bytes as the processor would; None where nothing is mapped."""
    table = 0x10000
    for shift in (39, 30, 21):
        (entry,) = struct.unpack_from("<Q", tables, table - 0x10000 + 8 * (virtual >> shift & 511))
        if not entry & 1:
            return None
        if entry & 0x80:
            return int(entry & ~0x1FFFFF) + (virtual & 0x1FFFFF)
        table = entry & ~0xFFF
    raise AssertionError("a table at the last level")


@pytest.mark.parametrize("memory", [2 * MEBIBYTE, 64 * MEBIBYTE, 3 << 30])
def test_identity_tables(memory: int) -> None:
    """Every page of the box maps to itself and nothing beyond it is mapped."""
    tables = identity_tables(memory)
    assert all(walk(tables, address) == address for address in range(0, memory, 0x1FF000))
    assert walk(tables, memory - 1) == memory - 1
    assert walk(tables, memory) is None


def test_a_flat_binary(tmp_path: Path) -> None:
    """Real mode at its base."""
    found = descriptor(folder_with(tmp_path, FLAT))
    assert (found["start_mode"], found["rip"], found["segment_count"]) == (2, 0x7C00, 1)


Edit = Callable[[str], str]


def swap(old: str, new: str) -> Edit:
    """Replace a piece of a box.toml."""
    return lambda text: text.replace(old, new)


MISTAKES = [
    (LINUX, swap('name = "linux"', 'name = "Linux"'), 1, "name", "expected 1 to 31 of a-z, 0-9 and '-', found 'Linux'"),
    (LINUX, swap('name = "linux"\n', ""), 1, "name", "missing"),
    (LINUX, swap("weight = 7", "weight = 0"), 3, "weight", "expected a number from 0x1 to 0x3e8, found 0x0"),
    (LINUX, swap("weight = 7", "weight = true"), 3, "weight", "expected a whole number, found True"),
    (LINUX, swap("weight = 7", "wait = 7"), 3, "wait", "unknown key"),
    (LINUX, swap("memory_mib = 64", "memory_mib = 63"), 2, "memory_mib", "expected a multiple of 2, found 63"),
    (LINUX, swap("memory_mib = 64", "memory_mib = 16"), 8, "kernel.file", "expected memory for the kernel up to 0x1800000"),
    (LINUX, swap('"rtc"', '"gpu"'), 4, "devices", "expected some of uart, pic-pit, rtc, i8042, pci, found 'gpu'"),
    (LINUX, swap('"bzimage"', '"elf"'), 7, "kernel.format", "expected one of bzimage, program, flat, found 'elf'"),
    (LINUX, swap('file = "kernel"', 'file = "absent"'), 8, "kernel.file", "expected a readable file, found 'absent'"),
    (LINUX, swap('file = "kernel"', 'file = "initramfs"'), 8, "kernel.file", "with b'HdrS' at offset 0x202, found b'IIII'"),
    (LINUX, swap('file = "kernel"\n', ""), 6, "kernel.package", "expected either file or package"),
    (LINUX, swap('"quiet"', '"' + "x" * 2048 + '"'), 8, "kernel.file", "expected a command line of at most 2047 bytes, found 2048"),
    (LINUX, swap('"quiet"', '"é"'), 9, "kernel.command_line", "expected ASCII"),
    (PROGRAM, swap("guests.x.main:start", "start"), 7, "kernel.program", "expected module:function, found 'start'"),
    (PROGRAM, swap('[[fill]]', 'base = 0x11000\n[[fill]]'), 9, "kernel.base", "expected a place clear of the page tables"),
    (PROGRAM, swap('"random"', '"zeros"'), 10, "fill.kind", "expected one of random, tsc-khz, found 'zeros'"),
    (PROGRAM, swap("0x1000", "0x200000"), 9, "fill", "segments overlap at 0x200000"),
    (PROGRAM, swap("0x1000", "0x400000"), 2, "memory_mib", "expected memory up to 0x400020"),
    (FLAT, swap('"real"', '"fast"'), 7, "kernel.start", "expected one of protected, real, long, found 'fast'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "edit", "line", "key", "message"), MISTAKES)
def test_a_mistake_is_named(tmp_path: Path, text: str, edit: Edit, line: int, key: str, message: str) -> None:
    """File, line, key, what was expected and found."""
    assert edit(text) != text
    folder = folder_with(tmp_path, edit(text))
    with pytest.raises(BoxError, match=re.escape(message)) as caught:
        lower_box(folder, compiled)
    place = f"{folder / 'box.toml'}:{line}: {key}: "
    if key == "fill" and "overlap" in message:
        place = f"{folder / 'box.toml'}:"
    assert str(caught.value).startswith(place)


def test_text_that_is_no_toml(tmp_path: Path) -> None:
    """The parser's own message, led by the file's name."""
    with pytest.raises(BoxError, match=r"box\.toml: expected TOML: .*line 1"):
        lower_box(folder_with(tmp_path, "name = \n"), compiled)
    with pytest.raises(BoxError, match="cannot be read"):
        lower_box(tmp_path / "absent", compiled)


def test_boxes_together(tmp_path: Path) -> None:
    """Order by `order`, then name; two of one name, or more memory than there is, are refused."""
    first = folder_with(tmp_path, LINUX + "", "first")
    second = folder_with(tmp_path, PROGRAM.replace("closed = true", "closed = true\norder = 5"), "second")
    boxes = lower_boxes([first, second], 128 * MEBIBYTE, 8 * MEBIBYTE, compiled)
    assert [box.name for box in boxes] == ["closed-1", "linux"]
    with pytest.raises(
        BoxError, match=r"first/box.toml:2: memory_mib: expected at most 58 on a machine of 70 MiB .* found 64"
    ):
        lower_boxes([first, second], 70 * MEBIBYTE, 8 * MEBIBYTE, compiled)
    third = folder_with(tmp_path, LINUX, "third")
    with pytest.raises(BoxError, match=r"third/box.toml:1: name: 'linux' is the name of the box in .*first too"):
        lower_boxes([first, third], 256 * MEBIBYTE, 0, compiled)


def test_a_kernel_cut_short(tmp_path: Path) -> None:
    """Fewer bytes than its header says."""
    folder = folder_with(tmp_path, LINUX)
    (folder / "kernel").write_bytes(small_kernel()[:-100])
    with pytest.raises(BoxError, match="expected 4096 bytes of kernel, found 3996"):
        lower_box(folder, compiled)
