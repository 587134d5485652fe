"""What the processor checks at VM entry (SDM Vol. 3C, 27.2): the controls and the host state. `guest_checks` has the guest state.

A broken rule is a line "section subject: rule"; a VMCS that passes has none. Only features that the model's processors have are known here:
a control of any other feature is caught as a reserved bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsl.hw import vmx
from tests.model.processor import PHYSICAL_BITS, Processor
from tests.model.vmcs import Vmcs

CONTROLS, HOST = "27.2.1", "27.2.2"
TYPE_EXTERNAL, TYPE_RESERVED, TYPE_NMI, TYPE_EXCEPTION, TYPE_SOFTWARE, TYPE_PRIVILEGED, TYPE_TRAP, TYPE_OTHER = range(8)
ERROR_VECTORS = (8, 10, 11, 12, 13, 14, 17)  # and 21, where there is CET
CR0_PE, CR0_PG = 1 << 0, 1 << 31
CR4_PAE, CR4_PCIDE = 1 << 5, 1 << 17
EFER_LME, EFER_LMA, EFER_KNOWN = 1 << 8, 1 << 10, 0xD01


def is_canonical(address: int) -> bool:
    """Whether bits 63:47 are all equal."""
    return address >> 47 in (0, 0x1FFFF)


def is_physical(address: int, alignment: int = 4096) -> bool:
    """Whether an address is aligned and within the processor's width."""
    return address % alignment == 0 and address >> PHYSICAL_BITS == 0


def is_pat(value: int) -> bool:
    """Whether each byte is a memory type."""
    return all(value >> shift & 0xFF in (0, 1, 4, 5, 6, 7) for shift in range(0, 64, 8))


