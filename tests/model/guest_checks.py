"""What the processor checks of the guest state at VM entry (SDM Vol. 3C, 27.3.1): a broken rule is an exit with reason 33."""

from __future__ import annotations

from collections.abc import Iterator

from dsl.hw import vmx
from tests.model.entry_checks import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    CR4_PCIDE,
    EFER_KNOWN,
    EFER_LMA,
    EFER_LME,
    TYPE_EXCEPTION,
    TYPE_EXTERNAL,
    TYPE_NMI,
    TYPE_OTHER,
    is_canonical,
    is_pat,
    is_physical,
    secondary,
)
from tests.model.processor import PHYSICAL_BITS, Processor
from tests.model.vmcs import Vmcs

SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR")
RFLAGS_IF, RFLAGS_TF, RFLAGS_VM = 1 << 9, 1 << 8, 1 << 17
RFLAGS_RESERVED = ~0x3F_7FD7 & 0xFFFF_FFFF_FFFF_FFFF
UNUSABLE = 1 << 16
ACTIVE, HALTED, SHUTDOWN, WAITING = range(4)
STI, MOV_SS, SMI, NMI = 1, 2, 4, 8
NO_LINK = 0xFFFF_FFFF_FFFF_FFFF


def check_guest(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.3.1, all of it."""
    yield from check_control_registers(vmcs, processor)
    yield from check_debug_and_msrs(vmcs)
    yield from check_segments(vmcs)
    yield from check_tables(vmcs)
    yield from check_flow(vmcs)
    yield from check_states(vmcs, processor)
    yield from check_page_directory_pointers(vmcs)


def is_long(vmcs: Vmcs) -> bool:
    """Whether the entry is to IA-32e mode."""
    return vmcs.bit(vmx.ENTRY_CONTROLS, vmx.ENTRY_IA32E_MODE_GUEST)


def is_unrestricted(vmcs: Vmcs) -> bool:
    """Whether the guest may run without protection or paging."""
    return secondary(vmcs, vmx.SECONDARY_UNRESTRICTED_GUEST)


def check_control_registers(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.3.1.1: CR0, CR3, CR4."""
    cr0, cr4 = vmcs[vmx.GUEST_CR0], vmcs[vmx.GUEST_CR4]
    must = processor.msrs[vmx.IA32_VMX_CR0_FIXED0]
    if is_unrestricted(vmcs):
        must &= ~(CR0_PE | CR0_PG)
    # NW and CD are never checked
    if must & ~cr0 or cr0 & ~processor.msrs[vmx.IA32_VMX_CR0_FIXED1] & ~(3 << 29):
        yield "27.3.1.1 guest CR0: the fixed bits"
    if cr0 & CR0_PG and not cr0 & CR0_PE:
        yield "27.3.1.1 guest CR0: paging needs protection"
    if processor.msrs[vmx.IA32_VMX_CR4_FIXED0] & ~cr4 or cr4 & ~processor.msrs[vmx.IA32_VMX_CR4_FIXED1]:
        yield "27.3.1.1 guest CR4: the fixed bits"
    if is_long(vmcs):
        if not (cr0 & CR0_PG and cr4 & CR4_PAE):
            yield "27.3.1.1 guest mode: IA-32e mode has paging and PAE"
    elif cr4 & CR4_PCIDE:
        yield "27.3.1.1 guest mode: PCIDE only in IA-32e mode"
    if vmcs[vmx.GUEST_CR3] >> PHYSICAL_BITS:
        yield "27.3.1.1 guest CR3: within the width"


def check_debug_and_msrs(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.1: DR7 and MSRs."""
    if vmcs.bit(vmx.ENTRY_CONTROLS, vmx.ENTRY_LOAD_DEBUG_CONTROLS):
        if vmcs[vmx.GUEST_DEBUGCTL] & ~0xDFC3:
            yield "27.3.1.1 guest DEBUGCTL: reserved bits are 0"
        if vmcs[vmx.GUEST_DR7] >> 32:
            yield "27.3.1.1 guest DR7: bits 63:32 are 0"
    for field in (vmx.GUEST_SYSENTER_ESP, vmx.GUEST_SYSENTER_EIP):
        if not is_canonical(vmcs[field]):
            yield "27.3.1.1 guest SYSENTER: addresses are canonical"
    if vmcs.bit(vmx.ENTRY_CONTROLS, vmx.ENTRY_LOAD_PAT) and not is_pat(vmcs[vmx.GUEST_PAT]):
        yield "27.3.1.1 guest PAT: memory types"
    if vmcs.bit(vmx.ENTRY_CONTROLS, vmx.ENTRY_LOAD_EFER):
        efer = vmcs[vmx.GUEST_EFER]
        if efer & ~EFER_KNOWN:
            yield "27.3.1.1 guest EFER: reserved bits are 0"
        if bool(efer & EFER_LMA) != is_long(vmcs):
            yield "27.3.1.1 guest EFER: LMA as the IA-32e mode control"
        if vmcs.bit(vmx.GUEST_CR0, CR0_PG) and bool(efer & EFER_LME) != bool(efer & EFER_LMA):
            yield "27.3.1.1 guest EFER: LME as LMA when paging is on"


def part(vmcs: Vmcs, segment: str, what: str) -> int:
    """A part of a segment register: SELECTOR, BASE, LIMIT or ACCESS_RIGHTS."""
    return vmcs[vmx.FIELDS[f"GUEST_{segment}_{what}"]]


def check_segments(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.2."""
    virtual_8086 = vmcs.bit(vmx.GUEST_RFLAGS, RFLAGS_VM)
    yield from check_selectors(vmcs, virtual_8086)
    for segment in SEGMENTS:
        rights, base = part(vmcs, segment, "ACCESS_RIGHTS"), part(vmcs, segment, "BASE")
        usable = not rights & UNUSABLE
        if segment in ("TR", "FS", "GS") or (segment == "LDTR" and usable):
            if not is_canonical(base):
                yield f"27.3.1.2 guest {segment}: the base is canonical"
        elif segment != "LDTR" and (segment == "CS" or usable) and base >> 32:
            yield f"27.3.1.2 guest {segment}: bits 63:32 of the base are 0"
        if virtual_8086 and segment not in ("LDTR", "TR"):
            shape = (part(vmcs, segment, "SELECTOR") << 4, 0xFFFF, 0xF3)
            if (base, part(vmcs, segment, "LIMIT"), rights) != shape:
                yield f"27.3.1.2 guest {segment}: as virtual-8086 mode has it"
        elif segment not in ("LDTR", "TR"):
            yield from check_code_or_data(vmcs, segment, rights)
    yield from check_task_and_local(vmcs)


def check_selectors(vmcs: Vmcs, virtual_8086: bool) -> Iterator[str]:
    """27.3.1.2: selectors."""
    if part(vmcs, "TR", "SELECTOR") & 4:
        yield "27.3.1.2 guest TR: the selector is of the GDT"
    if not part(vmcs, "LDTR", "ACCESS_RIGHTS") & UNUSABLE and part(vmcs, "LDTR", "SELECTOR") & 4:
        yield "27.3.1.2 guest LDTR: the selector is of the GDT"
    same = part(vmcs, "SS", "SELECTOR") & 3 == part(vmcs, "CS", "SELECTOR") & 3
    if not virtual_8086 and not is_unrestricted(vmcs) and not same:
        yield "27.3.1.2 guest SS: RPL is that of CS"


def check_code_or_data(vmcs: Vmcs, segment: str, rights: int) -> Iterator[str]:
    """27.3.1.2: access rights of CS, SS, DS, ES, FS, GS outside virtual-8086 mode."""
    if segment != "CS" and rights & UNUSABLE:
        return
    kind, privilege = rights & 15, rights >> 5 & 3
    if not rights >> 4 & 1:
        yield f"27.3.1.2 guest {segment}: code or data (S)"
    if not rights >> 7 & 1:
        yield f"27.3.1.2 guest {segment}: present"
    if rights & 0xFFFE_0F00:
        yield f"27.3.1.2 guest {segment}: reserved bits of the access rights are 0"
    yield from check_limit(vmcs, segment, rights)
    if segment == "CS":
        yield from check_code(vmcs, kind, privilege, rights)
    elif segment == "SS":
        if kind not in (3, 7):
            yield "27.3.1.2 guest SS: type 3 or 7"
        if not is_unrestricted(vmcs) and privilege != part(vmcs, "SS", "SELECTOR") & 3:
            yield "27.3.1.2 guest SS: DPL is RPL"
        if (part(vmcs, "CS", "ACCESS_RIGHTS") & 15 == 3 or not vmcs.bit(vmx.GUEST_CR0, CR0_PE)) and privilege:
            yield "27.3.1.2 guest SS: DPL 0 in real mode"
    else:
        if not kind & 1 or (kind & 8 and not kind & 2):
            yield f"27.3.1.2 guest {segment}: accessed, and readable if code"
        if not is_unrestricted(vmcs) and kind <= 11 and privilege < part(vmcs, segment, "SELECTOR") & 3:
            yield f"27.3.1.2 guest {segment}: DPL is at least RPL"


def check_code(vmcs: Vmcs, kind: int, privilege: int, rights: int) -> Iterator[str]:
    """27.3.1.2: CS alone."""
    stack = part(vmcs, "SS", "ACCESS_RIGHTS") >> 5 & 3
    if kind not in (9, 11, 13, 15) and not (kind == 3 and is_unrestricted(vmcs)):
        yield "27.3.1.2 guest CS: type 9, 11, 13 or 15 (or 3)"
    if kind == 3 and privilege:
        yield "27.3.1.2 guest CS: type 3 has DPL 0"
    if kind in (9, 11) and privilege != stack:
        yield "27.3.1.2 guest CS: DPL is that of SS"
    if kind in (13, 15) and privilege > stack:
        yield "27.3.1.2 guest CS: DPL is at most that of SS"
    if is_long(vmcs) and rights >> 13 & 1 and rights >> 14 & 1:
        yield "27.3.1.2 guest CS: not both L and D"


def check_limit(vmcs: Vmcs, segment: str, rights: int) -> Iterator[str]:
    """27.3.1.2: limit against granularity."""
    limit = part(vmcs, segment, "LIMIT")
    if limit & 0xFFF != 0xFFF and rights >> 15 & 1:
        yield f"27.3.1.2 guest {segment}: G is 0 when bits 11:0 of the limit are not all 1"
    if limit >> 20 and not rights >> 15 & 1:
        yield f"27.3.1.2 guest {segment}: G is 1 when bits 31:20 of the limit are not all 0"


def check_task_and_local(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.2: TR and LDTR."""
    rights = part(vmcs, "TR", "ACCESS_RIGHTS")
    kinds = (11,) if is_long(vmcs) else (3, 11)
    if rights & 15 not in kinds or rights >> 4 & 1 or not rights >> 7 & 1 or rights & UNUSABLE or rights & 0xFFFE_0F00:
        yield "27.3.1.2 guest TR: a busy, present, usable task"
    yield from check_limit(vmcs, "TR", rights)
    rights = part(vmcs, "LDTR", "ACCESS_RIGHTS")
    if rights & UNUSABLE:
        return
    if rights & 15 != 2 or rights >> 4 & 1 or not rights >> 7 & 1 or rights & 0xFFFE_0F00:
        yield "27.3.1.2 guest LDTR: a present table"
    yield from check_limit(vmcs, "LDTR", rights)


def check_tables(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.3."""
    for name in ("GDTR", "IDTR"):
        if not is_canonical(part(vmcs, name, "BASE")):
            yield f"27.3.1.3 guest {name}: the base is canonical"
        if part(vmcs, name, "LIMIT") >> 16:
            yield f"27.3.1.3 guest {name}: bits 31:16 of the limit are 0"


def check_flow(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.4: RIP and RFLAGS."""
    rip, rflags = vmcs[vmx.GUEST_RIP], vmcs[vmx.GUEST_RFLAGS]
    if not (is_long(vmcs) and part(vmcs, "CS", "ACCESS_RIGHTS") >> 13 & 1):
        if rip >> 32:
            yield "27.3.1.4 guest RIP: bits 63:32 are 0 outside 64-bit mode"
    elif not is_canonical(rip):
        yield "27.3.1.4 guest RIP: canonical"
    if rflags & RFLAGS_RESERVED or not rflags & 2:
        yield "27.3.1.4 guest RFLAGS: reserved bits"
    if rflags & RFLAGS_VM and (is_long(vmcs) or not vmcs.bit(vmx.GUEST_CR0, CR0_PE)):
        yield "27.3.1.4 guest RFLAGS: VM only in protected mode"
    if injected_kind(vmcs) == TYPE_EXTERNAL and not rflags & RFLAGS_IF:
        yield "27.3.1.4 guest RFLAGS: IF is 1 when an external interrupt is injected"


def injected_kind(vmcs: Vmcs) -> int | None:
    """The type of the event that the entry delivers."""
    information = vmcs[vmx.ENTRY_INTERRUPTION_INFORMATION]
    return information >> 8 & 7 if information >> 31 else None


def check_states(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.3.1.5: activity, interruptibility, pending debug exceptions, VMCS link."""
    yield from check_activity(vmcs, processor)
    yield from check_interruptibility(vmcs)
    pending, rflags = vmcs[vmx.GUEST_PENDING_DEBUG_EXCEPTIONS], vmcs[vmx.GUEST_RFLAGS]
    if pending & ~0x1_500F:
        yield "27.3.1.5 pending debug exceptions: reserved bits are 0"
    blocked = vmcs[vmx.GUEST_INTERRUPTIBILITY] & (STI | MOV_SS) or vmcs[vmx.GUEST_ACTIVITY_STATE] == HALTED
    stepping = bool(rflags & RFLAGS_TF and not vmcs[vmx.GUEST_DEBUGCTL] & 2)
    if blocked and bool(pending >> 14 & 1) != stepping:
        yield "27.3.1.5 pending debug exceptions: BS as TF while blocked or halted"
    link = vmcs[vmx.VMCS_LINK_POINTER]
    if link != NO_LINK:
        yield (
            "27.3.1.5 VMCS link pointer: all ones without shadowing"
            if is_physical(link)
            else "27.3.1.5 VMCS link pointer: aligned and within the width"
        )


def check_activity(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
    """27.3.1.5: the activity state."""
    state, information = vmcs[vmx.GUEST_ACTIVITY_STATE], vmcs[vmx.ENTRY_INTERRUPTION_INFORMATION]
    if state > WAITING or (state and not processor.msrs[vmx.IA32_VMX_MISC] >> 5 + state & 1):
        yield "27.3.1.5 activity state: one that the processor supports"
    if state == HALTED and part(vmcs, "SS", "ACCESS_RIGHTS") >> 5 & 3:
        yield "27.3.1.5 activity state: HLT only with DPL 0"
    if state and vmcs[vmx.GUEST_INTERRUPTIBILITY] & (STI | MOV_SS):
        yield "27.3.1.5 activity state: active while blocking by STI or MOV SS"
    kind, vector = injected_kind(vmcs), information & 0xFF
    if kind is None:
        return
    halt_takes = (
        kind in (TYPE_EXTERNAL, TYPE_NMI) or (kind == TYPE_EXCEPTION and vector in (1, 18)) or kind == TYPE_OTHER
    )
    shutdown_takes = kind == TYPE_NMI or (kind == TYPE_EXCEPTION and vector == 18)
    if (state == HALTED and not halt_takes) or (state == SHUTDOWN and not shutdown_takes) or state == WAITING:
        yield "27.3.1.5 activity state: the injected event can be taken in it"


def check_interruptibility(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.5: the interruptibility state."""
    state, kind = vmcs[vmx.GUEST_INTERRUPTIBILITY], injected_kind(vmcs)
    if state >> 5:
        yield "27.3.1.5 interruptibility: reserved bits are 0"
    if state & STI and state & MOV_SS:
        yield "27.3.1.5 interruptibility: not both STI and MOV SS"
    if state & STI and not vmcs.bit(vmx.GUEST_RFLAGS, RFLAGS_IF):
        yield "27.3.1.5 interruptibility: STI needs IF"
    if kind == TYPE_EXTERNAL and state & (STI | MOV_SS):
        yield "27.3.1.5 interruptibility: no external interrupt while blocked"
    if kind == TYPE_NMI and state & (STI | MOV_SS):
        yield "27.3.1.5 interruptibility: no NMI while blocked by STI or MOV SS"
    if state & SMI:
        yield "27.3.1.5 interruptibility: no blocking by SMI outside SMM"
    if kind == TYPE_NMI and state & NMI and vmcs.bit(vmx.PIN_BASED_CONTROLS, vmx.PIN_VIRTUAL_NMIS):
        yield "27.3.1.5 interruptibility: no NMI while NMIs are blocked"


def check_page_directory_pointers(vmcs: Vmcs) -> Iterator[str]:
    """27.3.1.6: with EPT the four entries stand in the VMCS."""
    paging = vmcs.bit(vmx.GUEST_CR0, CR0_PG) and vmcs.bit(vmx.GUEST_CR4, CR4_PAE) and not is_long(vmcs)
    if not paging:
        return
    for field in (vmx.GUEST_PDPTE0, vmx.GUEST_PDPTE1, vmx.GUEST_PDPTE2, vmx.GUEST_PDPTE3):
        if vmcs[field] & 1 and (vmcs[field] & 0x1E6 or vmcs[field] >> PHYSICAL_BITS):
            yield "27.3.1.6 PDPTEs: reserved bits are 0"
