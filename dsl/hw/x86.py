"""The processor as programs see it without VMX (SDM Vol. 3A, and Vol. 4 for MSRs): registers, descriptors, page tables, CPUID leaves."""

from __future__ import annotations

from typing import Final

from dsl.lang import Bits, HostVirtual, Struct, bit, bits, u8, u16, u32, u64

PAGE_SHIFT: Final = 12  # a page is 1 << 12 bytes
PAGE_SIZE: Final = 1 << PAGE_SHIFT
LARGE_PAGE_SHIFT: Final = 21
HUGE_PAGE_SHIFT: Final = 30

# CR0 (Vol. 3A, 2.5)
CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
CR0_ET: Final = 1 << 4
CR0_NE: Final = 1 << 5
CR0_WP: Final = 1 << 16
CR0_AM: Final = 1 << 18
CR0_NW: Final = 1 << 29
CR0_CD: Final = 1 << 30
CR0_PG: Final = 1 << 31

# CR4
CR4_VME: Final = 1 << 0
CR4_PVI: Final = 1 << 1
CR4_TSD: Final = 1 << 2
CR4_DE: Final = 1 << 3
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_MCE: Final = 1 << 6
CR4_PGE: Final = 1 << 7
CR4_PCE: Final = 1 << 8
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10
CR4_UMIP: Final = 1 << 11
CR4_LA57: Final = 1 << 12
CR4_VMXE: Final = 1 << 13
CR4_SMXE: Final = 1 << 14
CR4_FSGSBASE: Final = 1 << 16
CR4_PCIDE: Final = 1 << 17
CR4_OSXSAVE: Final = 1 << 18
CR4_KL: Final = 1 << 19
CR4_SMEP: Final = 1 << 20
CR4_SMAP: Final = 1 << 21
CR4_PKE: Final = 1 << 22
CR4_CET: Final = 1 << 23
CR4_PKS: Final = 1 << 24
CR4_UINTR: Final = 1 << 25

# IA32_EFER (Vol. 3A, 2.2.1)
EFER_SCE: Final = 1 << 0
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11

# RFLAGS (Vol. 1, 3.4.3)
RFLAGS_CF: Final = 1 << 0
RFLAGS_FIXED: Final = 1 << 1  # always set
RFLAGS_PF: Final = 1 << 2
RFLAGS_AF: Final = 1 << 4
RFLAGS_ZF: Final = 1 << 6
RFLAGS_SF: Final = 1 << 7
RFLAGS_TF: Final = 1 << 8
RFLAGS_IF: Final = 1 << 9
RFLAGS_DF: Final = 1 << 10
RFLAGS_OF: Final = 1 << 11
RFLAGS_IOPL: Final = 3 << 12
RFLAGS_NT: Final = 1 << 14
RFLAGS_RF: Final = 1 << 16
RFLAGS_VM: Final = 1 << 17
RFLAGS_AC: Final = 1 << 18
RFLAGS_VIF: Final = 1 << 19
RFLAGS_VIP: Final = 1 << 20
RFLAGS_ID: Final = 1 << 21

# XCR0 (Vol. 1, 13.3)
XCR0_X87: Final = 1 << 0
XCR0_SSE: Final = 1 << 1
XCR0_AVX: Final = 1 << 2
XCR0_BNDREGS: Final = 1 << 3
XCR0_BNDCSR: Final = 1 << 4
XCR0_OPMASK: Final = 1 << 5
XCR0_ZMM_HI256: Final = 1 << 6
XCR0_HI16_ZMM: Final = 1 << 7
XCR0_PKRU: Final = 1 << 9

# Exceptions (Vol. 3A, table 6-1)
VECTOR_DE: Final = 0
VECTOR_DB: Final = 1
VECTOR_NMI: Final = 2
VECTOR_BP: Final = 3
VECTOR_OF: Final = 4
VECTOR_BR: Final = 5
VECTOR_UD: Final = 6
VECTOR_NM: Final = 7
VECTOR_DF: Final = 8
VECTOR_TS: Final = 10
VECTOR_NP: Final = 11
VECTOR_SS: Final = 12
VECTOR_GP: Final = 13
VECTOR_PF: Final = 14
VECTOR_MF: Final = 16
VECTOR_AC: Final = 17
VECTOR_MC: Final = 18
VECTOR_XM: Final = 19
VECTOR_VE: Final = 20
VECTOR_CP: Final = 21
VECTORS_WITH_ERROR_CODE: Final = (8, 10, 11, 12, 13, 14, 17, 21)

