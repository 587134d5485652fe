"""What a guest may touch: the MSR, port and CPUID allow-lists. Whatever is not a row here is refused (MSR: #GP), absent (port: reads all
ones) or zero (CPUID). The bitmaps that the processor reads are built from these tables and from nothing else.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import (
    CPUID_HYPERVISOR,
    CR0_CD,
    CR0_NE,
    CR0_NW,
    CR4_DE,
    CR4_FSGSBASE,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_OSXSAVE,
    CR4_PAE,
    CR4_PCE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PSE,
    CR4_PVI,
    CR4_SMAP,
    CR4_SMEP,
    CR4_TSD,
    CR4_UMIP,
    CR4_VME,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    IA32_APIC_BASE,
    IA32_BIOS_SIGN_ID,
    IA32_CSTAR,
    IA32_EFER,
    IA32_FMASK,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
    IA32_LSTAR,
    IA32_MISC_ENABLE,
    IA32_PAT,
    IA32_PLATFORM_ID,
    IA32_PRED_CMD,
    IA32_SPEC_CTRL,
    IA32_STAR,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
    IA32_TIME_STAMP_COUNTER,
    IA32_TSC_AUX,
    XCR0_AVX,
    XCR0_HI16_ZMM,
    XCR0_OPMASK,
    XCR0_SSE,
    XCR0_X87,
    XCR0_ZMM_HI256,
)
from dsl.lang import table, u8, u32, u64

# --- MSRs ---------------------------------------------------------------------------------------------------------------------------
# Read and write policies
REFUSE: Final = 0  # #GP(0)
PASS: Final = 1  # straight to the processor: the value is the guest's own, switched with the box
CONSTANT: Final = 2  # reads give the row's value
IGNORE: Final = 3  # writes are swallowed
EMULATE: Final = 4  # a handler of its own
# What the processor must have for PASS; without it the row refuses
ALWAYS: Final = 0
NEEDS_RDTSCP: Final = 1
NEEDS_SPEC_CTRL: Final = 2

MsrRow = tuple[int, int, int, int, int]
MSR_ROWS: Final[tuple[MsrRow, ...]] = (
    # number, read, write, needs, constant
    (IA32_TIME_STAMP_COUNTER, PASS, EMULATE, ALWAYS, 0),
    (IA32_PLATFORM_ID, CONSTANT, REFUSE, ALWAYS, 0),  # the microcode loader reads it
    (IA32_APIC_BASE, CONSTANT, REFUSE, ALWAYS, 0xFEE0_0100),  # the boot processor, its APIC disabled
    (IA32_SPEC_CTRL, PASS, PASS, NEEDS_SPEC_CTRL, 0),
    (IA32_PRED_CMD, REFUSE, PASS, NEEDS_SPEC_CTRL, 0),
    (IA32_BIOS_SIGN_ID, CONSTANT, IGNORE, ALWAYS, 0),  # no microcode revision
    (IA32_SYSENTER_CS, PASS, PASS, ALWAYS, 0),
    (IA32_SYSENTER_ESP, PASS, PASS, ALWAYS, 0),
    (IA32_SYSENTER_EIP, PASS, PASS, ALWAYS, 0),
    (IA32_MISC_ENABLE, CONSTANT, IGNORE, ALWAYS, 0x1801),  # fast strings; no BTS, no PEBS
    (IA32_PAT, PASS, PASS, ALWAYS, 0),
    (IA32_EFER, PASS, EMULATE, ALWAYS, 0),
    (IA32_STAR, PASS, PASS, ALWAYS, 0),
    (IA32_LSTAR, PASS, PASS, ALWAYS, 0),
    (IA32_CSTAR, PASS, PASS, ALWAYS, 0),
    (IA32_FMASK, PASS, PASS, ALWAYS, 0),
    (IA32_FS_BASE, PASS, PASS, ALWAYS, 0),
    (IA32_GS_BASE, PASS, PASS, ALWAYS, 0),
    (IA32_KERNEL_GS_BASE, PASS, PASS, ALWAYS, 0),
    (IA32_TSC_AUX, PASS, PASS, NEEDS_RDTSCP, 0),
)
MSR_ROW_COUNT: Final = len(MSR_ROWS)
MSR_NUMBERS: Final = table(u32, [row[0] for row in MSR_ROWS])
MSR_READ_POLICIES: Final = table(u8, [row[1] for row in MSR_ROWS])
MSR_WRITE_POLICIES: Final = table(u8, [row[2] for row in MSR_ROWS])
MSR_NEEDS: Final = table(u8, [row[3] for row in MSR_ROWS])
MSR_CONSTANTS: Final = table(u64, [row[4] for row in MSR_ROWS])

MSR_BITMAP_SIZE: Final = (
    4096  # bytes: reads of 0-1FFFh, reads of C0000000h-C0001FFFh, writes of both (SDM Vol. 3C, 25.6.9)
)
MSR_BITMAP_WRITES: Final = 2048  # offset of the halves for writes


def msr_bit(number: int) -> int:
    """The bit of an MSR in the half of the bitmap for reads (bytes 0 to 2047)."""
    if number < 0x2000:
        return number
    if 0xC000_0000 <= number < 0xC000_2000:
        return 0x2000 + number - 0xC000_0000
    raise ValueError(f"MSR {number:#x} lies in neither range of the bitmap")


def msr_bitmap(rows: tuple[MsrRow, ...]) -> bytes:
    """The bitmap: a clear bit passes. Everything is intercepted but what a row passes on every processor."""
    bitmap = bytearray(b"\xff" * MSR_BITMAP_SIZE)
    for number, read, write, needs, _ in rows:
        position = msr_bit(number)
        for offset, policy in ((0, read), (MSR_BITMAP_WRITES, write)):
            if policy == PASS and needs == ALWAYS:
                bitmap[offset + position // 8] &= ~(1 << position % 8)
    return bytes(bitmap)


MSR_BITMAP: Final = table(u8, msr_bitmap(MSR_ROWS))

# --- I/O ports ----------------------------------------------------------------------------------------------------------------------
# Ports that reach the machine itself. There are none: every port that a box has is a device of its own, and the console's UART is the
# monitor's. (first, last)
PASSED_PORTS: Final[tuple[tuple[int, int], ...]] = ()
IO_BITMAP_SIZE: Final = 8192  # bytes: bitmap A (0-7FFFh), bitmap B (8000h-FFFFh)


def io_bitmap(passed: tuple[tuple[int, int], ...]) -> bytes:
    """The two I/O bitmaps, one after the other: a set bit is intercepted."""
    bitmap = bytearray(b"\xff" * IO_BITMAP_SIZE)
    for first, last in passed:
        for port in range(first, last + 1):
            bitmap[port // 8] &= ~(1 << port % 8)
    return bytes(bitmap)


IO_BITMAP: Final = table(u8, io_bitmap(PASSED_PORTS))

# --- Control registers and XCR0 -----------------------------------------------------------------------------------------------------
CR0_HOST_OWNED: Final = CR0_NE | CR0_NW | CR0_CD  # masked and shadowed: the guest reads back what it wrote
CR4_GUEST_BITS: Final = (  # what a guest may set, if the processor can; all others are reserved to it (#GP)
    CR4_VME
    | CR4_PVI
    | CR4_TSD
    | CR4_DE
    | CR4_PSE
    | CR4_PAE
    | CR4_PGE
    | CR4_PCE  # RDPMC is intercepted whatever it says
    | CR4_OSFXSR
    | CR4_OSXMMEXCPT
    | CR4_UMIP
    | CR4_FSGSBASE
    | CR4_PCIDE
    | CR4_OSXSAVE
    | CR4_SMEP
    | CR4_SMAP
)
EFER_GUEST_BITS: Final = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE  # LMA is read-only: what is written there is dropped

XCR0_AVX512: Final = XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM  # opmask, ZMM_Hi256, Hi16_ZMM: all three or none
XCR0_GUEST_BITS: Final = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512  # of those, what the processor has

# --- CPUID --------------------------------------------------------------------------------------------------------------------------
# How a row is answered
CPUID_FIXED: Final = 0  # the processor's answer at start, masked
CPUID_FEATURES: Final = 1  # the same, with OSXSAVE as CR4 has it
CPUID_SUBLEAVES: Final = 2  # the processor is asked each time, and the answer masked
CPUID_SUBLEAF_ZERO: Final = 3  # subleaf 0 as FIXED, others are zero
CPUID_XSTATE: Final = 4  # leaf Dh
CPUID_SIGNATURE: Final = 5  # the hypervisor leaf

ALL: Final = 0xFFFF_FFFF
CPUID_BASIC_LIMIT: Final = 0x15  # the highest basic leaf shown
CPUID_TIME_STAMP: Final = (
    0x15  # the TSC's frequency, as the monitor measured it: a guest that shares its processor cannot
)
CPUID_EXTENDED_LIMIT: Final = 0x8000_0008
CPUID_OSXSAVE: Final = 1 << 27  # leaf 1, ECX


def bits_of(*positions: int) -> int:
    """A word with these bits set."""
    return sum(1 << position for position in positions)


# Leaf 1. Hidden: DTES64, MONITOR, DS-CPL, VMX, SMX, EST, TM2, CNXT-ID, xTPR, PDCM, DCA, x2APIC, TSC-deadline, RDRAND
FEATURES_ECX: Final = bits_of(0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29)
CPUID_HYPERVISOR_PRESENT: Final = 1 << 31
# Hidden: MCE, APIC, MTRR, MCA, PSN, DS, ACPI, HTT, TM, PBE
FEATURES_EDX: Final = bits_of(0, 1, 2, 3, 4, 5, 6, 8, 11, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27)
# Leaf 7. Hidden: TSC_ADJUST, SGX, HLE, PQM, MPX, PQE, RTM, RDSEED, PT
STRUCTURED_EBX: Final = bits_of(0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31)
# Hidden: PKU, OSPKE, WAITPKG, CET, LA57, MAWAU, KL, MOVDIRI, MOVDIR64B, ENQCMD, SGX_LC, PKS
STRUCTURED_ECX: Final = bits_of(1, 2, 6, 8, 9, 10, 11, 12, 14, 22)
# MD_CLEAR, IBRS, STIBP, SSBD. Hidden: FSRM (Bochs's newer models hang Linux with it), UINTR, SERIALIZE, AMX, CET, L1D_FLUSH,
# ARCH_CAPABILITIES, CORE_CAPABILITIES
STRUCTURED_EDX: Final = bits_of(10, 26, 27, 31)
STRUCTURED_SPEC_CTRL: Final = bits_of(26)  # leaf 7, EDX: IBRS and IBPB, so SPEC_CTRL and PRED_CMD
STRUCTURED_INVPCID: Final = bits_of(10)  # leaf 7, EBX
STRUCTURED_RDPID: Final = bits_of(22)  # leaf 7, ECX
EXTENDED_ECX: Final = bits_of(0, 5, 8)  # LAHF, LZCNT, PREFETCHW
EXTENDED_EDX: Final = bits_of(11, 20, 26, 27, 29)  # SYSCALL, NX, 1-GByte pages, RDTSCP, LM
EXTENDED_RDTSCP: Final = 1 << 27

CpuidRowValues = tuple[int, int, int, int, int, int]
CPUID_ROWS: Final[tuple[CpuidRowValues, ...]] = (
    # leaf, how, masks of EAX, EBX, ECX, EDX
    (0x0, CPUID_FIXED, ALL, ALL, ALL, ALL),
    (0x1, CPUID_FEATURES, ALL, 0x0000_FF00, FEATURES_ECX, FEATURES_EDX),  # EBX: CLFLUSH size alone; one CPU, APIC ID 0
    (0x2, CPUID_FIXED, ALL, ALL, ALL, ALL),  # caches
    (0x3, CPUID_FIXED, 0, 0, 0, 0),
    (0x4, CPUID_SUBLEAVES, 0x0000_3FFF, ALL, ALL, ALL),  # caches; how many share them is hidden
    (0x5, CPUID_FIXED, 0, 0, 0, 0),  # MONITOR
    (0x6, CPUID_FIXED, 0, 0, 0, 0),  # thermal
    (0x7, CPUID_SUBLEAF_ZERO, 0, STRUCTURED_EBX, STRUCTURED_ECX, STRUCTURED_EDX),
    (0x8, CPUID_FIXED, 0, 0, 0, 0),
    (0x9, CPUID_FIXED, 0, 0, 0, 0),
    (0xA, CPUID_FIXED, 0, 0, 0, 0),  # performance counters
    (0xB, CPUID_FIXED, 0, 0, 0, 0),  # x2APIC topology
    (0xC, CPUID_FIXED, 0, 0, 0, 0),
    (0xD, CPUID_XSTATE, 0b0101, ALL, ALL, 0),  # EAX of subleaf 1: XSAVEOPT, XGETBV(1); the compacted forms are hidden
    *((leaf, CPUID_FIXED, 0, 0, 0, 0) for leaf in range(0xE, CPUID_TIME_STAMP + 1)),
    (0x8000_0000, CPUID_FIXED, ALL, 0, 0, 0),
    (0x8000_0001, CPUID_FIXED, 0, 0, EXTENDED_ECX, EXTENDED_EDX),
    (0x8000_0002, CPUID_FIXED, ALL, ALL, ALL, ALL),  # brand string
    (0x8000_0003, CPUID_FIXED, ALL, ALL, ALL, ALL),
    (0x8000_0004, CPUID_FIXED, ALL, ALL, ALL, ALL),
    (0x8000_0005, CPUID_FIXED, 0, 0, 0, 0),
    (0x8000_0006, CPUID_FIXED, 0, 0, ALL, 0),  # L2
    (0x8000_0007, CPUID_FIXED, 0, 0, 0, 1 << 8),  # invariant TSC
    (0x8000_0008, CPUID_FIXED, 0x0000_FFFF, 0, 0, 0),  # address widths
    (CPUID_HYPERVISOR, CPUID_SIGNATURE, 0, 0, 0, 0),
)
CPUID_ROW_COUNT: Final = len(CPUID_ROWS)
CPUID_EXTENDED_ROW: Final = CPUID_BASIC_LIMIT + 1  # the row of leaf 80000000h
CPUID_HYPERVISOR_ROW: Final = CPUID_ROW_COUNT - 1
CPUID_LEAVES: Final = table(u32, [row[0] for row in CPUID_ROWS])
CPUID_KINDS: Final = table(u32, [row[1] for row in CPUID_ROWS])
CPUID_MASKS: Final = table(u32, [mask for row in CPUID_ROWS for mask in row[2:]])  # four a row: EAX, EBX, ECX, EDX

SIGNATURE_EBX: Final = int.from_bytes(b"Terr", "little")
SIGNATURE_ECX: Final = int.from_bytes(b"aneT", "little")
SIGNATURE_EDX: Final = int.from_bytes(b"erra", "little")
