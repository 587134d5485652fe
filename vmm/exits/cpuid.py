"""CPUID: the answers of the allow-list, made once at start from what the processor says."""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import CPUID_EXTENDED, CPUID_HYPERVISOR, CR4_OSXSAVE, XCR0_AVX, XCR0_SSE, XCR0_X87
from dsl.lang import Array, Struct, array, machine, static, static_array, u8, u32, u64, upto
from dsl.lang.intrinsics import cpuid, read_cr4, write_cr4, xsetbv
from vmm.tables import (
    CPUID_BASIC_LIMIT,
    CPUID_EXTENDED_LIMIT,
    CPUID_EXTENDED_ROW,
    CPUID_FEATURES,
    CPUID_HYPERVISOR_PRESENT,
    CPUID_HYPERVISOR_ROW,
    CPUID_KINDS,
    CPUID_LEAVES,
    CPUID_MASKS,
    CPUID_OSXSAVE,
    CPUID_ROW_COUNT,
    CPUID_SIGNATURE,
    CPUID_SUBLEAF_ZERO,
    CPUID_SUBLEAVES,
    CPUID_TIME_STAMP,
    EXTENDED_RDTSCP,
    SIGNATURE_EBX,
    SIGNATURE_ECX,
    SIGNATURE_EDX,
    STRUCTURED_INVPCID,
    STRUCTURED_RDPID,
    STRUCTURED_SPEC_CTRL,
    XCR0_AVX512,
    XCR0_GUEST_BITS,
)
from vmm.vcpu import VirtualCpu
from vmm.vmx.guest_state import read_cr4 as read_guest_cr4  # not through the seam, whose `run` ends up here

ROW_MASK: Final = 63
XSTATE_LEAF: Final = 0xD
XSAVE_AREA_SIZE: Final = 4096  # bytes that a box has for its extended state
SUBLEAF_LIMIT: Final = 63
assert XCR0_GUEST_BITS >> 32 == 0, "of what the processor has, EAX alone is looked at"


class CpuidRow(Struct, size=32):
    """The answer to one leaf."""

    kind: u32
    eax: u32
    ebx: u32
    ecx: u32
    edx: u32
    reserved: u32
    reserved_end: u64


class ExtendedState(Struct):
    """Which XSAVE components guests have. Written once."""

    allowed: u64
    area_size: u32  # bytes, of all allowed components in standard form
    has_spec_ctrl: bool
    padding: Array[u8] = array(3)


CPUID_ANSWERS: Final = static_array(CpuidRow, ROW_MASK + 1)
EXTENDED_STATE: Final = static(ExtendedState)


@machine
def row_beyond(leaf: u32) -> u64:
    """The row that answers a leaf which is not basic."""
    if leaf - CPUID_EXTENDED <= CPUID_EXTENDED_LIMIT - CPUID_EXTENDED:
        return u64(leaf - CPUID_EXTENDED) + CPUID_EXTENDED_ROW
    if leaf == CPUID_HYPERVISOR:
        return u64(CPUID_HYPERVISOR_ROW)
    return u64(ROW_MASK)


@machine
def set_answer(vcpu: VirtualCpu, eax: u32, ebx: u32, ecx: u32, edx: u32) -> None:
    """Give the guest its four words."""
    vcpu.registers.rax = u64(eax)
    vcpu.registers.rbx = u64(ebx)
    vcpu.registers.rcx = u64(ecx)
    vcpu.registers.rdx = u64(edx)


@machine
def answer_variable(vcpu: VirtualCpu, row: CpuidRow, index: u64) -> None:
    """Answer a leaf that depends on more than its number."""
    if row.kind != CPUID_FEATURES:
        answer_subleaf(vcpu, row, index)
    elif read_guest_cr4() & CR4_OSXSAVE != 0:
        set_answer(vcpu, row.eax, row.ebx, row.ecx | CPUID_OSXSAVE, row.edx)
    else:
        set_answer(vcpu, row.eax, row.ebx, row.ecx, row.edx)


@machine
def answer_subleaf(vcpu: VirtualCpu, row: CpuidRow, index: u64) -> None:
    """Answer a leaf that depends on its subleaf or on the guest's state."""
    subleaf = vcpu.registers.rcx.truncate(u32)
    if row.kind == CPUID_SUBLEAVES:
        answer = cpuid(CPUID_LEAVES[index], subleaf)
        base = index * 4
        set_answer(
            vcpu,
            answer.eax & CPUID_MASKS[base],
            answer.ebx & CPUID_MASKS[base + 1],
            answer.ecx & CPUID_MASKS[base + 2],
            answer.edx & CPUID_MASKS[base + 3],
        )
    elif row.kind == CPUID_SUBLEAF_ZERO:
        if subleaf == 0:
            set_answer(vcpu, row.eax, row.ebx, row.ecx, row.edx)
        else:
            set_answer(vcpu, u32(0), u32(0), u32(0), u32(0))
    elif row.kind == CPUID_SIGNATURE:
        set_answer(vcpu, u32(CPUID_HYPERVISOR), u32(SIGNATURE_EBX), u32(SIGNATURE_ECX), u32(SIGNATURE_EDX))
    else:
        answer_extended_state(vcpu, row, subleaf)


