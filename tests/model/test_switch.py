"""The switch between boxes: what one leaves in the processor, the other does not find, and each finds its own again (DESIGN section 7)."""

from __future__ import annotations

import pytest

from dsl.hw import vmx
from dsl.hw import x86 as manual
from tests.model.machine import XMM
from tests.model.start import machine_for
from tests.model.vmx_operation import GENERAL, Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
SWITCHED_MSRS = (
    manual.IA32_STAR, manual.IA32_LSTAR, manual.IA32_CSTAR, manual.IA32_FMASK, manual.IA32_KERNEL_GS_BASE, manual.IA32_TSC_AUX,
    manual.IA32_SPEC_CTRL,
)  # fmt: skip
DEBUG = ("cr2", "dr0", "dr1", "dr2", "dr3")
TURNS = 6


def state(guest: Guest) -> dict[str, int]:
    """All that the processor holds of a guest outside the VMCS."""
    machine = guest.machine
    values = {name: guest[name] for name in GENERAL}
    values |= {name: machine[name] for name in DEBUG}
    values |= {f"MSR {number:#x}": machine.msrs[number] for number in SWITCHED_MSRS}
    values |= {f"xmm{number}": machine.engine.reg_read(register) for number, register in enumerate(XMM)}
    values |= {f"ymm{number} high": half for number, half in enumerate(machine.ymm_high)}
    return values | {"xcr0": machine.xcr0, "dr6": machine["dr6"], "mxcsr": machine["mxcsr"]}


def fill(guest: Guest, seed: int) -> None:
    """Put a value of the box's own into every place."""
    machine = guest.machine
    for place, name in enumerate(DEBUG):
        machine[name] = seed << 16 | place
    for place, number in enumerate(SWITCHED_MSRS):
        machine.msrs[number] = seed << 16 | place
    for place, register in enumerate(XMM):
        machine.engine.reg_write(register, seed << 96 | place)
    if machine.xcr0 & 4:  # a box without AVX has no upper halves to fill
        machine.ymm_high = [seed << 64 | place for place in range(16)]
    machine["dr6"] = 0xFFFF_0FF0 | seed & 3
    machine["mxcsr"] = 0x1F80 | (seed & 3) << 13


def own_script(seed: int, found: list[dict[str, int]], losses: list[str]) -> object:
    """A guest that fills the processor in each turn and looks whether all is there in the next."""

    def script(guest: Guest) -> Script:
        found.append(state(guest))
        yield Exit(vmx.ExitReason.XSETBV, length=3, registers={"rcx": 0, "rax": 7 if seed & 1 else 3, "rdx": 0})
        for turn in range(TURNS):
            fill(guest, seed + turn)
            registers = {name: seed << 32 | turn << 8 | place for place, name in enumerate(GENERAL)}
            before = state(guest) | registers
            yield Exit(vmx.ExitReason.PREEMPTION_TIMER, registers=registers, ticks=6_000_000)
            after = state(guest)
            losses.extend(
                f"{name}: {value:#x} became {after[name]:#x}" for name, value in before.items() if after[name] != value
            )

    return script


def test_each_box_finds_its_own_state_and_nothing_of_the_other() -> None:
    """Two boxes fill every register with their own values, turn about: none is lost, and the second starts with a clean one."""
    found: list[dict[str, int]] = []
    losses: list[str] = []
    boxes = [TestBox("a", b"\xf4", StartMode.LONG), TestBox("b", b"\xf4\xf4", StartMode.LONG)]
    scripts = [own_script(0x5EC2E7, found, losses), own_script(0x0DD5, found, losses)]
    machine = machine_for(boxes, scripts)  # type: ignore[arg-type]
    machine.run()
    assert not machine.exceptions
    assert len(found) == 2
    assert losses == []
    clean = dict.fromkeys(found[1], 0) | {"xcr0": 1, "dr6": 0xFFFF_0FF0, "mxcsr": 0x1F80}
    assert found[1] == clean


def test_predictions_are_forgotten_between_boxes() -> None:
    """Each switch writes IA32_PRED_CMD and, on this processor, IA32_FLUSH_CMD; the first entry of a box too."""
    commands: list[tuple[int, int]] = []

    def script(guest: Guest) -> Script:
        for _ in range(3):
            commands.append((guest.machine.msrs[manual.IA32_PRED_CMD], guest.machine.msrs[manual.IA32_FLUSH_CMD]))
            guest.machine.msrs[manual.IA32_PRED_CMD] = guest.machine.msrs[manual.IA32_FLUSH_CMD] = 0
            yield Exit(vmx.ExitReason.PREEMPTION_TIMER, ticks=6_000_000)

    machine_for([TestBox("a", b"\xf4"), TestBox("b", b"\xf4\xf4")], [script, script]).run()
    assert len(commands) == 6
    assert {command for command, _ in commands} == {1}


def test_no_two_boxes_share_a_frame_and_none_has_the_monitor_s() -> None:
    """The EPTs of three boxes, walked: 2-MiB write-back leaves, all of each box's memory and no more, all frames different and free RAM."""
    from tests.model.image import FREE
    from tests.model.vmx_operation import mapped_address

    places: list[list[int]] = []
    sizes = [2 << 20, 4 << 20, 2 << 20]

    def script(guest: Guest) -> Script:
        size = sizes[len(places)]
        places.append([guest.place(start) for start in range(0, size, 2 << 20)])
        for beyond in (size, 1 << 30, 1 << 39, 0xFEE0_0000):
            assert mapped_address(guest.machine, guest[vmx.EPT_POINTER], beyond) is None
        yield from ()

    boxes = [
        TestBox(name, b"\xf4" * number, memory_size=size)
        for number, (name, size) in enumerate(zip("abc", sizes, strict=True), 1)
    ]
    machine_for(boxes, [script] * 3).run()
    frames = [place for box in places for place in box]
    assert [len(box) for box in places] == [1, 2, 1]
    assert len(set(frames)) == len(frames)
    assert all(any(low <= frame and frame + (2 << 20) <= high for low, high in FREE) for frame in frames)
    assert not any(frame % (2 << 20) for frame in frames)
