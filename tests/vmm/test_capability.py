"""Capability MSRs: every control value follows from them, each missing feature is refused by its own check, and an open lock is closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsl.hw import vmx
from dsl.lang import Failure, Machine, u32, u64
from vmm.console import CONSOLE, console_initialize
from vmm.devices.ring import ring_count, ring_peek
from vmm.vmx.capability import (
    CAPABILITY,
    ENTRY_REQUIRED,
    EPT_REQUIRED,
    EXIT_REQUIRED,
    IA32_FEATURE_CONTROL,
    PIN_REQUIRED,
    PRIMARY_REQUIRED,
    SECONDARY_OPTIONAL,
    SECONDARY_REQUIRED,
    VPID_REQUIRED,
    allowed_controls,
    check_capabilities,
)

pytestmark = pytest.mark.t0

ALL = 0xFFFF_FFFF
GOOD = {
    IA32_FEATURE_CONTROL: 5,
    vmx.IA32_VMX_BASIC: 1 << 55 | 6 << 50 | 4096 << 32 | 0x2B,
    vmx.IA32_VMX_TRUE_PINBASED_CTLS: ALL << 32 | 0x16,
    vmx.IA32_VMX_TRUE_PROCBASED_CTLS: ALL << 32 | 0x0400_6172,
    vmx.IA32_VMX_TRUE_EXIT_CTLS: ALL << 32 | 0x0003_6DFB,
    vmx.IA32_VMX_TRUE_ENTRY_CTLS: ALL << 32 | 0x11FB,
    vmx.IA32_VMX_PROCBASED_CTLS2: ALL << 32,
    vmx.IA32_VMX_EPT_VPID_CAP: EPT_REQUIRED | VPID_REQUIRED,
    vmx.IA32_VMX_MISC: 5,
    vmx.IA32_VMX_CR0_FIXED0: 0x8000_0021,
    vmx.IA32_VMX_CR0_FIXED1: ALL,
    vmx.IA32_VMX_CR4_FIXED0: 0x2000,
    vmx.IA32_VMX_CR4_FIXED1: 0x3767FF,
}
OLD = {  # where there are no TRUE_ MSRs
    vmx.IA32_VMX_PINBASED_CTLS: vmx.IA32_VMX_TRUE_PINBASED_CTLS,
    vmx.IA32_VMX_PROCBASED_CTLS: vmx.IA32_VMX_TRUE_PROCBASED_CTLS,
    vmx.IA32_VMX_EXIT_CTLS: vmx.IA32_VMX_TRUE_EXIT_CTLS,
    vmx.IA32_VMX_ENTRY_CTLS: vmx.IA32_VMX_TRUE_ENTRY_CTLS,
}


class SilentPort:
    """COM1 that is there."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def read(self, port: int, width: int) -> int:
        return self.values.get(port, 0)

    def write(self, port: int, width: int, value: int) -> None:
        self.values[port] = value


@pytest.fixture
def processor() -> Iterator[Machine]:
    """A processor with all it takes."""
    with Machine() as machine:
        serial = SilentPort()
        for port in range(0x3F8, 0x400):
            machine.ports[port] = serial
        machine.cpu.msrs.update(GOOD)
        machine.cpuid[1, 0] = (0, 0, 1 << 5 | 1 << 26, 0)
        console_initialize()
        yield machine


def said() -> str:
    return bytes(
        int(ring_peek(CONSOLE.monitor, u64(index))) for index in range(int(ring_count(CONSOLE.monitor)))
    ).decode()


def refused(words: str) -> None:
    assert isinstance(check_capabilities(), Failure)
    assert words in said()
    assert "; found " in said()


def test_controls_follow_from_the_msrs(processor: Machine) -> None:
    """Bits that must be 1 are, wanted ones too, and nothing that was not asked for."""
    assert check_capabilities() is None
    assert int(CAPABILITY.pin) == 0x16 | PIN_REQUIRED
    assert int(CAPABILITY.primary) == 0x0400_6172 | PRIMARY_REQUIRED
    assert int(CAPABILITY.secondary) == SECONDARY_REQUIRED | SECONDARY_OPTIONAL
    assert int(CAPABILITY.exit) == 0x0003_6DFB | EXIT_REQUIRED
    assert int(CAPABILITY.entry) == 0x11FB | ENTRY_REQUIRED
    assert int(CAPABILITY.timer_shift) == 5
    assert int(CAPABILITY.revision) == 0x2B
    assert said() == ""


def test_without_true_msrs(processor: Machine) -> None:
    """Where the TRUE_ MSRs do not exist they are not read, and forced CR3 exits are refused, not endured."""
    msrs = processor.cpu.msrs
    msrs[vmx.IA32_VMX_BASIC] &= ~(1 << 55)
    for old, true in OLD.items():
        msrs[old] = msrs.pop(true)
    assert check_capabilities() is None
    msrs[vmx.IA32_VMX_PROCBASED_CTLS] |= vmx.PRIMARY_CR3_LOAD_EXITING
    refused("every CR3 access would exit")


