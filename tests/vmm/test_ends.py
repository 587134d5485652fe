"""What is left of a box, and of the machine, after its end: nothing that a closed box knew, on the screen or in memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boot.handoff import DIRECT_MAP
from tests.boot.machine import BOCHS, boot
from tests.vmm.images import Segment, TestBox, assemble, disk_with, monitor
from vmm.descriptor import FLAG_CLOSED, StartMode

pytestmark = [pytest.mark.t2, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
MACHINE = 64 << 20
CANARY = 0x5EC2E7C0DE5A11FE  # never in the image: made of two halves that are
MASK = 0x1234567812345678


def knowing(end: str) -> bytes:
    """A box that has the canary in registers, XMM, debug registers, an MSR and memory, and ends."""
    return assemble(
        f"""
        mov rax, {CANARY ^ MASK:#x}
        mov rbx, {MASK:#x}
        xor rax, rbx
        mov rbx, rax
        mov r15, rax
        mov rcx, cr4
        or rcx, 0x600
        mov cr4, rcx
        movq xmm7, rax
        mov [0x100000], rax
        mov cr2, rax
        mov ecx, 0xc0000102
        shl rax, 20
        shr rax, 20
        mov edx, 0
        mov eax, ebx
        wrmsr
        mov rax, rbx
        {end}
        """,
        64,
    )


def test_a_closed_box_dies_in_silence_and_leaves_nothing(tmp_path: Path) -> None:
    """The dump of an open box shows its registers, that of a closed one only why it died; then the canary is nowhere in RAM."""
    end = int(monitor().symbols["vmm.console_port.console_flush"][0])  # called at the end of the machine alone
    saved = tmp_path / "ram.bin"
    size = MACHINE - (4 << 20)
    disk = disk_with(
        TestBox("shown", assemble("mov eax, 0x1eadbeef; cli; hlt", 32), StartMode.PROTECTED),
        TestBox("hidden", knowing("cli; hlt"), StartMode.LONG, flags=FLAG_CLOSED),
        TestBox("broken", knowing("lidt [0x2000]; ud2"), StartMode.LONG, flags=FLAG_CLOSED, segments=(Segment(0x2000, bytes(10)),)),
    )  # fmt: skip
    script = f'lb {end:#x}\nc\nwritemem "{saved}" {DIRECT_MAP:#x} {size:#x}\nc\n'
    outcome = boot(tmp_path, disk, until="all boxes have stopped", script=script)
    lines = outcome.serial.replace("\r", "").splitlines()
    assert [line for line in lines if "box shown" in line and " rax 0x000000001eadbeef" in line], outcome.serial
    for name, reason in (("hidden", "halted with interrupts off"), ("broken", "triple fault")):
        (stopped, *others) = [line for line in lines if line.startswith(f"terrane| box {name}") and "MiB" not in line]
        assert re.search(rf"box {name} stopped: {reason} \(exit reason \d+, after \d+ exits\)$", stopped)
        assert others == []
    memory = saved.read_bytes()
    assert len(memory) == size
    assert CANARY.to_bytes(8, "little") not in memory
    assert f"{CANARY:016x}" not in outcome.serial
