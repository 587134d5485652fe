"""What a box finds when it starts: devices as firmware leaves them, what it has not absent, and the state of the host around it."""

from __future__ import annotations

from typing import Any

import pytest

from dsl.hw import vmx
from dsl.hw import x86 as manual
from dsl.lang import Machine, u64
from tests.devices.scripts import Step, out
from tests.devices.test_traces import obey
from tests.model.processor import Processor
from tests.model.start import machine_for
from tests.model.test_devices import LONG, access
from tests.model.vmx_operation import Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import (
    DEVICE_CLOCK,
    DEVICE_INTERRUPTS_AND_TIMER,
    DEVICE_KEYBOARD,
    DEVICE_PCI,
    DEVICE_SERIAL,
    DEVICES_KNOWN,
    StartMode,
)
from vmm.devices.board import Board, board_reset

pytestmark = pytest.mark.t1
VMXE, OSXSAVE, MCE = 1 << 13, 1 << 18, 1 << 6
LOADERS_CR4 = 1 << 5 | 3 << 9  # PAE, OSFXSR, OSXMMEXCPT
MACHINE_CHECK = 1 << 7  # CPUID leaf 1, EDX
LOOK: list[Step] = [
    *(("in", 0x3F8 + offset) for offset in (1, 2, 3, 4, 5, 6, 7)),
    *out(0x3FB, 0x80), ("in", 0x3F8), ("in", 0x3F9), *out(0x3FB, 0x03),
    ("in", 0x21), ("in", 0xA1), *out(0x20, 0x0A), ("in", 0x20), *out(0x20, 0x0B), ("in", 0x20), *out(0xA0, 0x0B), ("in", 0xA0),
    ("in", 0x4D0), ("in", 0x4D1), *out(0x20, 0x20), ("inta",),
    *(step for channel in range(3) for step in (*out(0x43, 0xE0 | 2 << channel), ("in", 0x40 + channel, 0x7F))),
    ("in", 0x61, 0x0F), ("in", 0x70), *(step for number in range(10, 14) for step in (*out(0x70, number), ("in", 0x71, 0x7F))),
    ("in", 0x64), *out(0x64, 0x20), ("in", 0x64), ("in", 0x60), ("in", 0x64), ("in4", 0xCF8), ("in4", 0xCFC), ("in", 0xCF9),
]  # fmt: skip


def test_devices_are_as_firmware_leaves_them() -> None:
    """Register by register, what the same devices say under CPython, which tests/devices compares with a reference PC."""
    with Machine():
        board = Board()
        board_reset(board, u64(DEVICES_KNOWN), u64(0))
        expected = [obey(board, step, 40 * (number + 1)) for number, step in enumerate(LOOK)]
    looked: list[tuple[Any, ...]] = []

    def script(guest: Guest) -> Script:
        for step, answer in zip(LOOK, expected, strict=True):
            if step[0] == "inta":
                assert not guest[vmx.PRIMARY_CONTROLS] & 4, "no interrupt waits"
                continue
            yield access(step)
            if step[0].startswith("in"):
                assert answer is not None
                mask = step[2] if len(step) == 3 else 0xFFFF_FFFF
                found = guest["rax"] & (0xFFFF_FFFF if step[0] == "in4" else 0xFF)
                assert found & mask == answer & mask, step
                looked.append(step)

    machine = machine_for([LONG], [script])
    machine.run()
    assert len(looked) > 30


PORTS = {
    DEVICE_SERIAL: range(0x3F8, 0x400),
    DEVICE_INTERRUPTS_AND_TIMER: (0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x40, 0x42, 0x61),
    DEVICE_CLOCK: (0x70, 0x71),
    DEVICE_KEYBOARD: (0x60, 0x64),
    DEVICE_PCI: (0xCF8, 0xCF9, 0xCFA, 0xCFB),
}


@pytest.mark.parametrize("devices", [0, *PORTS, *(DEVICES_KNOWN & ~device for device in PORTS)])
def test_a_device_that_a_box_has_not_is_absent(devices: int) -> None:
    """Its ports read as all ones, before and after writes; those of the others answer."""

    def script(guest: Guest) -> Script:
        for device, ports in PORTS.items():
            answers = set()
            for port in ports:
                for value in (0, 0x34):
                    yield access(("out", port, value))
                    yield access(("in", port))
                    answers.add(guest["rax"] & 0xFF)
            if devices & device:
                assert answers - {0xFF}, hex(device)
            else:
                assert answers == {0xFF}, hex(device)
        for port in (
            0x1F,
            0x22,
            0x3F,
            0x44,
            0x5F,
            0x62,
            0x63,
            0x65,
            0x6F,
            0x72,
            0x9F,
            0xA2,
            0x3F7,
            0x400,
            0x4CF,
            0x4D2,
            0xCF7,
            0xD00,
        ):
            yield access(("in", port))
            assert guest["rax"] & 0xFF == 0xFF, hex(port)

    machine = machine_for([TestBox("a", b"\xf4", StartMode.LONG, devices=devices)], [script])
    machine.run()
    assert not machine.exceptions


@pytest.mark.parametrize("has_machine_check", [False, True])
def test_control_registers_of_the_host(has_machine_check: bool) -> None:
    """What the loader left, VMX and XSAVE on, and machine checks where the processor has them, also while a guest runs."""
    processor = Processor() if has_machine_check else Processor().without_features(1, edx=MACHINE_CHECK)
    expected = MCE if has_machine_check else 0

    def script(guest: Guest) -> Script:
        assert guest.machine["cr4"] == LOADERS_CR4 | VMXE | OSXSAVE | expected
        assert guest[vmx.HOST_CR4] == guest.machine["cr4"]
        assert guest[vmx.GUEST_CR4] & MCE == expected
        assert guest.machine.msrs[manual.IA32_EFER] & ~0x400 == 0xD00 & ~0x400
        yield from ()

    machine = machine_for([LONG], [script], processor)
    machine.run()
    assert machine.entry_count
