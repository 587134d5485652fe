"""Model-specific registers, control registers, forbidden instructions."""

from __future__ import annotations

from typing import Final

from dsl.lang import address_of, between, machine, static_array, text, u64, upto
from dsl.lang.intrinsics import read_cr0, read_cr3, read_cr4, read_cr8, write_cr0, write_cr3, write_cr4, write_cr8
from guests.intruder.attempt import PROBE
from guests.intruder.report import report, report_breach
from guests.intruder.snippets import (
    FORBIDDEN_COUNT,
    GETSEC_ROW,
    OTHERS_COUNT,
    OTHERS_FIRST,
    RDMSR_ROW,
    SET_CR0_ROW,
    SET_CR3_ROW,
    SET_CR4_ROW,
    SET_CR8_ROW,
    WRMSR_ROW,
    XSETBV_ROW,
    run,
)

GETSEC_LEAVES: Final = 9
CR4_VMXE: Final = 13
CR4_SMXE: Final = 14
CR4_OSXSAVE: Final = 1 << 18
CR3_FIRST_RESERVED: Final = 52
MSR_EFER: Final = 0xC000_0080
MSR_FEATURE_CONTROL: Final = 0x3A
MSR_VMX_FIRST: Final = 0x480
MSR_VMX_LAST: Final = 0x493

# The two ranges of the bitmaps, and what lies around them
LOW_COUNT: Final = 0x2000
HIGH_FIRST: Final = 0xC000_0000
OUTSIDE_COUNT: Final = 64  # numbers tried on either side of each edge

SCRATCH: Final = static_array(u64, 512, align=4096)


@machine
def ready() -> None:
    """Zero PROBE's registers; rdi points at a page of scratch memory."""
    PROBE.clear()
    PROBE.rdi = address_of(SCRATCH).as_u64()


@machine
def read_msr(number: u64) -> bool:
    """Read an MSR; True when it was answered: the value is then in PROBE.rax (low half) and rdx."""
    ready()
    PROBE.rcx = number
    return run(u64(RDMSR_ROW))


@machine
def msr_value() -> u64:
    """Return the value that read_msr got."""
    return (PROBE.rdx << 32) | (PROBE.rax & 0xFFFF_FFFF)


@machine
def write_msr(number: u64, value: u64) -> bool:
    """Write an MSR; True when it was taken."""
    ready()
    PROBE.rcx = number
    PROBE.rax = value & 0xFFFF_FFFF
    PROBE.rdx = value >> 32
    return run(u64(WRMSR_ROW))


@machine
def is_secret_msr(number: u64) -> bool:
    """Tell whether a box must not see or set an MSR at all: VMX capabilities and their lock."""
    return number == MSR_FEATURE_CONTROL or (number >= MSR_VMX_FIRST and number <= MSR_VMX_LAST)


@machine
def try_msr(number: u64) -> u64:
    """Read an MSR and write back what it held (0 if it did not answer); return 1 for an answer plus 2 for a write that was taken."""
    answered = read_msr(number)
    value = msr_value() if answered else u64(0)
    taken = write_msr(number, value)
    if is_secret_msr(number) and (answered or taken):
        report_breach(text("MSR"), number)
    return u64(answered) + u64(taken) * 2


@machine
def try_msr_range(first: u64, count: u64) -> u64:
    """Try MSRs; return how many answered, and in the upper half how many took a write."""
    found = u64(0)
    for number in between(first, first + count):
        result = try_msr(number)
        found += (result & 1) + ((result >> 1) << 32)
    return found


@machine
def try_msrs() -> None:
    """Try every MSR of both bitmap ranges, and the numbers around their edges."""
    found = try_msr_range(u64(0), u64(LOW_COUNT + OUTSIDE_COUNT))
    found += try_msr_range(u64(HIGH_FIRST - OUTSIDE_COUNT), u64(LOW_COUNT + 2 * OUTSIDE_COUNT))
    found += try_msr_range(u64(0x4000_0000 - OUTSIDE_COUNT), u64(2 * OUTSIDE_COUNT))
    found += try_msr_range(u64(0x8000_0000 - OUTSIDE_COUNT), u64(2 * OUTSIDE_COUNT))
    found += try_msr_range(u64(0xFFFF_FFFF - OUTSIDE_COUNT), u64(OUTSIDE_COUNT))
    tried = u64(2 * LOW_COUNT + 8 * OUTSIDE_COUNT)
    report(text("msr reads"), tried, text("answered"), found & 0xFFFF_FFFF)
    report(text("msr writes"), tried, text("taken"), found >> 32)


