"""Plant canaries in every register that a switch between boxes must save, and in memory; tell whether they are still there."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, address_of, frame_array, machine, static_array, u32, u64, upto
from dsl.lang.intrinsics import (
    rdmsr,
    read_cr2,
    read_dr0,
    read_dr1,
    read_dr2,
    read_dr3,
    write_cr2,
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
    enable_vector_registers,
    fill_xmm,
    store_xmm,
)

# What check_canaries reports, a bit each
DAMAGED_XMM: Final = 1 << 0
DAMAGED_DEBUG: Final = 1 << 1
DAMAGED_CR2: Final = 1 << 2
DAMAGED_LSTAR: Final = 1 << 3
DAMAGED_KERNEL_GS: Final = 1 << 4
DAMAGED_MEMORY: Final = 1 << 5

PAGE_WORDS: Final = 512
PAGE: Final = static_array(u64, PAGE_WORDS, align=4096)


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
