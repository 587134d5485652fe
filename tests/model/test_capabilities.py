"""What the processor must have: each missing piece is refused by the check that looks at it, and nothing is started."""

from __future__ import annotations

import pytest

from boot.handoff import Handoff
from dsl.hw import vmx
from dsl.lang import offset_of
from tests.model.image import HANDOFF
from tests.model.processor import (
    BASIC,
    ENTRY,
    ENTRY_DEFAULT1,
    EPT_VPID,
    EXIT,
    EXIT_DEFAULT1,
    IA32_FEATURE_CONTROL,
    PIN,
    PRIMARY,
    PRIMARY_DEFAULT1,
    SECONDARY,
    Processor,
    controls,
)
from tests.model.start import machine_for
from tests.model.vmcs import Vmcs
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox

pytestmark = pytest.mark.t1
BOX = TestBox("a", b"\xf4")
LOCK, VMX_IN_SMX, VMX = 1, 2, 4
NO_SECONDARY = (PRIMARY[0], PRIMARY[1] & ~vmx.PRIMARY_ACTIVATE_SECONDARY_CONTROLS)


def without(bits: int) -> dict[int, int | None]:
    """A processor without these secondary controls."""
    return {vmx.IA32_VMX_PROCBASED_CTLS2: controls((SECONDARY[0], SECONDARY[1] & ~bits))}


MISSING_MSRS: dict[str, tuple[dict[int, int | None], str]] = {
    "locked without VMX": (
        {IA32_FEATURE_CONTROL: LOCK},
        "IA32_FEATURE_CONTROL is locked without bit 2; found 0x0000000000000001",
    ),
    "VMX in SMX only": (
        {IA32_FEATURE_CONTROL: LOCK | VMX_IN_SMX},
        "IA32_FEATURE_CONTROL is locked without bit 2; found 0x0000000000000003",
    ),
    "no secondary controls": (
        {vmx.IA32_VMX_TRUE_PROCBASED_CTLS: controls(NO_SECONDARY)},
        "no secondary VMX controls, so no EPT: IA32_VMX_PROCBASED_CTLS bit 63",
    ),
    "no EPT": (
        without(vmx.SECONDARY_ENABLE_EPT | vmx.SECONDARY_UNRESTRICTED_GUEST),
        "no EPT: IA32_VMX_PROCBASED_CTLS2 bit 33",
    ),
    "no unrestricted guest": (
        without(vmx.SECONDARY_UNRESTRICTED_GUEST),
        "no unrestricted guest: IA32_VMX_PROCBASED_CTLS2 bit 39",
    ),
    "no VPID": (without(vmx.SECONDARY_ENABLE_VPID), "no VPID: IA32_VMX_PROCBASED_CTLS2 bit 37"),
    "no WBINVD exits": (
        without(vmx.SECONDARY_WBINVD_EXITING),
        "a secondary VMX control is missing; found 0x0000000000000040",
    ),
    "no preemption timer": (
        {vmx.IA32_VMX_TRUE_PINBASED_CTLS: controls((PIN[0], PIN[1] & ~vmx.PIN_PREEMPTION_TIMER))},
        "no VMX-preemption timer: IA32_VMX_PINBASED_CTLS bit 38",
    ),
    "no NMI exits": (
        {vmx.IA32_VMX_TRUE_PINBASED_CTLS: controls((PIN[0], PIN[1] & ~vmx.PIN_NMI_EXITING))},
        "a pin-based VMX control is missing; found 0x0000000000000008",
    ),
    "no MSR bitmaps": (
        {vmx.IA32_VMX_TRUE_PROCBASED_CTLS: controls((PRIMARY[0], PRIMARY[1] & ~vmx.PRIMARY_USE_MSR_BITMAPS))},
        "a primary VMX control is missing; found 0x0000000010000000",
    ),
    "CR3 accesses exit": (
        {
            vmx.IA32_VMX_BASIC: BASIC & ~(1 << 55),
            vmx.IA32_VMX_TRUE_PROCBASED_CTLS: None,
            vmx.IA32_VMX_TRUE_PINBASED_CTLS: None,
            vmx.IA32_VMX_TRUE_EXIT_CTLS: None,
            vmx.IA32_VMX_TRUE_ENTRY_CTLS: None,
        },
        "every CR3 access would exit: the processor has no true VMX controls",
    ),
    "no EFER at exit": (
        {vmx.IA32_VMX_TRUE_EXIT_CTLS: controls((EXIT[0], EXIT[1] & ~vmx.EXIT_LOAD_EFER))},
        "a VM-exit control is missing; found 0x0000000000200000",
    ),
    "no EFER at entry": (
        {vmx.IA32_VMX_TRUE_ENTRY_CTLS: controls((ENTRY[0], ENTRY[1] & ~vmx.ENTRY_LOAD_EFER))},
        "a VM-entry control is missing; found 0x0000000000008000",
    ),
    "no 2-MiB EPT pages": (
        {vmx.IA32_VMX_EPT_VPID_CAP: EPT_VPID & ~(1 << 16)},
        "2-MiB pages or INVEPT: IA32_VMX_EPT_VPID_CAP",
    ),
    "no write-back EPT": ({vmx.IA32_VMX_EPT_VPID_CAP: EPT_VPID & ~(1 << 14)}, "write-back, 2-MiB pages or INVEPT"),
    "no INVEPT": ({vmx.IA32_VMX_EPT_VPID_CAP: EPT_VPID & ~(1 << 20)}, "INVEPT: IA32_VMX_EPT_VPID_CAP"),
    "no INVEPT types": ({vmx.IA32_VMX_EPT_VPID_CAP: EPT_VPID & ~(3 << 25)}, "INVEPT: IA32_VMX_EPT_VPID_CAP"),
    "no INVVPID of all": (
        {vmx.IA32_VMX_EPT_VPID_CAP: EPT_VPID & ~(1 << 42)},
        "INVVPID of all contexts: IA32_VMX_EPT_VPID_CAP",
    ),
    "VMCS not write-back": (
        {vmx.IA32_VMX_BASIC: BASIC & ~(15 << 50)},
        "not write-back memory: IA32_VMX_BASIC bits 53:50",
    ),
}
REFUSALS = {name: (Processor().with_msrs(msrs), words) for name, (msrs, words) in MISSING_MSRS.items()} | {
    "no VT-x": (Processor().without_features(1, ecx=1 << 5), "no VT-x, or it is hidden: CPUID leaf 1, ECX bit 5"),
    "no XSAVE": (Processor().without_features(1, ecx=1 << 26), "no XSAVE: CPUID leaf 1, ECX bit 26"),
}  # fmt: skip


