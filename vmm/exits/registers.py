"""Control registers and XCR0: what is masked, shadowed or checked before it reaches the processor."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, u32, u64
from dsl.lang.intrinsics import xsetbv
from vmm.box import Box
from vmm.engine import (
    advance_instruction,
    control_exit,
    inject_general_protection,
    is_valid_cr0,
    privilege_ring,
    read_register,
    shadow_cr0,
    write_register,
)
from vmm.exits.cpuid import is_valid_xcr0
from vmm.exits.stop import handle_unknown_exit
from vmm.vcpu import Resume

MOV_TO: Final = 0
MOV_FROM: Final = 1
TASK_PRIORITY_MOST: Final = 15


@machine
def handle_control_register(box: Box) -> Resume:
    """A MOV that touches masked bits of CR0 or CR4, or CR8."""
    access = control_exit()
    if access.number == 0 and access.access == MOV_TO:
        return move_to_cr0(box, read_register(box.vcpu, access.register))
    if access.number == 4 and access.access == MOV_TO:
        inject_general_protection(
            box.vcpu
        )  # all masked bits of CR4 are reserved to a guest, and its shadow has them clear
        return Resume.GUEST
    if access.number == 8:
        return move_cr8(box, access.access == MOV_TO, access.register)
    return handle_unknown_exit(box)


@machine
def move_to_cr0(box: Box, value: u64) -> Resume:
    """Change the shadow and let the guest run the MOV again: see shadow_cr0."""
    if not is_valid_cr0(value):
        inject_general_protection(box.vcpu)
    else:
        shadow_cr0(value)
    return Resume.GUEST


@machine
def move_cr8(box: Box, is_write: bool, register: u64) -> Resume:
    """The task priority is virtual: it is kept, and guards nothing, since the box has no local APIC."""
    vcpu = box.vcpu
    if is_write:
        value = read_register(vcpu, register)
        if value > TASK_PRIORITY_MOST:
            inject_general_protection(vcpu)
            return Resume.GUEST
        vcpu.switch.cr8 = value
    else:
        write_register(vcpu, register, vcpu.switch.cr8)
    advance_instruction()
    return Resume.GUEST


@machine
def handle_xsetbv(box: Box) -> Resume:
    """Check the value before it is executed. Reads RCX (0) and RDX:RAX."""
    registers = box.vcpu.registers
    value = (registers.rdx << 32) | (registers.rax & 0xFFFF_FFFF)
    if registers.rcx.truncate(u32) != 0 or privilege_ring() != 0 or not is_valid_xcr0(value):
        inject_general_protection(box.vcpu)
        return Resume.GUEST
    xsetbv(u32(0), value)
    box.vcpu.switch.xcr0 = value
    advance_instruction()
    return Resume.GUEST