@machine
def answer_extended_state(vcpu: VirtualCpu, row: CpuidRow, subleaf: u32) -> None:
    """Answer leaf Dh. The guest's XCR0 is in the processor, so the sizes that depend on it are right."""
    answer = cpuid(u32(XSTATE_LEAF), subleaf)
    if subleaf == 0:
        set_answer(vcpu, EXTENDED_STATE.allowed.truncate(u32), answer.ebx, EXTENDED_STATE.area_size, u32(0))
    elif subleaf == 1:
        set_answer(vcpu, answer.eax & row.eax, u32(0), u32(0), u32(0))
    elif subleaf <= SUBLEAF_LIMIT and (EXTENDED_STATE.allowed >> u64(subleaf & SUBLEAF_LIMIT)) & 1 != 0:
        set_answer(vcpu, answer.eax, answer.ebx, answer.ecx, u32(0))
    else:
        set_answer(vcpu, u32(0), u32(0), u32(0), u32(0))


@machine
def prepare_cpuid(has_rdtscp: bool, has_invpcid: bool, tsc_hz: u64) -> None:
    """Make the answers. XSAVE is on (see prepare_extended_state)."""
    highest = cpuid(u32(0), u32(0)).eax
    highest_extended = cpuid(u32(CPUID_EXTENDED), u32(0)).eax
    for index in upto(CPUID_ROW_COUNT):
        leaf = CPUID_LEAVES[index]
        row = CPUID_ANSWERS[index]
        row.kind = CPUID_KINDS[index]
        limit = highest_extended if leaf >= CPUID_EXTENDED else highest
        if leaf <= limit:
            fill_row(row, leaf, index)
    CPUID_ANSWERS[0].eax = u32(CPUID_BASIC_LIMIT)
    fill_time_stamp(CPUID_ANSWERS[CPUID_TIME_STAMP], tsc_hz)
    if CPUID_ANSWERS[CPUID_EXTENDED_ROW].eax > CPUID_EXTENDED_LIMIT:
        CPUID_ANSWERS[CPUID_EXTENDED_ROW].eax = u32(CPUID_EXTENDED_LIMIT)
    CPUID_ANSWERS[1].ecx |= CPUID_HYPERVISOR_PRESENT
    CPUID_ANSWERS[XSTATE_LEAF].eax = CPUID_MASKS[XSTATE_LEAF * 4]
    if not has_rdtscp:
        CPUID_ANSWERS[CPUID_EXTENDED_ROW + 1].edx &= ~u32(EXTENDED_RDTSCP)
        CPUID_ANSWERS[7].ecx &= ~u32(STRUCTURED_RDPID)
    if not has_invpcid:
        CPUID_ANSWERS[7].ebx &= ~u32(STRUCTURED_INVPCID)
    EXTENDED_STATE.has_spec_ctrl = CPUID_ANSWERS[7].edx & STRUCTURED_SPEC_CTRL != 0


@machine
def fill_time_stamp(row: CpuidRow, tsc_hz: u64) -> None:
    """Leaf 15h: the TSC runs at EBX / EAX times ECX Hz."""
    ratio = (tsc_hz >> 32) + 1  # so that ECX holds the rest
    row.eax = u32(1)
    row.ebx = ratio.truncate(u32)
    row.ecx = (tsc_hz // ratio).truncate(u32)


@machine
def fill_row(row: CpuidRow, leaf: u32, index: u64) -> None:
    """Ask the processor, and mask."""
    answer = cpuid(leaf, u32(0))
    row.eax = answer.eax & CPUID_MASKS[index * 4]
    row.ebx = answer.ebx & CPUID_MASKS[index * 4 + 1]
    row.ecx = answer.ecx & CPUID_MASKS[index * 4 + 2]
    row.edx = answer.edx & CPUID_MASKS[index * 4 + 3]


@machine
def prepare_extended_state() -> None:
    """Turn XSAVE on and choose the components that guests may have: what the processor has of the allow-list, as far as a page holds it."""
    write_cr4(read_cr4() | CR4_OSXSAVE)
    answer = cpuid(u32(XSTATE_LEAF), u32(0))
    allowed = u64(answer.eax) & XCR0_GUEST_BITS
    if allowed & XCR0_AVX512 != XCR0_AVX512 or allowed & XCR0_AVX == 0:
        allowed = allowed & ~u64(XCR0_AVX512)
    xsetbv(u32(0), allowed)
    if cpuid(u32(XSTATE_LEAF), u32(0)).ebx > XSAVE_AREA_SIZE:
        allowed = allowed & (XCR0_X87 | XCR0_SSE | XCR0_AVX)
        xsetbv(u32(0), allowed)
    EXTENDED_STATE.allowed = allowed
    EXTENDED_STATE.area_size = cpuid(u32(XSTATE_LEAF), u32(0)).ebx


@machine
def is_valid_xcr0(value: u64) -> bool:
    """The processor's rules for XCR0 (SDM Vol. 1, 13.3), and the allow-list."""
    if value & ~EXTENDED_STATE.allowed != 0 or value & XCR0_X87 == 0:
        return False
    if value & XCR0_AVX != 0 and value & XCR0_SSE == 0:
        return False
    if value & XCR0_AVX512 == 0:
        return True
    return value & XCR0_AVX512 == XCR0_AVX512 and value & XCR0_AVX != 0
