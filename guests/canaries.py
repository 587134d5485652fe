"""The pattern that the witness plants and the intruder looks for, and the vector registers: the two guests must mean the same thing.

A canary is `CANARY | n`, n below 256: recognisable by its upper 56 bits, and a canonical address, so that address registers take it.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import HostVirtual, array_at, asm, machine, u64
from dsl.lang.intrinsics import read_cr0, read_cr4, write_cr0, write_cr4

CANARY: Final = 0x0000_5749_544E_4500  # "WITNE"
NUMBER_MASK: Final = 0xFF

# The numbers n: which place a canary was planted in
NUMBER_XMM: Final = 0x00  # and the next 15
NUMBER_DEBUG: Final = 0x10  # and the next 3
NUMBER_CR2: Final = 0x14
NUMBER_LSTAR: Final = 0x15
NUMBER_KERNEL_GS: Final = 0x16
NUMBER_MEMORY: Final = 0x80  # and the next 127, again and again

MSR_LSTAR: Final = 0xC000_0082
MSR_KERNEL_GS_BASE: Final = 0xC000_0102
XMM_COUNT: Final = 16
DEBUG_COUNT: Final = 4  # DR0 to DR3

CR0_MONITOR_COPROCESSOR: Final = 1 << 1
CR0_EMULATION: Final = 1 << 2
CR0_TASK_SWITCHED: Final = 1 << 3
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10

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
