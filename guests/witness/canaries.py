"""Plant canaries in every register that a switch between boxes must save, and in memory; tell whether they are still there."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, HostVirtual, address_of, array_at, asm, frame_array, machine, static_array, u32, u64, upto
from dsl.lang.intrinsics import (
    rdmsr,
    read_cr0,
    read_cr2,
    read_cr4,
    read_dr0,
    read_dr1,
    read_dr2,
    read_dr3,
    write_cr0,
    write_cr2,
    write_cr4,
    write_dr0,
    write_dr1,
    write_dr2,
    write_dr3,
    wrmsr,
)
from guests.canaries import (
    CANARY,
    MSR_KERNEL_GS_BASE,
    MSR_LSTAR,
    NUMBER_CR2,
    NUMBER_DEBUG,
    NUMBER_KERNEL_GS,
    NUMBER_LSTAR,
    NUMBER_MEMORY,
    NUMBER_XMM,
    XMM_COUNT,
)

CR0_MONITOR_COPROCESSOR: Final = 1 << 1
CR0_EMULATION: Final = 1 << 2
CR0_TASK_SWITCHED: Final = 1 << 3
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10

# What check_canaries reports, a bit each
DAMAGED_XMM: Final = 1 << 0
DAMAGED_DEBUG: Final = 1 << 1
DAMAGED_CR2: Final = 1 << 2
DAMAGED_LSTAR: Final = 1 << 3
DAMAGED_KERNEL_GS: Final = 1 << 4
DAMAGED_MEMORY: Final = 1 << 5

PAGE_WORDS: Final = 512
PAGE: Final = static_array(u64, PAGE_WORDS, align=4096)

_model_xmm = [0] * (2 * XMM_COUNT)  # XMM0-15 under CPython, as pairs of words


def _model_fill_xmm(first: u64) -> None:
    _model_xmm[:] = [int(first) + index // 2 for index in range(2 * XMM_COUNT)]


@machine(naked=True, model=_model_fill_xmm)
def fill_xmm(first: u64) -> None:
    """Set both halves of XMM0 to first, of XMM1 to first + 1, and so on to XMM15."""
    # Safe because the language's own code uses no vector register.
    asm(
        """
        movq xmm0, rdi; punpcklqdq xmm0, xmm0; inc rdi
        movq xmm1, rdi; punpcklqdq xmm1, xmm1; inc rdi
        movq xmm2, rdi; punpcklqdq xmm2, xmm2; inc rdi
        movq xmm3, rdi; punpcklqdq xmm3, xmm3; inc rdi
        movq xmm4, rdi; punpcklqdq xmm4, xmm4; inc rdi
        movq xmm5, rdi; punpcklqdq xmm5, xmm5; inc rdi
        movq xmm6, rdi; punpcklqdq xmm6, xmm6; inc rdi
        movq xmm7, rdi; punpcklqdq xmm7, xmm7; inc rdi
        movq xmm8, rdi; punpcklqdq xmm8, xmm8; inc rdi
        movq xmm9, rdi; punpcklqdq xmm9, xmm9; inc rdi
        movq xmm10, rdi; punpcklqdq xmm10, xmm10; inc rdi
        movq xmm11, rdi; punpcklqdq xmm11, xmm11; inc rdi
        movq xmm12, rdi; punpcklqdq xmm12, xmm12; inc rdi
        movq xmm13, rdi; punpcklqdq xmm13, xmm13; inc rdi
        movq xmm14, rdi; punpcklqdq xmm14, xmm14; inc rdi
        movq xmm15, rdi; punpcklqdq xmm15, xmm15
        ret
        """
    )


def _model_store_xmm(target: HostVirtual) -> None:
    view = array_at(u64, target, 2 * XMM_COUNT)
    for index, value in enumerate(_model_xmm):
        view[u64(index)] = u64(value)


@machine(naked=True, model=_model_store_xmm)
def store_xmm(target: HostVirtual) -> None:
    """Write XMM0-15 to 256 bytes at target."""
    # Safe because the caller's array has 256 bytes.
    asm(
        """
        movdqu [rdi], xmm0; movdqu [rdi + 16], xmm1; movdqu [rdi + 32], xmm2; movdqu [rdi + 48], xmm3
        movdqu [rdi + 64], xmm4; movdqu [rdi + 80], xmm5; movdqu [rdi + 96], xmm6; movdqu [rdi + 112], xmm7
        movdqu [rdi + 128], xmm8; movdqu [rdi + 144], xmm9; movdqu [rdi + 160], xmm10; movdqu [rdi + 176], xmm11
        movdqu [rdi + 192], xmm12; movdqu [rdi + 208], xmm13; movdqu [rdi + 224], xmm14; movdqu [rdi + 240], xmm15
        ret
        """
    )


@machine
def enable_vector_registers() -> None:
    """Let XMM registers be used."""
    without = ~u64(CR0_EMULATION | CR0_TASK_SWITCHED)
    write_cr0((read_cr0() & without) | CR0_MONITOR_COPROCESSOR)
    write_cr4(read_cr4() | (CR4_OSFXSR | CR4_OSXMMEXCPT))


@machine
def canary(number: u64) -> u64:
    """Return the canary of a number below 256."""
    return number | CANARY


@machine
def plant_canaries() -> None:
    """Fill the registers and the page."""
    enable_vector_registers()
    fill_xmm(canary(u64(NUMBER_XMM)))
    write_dr0(canary(u64(NUMBER_DEBUG)))
    write_dr1(canary(u64(NUMBER_DEBUG + 1)))
    write_dr2(canary(u64(NUMBER_DEBUG + 2)))
    write_dr3(canary(u64(NUMBER_DEBUG + 3)))
    write_cr2(canary(u64(NUMBER_CR2)))
    wrmsr(u32(MSR_LSTAR), canary(u64(NUMBER_LSTAR)))
    wrmsr(u32(MSR_KERNEL_GS_BASE), canary(u64(NUMBER_KERNEL_GS)))
    for index in upto(PAGE.length):
        PAGE[index] = canary((index & 127) | NUMBER_MEMORY)


@machine
def vector_registers_intact() -> bool:
    """Tell whether XMM0-15 hold their canaries."""
    words: Array[u64] = frame_array(u64, 2 * XMM_COUNT)
    store_xmm(address_of(words))
    for index in upto(words.length):
        if words[index] != canary(index >> 1):
            return False
    return True


@machine
def debug_registers_intact() -> bool:
    """Tell whether DR0-3 hold their canaries."""
    low = read_dr0() == canary(u64(NUMBER_DEBUG)) and read_dr1() == canary(u64(NUMBER_DEBUG + 1))
    return low and read_dr2() == canary(u64(NUMBER_DEBUG + 2)) and read_dr3() == canary(u64(NUMBER_DEBUG + 3))


@machine
def memory_intact() -> bool:
    """Tell whether the page holds its canaries."""
    for index in upto(PAGE.length):
        if PAGE[index] != canary((index & 127) | NUMBER_MEMORY):
            return False
    return True


@machine
def check_canaries() -> u64:
    """Return DAMAGED_... bits: 0 when every canary is where it was planted."""
    damaged = u64(0)
    if not vector_registers_intact():
        damaged |= DAMAGED_XMM
    if not debug_registers_intact():
        damaged |= DAMAGED_DEBUG
    if read_cr2() != canary(u64(NUMBER_CR2)):
        damaged |= DAMAGED_CR2
    if rdmsr(u32(MSR_LSTAR)) != canary(u64(NUMBER_LSTAR)):
        damaged |= DAMAGED_LSTAR
    if rdmsr(u32(MSR_KERNEL_GS_BASE)) != canary(u64(NUMBER_KERNEL_GS)):
        damaged |= DAMAGED_KERNEL_GS
    if not memory_intact():
        damaged |= DAMAGED_MEMORY
    return damaged
