"""The VMCS of a virtual CPU: controls, host state, and the guest's state at its first instruction (SDM Vol. 3C, 25 and 27)."""

from __future__ import annotations

from typing import Final

from dsl.hw import vmx
from dsl.hw.x86 import CR0_ET, CR0_PE, CR0_PG, CR4_MCE, CR4_PAE, EFER_LMA, EFER_LME, IA32_EFER, IA32_PAT, RFLAGS_FIXED
from dsl.lang import (
    HostPhysical,
    HostVirtual,
    Record,
    Struct,
    VmxStatus,
    address_of,
    function_address,
    machine,
    offset_of,
    static,
    u16,
    u32,
    u64,
)
from dsl.lang.intrinsics import rdmsr, read_cr0, read_cr3, read_cr4, vmclear, vmptrld, vmwrite
from vmm.cpu import CPU, IDT, SELECTOR_CODE, SELECTOR_DATA, SELECTOR_TASK
from vmm.descriptor import StartMode
from vmm.memory import to_host_virtual
from vmm.tables import CR0_HOST_OWNED, CR4_GUEST_BITS, IO_BITMAP_SIZE
from vmm.vcpu import VirtualCpu
from vmm.vmx.capability import CAPABILITY
from vmm.vmx.entry import guest_exit

PAT_AT_RESET: Final = 0x0007_0406_0007_0406
DR7_AT_RESET: Final = 0x400
FLAT_LIMIT: Final = 0xFFFF_FFFF
REAL_LIMIT: Final = 0xFFFF
NO_LINK: Final = 0xFFFF_FFFF_FFFF_FFFF

# Access rights (SDM Vol. 3C, 25.4.1)
CODE_32: Final = 0xC09B
CODE_64: Final = 0xA09B
CODE_16: Final = 0x009B
DATA_32: Final = 0xC093
DATA_16: Final = 0x0093
BUSY_TASK: Final = 0x008B
UNUSABLE: Final = 1 << 16
EXCEPTION_DEBUG: Final = 1 << 1
EXCEPTION_ALIGNMENT: Final = 1 << 17
EXCEPTION_MACHINE_CHECK: Final = 1 << 18
EXCEPTIONS_INTERCEPTED: Final = EXCEPTION_DEBUG | EXCEPTION_ALIGNMENT | EXCEPTION_MACHINE_CHECK


class Bitmaps(Struct):
    """Where the bitmaps are: the monitor's pages, shared by all boxes, never written after start."""

    msr: HostPhysical
    io: HostPhysical  # A, then B


class Start(Record):
    """The guest's first instruction, from its descriptor."""

    mode: u32
    rip: u64
    rsp: u64
    cr3: u64


class VmcsHeader(Struct, size=8):
    """The first bytes of a VMXON or VMCS region."""

    revision: u32
    abort_indicator: u32


BITMAPS: Final = static(Bitmaps)


@machine
def prepare_region(region: HostPhysical) -> None:
    """Write the revision into a zeroed page, for VMXON or VMCLEAR."""
    # Safe because the page was handed out to the engine for this.
    VmcsHeader.at(to_host_virtual(region)).revision = CAPABILITY.revision


@machine
def create_control_block(vcpu: VirtualCpu, region: HostPhysical, start: Start) -> None:
    """Make a VMCS in a zeroed page and leave it current."""
    prepare_region(region)
    vcpu.control_block = region
    assert vmclear(control_block_pointer(vcpu)) == VmxStatus.OK, "VMCLEAR takes a fresh region"
    load_control_block(vcpu)
    vcpu.is_launched = False
    write_controls(vcpu, start)
    write_host_state()
    write_guest_segments(start)
    write_guest_registers(start)


@machine
def control_block_pointer(vcpu: VirtualCpu) -> HostVirtual:
    """Where the VMCS's physical address stands: the operand of VMCLEAR and VMPTRLD."""
    return address_of(vcpu) + offset_of(VirtualCpu, "control_block")


@machine
def load_control_block(vcpu: VirtualCpu) -> None:
    """Make a virtual CPU's VMCS current."""
    assert vmptrld(control_block_pointer(vcpu)) == VmxStatus.OK, "VMPTRLD takes a cleared region"


