"""Each rule that the model checks before an entry can fail: one bad field of a good VMCS, and that rule is named."""

from __future__ import annotations

import functools

import pytest

from dsl.hw import vmx
from tests.model.entry_checks import check_controls, check_host
from tests.model.guest_checks import check_guest
from tests.model.machine import ModelFailure
from tests.model.processor import Processor
from tests.model.start import machine_for
from tests.model.vmcs import Vmcs
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
MODES = {"real": StartMode.REAL, "protected": StartMode.PROTECTED, "long": StartMode.LONG}
WIDE = 1 << 39  # beyond the model's physical addresses
CROOKED = 0x8000_0000_0000  # not canonical
IF, TF, VM = 1 << 9, 1 << 8, 1 << 17
INJECT = 1 << 31
UNUSABLE = 1 << 16


@functools.cache
def first_vmcs(mode: str) -> Vmcs:
    """The VMCS that the monitor first enters a box of this start mode with."""
    seen: list[Vmcs] = []

    def script(guest: Guest) -> Script:
        seen.append(guest.vmcs.changed())
        yield from ()

    machine_for([TestBox("a", b"\xf4", MODES[mode])], [script]).run()
    return seen[0]


def broken_rules(vmcs: Vmcs, processor: Processor | None = None) -> list[str]:
    """All rules that a VMCS breaks."""
    processor = processor or Processor()
    return [rule for check in (check_controls, check_host, check_guest) for rule in check(vmcs, processor)]


def changed(mode: str, change: dict[str, int]) -> Vmcs:
    """A good VMCS with other fields: a name alone sets, with a leading + or - bits are set or cleared."""
    vmcs = first_vmcs(mode).changed()
    for name, value in change.items():
        field = vmx.FIELDS[name.lstrip("+-")]
        vmcs[field] = vmcs[field] | value if name[0] == "+" else vmcs[field] & ~value if name[0] == "-" else value
    return vmcs


