"""Time in a box stays right while others compete for the processor and one of them floods the monitor."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest

from pipeline import initramfs, packages
from pipeline.bochs import INSTRUCTIONS_PER_SECOND
from pipeline.initramfs import Node
from tests.system import made
from tests.system.machine import BOCHS, Running
from tests.system.made import DEBIAN
from tests.vmm.images import assemble

pytestmark = [pytest.mark.t2, pytest.mark.slow, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
MACHINE = 512  # MiB
SECONDS = 10
LOAD_ADDRESS = 0x400000
HEADERS = 64 + 56
TICKS = """
    rdtsc
    shl rdx, 32
    or rax, rdx
    lea rsi, [rsp - 1]
    mov byte ptr [rsi], 10
    mov ecx, 10
digit:
    xor edx, edx
    div rcx
    add edx, 48
    dec rsi
    mov byte ptr [rsi], dl
    test rax, rax
    jnz digit
    mov rdx, rsp
    sub rdx, rsi
    mov edi, 1
    mov eax, 1
    syscall
    xor edi, edi
    mov eax, 60
    syscall
"""


def ticks_program() -> bytes:
    """A static ELF program that prints the TSC in decimal (System V ABI: one segment, loaded with its headers)."""
    code = assemble(TICKS, 64, LOAD_ADDRESS + HEADERS)
    size = HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, LOAD_ADDRESS + HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000)
    return identity + header + segment + code


def debian_box(folder: Path, name: str, order: int) -> Path:
    """The Debian box under another name, with `ticks` beside busybox."""
    place = folder / name
    shutil.copytree(DEBIAN, place)
    lock = packages.read_lock(DEBIAN / "packages.lock")
    busybox = packages.read_member(packages.fetch(lock["busybox"]), "./bin/busybox")
    archive = initramfs.busybox_initramfs(busybox, (DEBIAN / "init").read_bytes())
    archive += initramfs.archive(
        [Node("bin/ticks", 0o100755, ticks_program())]
    )  # the kernel takes them one after another
    (place / "archive").write_bytes(archive)
    text = (place / "box.toml").read_text()
    text = text.replace('name = "debian"', f'name = "{name}"').replace("order = 10", f"order = {order}")
    changed = text.replace('initramfs_package = "busybox"', 'initramfs = "archive"')
    assert changed != text
    (place / "box.toml").write_text(changed)
    return place


def test_sleep_is_as_long_as_the_tsc_says(tmp_path: Path) -> None:
    """Two Debians and a flood of exits and ENDORSE: `sleep 10` takes 10 s of TSC in both, to 2 %."""
    boxes = [debian_box(tmp_path, name, order) for order, name in enumerate(("first", "second"))]
    boxes.append(made.program_box(tmp_path, "flood", "tests.system.flood:start"))
    image = made.make(tmp_path, boxes, machine_mib=MACHINE)
    with Running(image, memory=MACHINE, clock=INSTRUCTIONS_PER_SECOND, seconds=900) as machine:
        khz = int(re.findall(r"TSC (\d+) kHz", machine.wait_text("terrane", " kHz,"))[0])
        assert abs(khz - INSTRUCTIONS_PER_SECOND / 1000) < khz / 1000
        for name in ("first", "second"):
            machine.wait_text(name, "debian# ")
        machine.type("flood", "now")
        machine.wait_text("flood", "flooded")
        for name in ("first", "second"):
            machine.type(name, f"a=$(ticks); sleep {SECONDS}; b=$(ticks); echo slept $((b-a)) ticks")
        before = floods(machine.said("flood"))
        for name in ("first", "second"):
            machine.wait(lambda name=name: slept(machine.said(name)) is not None, f"the end of sleep in {name}")  # type: ignore[misc]
        after = floods(machine.said("flood"))
        assert after[0] > before[0]
        assert after[1] == after[0]  # every ENDORSE was answered
        for name in ("first", "second"):
            found = slept(machine.said(name))
            assert found is not None
            assert abs(found - SECONDS * khz * 1000) <= 0.02 * SECONDS * khz * 1000, found


def slept(said: str) -> int | None:
    """How long a sleep was, in ticks, once that was said."""
    found = re.search(r"slept (\d+) ticks", said)
    return int(found[1]) if found else None


def floods(said: str) -> tuple[int, int]:
    """(rounds, endorsements) of the flood so far."""
    found = re.findall(r"flooded (\d+) endorsed (\d+)", said)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)