# Model-specific registers, by number (Vol. 4)
IA32_TIME_STAMP_COUNTER: Final = 0x10
IA32_PLATFORM_ID: Final = 0x17
IA32_APIC_BASE: Final = 0x1B
IA32_FEATURE_CONTROL: Final = 0x3A
IA32_TSC_ADJUST: Final = 0x3B
IA32_SPEC_CTRL: Final = 0x48
IA32_PRED_CMD: Final = 0x49
IA32_BIOS_UPDT_TRIG: Final = 0x79
IA32_BIOS_SIGN_ID: Final = 0x8B
IA32_SMM_MONITOR_CTL: Final = 0x9B
IA32_MTRRCAP: Final = 0xFE
IA32_ARCH_CAPABILITIES: Final = 0x10A
IA32_FLUSH_CMD: Final = 0x10B
IA32_SYSENTER_CS: Final = 0x174
IA32_SYSENTER_ESP: Final = 0x175
IA32_SYSENTER_EIP: Final = 0x176
IA32_MISC_ENABLE: Final = 0x1A0
IA32_DEBUGCTL: Final = 0x1D9
IA32_PAT: Final = 0x277
IA32_MTRR_DEF_TYPE: Final = 0x2FF
IA32_TSC_DEADLINE: Final = 0x6E0
IA32_XSS: Final = 0xDA0
IA32_EFER: Final = 0xC000_0080
IA32_STAR: Final = 0xC000_0081
IA32_LSTAR: Final = 0xC000_0082
IA32_CSTAR: Final = 0xC000_0083
IA32_FMASK: Final = 0xC000_0084
IA32_FS_BASE: Final = 0xC000_0100
IA32_GS_BASE: Final = 0xC000_0101
IA32_KERNEL_GS_BASE: Final = 0xC000_0102
IA32_TSC_AUX: Final = 0xC000_0103

FEATURE_CONTROL_LOCK: Final = 1 << 0
FEATURE_CONTROL_VMX_INSIDE_SMX: Final = 1 << 1
FEATURE_CONTROL_VMX_OUTSIDE_SMX: Final = 1 << 2

# CPUID (Vol. 2A, table 3-8): leaves, and bits as register_NAME
CPUID_VENDOR: Final = 0x0
CPUID_FEATURES: Final = 0x1
CPUID_ECX_SSE3: Final = 1 << 0
CPUID_ECX_PCLMULQDQ: Final = 1 << 1
CPUID_ECX_MONITOR: Final = 1 << 3
CPUID_ECX_VMX: Final = 1 << 5
CPUID_ECX_SMX: Final = 1 << 6
CPUID_ECX_SSSE3: Final = 1 << 9
CPUID_ECX_CMPXCHG16B: Final = 1 << 13
CPUID_ECX_PCID: Final = 1 << 17
CPUID_ECX_SSE4_1: Final = 1 << 19
CPUID_ECX_SSE4_2: Final = 1 << 20
CPUID_ECX_X2APIC: Final = 1 << 21
CPUID_ECX_MOVBE: Final = 1 << 22
CPUID_ECX_POPCNT: Final = 1 << 23
CPUID_ECX_TSC_DEADLINE: Final = 1 << 24
CPUID_ECX_AESNI: Final = 1 << 25
CPUID_ECX_XSAVE: Final = 1 << 26
CPUID_ECX_OSXSAVE: Final = 1 << 27
CPUID_ECX_AVX: Final = 1 << 28
CPUID_ECX_RDRAND: Final = 1 << 30
CPUID_ECX_HYPERVISOR: Final = 1 << 31
CPUID_EDX_TSC: Final = 1 << 4
CPUID_EDX_MSR: Final = 1 << 5
CPUID_EDX_PAE: Final = 1 << 6
CPUID_EDX_APIC: Final = 1 << 9
CPUID_EDX_MTRR: Final = 1 << 12
CPUID_EDX_PAT: Final = 1 << 16
CPUID_EDX_CLFSH: Final = 1 << 19
CPUID_STRUCTURED_FEATURES: Final = 0x7
CPUID_7_EBX_FSGSBASE: Final = 1 << 0
CPUID_7_EBX_BMI1: Final = 1 << 3
CPUID_7_EBX_SMEP: Final = 1 << 7
CPUID_7_EBX_BMI2: Final = 1 << 8
CPUID_7_EBX_ERMS: Final = 1 << 9
CPUID_7_EBX_INVPCID: Final = 1 << 10
CPUID_7_EBX_RDSEED: Final = 1 << 18
CPUID_7_EBX_ADX: Final = 1 << 19
CPUID_7_EBX_SMAP: Final = 1 << 20
CPUID_7_EBX_SHA: Final = 1 << 29
CPUID_7_ECX_UMIP: Final = 1 << 2
CPUID_7_ECX_LA57: Final = 1 << 16
CPUID_7_EDX_MD_CLEAR: Final = 1 << 10
CPUID_7_EDX_SPEC_CTRL: Final = 1 << 26
CPUID_7_EDX_L1D_FLUSH: Final = 1 << 28
CPUID_7_EDX_ARCH_CAPABILITIES: Final = 1 << 29
CPUID_EXTENDED_STATE: Final = 0xD
CPUID_TIME_STAMP_COUNTER: Final = 0x15
CPUID_FREQUENCY: Final = 0x16
CPUID_HYPERVISOR: Final = 0x4000_0000
CPUID_EXTENDED: Final = 0x8000_0000
CPUID_EXTENDED_FEATURES: Final = 0x8000_0001
CPUID_EXTENDED_EDX_SYSCALL: Final = 1 << 11
CPUID_EXTENDED_EDX_NX: Final = 1 << 20
CPUID_EXTENDED_EDX_1_GIB_PAGES: Final = 1 << 26
CPUID_EXTENDED_EDX_RDTSCP: Final = 1 << 27
CPUID_EXTENDED_EDX_LONG_MODE: Final = 1 << 29
CPUID_ADDRESS_SIZES: Final = 0x8000_0008  # eax bits 7:0 physical, 15:8 linear