def check_controls(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.2.1: a broken rule makes VM entry fail with error 7."""
    yield from check_reserved_bits(vmcs, processor)
    yield from check_execution(vmcs, processor)
    yield from check_translation(vmcs, processor)
    yield from check_msr_areas(vmcs)
    if vmcs.bit(vmx.ENTRY_CONTROLS, vmx.ENTRY_ENTRY_TO_SMM | vmx.ENTRY_DEACTIVATE_DUAL_MONITOR):
        yield "27.2.1.3 entry controls: no SMM outside SMM"
    timer = vmcs.bit(vmx.PIN_BASED_CONTROLS, vmx.PIN_PREEMPTION_TIMER)
    if not timer and vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_SAVE_PREEMPTION_TIMER):
        yield "27.2.1.2 exit controls: the preemption timer is saved only when it is active"
    if vmcs[vmx.ENTRY_INTERRUPTION_INFORMATION] >> 31:
        yield from check_injection(vmcs)


def check_reserved_bits(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """Each control field against its capability MSR."""
    fields: list[tuple[str, Any, int, int | None]] = [
        ("27.2.1.1 pin-based controls", vmx.PIN_BASED_CONTROLS, vmx.IA32_VMX_PINBASED_CTLS, vmx.IA32_VMX_TRUE_PINBASED_CTLS),
        ("27.2.1.1 primary controls", vmx.PRIMARY_CONTROLS, vmx.IA32_VMX_PROCBASED_CTLS, vmx.IA32_VMX_TRUE_PROCBASED_CTLS),
        ("27.2.1.2 exit controls", vmx.EXIT_CONTROLS, vmx.IA32_VMX_EXIT_CTLS, vmx.IA32_VMX_TRUE_EXIT_CTLS),
        ("27.2.1.3 entry controls", vmx.ENTRY_CONTROLS, vmx.IA32_VMX_ENTRY_CTLS, vmx.IA32_VMX_TRUE_ENTRY_CTLS),
    ]  # fmt: skip
    if has_secondary(vmcs):
        fields.append(("27.2.1.1 secondary controls", vmx.SECONDARY_CONTROLS, vmx.IA32_VMX_PROCBASED_CTLS2, None))
    for subject, field, plain, true in fields:
        must, may = processor.control_limits(plain, true)
        value = vmcs[field]
        if must & ~value:
            yield f"{subject}: bits {must & ~value:#x} must be 1"
        if value & ~may:
            yield f"{subject}: bits {value & ~may:#x} must be 0"


def has_secondary(vmcs: Vmcs) -> bool:
    """Whether the secondary controls are in use."""
    return vmcs.bit(vmx.PRIMARY_CONTROLS, vmx.PRIMARY_ACTIVATE_SECONDARY_CONTROLS)


def secondary(vmcs: Vmcs, mask: int) -> bool:
    """Whether a secondary control is in use."""
    return has_secondary(vmcs) and vmcs.bit(vmx.SECONDARY_CONTROLS, mask)


def check_execution(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.2.1.1, without what concerns translation."""
    if vmcs[vmx.CR3_TARGET_COUNT] > processor.msrs[vmx.IA32_VMX_MISC] >> 16 & 0x1FF:
        yield "27.2.1.1 CR3 targets: the count is at most what IA32_VMX_MISC says"
    if vmcs.bit(vmx.PRIMARY_CONTROLS, vmx.PRIMARY_USE_IO_BITMAPS):
        for field in (vmx.IO_BITMAP_A, vmx.IO_BITMAP_B):
            if not is_physical(vmcs[field]):
                yield "27.2.1.1 I/O bitmaps: addresses are aligned and within the width"
    if vmcs.bit(vmx.PRIMARY_CONTROLS, vmx.PRIMARY_USE_MSR_BITMAPS) and not is_physical(vmcs[vmx.MSR_BITMAP]):
        yield "27.2.1.1 MSR bitmap: the address is aligned and within the width"
    nmi_exiting = vmcs.bit(vmx.PIN_BASED_CONTROLS, vmx.PIN_NMI_EXITING)
    virtual_nmis = vmcs.bit(vmx.PIN_BASED_CONTROLS, vmx.PIN_VIRTUAL_NMIS)
    if virtual_nmis and not nmi_exiting:
        yield "27.2.1.1 NMI: virtual NMIs need NMI exiting"
    if vmcs.bit(vmx.PRIMARY_CONTROLS, vmx.PRIMARY_NMI_WINDOW_EXITING) and not virtual_nmis:
        yield "27.2.1.1 NMI: NMI-window exiting needs virtual NMIs"
    if vmcs.bit(vmx.PRIMARY_CONTROLS, vmx.PRIMARY_USE_TPR_SHADOW):
        if not is_physical(vmcs[vmx.VIRTUAL_APIC_ADDRESS]):
            yield "27.2.1.1 TPR shadow: the virtual-APIC address is aligned and within the width"
        if vmcs[vmx.TPR_THRESHOLD] >> 4:
            yield "27.2.1.1 TPR shadow: bits 31:4 of the threshold are 0"
    elif secondary(
        vmcs,
        vmx.SECONDARY_VIRTUALIZE_X2APIC_MODE
        | vmx.SECONDARY_APIC_REGISTER_VIRTUALIZATION
        | vmx.SECONDARY_VIRTUAL_INTERRUPT_DELIVERY,
    ):
        yield "27.2.1.1 TPR shadow: virtualization of the APIC needs it"
    if secondary(vmcs, vmx.SECONDARY_VIRTUALIZE_APIC_ACCESSES):
        if not is_physical(vmcs[vmx.APIC_ACCESS_ADDRESS]):
            yield "27.2.1.1 APIC accesses: the address is aligned and within the width"
        if secondary(vmcs, vmx.SECONDARY_VIRTUALIZE_X2APIC_MODE):
            yield "27.2.1.1 APIC accesses: not together with x2APIC mode"


def check_translation(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.2.1.1: VPID and EPT."""
    if secondary(vmcs, vmx.SECONDARY_ENABLE_VPID) and vmcs[vmx.VIRTUAL_PROCESSOR_ID] == 0:
        yield "27.2.1.1 VPID: is not 0"
    if not secondary(vmcs, vmx.SECONDARY_ENABLE_EPT):
        if secondary(vmcs, vmx.SECONDARY_UNRESTRICTED_GUEST):
            yield "27.2.1.1 unrestricted guest: needs EPT"
        return
    capability = processor.msrs[vmx.IA32_VMX_EPT_VPID_CAP]
    pointer = vmcs[vmx.EPT_POINTER]
    supported = {0: capability >> 8 & 1, 6: capability >> 14 & 1}  # uncacheable, write-back
    if not supported.get(pointer & 7, 0):
        yield "27.2.1.1 EPTP: a memory type that the processor supports"
    if not (pointer >> 3 & 7 == 3 and capability >> 6 & 1):
        yield "27.2.1.1 EPTP: the walk length is 4 levels"
    if pointer >> 6 & 1 and not capability >> 21 & 1:
        yield "27.2.1.1 EPTP: accessed and dirty flags are supported"
    if pointer & 0xF80 or pointer >> PHYSICAL_BITS:
        yield "27.2.1.1 EPTP: reserved bits are 0"


def check_msr_areas(vmcs: Vmcs) -> Iterator[str]:
    """27.2.1.2 and 27.2.1.3: the MSR areas."""
    areas = (
        ("27.2.1.2 exit MSR store", vmx.EXIT_MSR_STORE_COUNT, vmx.EXIT_MSR_STORE_ADDRESS),
        ("27.2.1.2 exit MSR load", vmx.EXIT_MSR_LOAD_COUNT, vmx.EXIT_MSR_LOAD_ADDRESS),
        ("27.2.1.3 entry MSR load", vmx.ENTRY_MSR_LOAD_COUNT, vmx.ENTRY_MSR_LOAD_ADDRESS),
    )
    for subject, count, address in areas:
        if vmcs[count] and not (
            is_physical(vmcs[address], 16) and is_physical(vmcs[address] + vmcs[count] * 16 - 1, alignment=1)
        ):
            yield f"{subject}: the area is aligned and within the width"


def check_injection(vmcs: Vmcs) -> Iterator[str]:
    """27.2.1.3: the event to be injected is one that exists."""
    information = vmcs[vmx.ENTRY_INTERRUPTION_INFORMATION]
    kind, vector = information >> 8 & 7, information & 0xFF
    if kind == TYPE_RESERVED or (
        kind == TYPE_OTHER and not vmcs.bit(vmx.PRIMARY_CONTROLS, vmx.PRIMARY_MONITOR_TRAP_FLAG)
    ):
        yield "27.2.1.3 injection: the type is not reserved"
    if (
        (kind == TYPE_NMI and vector != 2)
        or (kind == TYPE_EXCEPTION and vector > 31)
        or (kind == TYPE_OTHER and vector)
    ):
        yield "27.2.1.3 injection: the vector fits the type"
    unrestricted = secondary(vmcs, vmx.SECONDARY_UNRESTRICTED_GUEST)
    protected = not unrestricted or vmcs.bit(vmx.GUEST_CR0, CR0_PE)
    wants_error = kind == TYPE_EXCEPTION and protected and vector in ERROR_VECTORS
    if bool(information >> 11 & 1) != wants_error:
        yield "27.2.1.3 injection: an error code exactly where the exception has one"
    if information & 0x7FFF_F000:
        yield "27.2.1.3 injection: reserved bits are 0"
    if information >> 11 & 1 and vmcs[vmx.ENTRY_EXCEPTION_ERROR_CODE] >> 16:
        yield "27.2.1.3 injection: bits 31:16 of the error code are 0"
    if kind in (TYPE_SOFTWARE, TYPE_PRIVILEGED, TYPE_TRAP) and not 1 <= vmcs[vmx.ENTRY_INSTRUCTION_LENGTH] <= 15:
        yield "27.2.1.3 injection: the instruction length is 1 to 15"


def check_host(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.2.2 to 27.2.4: a broken rule makes VM entry fail with error 8."""
    yield from check_host_registers(vmcs, processor)
    yield from check_host_segments(vmcs)
    host_long = vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_HOST_ADDRESS_SPACE_SIZE)
    if not host_long:
        yield "27.2.4 address space: a 64-bit host has the host address-space size control"
    if not vmcs.bit(vmx.HOST_CR4, CR4_PAE):
        yield "27.2.4 address space: a 64-bit host has CR4.PAE"
    if not is_canonical(vmcs[vmx.HOST_RIP]):
        yield "27.2.4 address space: the host's RIP is canonical"


def check_host_registers(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.2.2: control registers and MSRs."""
    for name, field, fixed in (
        ("CR0", vmx.HOST_CR0, vmx.IA32_VMX_CR0_FIXED0),
        ("CR4", vmx.HOST_CR4, vmx.IA32_VMX_CR4_FIXED0),
    ):
        if processor.msrs[fixed] & ~vmcs[field] or vmcs[field] & ~processor.msrs[fixed + 1]:
            yield f"27.2.2 host {name}: the fixed bits"
    if vmcs[vmx.HOST_CR3] >> PHYSICAL_BITS:
        yield "27.2.2 host CR3: within the width"
    for field in (vmx.HOST_SYSENTER_ESP, vmx.HOST_SYSENTER_EIP):
        if not is_canonical(vmcs[field]):
            yield "27.2.2 host SYSENTER: addresses are canonical"
    if vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_LOAD_PAT) and not is_pat(vmcs[vmx.HOST_PAT]):
        yield "27.2.2 host PAT: memory types"
    if vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_LOAD_EFER):
        efer, host_long = vmcs[vmx.HOST_EFER], vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_HOST_ADDRESS_SPACE_SIZE)
        if efer & ~EFER_KNOWN:
            yield "27.2.2 host EFER: reserved bits are 0"
        if {bool(efer & EFER_LMA), bool(efer & EFER_LME)} != {host_long}:
            yield "27.2.2 host EFER: LMA and LME as the address-space size"


def check_host_segments(vmcs: Vmcs) -> Iterator[str]:
    """27.2.3: segment and descriptor-table registers."""
    selectors = (
        vmx.HOST_ES_SELECTOR, vmx.HOST_CS_SELECTOR, vmx.HOST_SS_SELECTOR, vmx.HOST_DS_SELECTOR,
        vmx.HOST_FS_SELECTOR, vmx.HOST_GS_SELECTOR, vmx.HOST_TR_SELECTOR,
    )  # fmt: skip
    if any(vmcs[field] & 7 for field in selectors):
        yield "27.2.3 host selectors: RPL and TI are 0"
    if vmcs[vmx.HOST_CS_SELECTOR] == 0:
        yield "27.2.3 host selectors: CS is not null"
    if vmcs[vmx.HOST_TR_SELECTOR] == 0:
        yield "27.2.3 host selectors: TR is not null"
    bases = (
        vmx.HOST_FS_BASE, vmx.HOST_GS_BASE, vmx.HOST_TR_BASE, vmx.HOST_GDTR_BASE, vmx.HOST_IDTR_BASE,
    )  # fmt: skip
    if not all(is_canonical(vmcs[field]) for field in bases):
        yield "27.2.3 host bases: canonical"