PLANTED: list[tuple[str, dict[str, int], str]] = [
    ("real", {"-PIN_BASED_CONTROLS": 2}, "27.2.1.1 pin-based controls: bits 0x2 must be 1"),
    ("real", {"+PIN_BASED_CONTROLS": 1 << 20}, "27.2.1.1 pin-based controls: bits 0x100000 must be 0"),
    ("real", {"-PRIMARY_CONTROLS": 2}, "27.2.1.1 primary controls: bits 0x2 must be 1"),
    ("real", {"+PRIMARY_CONTROLS": 1}, "27.2.1.1 primary controls: bits 0x1 must be 0"),
    ("real", {"+SECONDARY_CONTROLS": 1 << 31}, "27.2.1.1 secondary controls: bits 0x80000000 must be 0"),
    ("real", {"-EXIT_CONTROLS": 1}, "27.2.1.2 exit controls: bits 0x1 must be 1"),
    ("real", {"+EXIT_CONTROLS": 1 << 30}, "27.2.1.2 exit controls: bits 0x40000000 must be 0"),
    ("real", {"-ENTRY_CONTROLS": 1}, "27.2.1.3 entry controls: bits 0x1 must be 1"),
    ("real", {"+ENTRY_CONTROLS": 1 << 31}, "27.2.1.3 entry controls: bits 0x80000000 must be 0"),
    ("real", {"+ENTRY_CONTROLS": 1 << 10}, "27.2.1.3 entry controls: no SMM outside SMM"),
    ("real", {"CR3_TARGET_COUNT": 5}, "27.2.1.1 CR3 targets"),
    ("real", {"IO_BITMAP_B": 0x123}, "27.2.1.1 I/O bitmaps"),
    ("real", {"MSR_BITMAP": WIDE}, "27.2.1.1 MSR bitmap"),
    ("real", {"-PIN_BASED_CONTROLS": 8, "+PIN_BASED_CONTROLS": 32}, "27.2.1.1 NMI: virtual NMIs need NMI exiting"),
    ("real", {"+PRIMARY_CONTROLS": 1 << 22}, "27.2.1.1 NMI: NMI-window exiting needs virtual NMIs"),
    (
        "real",
        {"+PRIMARY_CONTROLS": 1 << 21, "VIRTUAL_APIC_ADDRESS": 1},
        "27.2.1.1 TPR shadow: the virtual-APIC address",
    ),
    ("real", {"+PRIMARY_CONTROLS": 1 << 21, "TPR_THRESHOLD": 16}, "27.2.1.1 TPR shadow: bits 31:4"),
    ("real", {"+SECONDARY_CONTROLS": 1 << 4}, "27.2.1.1 TPR shadow: virtualization of the APIC needs it"),
    ("real", {"+SECONDARY_CONTROLS": 1, "APIC_ACCESS_ADDRESS": 8}, "27.2.1.1 APIC accesses: the address"),
    ("real", {"+SECONDARY_CONTROLS": 0x11}, "27.2.1.1 APIC accesses: not together"),
    ("real", {"VIRTUAL_PROCESSOR_ID": 0}, "27.2.1.1 VPID"),
    ("real", {"-SECONDARY_CONTROLS": 2}, "27.2.1.1 unrestricted guest: needs EPT"),
    ("real", {"-EPT_POINTER": 7, "+EPT_POINTER": 5}, "27.2.1.1 EPTP: a memory type"),
    ("real", {"-EPT_POINTER": 8}, "27.2.1.1 EPTP: the walk length"),
    ("real", {"+EPT_POINTER": 0x80}, "27.2.1.1 EPTP: reserved bits"),
    ("real", {"+EPT_POINTER": WIDE}, "27.2.1.1 EPTP: reserved bits"),
    ("real", {"EXIT_MSR_STORE_COUNT": 1, "EXIT_MSR_STORE_ADDRESS": 8}, "27.2.1.2 exit MSR store"),
    ("real", {"EXIT_MSR_LOAD_COUNT": 1, "EXIT_MSR_LOAD_ADDRESS": WIDE}, "27.2.1.2 exit MSR load"),
    ("real", {"ENTRY_MSR_LOAD_COUNT": 2, "ENTRY_MSR_LOAD_ADDRESS": WIDE - 16}, "27.2.1.3 entry MSR load"),
    ("real", {"-PIN_BASED_CONTROLS": 64, "+EXIT_CONTROLS": 1 << 22}, "27.2.1.2 exit controls: the preemption timer"),
    ("real", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 1 << 8}, "27.2.1.3 injection: the type is not reserved"),
    ("real", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 7 << 8}, "27.2.1.3 injection: the type is not reserved"),
    ("real", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 2 << 8 | 3}, "27.2.1.3 injection: the vector fits"),
    ("real", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 3 << 8 | 32}, "27.2.1.3 injection: the vector fits"),
    ("long", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 3 << 8 | 13}, "27.2.1.3 injection: an error code exactly"),
    (
        "real",
        {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 1 << 11 | 3 << 8 | 13},
        "27.2.1.3 injection: an error code exactly",
    ),
    (
        "long",
        {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 1 << 11 | 3 << 8 | 6},
        "27.2.1.3 injection: an error code exactly",
    ),
    ("long", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 1 << 12 | 3 << 8 | 6}, "27.2.1.3 injection: reserved bits"),
    (
        "long",
        {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 1 << 11 | 3 << 8 | 13, "ENTRY_EXCEPTION_ERROR_CODE": 1 << 16},
        "27.2.1.3 injection: bits 31:16 of the error code",
    ),
    (
        "long",
        {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 4 << 8 | 0x80, "ENTRY_INSTRUCTION_LENGTH": 0},
        "27.2.1.3 injection: the instruction length",
    ),
    (
        "long",
        {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 6 << 8 | 3, "ENTRY_INSTRUCTION_LENGTH": 16},
        "27.2.1.3 injection: the instruction length",
    ),
    ("real", {"-HOST_CR0": 1 << 31}, "27.2.2 host CR0"),
    ("real", {"-HOST_CR4": 1 << 13}, "27.2.2 host CR4"),
    ("real", {"HOST_CR3": WIDE}, "27.2.2 host CR3"),
    ("real", {"HOST_SYSENTER_ESP": CROOKED}, "27.2.2 host SYSENTER"),
    ("real", {"HOST_PAT": 2}, "27.2.2 host PAT"),
    ("real", {"+HOST_EFER": 2}, "27.2.2 host EFER: reserved bits"),
    ("real", {"-HOST_EFER": 1 << 10}, "27.2.2 host EFER: LMA and LME"),
    ("real", {"HOST_DS_SELECTOR": 0x13}, "27.2.3 host selectors: RPL and TI"),
    ("real", {"HOST_CS_SELECTOR": 0}, "27.2.3 host selectors: CS"),
    ("real", {"HOST_TR_SELECTOR": 0}, "27.2.3 host selectors: TR"),
    ("real", {"HOST_GS_BASE": CROOKED}, "27.2.3 host bases"),
    ("real", {"-EXIT_CONTROLS": 1 << 9}, "27.2.4 address space: a 64-bit host has the host"),
    ("real", {"-HOST_CR4": 1 << 5}, "27.2.4 address space: a 64-bit host has CR4.PAE"),
    ("real", {"HOST_RIP": CROOKED}, "27.2.4 address space: the host's RIP"),
    ("real", {"-GUEST_CR0": 1 << 5}, "27.3.1.1 guest CR0: the fixed bits"),
    ("real", {"+GUEST_CR0": 1 << 31}, "27.3.1.1 guest CR0: paging needs protection"),
    ("real", {"-GUEST_CR4": 1 << 13}, "27.3.1.1 guest CR4"),
    ("long", {"-GUEST_CR4": 1 << 5}, "27.3.1.1 guest mode: IA-32e mode has paging and PAE"),
    ("protected", {"+GUEST_CR4": 1 << 17}, "27.3.1.1 guest mode: PCIDE"),
    ("long", {"GUEST_CR3": WIDE}, "27.3.1.1 guest CR3"),
    ("real", {"GUEST_DEBUGCTL": 4}, "27.3.1.1 guest DEBUGCTL"),
    ("real", {"GUEST_DR7": 1 << 32}, "27.3.1.1 guest DR7"),
    ("real", {"GUEST_SYSENTER_EIP": CROOKED}, "27.3.1.1 guest SYSENTER"),
    ("real", {"GUEST_PAT": 3}, "27.3.1.1 guest PAT"),
    ("real", {"GUEST_EFER": 2}, "27.3.1.1 guest EFER: reserved bits"),
    ("long", {"-GUEST_EFER": 1 << 10}, "27.3.1.1 guest EFER: LMA as"),
    ("long", {"-GUEST_EFER": 1 << 8}, "27.3.1.1 guest EFER: LME as LMA"),
    ("real", {"GUEST_TR_SELECTOR": 4}, "27.3.1.2 guest TR: the selector"),
    ("real", {"GUEST_LDTR_SELECTOR": 4, "GUEST_LDTR_ACCESS_RIGHTS": 0x82}, "27.3.1.2 guest LDTR: the selector"),
    ("long", {"-SECONDARY_CONTROLS": 0x80, "GUEST_SS_SELECTOR": 3}, "27.3.1.2 guest SS: RPL is that of CS"),
    ("long", {"GUEST_FS_BASE": CROOKED}, "27.3.1.2 guest FS: the base"),
    ("long", {"GUEST_DS_BASE": 1 << 32}, "27.3.1.2 guest DS: bits 63:32 of the base"),
    ("long", {"GUEST_CS_BASE": 1 << 32}, "27.3.1.2 guest CS: bits 63:32 of the base"),
    ("protected", {"+GUEST_RFLAGS": VM}, "27.3.1.2 guest CS: as virtual-8086 mode has it"),
    ("long", {"-GUEST_DS_ACCESS_RIGHTS": 0x10}, "27.3.1.2 guest DS: code or data"),
    ("long", {"-GUEST_ES_ACCESS_RIGHTS": 0x80}, "27.3.1.2 guest ES: present"),
    ("long", {"+GUEST_CS_ACCESS_RIGHTS": 0x100}, "27.3.1.2 guest CS: reserved bits"),
    ("long", {"GUEST_SS_LIMIT": 0xFFFF_F000}, "27.3.1.2 guest SS: G is 0"),
    ("real", {"GUEST_DS_LIMIT": 0xFFFF_FFFF}, "27.3.1.2 guest DS: G is 1"),
    ("long", {"GUEST_CS_ACCESS_RIGHTS": 0xA092}, "27.3.1.2 guest CS: type"),
    ("real", {"GUEST_CS_ACCESS_RIGHTS": 0xF3}, "27.3.1.2 guest CS: type 3 has DPL 0"),
    ("long", {"+GUEST_CS_ACCESS_RIGHTS": 0x60}, "27.3.1.2 guest CS: DPL is that of SS"),
    ("long", {"+GUEST_CS_ACCESS_RIGHTS": 0x66}, "27.3.1.2 guest CS: DPL is at most that of SS"),
    ("long", {"+GUEST_CS_ACCESS_RIGHTS": 1 << 14}, "27.3.1.2 guest CS: not both L and D"),
    ("long", {"+GUEST_SS_ACCESS_RIGHTS": 8}, "27.3.1.2 guest SS: type 3 or 7"),
    ("long", {"-SECONDARY_CONTROLS": 0x80, "+GUEST_SS_ACCESS_RIGHTS": 0x60}, "27.3.1.2 guest SS: DPL is RPL"),
    ("real", {"+GUEST_SS_ACCESS_RIGHTS": 0x60}, "27.3.1.2 guest SS: DPL 0 in real mode"),
    ("long", {"-GUEST_GS_ACCESS_RIGHTS": 1}, "27.3.1.2 guest GS: accessed"),
    ("long", {"-SECONDARY_CONTROLS": 0x80, "GUEST_DS_SELECTOR": 0x1B}, "27.3.1.2 guest DS: DPL is at least RPL"),
    ("long", {"GUEST_TR_ACCESS_RIGHTS": 0x83}, "27.3.1.2 guest TR: a busy"),
    ("real", {"+GUEST_TR_ACCESS_RIGHTS": UNUSABLE}, "27.3.1.2 guest TR: a busy"),
    ("real", {"GUEST_TR_LIMIT": 1 << 20}, "27.3.1.2 guest TR: G is"),
    ("real", {"GUEST_LDTR_ACCESS_RIGHTS": 0x83}, "27.3.1.2 guest LDTR: a present table"),
    ("long", {"GUEST_GDTR_BASE": CROOKED}, "27.3.1.3 guest GDTR: the base"),
    ("long", {"GUEST_IDTR_LIMIT": 1 << 16}, "27.3.1.3 guest IDTR: bits 31:16"),
    ("protected", {"GUEST_RIP": 1 << 32}, "27.3.1.4 guest RIP: bits 63:32"),
    ("long", {"GUEST_RIP": CROOKED}, "27.3.1.4 guest RIP: canonical"),
    ("real", {"-GUEST_RFLAGS": 2}, "27.3.1.4 guest RFLAGS: reserved bits"),
    ("real", {"+GUEST_RFLAGS": 1 << 15}, "27.3.1.4 guest RFLAGS: reserved bits"),
    ("long", {"+GUEST_RFLAGS": VM}, "27.3.1.4 guest RFLAGS: VM only"),
    ("real", {"ENTRY_INTERRUPTION_INFORMATION": INJECT | 0x20}, "27.3.1.4 guest RFLAGS: IF"),
    ("real", {"GUEST_ACTIVITY_STATE": 4}, "27.3.1.5 activity state: one that the processor supports"),
    ("long", {"GUEST_ACTIVITY_STATE": 1, "+GUEST_SS_ACCESS_RIGHTS": 0x60}, "27.3.1.5 activity state: HLT only"),
    (
        "real",
        {"GUEST_ACTIVITY_STATE": 1, "GUEST_INTERRUPTIBILITY": 1, "+GUEST_RFLAGS": IF},
        "27.3.1.5 activity state: active while blocking",
    ),
    (
        "real",
        {"GUEST_ACTIVITY_STATE": 1, "ENTRY_INTERRUPTION_INFORMATION": INJECT | 3 << 8 | 6},
        "27.3.1.5 activity state: the injected event",
    ),
    ("real", {"GUEST_INTERRUPTIBILITY": 32}, "27.3.1.5 interruptibility: reserved bits"),
    ("real", {"GUEST_INTERRUPTIBILITY": 3, "+GUEST_RFLAGS": IF}, "27.3.1.5 interruptibility: not both"),
    ("real", {"GUEST_INTERRUPTIBILITY": 1}, "27.3.1.5 interruptibility: STI needs IF"),
    (
        "real",
        {"GUEST_INTERRUPTIBILITY": 2, "+GUEST_RFLAGS": IF, "ENTRY_INTERRUPTION_INFORMATION": INJECT | 0x20},
        "27.3.1.5 interruptibility: no external interrupt",
    ),
    (
        "real",
        {"GUEST_INTERRUPTIBILITY": 2, "ENTRY_INTERRUPTION_INFORMATION": INJECT | 2 << 8 | 2},
        "27.3.1.5 interruptibility: no NMI while blocked by",
    ),
    ("real", {"GUEST_INTERRUPTIBILITY": 4}, "27.3.1.5 interruptibility: no blocking by SMI"),
    (
        "real",
        {
            "GUEST_INTERRUPTIBILITY": 8,
            "+PIN_BASED_CONTROLS": 32,
            "ENTRY_INTERRUPTION_INFORMATION": INJECT | 2 << 8 | 2,
        },
        "27.3.1.5 interruptibility: no NMI while NMIs are blocked",
    ),
    ("real", {"GUEST_PENDING_DEBUG_EXCEPTIONS": 1 << 13}, "27.3.1.5 pending debug exceptions: reserved bits"),
    (
        "real",
        {"GUEST_INTERRUPTIBILITY": 2, "+GUEST_RFLAGS": TF},
        "27.3.1.5 pending debug exceptions: BS as TF",
    ),
    ("real", {"VMCS_LINK_POINTER": 0x1001}, "27.3.1.5 VMCS link pointer: aligned"),
    ("real", {"VMCS_LINK_POINTER": 0x1000}, "27.3.1.5 VMCS link pointer: all ones"),
    (
        "protected",
        {"+GUEST_CR0": 1 << 31, "+GUEST_CR4": 1 << 5, "GUEST_PDPTE2": 3},
        "27.3.1.6 PDPTEs",
    ),
]