class PageTableEntry(Bits, storage=u64):
    """An entry that refers to the next table, of 4-level paging (Vol. 3A, tables 4-15, 4-17, 4-19)."""

    present: bool = bit(0)
    writable: bool = bit(1)
    user: bool = bit(2, default=False)
    write_through: bool = bit(3, default=False)
    cache_disable: bool = bit(4, default=False)
    accessed: bool = bit(5, default=False)
    page_frame: u64 = bits(51, 12)
    execute_disable: bool = bit(63, default=False)


class PageLeaf(Bits, storage=u64):
    """An entry that maps a page of 4 KiB, or with `large` of 2 MiB or 1 GiB by its level (tables 4-16, 4-18, 4-20)."""

    present: bool = bit(0)
    writable: bool = bit(1)
    user: bool = bit(2, default=False)
    write_through: bool = bit(3, default=False)
    cache_disable: bool = bit(4, default=False)
    accessed: bool = bit(5, default=False)
    dirty: bool = bit(6, default=False)
    large: bool = bit(7)  # of a 4-KiB page: PAT
    is_global: bool = bit(8, default=False)
    page_frame: u64 = bits(51, 12)  # low bits zero in a large page, but for bit 12: PAT
    execute_disable: bool = bit(63, default=False)


class PageFaultError(Bits, storage=u32):
    """The error code of #PF (Vol. 3A, figure 4-12)."""

    present: bool = bit(0)
    write: bool = bit(1)
    user: bool = bit(2)
    reserved_bit: bool = bit(3)
    instruction_fetch: bool = bit(4)
    protection_key: bool = bit(5)


class SegmentDescriptor(Bits, storage=u64):
    """A code or data segment descriptor (Vol. 3A, figure 3-8)."""

    limit_low: u16 = bits(15, 0, default=0xFFFF)
    base_low: u32 = bits(39, 16, default=0)
    kind: u8 = bits(43, 40)  # 0xB: code, readable, accessed; 0x3: data, writable, accessed
    is_code_or_data: bool = bit(44, default=True)
    privilege: u8 = bits(46, 45, default=0)
    present: bool = bit(47, default=True)
    limit_high: u8 = bits(51, 48, default=0xF)
    available: bool = bit(52, default=False)
    is_64_bit_code: bool = bit(53)
    is_32_bit: bool = bit(54)
    granular: bool = bit(55, default=True)
    base_high: u8 = bits(63, 56, default=0)


class GateLow(Bits, storage=u64):
    """The low half of a 64-bit interrupt or trap gate (Vol. 3A, figure 6-8); the high half's low 32 bits are the offset's bits 63:32."""

    offset_low: u16 = bits(15, 0)
    selector: u16 = bits(31, 16)
    stack_table: u8 = bits(34, 32)  # IST index; 0: none
    kind: u8 = bits(43, 40)  # 14: interrupt gate; 15: trap gate
    privilege: u8 = bits(46, 45, default=0)
    present: bool = bit(47)
    offset_middle: u16 = bits(63, 48)


class DescriptorTablePointer(Struct, size=10, packed=True):
    """What LGDT and LIDT read (Vol. 3A, figure 2-6). limit is the table's size - 1."""

    limit: u16
    base: HostVirtual


class TaskStateSegment(Struct, size=104, packed=True):
    """The 64-bit TSS (Vol. 3A, figure 8-11)."""

    reserved_0: u32
    rsp0: HostVirtual
    rsp1: HostVirtual
    rsp2: HostVirtual
    reserved_1: u64
    ist1: HostVirtual
    ist2: HostVirtual
    ist3: HostVirtual
    ist4: HostVirtual
    ist5: HostVirtual
    ist6: HostVirtual
    ist7: HostVirtual
    reserved_2: u64
    reserved_3: u16
    io_map_base: u16