@machine
def write_controls(vcpu: VirtualCpu, start: Start) -> None:
    """Control fields (SDM Vol. 3D, appendix B)."""
    entry = CAPABILITY.entry
    if start.mode == StartMode.LONG.value:
        entry |= vmx.ENTRY_IA32E_MODE_GUEST
    vmwrite(vmx.VIRTUAL_PROCESSOR_ID, vcpu.address_space)
    vmwrite(vmx.IO_BITMAP_A, BITMAPS.io.as_u64())
    vmwrite(vmx.IO_BITMAP_B, BITMAPS.io.as_u64() + IO_BITMAP_SIZE // 2)
    vmwrite(vmx.MSR_BITMAP, BITMAPS.msr.as_u64())
    vmwrite(vmx.TSC_OFFSET, vcpu.tsc_offset)
    vmwrite(vmx.EPT_POINTER, vcpu.ept_pointer)
    vmwrite(vmx.VMCS_LINK_POINTER, u64(NO_LINK))
    vmwrite(vmx.PIN_BASED_CONTROLS, CAPABILITY.pin)
    vmwrite(vmx.PRIMARY_CONTROLS, CAPABILITY.primary)
    vmwrite(vmx.EXCEPTION_BITMAP, u32(EXCEPTIONS_INTERCEPTED))
    vmwrite(vmx.PAGE_FAULT_ERROR_CODE_MASK, u32(0))
    vmwrite(vmx.PAGE_FAULT_ERROR_CODE_MATCH, u32(0))
    vmwrite(vmx.CR3_TARGET_COUNT, u32(0))
    vmwrite(vmx.EXIT_CONTROLS, CAPABILITY.exit)
    vmwrite(vmx.EXIT_MSR_STORE_COUNT, u32(0))
    vmwrite(vmx.EXIT_MSR_LOAD_COUNT, u32(0))
    vmwrite(vmx.ENTRY_CONTROLS, entry)
    vmwrite(vmx.ENTRY_MSR_LOAD_COUNT, u32(0))
    vmwrite(vmx.ENTRY_INTERRUPTION_INFORMATION, u32(0))
    vmwrite(vmx.SECONDARY_CONTROLS, CAPABILITY.secondary)
    if CAPABILITY.secondary & vmx.SECONDARY_ENABLE_ENCLS_EXITING != 0:
        vmwrite(vmx.ENCLS_EXITING_BITMAP, u64(NO_LINK))
    vmwrite(vmx.CR0_MASK, u64(CR0_HOST_OWNED))
    vmwrite(vmx.CR4_MASK, ~u64(CR4_GUEST_BITS))


@machine
def write_host_state() -> None:
    """What the processor has after every exit: constant, this CPU's."""
    cpu = CPU.current()
    vmwrite(vmx.HOST_ES_SELECTOR, u16(SELECTOR_DATA))
    vmwrite(vmx.HOST_CS_SELECTOR, u16(SELECTOR_CODE))
    vmwrite(vmx.HOST_SS_SELECTOR, u16(SELECTOR_DATA))
    vmwrite(vmx.HOST_DS_SELECTOR, u16(SELECTOR_DATA))
    vmwrite(vmx.HOST_FS_SELECTOR, u16(0))
    vmwrite(vmx.HOST_GS_SELECTOR, u16(0))
    vmwrite(vmx.HOST_TR_SELECTOR, u16(SELECTOR_TASK))
    vmwrite(vmx.HOST_PAT, rdmsr(u32(IA32_PAT)))
    vmwrite(vmx.HOST_EFER, rdmsr(u32(IA32_EFER)))
    vmwrite(vmx.HOST_SYSENTER_CS, u32(0))
    vmwrite(vmx.HOST_SYSENTER_ESP, u64(0))
    vmwrite(vmx.HOST_SYSENTER_EIP, u64(0))
    vmwrite(vmx.HOST_CR0, read_cr0())
    vmwrite(vmx.HOST_CR3, read_cr3())
    vmwrite(vmx.HOST_CR4, read_cr4())
    vmwrite(vmx.HOST_FS_BASE, u64(0))
    vmwrite(vmx.HOST_GS_BASE, cpu.self_address.as_u64())
    vmwrite(vmx.HOST_TR_BASE, address_of(cpu.task).as_u64())
    vmwrite(vmx.HOST_GDTR_BASE, address_of(cpu.gdt).as_u64())
    vmwrite(vmx.HOST_IDTR_BASE, address_of(IDT).as_u64())
    vmwrite(vmx.HOST_RSP, address_of(cpu.exit_frame).as_u64())
    vmwrite(vmx.HOST_RIP, function_address(guest_exit).as_u64())


@machine
def write_guest_segments(start: Start) -> None:
    """Flat segments, or those of real mode."""
    is_real = start.mode == StartMode.REAL.value
    limit = u32(REAL_LIMIT) if is_real else u32(FLAT_LIMIT)
    data = u32(DATA_16) if is_real else u32(DATA_32)
    code = u32(CODE_16) if is_real else u32(CODE_64) if start.mode == StartMode.LONG.value else u32(CODE_32)
    code_selector = u16(0) if is_real else u16(0x10)  # the selectors of the Linux boot protocol
    data_selector = u16(0) if is_real else u16(0x18)
    vmwrite(vmx.GUEST_CS_SELECTOR, code_selector)
    vmwrite(vmx.GUEST_CS_BASE, u64(0))
    vmwrite(vmx.GUEST_CS_LIMIT, limit)
    vmwrite(vmx.GUEST_CS_ACCESS_RIGHTS, code)
    vmwrite(vmx.GUEST_ES_SELECTOR, data_selector)
    vmwrite(vmx.GUEST_ES_BASE, u64(0))
    vmwrite(vmx.GUEST_ES_LIMIT, limit)
    vmwrite(vmx.GUEST_ES_ACCESS_RIGHTS, data)
    vmwrite(vmx.GUEST_SS_SELECTOR, data_selector)
    vmwrite(vmx.GUEST_SS_BASE, u64(0))
    vmwrite(vmx.GUEST_SS_LIMIT, limit)
    vmwrite(vmx.GUEST_SS_ACCESS_RIGHTS, data)
    vmwrite(vmx.GUEST_DS_SELECTOR, data_selector)
    vmwrite(vmx.GUEST_DS_BASE, u64(0))
    vmwrite(vmx.GUEST_DS_LIMIT, limit)
    vmwrite(vmx.GUEST_DS_ACCESS_RIGHTS, data)
    vmwrite(vmx.GUEST_FS_SELECTOR, data_selector)
    vmwrite(vmx.GUEST_FS_BASE, u64(0))
    vmwrite(vmx.GUEST_FS_LIMIT, limit)
    vmwrite(vmx.GUEST_FS_ACCESS_RIGHTS, data)
    vmwrite(vmx.GUEST_GS_SELECTOR, data_selector)
    vmwrite(vmx.GUEST_GS_BASE, u64(0))
    vmwrite(vmx.GUEST_GS_LIMIT, limit)
    vmwrite(vmx.GUEST_GS_ACCESS_RIGHTS, data)
    vmwrite(vmx.GUEST_LDTR_SELECTOR, u16(0))
    vmwrite(vmx.GUEST_LDTR_BASE, u64(0))
    vmwrite(vmx.GUEST_LDTR_LIMIT, u32(0))
    vmwrite(vmx.GUEST_LDTR_ACCESS_RIGHTS, u32(UNUSABLE))
    vmwrite(vmx.GUEST_TR_SELECTOR, u16(0))
    vmwrite(vmx.GUEST_TR_BASE, u64(0))
    vmwrite(vmx.GUEST_TR_LIMIT, u32(REAL_LIMIT))
    vmwrite(vmx.GUEST_TR_ACCESS_RIGHTS, u32(BUSY_TASK))
    vmwrite(vmx.GUEST_GDTR_BASE, u64(0))
    vmwrite(vmx.GUEST_GDTR_LIMIT, u32(0))
    vmwrite(vmx.GUEST_IDTR_BASE, u64(0))
    vmwrite(vmx.GUEST_IDTR_LIMIT, u32(0x3FF) if is_real else u32(0))


@machine
def write_guest_registers(start: Start) -> None:
    """Control, debug and system registers, and the first instruction."""
    cr0 = u64(CR0_ET)
    cr4 = u64(0)
    efer = u64(0)
    if start.mode == StartMode.PROTECTED.value:
        cr0 |= CR0_PE
    elif start.mode == StartMode.LONG.value:
        cr0 |= CR0_PE | CR0_PG
        cr4 |= CR4_PAE
        efer = u64(EFER_LME | EFER_LMA)
    vmwrite(vmx.CR0_READ_SHADOW, cr0)
    vmwrite(vmx.CR4_READ_SHADOW, cr4)
    vmwrite(vmx.GUEST_CR0, hardware_cr0(cr0))
    vmwrite(vmx.GUEST_CR4, hardware_cr4(cr4))
    vmwrite(vmx.GUEST_CR3, start.cr3)
    vmwrite(vmx.GUEST_EFER, efer)
    vmwrite(vmx.GUEST_PAT, u64(PAT_AT_RESET))
    vmwrite(vmx.GUEST_DEBUGCTL, u64(0))
    vmwrite(vmx.GUEST_DR7, u64(DR7_AT_RESET))
    vmwrite(vmx.GUEST_SYSENTER_CS, u32(0))
    vmwrite(vmx.GUEST_SYSENTER_ESP, u64(0))
    vmwrite(vmx.GUEST_SYSENTER_EIP, u64(0))
    vmwrite(vmx.GUEST_INTERRUPTIBILITY, u32(0))
    vmwrite(vmx.GUEST_ACTIVITY_STATE, u32(0))
    vmwrite(vmx.GUEST_PENDING_DEBUG_EXCEPTIONS, u64(0))
    vmwrite(vmx.GUEST_RFLAGS, u64(RFLAGS_FIXED))
    vmwrite(vmx.GUEST_RSP, start.rsp)
    vmwrite(vmx.GUEST_RIP, start.rip)


@machine
def hardware_cr0(guest: u64) -> u64:
    """The CR0 to run with for what the guest wants: VMX's fixed bits on (but PE and PG: unrestricted guest), caches on."""
    fixed = CAPABILITY.cr0_fixed0 & ~u64(CR0_PE | CR0_PG)
    return (guest & ~u64(CR0_HOST_OWNED)) | fixed


@machine
def hardware_cr4(guest: u64) -> u64:
    """The CR4 to run with for what the guest wants: VMX's fixed bits on, and machine checks as the host has them."""
    return guest | CAPABILITY.cr4_fixed0 | (read_cr4() & CR4_MCE)
