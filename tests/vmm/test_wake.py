"""What wakes a halted box, and what its processor runs with."""

from __future__ import annotations

import pytest

import vmm.scheduler
from dsl.hw.x86 import CR4_MCE, CR4_VMXE
from dsl.lang import Machine, address_of, static, u32, u64
from vmm.box import BOXES, Box
from vmm.engine import machine_check_enable
from vmm.scheduler import wake_boxes
from vmm.tables import CR4_GUEST_BITS
from vmm.vmx.capability import CAPABILITY
from vmm.vmx.vmcs import hardware_cr4

pytestmark = pytest.mark.t0
BOX = static(Box)


@pytest.mark.parametrize("deferred", [0, 0x8000_0020])
def test_a_deferred_interrupt_wakes(model: Machine, monkeypatch: pytest.MonkeyPatch, deferred: int) -> None:
    """An interrupt that was acknowledged and had to wait for an exception ends HLT, as one from the controller does."""
    monkeypatch.setattr(vmm.scheduler, "advance_devices", lambda box, now: None)
    BOXES.first = address_of(BOX)
    BOXES.count = u64(1)
    BOX.vcpu.is_halted = True
    BOX.vcpu.pending.deferred = u32(deferred)
    wake_boxes()
    assert BOX.vcpu.is_halted == (deferred == 0)


@pytest.mark.parametrize("has", [False, True])
def test_machine_checks_stay_the_host_s(model: Machine, has: bool) -> None:
    """A guest runs with CR4.MCE as the host has it, and cannot reach the bit."""
    model.cpuid[(1, 0)] = (0, 0, 0, has << 7)
    CAPABILITY.cr4_fixed0 = u64(CR4_VMXE)
    assert machine_check_enable() == (CR4_MCE if has else 0)
    model.cpu.control[4] = 0x20 | int(machine_check_enable())
    assert hardware_cr4(u64(0x20)) == 0x20 | CR4_VMXE | (CR4_MCE if has else 0)
    assert CR4_GUEST_BITS & CR4_MCE == 0