@pytest.mark.parametrize("mode", MODES)
def test_the_monitor_s_first_entry_breaks_no_rule(mode: str) -> None:
    """What the monitor builds for each start mode passes everything."""
    assert broken_rules(first_vmcs(mode)) == []


IDS = [f"{number}-{rule}" for number, (_, _, rule) in enumerate(PLANTED)]


@pytest.mark.parametrize(("mode", "change", "rule"), PLANTED, ids=IDS)
def test_a_planted_fault_is_named(mode: str, change: dict[str, int], rule: str) -> None:
    """One bad field of a good VMCS breaks the rule that is meant."""
    rules = broken_rules(changed(mode, change))
    assert any(line.startswith(rule) for line in rules), rules


ENTRIES: list[tuple[dict[str, int], int]] = [
    ({"VIRTUAL_PROCESSOR_ID": 0}, 7),
    ({"HOST_CS_SELECTOR": 0}, 8),
    ({"GUEST_RFLAGS": 0}, 33),
]


@pytest.mark.parametrize(("fields", "number"), ENTRIES)
def test_a_refused_entry_stops_the_box(fields: dict[str, int], number: int) -> None:
    """What the checks find reaches the monitor as VMfail 7 or 8, or an exit with reason 33; the box stops, others go on."""

    def script(guest: Guest) -> Script:
        for name, value in fields.items():
            guest.vmcs[vmx.FIELDS[name]] = value
        yield Exit(vmx.ExitReason.PREEMPTION_TIMER)

    lived: list[int] = []

    def other(guest: Guest) -> Script:
        for _ in range(5):
            lived.append(guest.entries)
            yield (
                Exit(vmx.ExitReason.HLT, length=1, fields={vmx.GUEST_RFLAGS: 2})
                if guest.entries == 5
                else Exit(vmx.ExitReason.PREEMPTION_TIMER, ticks=6_000_000)
            )

    boxes = [TestBox("bad", b"\xf4"), TestBox("good", b"\xf4\xf4")]
    machine = machine_for(boxes, [script, other])
    machine.expects_violation = True
    machine.run()
    assert machine.violations
    assert f"box bad stopped: entry refused (exit reason {number}, " in machine.serial_text()
    assert lived == [1, 2, 3, 4, 5]
    assert "box good stopped: halted with interrupts off" in machine.serial_text()


def test_a_violation_fails_a_test_that_does_not_expect_it() -> None:
    """By default a broken rule is an error that names it."""

    def script(guest: Guest) -> Script:
        guest.vmcs[vmx.VIRTUAL_PROCESSOR_ID] = 0
        yield Exit(vmx.ExitReason.PREEMPTION_TIMER)

    with pytest.raises(ModelFailure, match=r"27\.2\.1\.1 VPID: is not 0"):
        machine_for([TestBox("a", b"\xf4")], [script]).run()
