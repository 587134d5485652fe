"""RDMSR and WRMSR of what the bitmap intercepts: the allow-list's constants, and the MSRs with a handler of their own."""

from __future__ import annotations

from dsl.hw.x86 import EFER_LMA, EFER_LME, IA32_EFER
from dsl.lang import machine, u32, u64, upto
from dsl.lang.intrinsics import rdtsc
from vmm.box import Box
from vmm.engine import (
    advance_instruction,
    inject_general_protection,
    is_paging,
    pass_msr,
    read_efer,
    set_tsc,
    write_efer,
)
from vmm.tables import (
    ALWAYS,
    CONSTANT,
    EFER_GUEST_BITS,
    EMULATE,
    IGNORE,
    MSR_CONSTANTS,
    MSR_NEEDS,
    MSR_NUMBERS,
    MSR_READ_POLICIES,
    MSR_ROW_COUNT,
    MSR_WRITE_POLICIES,
    NEEDS_RDTSCP,
    PASS,
)
from vmm.vcpu import Resume


@machine
def row_of_msr(number: u32) -> u64:
    """The allow-list's row of an MSR; MSR_ROW_COUNT for none."""
    for row in upto(MSR_ROW_COUNT):
        if MSR_NUMBERS[row] == number:
            return row
    return u64(MSR_ROW_COUNT)


@machine
def pass_optional_msrs(has_rdtscp: bool, has_spec_ctrl: bool) -> None:
    """Open the bitmap for the rows whose need this processor meets."""
    for row in upto(MSR_ROW_COUNT):
        needs = MSR_NEEDS[row]
        if needs != ALWAYS and (has_rdtscp if needs == NEEDS_RDTSCP else has_spec_ctrl):
            if MSR_READ_POLICIES[row] == PASS:
                pass_msr(MSR_NUMBERS[row], True)
            if MSR_WRITE_POLICIES[row] == PASS:
                pass_msr(MSR_NUMBERS[row], False)


@machine
def refuse(box: Box) -> Resume:
    """#GP(0)."""
    inject_general_protection(box.vcpu)
    return Resume.GUEST


@machine
def handle_rdmsr(box: Box) -> Resume:
    """Give a constant of the allow-list; anything else is #GP(0). Reads RCX; writes RAX and RDX."""
    registers = box.vcpu.registers
    row = row_of_msr(registers.rcx.truncate(u32))
    if row >= MSR_ROW_COUNT:
        return refuse(box)
    if MSR_READ_POLICIES[row] != CONSTANT:
        return refuse(box)
    value = MSR_CONSTANTS[row]
    registers.rax = value & 0xFFFF_FFFF
    registers.rdx = value >> 32
    advance_instruction()
    return Resume.GUEST


@machine
def handle_wrmsr(box: Box) -> Resume:
    """Swallow or emulate what the allow-list says; anything else is #GP(0). Reads RCX, RDX:RAX."""
    registers = box.vcpu.registers
    number = registers.rcx.truncate(u32)
    value = (registers.rdx << 32) | (registers.rax & 0xFFFF_FFFF)
    row = row_of_msr(number)
    if row >= MSR_ROW_COUNT:
        return refuse(box)
    policy = MSR_WRITE_POLICIES[row]
    if policy == EMULATE:
        if number == IA32_EFER:
            return emulate_efer(box, value)
        set_tsc(box.vcpu, value - rdtsc())
    elif policy != IGNORE:
        return refuse(box)
    advance_instruction()
    return Resume.GUEST


@machine
def emulate_efer(box: Box, value: u64) -> Resume:
    """WRMSR to IA32_EFER (SDM Vol. 3A, 2.2.1): reserved bits and a change of LME under paging are #GP(0); LMA cannot be written."""
    old = read_efer()
    if value & ~u64(EFER_GUEST_BITS) != 0:
        return refuse(box)
    if is_paging() and (value ^ old) & EFER_LME != 0:
        return refuse(box)
    write_efer((value & ~u64(EFER_LMA)) | (old & EFER_LMA))
    advance_instruction()
    return Resume.GUEST
