"""What the processor says about an exit, in the engine's own terms (SDM Vol. 3C, 28.2)."""

from __future__ import annotations

from typing import Final

from dsl.hw import vmx
from dsl.hw.x86 import CR0_PG, CR4_PAE, EFER_LMA
from dsl.lang import Record, machine, u8, u32, u64
from dsl.lang.intrinsics import vmread
from vmm.decoder import CodeSize
from vmm.guest_memory import Paging
from vmm.vcpu import VirtualCpu
from vmm.vmx.events import TYPE_MASK, TYPE_NMI, VALID, VECTOR_AND_TYPE
from vmm.vmx.hot import RING_SHIFT

REASON_MASK: Final = 0xFFFF
CODE_LONG: Final = 1 << 13  # L, in the access rights of CS
CODE_DEFAULT_32: Final = 1 << 14  # D

EPT_LINEAR_VALID: Final = 1 << 7
EPT_NOT_WALK: Final = 1 << 8  # the access itself, not a paging-structure entry
EPT_PLAIN: Final = EPT_LINEAR_VALID | EPT_NOT_WALK
EPT_FETCH: Final = 1 << 2
EPT_WRITE: Final = 1 << 1


class MemoryExit(Record):
    """An access to guest-physical memory that is not mapped."""

    guest_physical: u64
    is_write: bool
    is_fetch: bool
    is_plain: bool  # the access itself, with a linear address; not a walk of the guest's page tables


class ControlExit(Record):
    """An access to a control register."""

    number: u64
    access: u64  # 0 MOV to it, 1 MOV from it, 2 CLTS, 3 LMSW
    register: u64


class ExceptionExit(Record):
    """An exception or NMI in the guest."""

    vector: u32
    is_nmi: bool
    information: u32  # as the next entry takes it
    error_code: u32
    qualification: u64  # of #DB: the bits for DR6


@machine
def exit_reason() -> u32:
    """The basic reason of the last exit."""
    return vmread(vmx.EXIT_REASON) & REASON_MASK


@machine
def interrupt_vector() -> u64:
    """The vector that was acknowledged by an external-interrupt exit."""
    return u64(vmread(vmx.EXIT_INTERRUPTION_INFORMATION) & 0xFF)


@machine
def exception_exit() -> ExceptionExit:
    """Describe an exit for an exception or NMI."""
    information = vmread(vmx.EXIT_INTERRUPTION_INFORMATION)
    return ExceptionExit(
        information & 0xFF,
        information & TYPE_MASK == TYPE_NMI,
        information & (VALID | VECTOR_AND_TYPE),
        vmread(vmx.EXIT_INTERRUPTION_ERROR_CODE),
        vmread(vmx.EXIT_QUALIFICATION),
    )


@machine
def memory_exit() -> MemoryExit:
    """Describe an EPT violation."""
    qualification = vmread(vmx.EXIT_QUALIFICATION)
    return MemoryExit(
        vmread(vmx.GUEST_PHYSICAL_ADDRESS),
        qualification & EPT_WRITE != 0,
        qualification & EPT_FETCH != 0,
        qualification & EPT_PLAIN == EPT_PLAIN,
    )


@machine
def control_exit() -> ControlExit:
    """Describe an access to a control register."""
    qualification = vmread(vmx.EXIT_QUALIFICATION)
    return ControlExit(qualification & 15, (qualification >> 4) & 3, (qualification >> 8) & 15)


@machine
def privilege_ring() -> u8:
    """The guest's current privilege level: SS's DPL."""
    return (vmread(vmx.GUEST_SS_ACCESS_RIGHTS) >> RING_SHIFT).truncate(u8) & 3


@machine
def is_long_mode() -> bool:
    """Say whether the guest is in IA-32e mode."""
    return vmread(vmx.GUEST_EFER) & EFER_LMA != 0


@machine
def code_size() -> CodeSize:
    """How the guest's code segment sets operand and address sizes."""
    rights = vmread(vmx.GUEST_CS_ACCESS_RIGHTS)
    is_64_bit = is_long_mode() and rights & CODE_LONG != 0
    return CodeSize(is_64_bit, not is_64_bit and rights & CODE_DEFAULT_32 != 0)


@machine
def code_address() -> u64:
    """The linear address of the guest's current instruction."""
    if code_size().is_64_bit:
        return vmread(vmx.GUEST_RIP)
    return (vmread(vmx.GUEST_CS_BASE) + vmread(vmx.GUEST_RIP)) & 0xFFFF_FFFF


@machine
def paging() -> Paging:
    """How the guest translates addresses."""
    cr0 = vmread(vmx.GUEST_CR0)
    return Paging(
        vmread(vmx.GUEST_CR3),
        cr0 & CR0_PG != 0,  # which implies PE
        is_long_mode(),
        vmread(vmx.GUEST_CR4) & CR4_PAE != 0,
    )


@machine
def capture_dump(vcpu: VirtualCpu) -> None:
    """Keep what a person wants to see of a box that stops: reason, qualification, RIP, RSP, RFLAGS, CR0, CR3, CR4."""
    vcpu.dump[0] = u64(vmread(vmx.EXIT_REASON))
    vcpu.dump[1] = vmread(vmx.EXIT_QUALIFICATION)
    vcpu.dump[2] = vmread(vmx.GUEST_RIP)
    vcpu.dump[3] = vmread(vmx.GUEST_RSP)
    vcpu.dump[4] = vmread(vmx.GUEST_RFLAGS)
    vcpu.dump[5] = vmread(vmx.GUEST_CR0)
    vcpu.dump[6] = vmread(vmx.GUEST_CR3)
    vcpu.dump[7] = vmread(vmx.GUEST_CR4)


@machine
def refusal_number() -> u32:
    """Why the last VMX instruction failed (SDM Vol. 3C, 31.4)."""
    return vmread(vmx.VM_INSTRUCTION_ERROR)