@pytest.mark.parametrize("bit", [16, 18])
def test_bits_that_vmx_wants_fixed_are_set(bit: int) -> None:
    """What IA32_VMX_CR0_FIXED0 names is set in CR0 before VMXON, and stays."""

    def script(_: Guest) -> Script:
        yield from ()

    fixed = Processor().with_msrs({vmx.IA32_VMX_CR0_FIXED0: 0x8000_0021 | 1 << bit})
    machine = machine_for([BOX], [script], fixed)
    machine["cr0"] &= ~(1 << bit)
    machine.run()
    assert machine["cr0"] >> bit & 1, machine.serial_text()
    assert machine.vmxon_region is not None


def test_no_memory_is_refused() -> None:
    """A handoff without free RAM: there is nothing to put the bitmaps in."""
    machine = machine_for([BOX])
    machine.write_physical(HANDOFF + offset_of(Handoff, "range_count"), bytes(4))
    machine.run()
    assert "terrane| refused: the monitor cannot run boxes on this machine" in machine.serial_text().splitlines()
    assert not machine.exceptions


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_missing_is_named(name: str) -> None:
    """The one line that says which check failed, the line that ends it, the evidence, no fault, no VMXON."""
    processor, words = REFUSALS[name]
    machine = machine_for([BOX], processor=processor)
    machine.run()
    lines = machine.serial_text().splitlines()
    assert lines[2] == "terrane| begin-evidence", lines  # the chain up to the monitor; no box can ask for it
    assert lines[-1].startswith("terrane| end-evidence "), lines
    assert lines[0].startswith("terrane| refused: "), lines
    assert words in lines[0], lines
    assert lines[1] == "terrane| refused: the monitor cannot run boxes on this machine"
    assert not machine.exceptions
    assert machine.vmxon_region is None


def test_no_refusal_line_is_another_s() -> None:
    """Different causes are told apart, but for those that one line names together."""
    lines = {words for _, words in REFUSALS.values()}
    assert len(lines) >= len(REFUSALS) - 2