@machine
def try_forbidden() -> None:
    """Try every VMX, SMX, SVM and SGX instruction: one that comes through is a breach."""
    refused = u64(0)
    for row in upto(u64(FORBIDDEN_COUNT)):
        ready()
        PROBE.rcx = u64(0)
        if run(row):
            report_breach(text("instruction"), row)
        else:
            refused += 1
    for leaf in upto(u64(GETSEC_LEAVES)):
        ready()
        PROBE.rax = leaf
        if run(u64(GETSEC_ROW)):
            report_breach(text("GETSEC leaf"), leaf)
        else:
            refused += 1
    report(text("vmx and smx instructions"), u64(FORBIDDEN_COUNT + GETSEC_LEAVES), text("refused"), refused)


@machine
def try_others() -> None:
    """Try instructions that a box may have: none may harm."""
    passed = u64(0)
    for index in upto(u64(OTHERS_COUNT)):
        ready()
        PROBE.rax = address_of(SCRATCH).as_u64()
        passed += u64(run(index + OTHERS_FIRST))
    report(text("other instructions"), u64(OTHERS_COUNT), text("passed"), passed)


@machine
def try_set(row: u64, value: u64) -> bool:
    """Set a control register; True when it was taken."""
    ready()
    PROBE.rax = value
    return run(row)


@machine
def try_cr0() -> u64:
    """Flip each bit of CR0; return how many were taken."""
    original = read_cr0()
    taken = u64(0)
    for bit in upto(u64(64)):
        if try_set(u64(SET_CR0_ROW), original ^ (u64(1) << bit)):
            taken += 1
            write_cr0(original)
    return taken


@machine
def try_cr3() -> u64:
    """Set each reserved bit of CR3; return how many were taken."""
    original = read_cr3()
    taken = u64(0)
    for bit in between(u64(CR3_FIRST_RESERVED), u64(64)):
        if try_set(u64(SET_CR3_ROW), original | (u64(1) << bit)):
            taken += 1
            write_cr3(original)
    return taken


@machine
def try_cr4() -> u64:
    """Flip each bit of CR4; return how many were taken. VMXE and SMXE must not be."""
    original = read_cr4()
    taken = u64(0)
    for bit in upto(u64(64)):
        if try_set(u64(SET_CR4_ROW), original ^ (u64(1) << bit)):
            taken += 1
            write_cr4(original)
            if bit == CR4_VMXE or bit == CR4_SMXE:
                report_breach(text("CR4 bit"), bit)
    return taken


@machine
def try_cr8() -> u64:
    """Set each bit of CR8; return how many were taken."""
    original = read_cr8()
    taken = u64(0)
    for bit in upto(u64(64)):
        if try_set(u64(SET_CR8_ROW), u64(1) << bit):
            taken += 1
            write_cr8(original)
    return taken


@machine
def set_xcr0(value: u64) -> bool:
    """Set XCR0; True when it was taken."""
    ready()
    PROBE.rax = value & 0xFFFF_FFFF
    PROBE.rdx = value >> 32
    return run(u64(XSETBV_ROW))


@machine
def try_xcr0() -> u64:
    """Set each bit of XCR0 beside x87; return how many were taken. Where a box has no XSAVE, none can be."""
    original = read_cr4()
    if not try_set(u64(SET_CR4_ROW), original | CR4_OSXSAVE):
        return u64(0)
    taken = u64(0)
    for bit in upto(u64(64)):
        taken += u64(set_xcr0((u64(1) << bit) | 1))
    if not set_xcr0(u64(1)):
        report_breach(text("XCR0 stuck"), u64(0))
    write_cr4(original)
    return taken


@machine
def try_efer() -> u64:
    """Flip each bit of EFER; return how many were taken."""
    if not read_msr(u64(MSR_EFER)):
        return u64(0)
    original = msr_value()
    taken = u64(0)
    for bit in upto(u64(64)):
        if write_msr(u64(MSR_EFER), original ^ (u64(1) << bit)):
            taken += 1
            _ = write_msr(u64(MSR_EFER), original)
    return taken


@machine
def try_control_bits() -> None:
    """Try the bits of the control registers one by one."""
    report(text("cr0 bits"), u64(64), text("taken"), try_cr0())
    report(text("cr3 reserved bits"), u64(64 - CR3_FIRST_RESERVED), text("taken"), try_cr3())
    report(text("cr4 bits"), u64(64), text("taken"), try_cr4())
    report(text("cr8 bits"), u64(64), text("taken"), try_cr8())
    report(text("xcr0 bits"), u64(64), text("taken"), try_xcr0())
    report(text("efer bits"), u64(64), text("taken"), try_efer())