def test_an_open_lock_is_closed(processor: Machine) -> None:
    """IA32_FEATURE_CONTROL that the firmware left open is set and locked; one that it locked off is refused."""
    processor.cpu.msrs[IA32_FEATURE_CONTROL] = 0
    assert check_capabilities() is None
    assert processor.cpu.msrs[IA32_FEATURE_CONTROL] == 5


@pytest.mark.parametrize("value", [1, 3])
def test_locked_off_is_said(processor: Machine, value: int) -> None:
    """VMX locked off, or allowed inside SMX alone, is refused by name, and the lock is not written."""
    processor.cpu.msrs[IA32_FEATURE_CONTROL] = value
    refused("switched off by the firmware: IA32_FEATURE_CONTROL")
    assert f"{value:016x}" in said()
    assert processor.cpu.msrs[IA32_FEATURE_CONTROL] == value


def without_features(machine: Machine, bit: int) -> None:
    machine.cpuid[1, 0] = (0, 0, (1 << 5 | 1 << 26) & ~(1 << bit), 0)


@pytest.mark.parametrize(("bit", "words"), [(5, "no VT-x"), (26, "no XSAVE")])
def test_missing_instructions(processor: Machine, bit: int, words: str) -> None:
    """Without VMX or XSAVE no capability MSR is read."""
    without_features(processor, bit)
    processor.cpu.msrs.clear()
    refused(words)


MISSING = [
    (vmx.IA32_VMX_TRUE_PINBASED_CTLS, 32 + 6, "no VMX-preemption timer"),
    (vmx.IA32_VMX_TRUE_PINBASED_CTLS, 32 + 0, "a pin-based VMX control is missing"),
    (vmx.IA32_VMX_TRUE_PINBASED_CTLS, 32 + 3, "a pin-based VMX control is missing"),
    (vmx.IA32_VMX_TRUE_PROCBASED_CTLS, 63, "no secondary VMX controls, so no EPT"),
    (vmx.IA32_VMX_TRUE_PROCBASED_CTLS, 32 + 28, "a primary VMX control is missing"),
    (vmx.IA32_VMX_PROCBASED_CTLS2, 32 + 1, "no EPT"),
    (vmx.IA32_VMX_PROCBASED_CTLS2, 32 + 7, "no unrestricted guest"),
    (vmx.IA32_VMX_PROCBASED_CTLS2, 32 + 5, "no VPID"),
    (vmx.IA32_VMX_PROCBASED_CTLS2, 32 + 6, "a secondary VMX control is missing"),
    (vmx.IA32_VMX_TRUE_EXIT_CTLS, 32 + 21, "a VM-exit control is missing"),
    (vmx.IA32_VMX_TRUE_ENTRY_CTLS, 32 + 15, "a VM-entry control is missing"),
    (vmx.IA32_VMX_EPT_VPID_CAP, 6, "EPT lacks"),
    (vmx.IA32_VMX_EPT_VPID_CAP, 16, "EPT lacks"),
    (vmx.IA32_VMX_EPT_VPID_CAP, 26, "EPT lacks"),
    (vmx.IA32_VMX_EPT_VPID_CAP, 42, "VPID lacks"),
]


@pytest.mark.parametrize(("number", "bit", "words"), MISSING)
def test_each_missing_capability_is_refused_by_name(processor: Machine, number: int, bit: int, words: str) -> None:
    """One capability less, one refusal that names it."""
    processor.cpu.msrs[number] &= ~(1 << bit)
    refused(words)


def test_memory_type_of_the_vmcs(processor: Machine) -> None:
    """A VMCS that is not write-back is refused."""
    processor.cpu.msrs[vmx.IA32_VMX_BASIC] &= ~(15 << 50)
    refused("the VMCS is not write-back memory")


@pytest.mark.parametrize(
    ("must", "may", "required", "optional", "expected"),
    [
        (0, ALL, 5, 8, 13),
        (2, ALL, 5, 0, 7),
        (2, 7, 5, 8, 7),
        (0, 5, 5, ALL, 5),
        (ALL, ALL, 0, 0, ALL),
    ],
)
def test_allowed_controls(must: int, may: int, required: int, optional: int, expected: int) -> None:
    """Must-be-1 and wanted bits are set, optional ones where allowed."""
    assert allowed_controls(u64(may << 32 | must), u32(required), u32(optional)) == u32(expected)


def test_allowed_controls_names_what_is_missing() -> None:
    """The failure is the missing bits."""
    missing = allowed_controls(u64(0b0101 << 32), u32(0b0111), u32(0))
    assert isinstance(missing, Failure)
    assert int(missing.code) == 0b0010