@pytest.mark.parametrize(("before", "after"), [(0, 5), (VMX, 5), (VMX_IN_SMX, 7), (LOCK | VMX, 5)])
def test_open_feature_control_is_set_and_locked(before: int, after: int) -> None:
    """An open IA32_FEATURE_CONTROL gets VMX outside SMX and the lock; a good locked one is left alone. Then boxes run."""
    entered: list[int] = []

    def script(guest: Guest) -> Script:
        entered.append(guest.rip)
        yield from ()

    machine = machine_for([BOX], [script], Processor().with_msrs({IA32_FEATURE_CONTROL: before}))
    machine.run()
    assert machine.msrs[IA32_FEATURE_CONTROL] == after
    assert entered == [0x1000]


def test_an_unknown_msr_is_a_general_protection_fault() -> None:
    """The model gives #GP for an MSR that is not there, and the monitor says so and stops: that IA32_VMX_MISC is read shows it."""
    machine = machine_for([BOX], processor=Processor().with_msrs({vmx.IA32_VMX_MISC: None}))
    machine.run()
    assert [vector for vector, _ in machine.exceptions] == [13]
    assert "terrane| stopped: exception 13" in machine.serial_text()


def test_the_older_control_msrs_are_used_without_true_ones() -> None:
    """Without the TRUE_ MSRs the older ones count: a processor whose default1 bits leave CR3 alone runs."""
    gone = (
        vmx.IA32_VMX_TRUE_PINBASED_CTLS,
        vmx.IA32_VMX_TRUE_PROCBASED_CTLS,
        vmx.IA32_VMX_TRUE_EXIT_CTLS,
        vmx.IA32_VMX_TRUE_ENTRY_CTLS,
    )
    processor = Processor().with_msrs(
        {
            vmx.IA32_VMX_BASIC: BASIC & ~(1 << 55),
            vmx.IA32_VMX_PROCBASED_CTLS: controls(PRIMARY),
            **dict.fromkeys(gone),
        }
    )
    seen: list[tuple[int, int]] = []

    def script(guest: Guest) -> Script:
        seen.append((guest[vmx.EXIT_CONTROLS], guest[vmx.ENTRY_CONTROLS]))
        yield from ()

    machine_for([BOX], [script], processor).run()
    (pair,) = seen
    assert pair[0] & EXIT_DEFAULT1 == EXIT_DEFAULT1
    assert pair[1] & ENTRY_DEFAULT1 == ENTRY_DEFAULT1
    assert PRIMARY_DEFAULT1 & vmx.PRIMARY_CR3_LOAD_EXITING


def test_optional_controls_follow_the_processor() -> None:
    """RDTSCP and INVPCID are enabled where they exist, and their CPUID bits hidden where not."""
    answers: dict[bool, tuple[int, int, int]] = {}

    def with_features(has: bool) -> None:
        def script(guest: Guest) -> Script:
            controls_seen = guest[vmx.SECONDARY_CONTROLS]
            yield Exit(vmx.ExitReason.CPUID, length=2, registers={"rax": 7, "rcx": 0})
            structured = guest["rbx"]
            yield Exit(vmx.ExitReason.CPUID, length=2, registers={"rax": 0x8000_0001, "rcx": 0})
            answers[has] = controls_seen, structured, guest["rdx"]

        bits = 0 if has else vmx.SECONDARY_ENABLE_RDTSCP | vmx.SECONDARY_ENABLE_INVPCID
        machine_for([BOX], [script], Processor().with_msrs(without(bits))).run()

    with_features(True)
    with_features(False)
    both = vmx.SECONDARY_ENABLE_RDTSCP | vmx.SECONDARY_ENABLE_INVPCID
    assert answers[True][0] & both == both
    assert not answers[False][0] & both
    assert (answers[True][1] >> 10 & 1, answers[False][1] >> 10 & 1) == (1, 0)
    assert (answers[True][2] >> 27 & 1, answers[False][2] >> 27 & 1) == (1, 0)


@pytest.mark.parametrize("has_region", [False, True])
def test_a_vmxon_that_fails_is_said(has_region: bool) -> None:
    """Whichever way it fails, with a current VMCS (ZF) or without one (CF): in VMX operation already, nothing is entered."""
    machine = machine_for([BOX], [])
    machine.vmxon_region = 0x10_0000
    if has_region:
        machine.current, machine.regions = 0x10_1000, {0x10_1000: Vmcs(0x10_1000)}
    machine.run()
    assert "terrane| refused: VMXON failed" in machine.serial_text()
    assert not machine.entry_count
