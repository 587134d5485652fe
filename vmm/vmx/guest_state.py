"""Registers of the current guest that live in the VMCS, and those that the engine shadows or emulates."""

from __future__ import annotations

from typing import Final

from dsl.hw import vmx
from dsl.hw.x86 import CR0_CD, CR0_NW, CR0_PE, CR0_PG
from dsl.lang import Array, address_of, array_at, machine, u64
from dsl.lang.intrinsics import vmread, vmwrite
from vmm.tables import CR0_HOST_OWNED
from vmm.vcpu import VirtualCpu

REGISTER_RSP: Final = 4
REGISTER_COUNT: Final = 16


@machine
def register_array(vcpu: VirtualCpu) -> Array[u64]:
    """The general registers by number."""
    # Safe because Registers is exactly sixteen u64 fields in the order of their encodings.
    return array_at(u64, address_of(vcpu.registers), u64(REGISTER_COUNT))


@machine
def read_register(vcpu: VirtualCpu, number: u64) -> u64:
    """Read a general register by its number, 0 to 15."""
    if number == REGISTER_RSP:
        return vmread(vmx.GUEST_RSP)
    return register_array(vcpu)[number & (REGISTER_COUNT - 1)]


@machine
def write_register(vcpu: VirtualCpu, number: u64, value: u64) -> None:
    """Write a general register by its number, 0 to 15."""
    if number == REGISTER_RSP:
        vmwrite(vmx.GUEST_RSP, value)
    else:
        register_array(vcpu)[number & (REGISTER_COUNT - 1)] = value


@machine
def read_efer() -> u64:
    """The guest's IA32_EFER."""
    return vmread(vmx.GUEST_EFER)


@machine
def write_efer(value: u64) -> None:
    """Set the guest's IA32_EFER; the value was checked."""
    vmwrite(vmx.GUEST_EFER, value)


@machine
def read_cr4() -> u64:
    """The guest's CR4 as it is, VMXE included."""
    return vmread(vmx.GUEST_CR4)


@machine
def is_paging() -> bool:
    """Say whether CR0.PG is set in the guest."""
    return vmread(vmx.GUEST_CR0) & CR0_PG != 0


@machine
def set_tsc(vcpu: VirtualCpu, offset: u64) -> None:
    """Set what is added to the TSC for the guest."""
    vcpu.tsc_offset = offset
    vmwrite(vmx.TSC_OFFSET, offset)


@machine
def is_valid_cr0(value: u64) -> bool:
    """The checks of MOV to CR0 that do not depend on other registers (SDM Vol. 3A, 2.5)."""
    if value >> 32 != 0:
        return False
    if value & CR0_PG != 0 and value & CR0_PE == 0:
        return False
    return value & CR0_NW == 0 or value & CR0_CD != 0


@machine
def shadow_cr0(value: u64) -> None:
    """Take over the masked bits of a value that the guest moves to CR0: NE, NW and CD exist in the read shadow only.

    The instruction is then run again: it does not exit any more, because its masked bits equal the shadow's, and the processor does the
    rest with all its checks (a mode switch, PAE's page-directory pointers, a fault).
    """
    shadow = vmread(vmx.CR0_READ_SHADOW)
    vmwrite(vmx.CR0_READ_SHADOW, (shadow & ~u64(CR0_HOST_OWNED)) | (value & CR0_HOST_OWNED))


@machine
def end_general_detect() -> None:
    """Clear DR7.GD as the delivery of #DB does (SDM Vol. 3B, 18.2.4). IA32_DEBUGCTL.LBR is clear: no guest can set it."""
    vmwrite(vmx.GUEST_DR7, vmread(vmx.GUEST_DR7) & ~u64(1 << 13))
