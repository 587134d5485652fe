"""VMX as the manual states it (SDM Vol. 3C and 3D): VMCS fields, control bits, exit reasons, exit information, EPT entries.

Fields stand in the order of Vol. 3D, appendix B, with the number that the manual prints; each constructor checks the number's own width
bits at import. dsl/hw/README.md names the revision. Nothing here emits code.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import Bits, Field, bit, bits, field16, field32, field64, natural, u8, u16, u32, u64

# B.1.1  16-bit control fields
VIRTUAL_PROCESSOR_ID: Final = field16(0x0000)
POSTED_INTERRUPT_NOTIFICATION_VECTOR: Final = field16(0x0002)
EPTP_INDEX: Final = field16(0x0004)
HLAT_PREFIX_SIZE: Final = field16(0x0006)
LAST_PID_POINTER_INDEX: Final = field16(0x0008)

# B.1.2  16-bit guest-state fields
GUEST_ES_SELECTOR: Final = field16(0x0800)
GUEST_CS_SELECTOR: Final = field16(0x0802)
GUEST_SS_SELECTOR: Final = field16(0x0804)
GUEST_DS_SELECTOR: Final = field16(0x0806)
GUEST_FS_SELECTOR: Final = field16(0x0808)
GUEST_GS_SELECTOR: Final = field16(0x080A)
GUEST_LDTR_SELECTOR: Final = field16(0x080C)
GUEST_TR_SELECTOR: Final = field16(0x080E)
GUEST_INTERRUPT_STATUS: Final = field16(0x0810)
PML_INDEX: Final = field16(0x0812)
GUEST_UINV: Final = field16(0x0814)

# B.1.3  16-bit host-state fields
HOST_ES_SELECTOR: Final = field16(0x0C00)
HOST_CS_SELECTOR: Final = field16(0x0C02)
HOST_SS_SELECTOR: Final = field16(0x0C04)
HOST_DS_SELECTOR: Final = field16(0x0C06)
HOST_FS_SELECTOR: Final = field16(0x0C08)
HOST_GS_SELECTOR: Final = field16(0x0C0A)
HOST_TR_SELECTOR: Final = field16(0x0C0C)

# B.2.1  64-bit control fields
IO_BITMAP_A: Final = field64(0x2000)
IO_BITMAP_B: Final = field64(0x2002)
MSR_BITMAP: Final = field64(0x2004)
EXIT_MSR_STORE_ADDRESS: Final = field64(0x2006)
EXIT_MSR_LOAD_ADDRESS: Final = field64(0x2008)
ENTRY_MSR_LOAD_ADDRESS: Final = field64(0x200A)
EXECUTIVE_VMCS_POINTER: Final = field64(0x200C)
PML_ADDRESS: Final = field64(0x200E)
TSC_OFFSET: Final = field64(0x2010)
VIRTUAL_APIC_ADDRESS: Final = field64(0x2012)
APIC_ACCESS_ADDRESS: Final = field64(0x2014)
POSTED_INTERRUPT_DESCRIPTOR_ADDRESS: Final = field64(0x2016)
VM_FUNCTION_CONTROLS: Final = field64(0x2018)
EPT_POINTER: Final = field64(0x201A)
EOI_EXIT_BITMAP_0: Final = field64(0x201C)
EOI_EXIT_BITMAP_1: Final = field64(0x201E)
EOI_EXIT_BITMAP_2: Final = field64(0x2020)
EOI_EXIT_BITMAP_3: Final = field64(0x2022)
EPTP_LIST_ADDRESS: Final = field64(0x2024)
VMREAD_BITMAP: Final = field64(0x2026)
VMWRITE_BITMAP: Final = field64(0x2028)
VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS: Final = field64(0x202A)
XSS_EXITING_BITMAP: Final = field64(0x202C)
ENCLS_EXITING_BITMAP: Final = field64(0x202E)
SUB_PAGE_PERMISSION_TABLE_POINTER: Final = field64(0x2030)
TSC_MULTIPLIER: Final = field64(0x2032)
TERTIARY_CONTROLS: Final = field64(0x2034)
ENCLV_EXITING_BITMAP: Final = field64(0x2036)
LOW_PASID_DIRECTORY_ADDRESS: Final = field64(0x2038)
HIGH_PASID_DIRECTORY_ADDRESS: Final = field64(0x203A)
SHARED_EPT_POINTER: Final = field64(0x203C)
PCONFIG_EXITING_BITMAP: Final = field64(0x203E)
HLAT_POINTER: Final = field64(0x2040)
PID_POINTER_TABLE_ADDRESS: Final = field64(0x2042)
SECONDARY_EXIT_CONTROLS: Final = field64(0x2044)
SPEC_CTRL_MASK: Final = field64(0x204A)
SPEC_CTRL_SHADOW: Final = field64(0x204C)

# B.2.2  64-bit read-only data field
GUEST_PHYSICAL_ADDRESS: Final = field64(0x2400)

# B.2.3  64-bit guest-state fields
VMCS_LINK_POINTER: Final = field64(0x2800)
GUEST_DEBUGCTL: Final = field64(0x2802)
GUEST_PAT: Final = field64(0x2804)
GUEST_EFER: Final = field64(0x2806)
GUEST_PERF_GLOBAL_CTRL: Final = field64(0x2808)
GUEST_PDPTE0: Final = field64(0x280A)
GUEST_PDPTE1: Final = field64(0x280C)
GUEST_PDPTE2: Final = field64(0x280E)
GUEST_PDPTE3: Final = field64(0x2810)
GUEST_BNDCFGS: Final = field64(0x2812)
GUEST_RTIT_CTL: Final = field64(0x2814)
GUEST_LBR_CTL: Final = field64(0x2816)
GUEST_PKRS: Final = field64(0x2818)

# B.2.4  64-bit host-state fields
HOST_PAT: Final = field64(0x2C00)
HOST_EFER: Final = field64(0x2C02)
HOST_PERF_GLOBAL_CTRL: Final = field64(0x2C04)
HOST_PKRS: Final = field64(0x2C06)

# B.3.1  32-bit control fields
PIN_BASED_CONTROLS: Final = field32(0x4000)
PRIMARY_CONTROLS: Final = field32(0x4002)
EXCEPTION_BITMAP: Final = field32(0x4004)
PAGE_FAULT_ERROR_CODE_MASK: Final = field32(0x4006)
PAGE_FAULT_ERROR_CODE_MATCH: Final = field32(0x4008)
CR3_TARGET_COUNT: Final = field32(0x400A)
EXIT_CONTROLS: Final = field32(0x400C)
EXIT_MSR_STORE_COUNT: Final = field32(0x400E)
EXIT_MSR_LOAD_COUNT: Final = field32(0x4010)
ENTRY_CONTROLS: Final = field32(0x4012)
ENTRY_MSR_LOAD_COUNT: Final = field32(0x4014)
ENTRY_INTERRUPTION_INFORMATION: Final = field32(0x4016)
ENTRY_EXCEPTION_ERROR_CODE: Final = field32(0x4018)
ENTRY_INSTRUCTION_LENGTH: Final = field32(0x401A)
TPR_THRESHOLD: Final = field32(0x401C)
SECONDARY_CONTROLS: Final = field32(0x401E)
PLE_GAP: Final = field32(0x4020)
PLE_WINDOW: Final = field32(0x4022)
INSTRUCTION_TIMEOUT_CONTROL: Final = field32(0x4024)

# B.3.2  32-bit read-only data fields
VM_INSTRUCTION_ERROR: Final = field32(0x4400)
EXIT_REASON: Final = field32(0x4402)
EXIT_INTERRUPTION_INFORMATION: Final = field32(0x4404)
EXIT_INTERRUPTION_ERROR_CODE: Final = field32(0x4406)
IDT_VECTORING_INFORMATION: Final = field32(0x4408)
IDT_VECTORING_ERROR_CODE: Final = field32(0x440A)
VM_EXIT_INSTRUCTION_LENGTH: Final = field32(0x440C)
VM_EXIT_INSTRUCTION_INFORMATION: Final = field32(0x440E)

# B.3.3  32-bit guest-state fields
GUEST_ES_LIMIT: Final = field32(0x4800)
GUEST_CS_LIMIT: Final = field32(0x4802)
GUEST_SS_LIMIT: Final = field32(0x4804)
GUEST_DS_LIMIT: Final = field32(0x4806)
GUEST_FS_LIMIT: Final = field32(0x4808)
GUEST_GS_LIMIT: Final = field32(0x480A)
GUEST_LDTR_LIMIT: Final = field32(0x480C)
GUEST_TR_LIMIT: Final = field32(0x480E)
GUEST_GDTR_LIMIT: Final = field32(0x4810)
GUEST_IDTR_LIMIT: Final = field32(0x4812)
GUEST_ES_ACCESS_RIGHTS: Final = field32(0x4814)
GUEST_CS_ACCESS_RIGHTS: Final = field32(0x4816)
GUEST_SS_ACCESS_RIGHTS: Final = field32(0x4818)
GUEST_DS_ACCESS_RIGHTS: Final = field32(0x481A)
GUEST_FS_ACCESS_RIGHTS: Final = field32(0x481C)
GUEST_GS_ACCESS_RIGHTS: Final = field32(0x481E)
GUEST_LDTR_ACCESS_RIGHTS: Final = field32(0x4820)
GUEST_TR_ACCESS_RIGHTS: Final = field32(0x4822)
GUEST_INTERRUPTIBILITY: Final = field32(0x4824)
GUEST_ACTIVITY_STATE: Final = field32(0x4826)
GUEST_SMBASE: Final = field32(0x4828)
GUEST_SYSENTER_CS: Final = field32(0x482A)
PREEMPTION_TIMER_VALUE: Final = field32(0x482E)

# B.3.4  32-bit host-state field
HOST_SYSENTER_CS: Final = field32(0x4C00)

# B.4.1  natural-width control fields
CR0_MASK: Final = natural(0x6000)
CR4_MASK: Final = natural(0x6002)
CR0_READ_SHADOW: Final = natural(0x6004)
CR4_READ_SHADOW: Final = natural(0x6006)
CR3_TARGET_VALUE_0: Final = natural(0x6008)
CR3_TARGET_VALUE_1: Final = natural(0x600A)
CR3_TARGET_VALUE_2: Final = natural(0x600C)
CR3_TARGET_VALUE_3: Final = natural(0x600E)

# B.4.2  natural-width read-only data fields
EXIT_QUALIFICATION: Final = natural(0x6400)
IO_RCX: Final = natural(0x6402)
IO_RSI: Final = natural(0x6404)
IO_RDI: Final = natural(0x6406)
IO_RIP: Final = natural(0x6408)
GUEST_LINEAR_ADDRESS: Final = natural(0x640A)

# B.4.3  natural-width guest-state fields
GUEST_CR0: Final = natural(0x6800)
GUEST_CR3: Final = natural(0x6802)
GUEST_CR4: Final = natural(0x6804)
GUEST_ES_BASE: Final = natural(0x6806)
GUEST_CS_BASE: Final = natural(0x6808)
GUEST_SS_BASE: Final = natural(0x680A)
GUEST_DS_BASE: Final = natural(0x680C)
GUEST_FS_BASE: Final = natural(0x680E)
GUEST_GS_BASE: Final = natural(0x6810)
GUEST_LDTR_BASE: Final = natural(0x6812)
GUEST_TR_BASE: Final = natural(0x6814)
GUEST_GDTR_BASE: Final = natural(0x6816)
GUEST_IDTR_BASE: Final = natural(0x6818)
GUEST_DR7: Final = natural(0x681A)
GUEST_RSP: Final = natural(0x681C)
GUEST_RIP: Final = natural(0x681E)
GUEST_RFLAGS: Final = natural(0x6820)
GUEST_PENDING_DEBUG_EXCEPTIONS: Final = natural(0x6822)
GUEST_SYSENTER_ESP: Final = natural(0x6824)
GUEST_SYSENTER_EIP: Final = natural(0x6826)
GUEST_S_CET: Final = natural(0x6828)
GUEST_SSP: Final = natural(0x682A)
GUEST_INTERRUPT_SSP_TABLE_ADDRESS: Final = natural(0x682C)

# B.4.4  natural-width host-state fields
HOST_CR0: Final = natural(0x6C00)
HOST_CR3: Final = natural(0x6C02)
HOST_CR4: Final = natural(0x6C04)
HOST_FS_BASE: Final = natural(0x6C06)
HOST_GS_BASE: Final = natural(0x6C08)
HOST_TR_BASE: Final = natural(0x6C0A)
HOST_GDTR_BASE: Final = natural(0x6C0C)
HOST_IDTR_BASE: Final = natural(0x6C0E)
HOST_SYSENTER_ESP: Final = natural(0x6C10)
HOST_SYSENTER_EIP: Final = natural(0x6C12)
HOST_RSP: Final = natural(0x6C14)
HOST_RIP: Final = natural(0x6C16)
HOST_S_CET: Final = natural(0x6C18)
HOST_SSP: Final = natural(0x6C1A)
HOST_INTERRUPT_SSP_TABLE_ADDRESS: Final = natural(0x6C1C)


class ExitReason(Enum):
    """Basic exit reasons: bits 15:0 of EXIT_REASON (Vol. 3D, appendix C). Numbers not here are reserved."""

    EXCEPTION_OR_NMI = u32(0)
    EXTERNAL_INTERRUPT = u32(1)
    TRIPLE_FAULT = u32(2)
    INIT_SIGNAL = u32(3)
    STARTUP_IPI = u32(4)
    IO_SMI = u32(5)
    OTHER_SMI = u32(6)
    INTERRUPT_WINDOW = u32(7)
    NMI_WINDOW = u32(8)
    TASK_SWITCH = u32(9)
    CPUID = u32(10)
    GETSEC = u32(11)
    HLT = u32(12)
    INVD = u32(13)
    INVLPG = u32(14)
    RDPMC = u32(15)
    RDTSC = u32(16)
    RSM = u32(17)
    VMCALL = u32(18)
    VMCLEAR = u32(19)
    VMLAUNCH = u32(20)
    VMPTRLD = u32(21)
    VMPTRST = u32(22)
    VMREAD = u32(23)
    VMRESUME = u32(24)
    VMWRITE = u32(25)
    VMXOFF = u32(26)
    VMXON = u32(27)
    CONTROL_REGISTER_ACCESS = u32(28)
    MOV_DR = u32(29)
    IO_INSTRUCTION = u32(30)
    RDMSR = u32(31)
    WRMSR = u32(32)
    INVALID_GUEST_STATE = u32(33)
    MSR_LOADING = u32(34)
    MWAIT = u32(36)
    MONITOR_TRAP_FLAG = u32(37)
    MONITOR = u32(39)
    PAUSE = u32(40)
    MACHINE_CHECK_DURING_ENTRY = u32(41)
    TPR_BELOW_THRESHOLD = u32(43)
    APIC_ACCESS = u32(44)
    VIRTUALIZED_EOI = u32(45)
    GDTR_OR_IDTR_ACCESS = u32(46)
    LDTR_OR_TR_ACCESS = u32(47)
    EPT_VIOLATION = u32(48)
    EPT_MISCONFIGURATION = u32(49)
    INVEPT = u32(50)
    RDTSCP = u32(51)
    PREEMPTION_TIMER = u32(52)
    INVVPID = u32(53)
    WBINVD_OR_WBNOINVD = u32(54)
    XSETBV = u32(55)
    APIC_WRITE = u32(56)
    RDRAND = u32(57)
    INVPCID = u32(58)
    VMFUNC = u32(59)
    ENCLS = u32(60)
    RDSEED = u32(61)
    PAGE_MODIFICATION_LOG_FULL = u32(62)
    XSAVES = u32(63)
    XRSTORS = u32(64)
    PCONFIG = u32(65)
    SPP_EVENT = u32(66)
    UMWAIT = u32(67)
    TPAUSE = u32(68)
    LOADIWKEY = u32(69)
    ENCLV = u32(70)
    ENQCMD_PASID_FAILURE = u32(72)
    ENQCMDS_PASID_FAILURE = u32(73)
    BUS_LOCK = u32(74)
    INSTRUCTION_TIMEOUT = u32(75)
    SEAMCALL = u32(76)
    TDCALL = u32(77)
    RDMSRLIST = u32(78)
    WRMSRLIST = u32(79)


# Pin-based VM-execution controls (Vol. 3C, table 25-5)
PIN_EXTERNAL_INTERRUPT_EXITING: Final = 1 << 0
PIN_NMI_EXITING: Final = 1 << 3
PIN_VIRTUAL_NMIS: Final = 1 << 5
PIN_PREEMPTION_TIMER: Final = 1 << 6
PIN_PROCESS_POSTED_INTERRUPTS: Final = 1 << 7

# Primary processor-based controls (table 25-6)
PRIMARY_INTERRUPT_WINDOW_EXITING: Final = 1 << 2
PRIMARY_USE_TSC_OFFSETTING: Final = 1 << 3
PRIMARY_HLT_EXITING: Final = 1 << 7
PRIMARY_INVLPG_EXITING: Final = 1 << 9
PRIMARY_MWAIT_EXITING: Final = 1 << 10
PRIMARY_RDPMC_EXITING: Final = 1 << 11
PRIMARY_RDTSC_EXITING: Final = 1 << 12
PRIMARY_CR3_LOAD_EXITING: Final = 1 << 15
PRIMARY_CR3_STORE_EXITING: Final = 1 << 16
PRIMARY_ACTIVATE_TERTIARY_CONTROLS: Final = 1 << 17
PRIMARY_CR8_LOAD_EXITING: Final = 1 << 19
PRIMARY_CR8_STORE_EXITING: Final = 1 << 20
PRIMARY_USE_TPR_SHADOW: Final = 1 << 21
PRIMARY_NMI_WINDOW_EXITING: Final = 1 << 22
PRIMARY_MOV_DR_EXITING: Final = 1 << 23
PRIMARY_UNCONDITIONAL_IO_EXITING: Final = 1 << 24
PRIMARY_USE_IO_BITMAPS: Final = 1 << 25
PRIMARY_MONITOR_TRAP_FLAG: Final = 1 << 27
PRIMARY_USE_MSR_BITMAPS: Final = 1 << 28
PRIMARY_MONITOR_EXITING: Final = 1 << 29
PRIMARY_PAUSE_EXITING: Final = 1 << 30
PRIMARY_ACTIVATE_SECONDARY_CONTROLS: Final = 1 << 31

# Secondary processor-based controls (table 25-7)
SECONDARY_VIRTUALIZE_APIC_ACCESSES: Final = 1 << 0
SECONDARY_ENABLE_EPT: Final = 1 << 1
SECONDARY_DESCRIPTOR_TABLE_EXITING: Final = 1 << 2
SECONDARY_ENABLE_RDTSCP: Final = 1 << 3
SECONDARY_VIRTUALIZE_X2APIC_MODE: Final = 1 << 4
SECONDARY_ENABLE_VPID: Final = 1 << 5
SECONDARY_WBINVD_EXITING: Final = 1 << 6
SECONDARY_UNRESTRICTED_GUEST: Final = 1 << 7
SECONDARY_APIC_REGISTER_VIRTUALIZATION: Final = 1 << 8
SECONDARY_VIRTUAL_INTERRUPT_DELIVERY: Final = 1 << 9
SECONDARY_PAUSE_LOOP_EXITING: Final = 1 << 10
SECONDARY_RDRAND_EXITING: Final = 1 << 11
SECONDARY_ENABLE_INVPCID: Final = 1 << 12
SECONDARY_ENABLE_VM_FUNCTIONS: Final = 1 << 13
SECONDARY_VMCS_SHADOWING: Final = 1 << 14
SECONDARY_ENABLE_ENCLS_EXITING: Final = 1 << 15
SECONDARY_RDSEED_EXITING: Final = 1 << 16
SECONDARY_ENABLE_PML: Final = 1 << 17
SECONDARY_EPT_VIOLATION_VE: Final = 1 << 18
SECONDARY_CONCEAL_VMX_FROM_PT: Final = 1 << 19
SECONDARY_ENABLE_XSAVES: Final = 1 << 20
SECONDARY_PASID_TRANSLATION: Final = 1 << 21
SECONDARY_MODE_BASED_EXECUTE_CONTROL: Final = 1 << 22
SECONDARY_SUB_PAGE_WRITE_PERMISSIONS: Final = 1 << 23
SECONDARY_PT_USES_GUEST_PHYSICAL_ADDRESSES: Final = 1 << 24
SECONDARY_USE_TSC_SCALING: Final = 1 << 25
SECONDARY_ENABLE_USER_WAIT_AND_PAUSE: Final = 1 << 26
SECONDARY_ENABLE_PCONFIG: Final = 1 << 27
SECONDARY_ENABLE_ENCLV_EXITING: Final = 1 << 28
SECONDARY_BUS_LOCK_DETECTION: Final = 1 << 30
SECONDARY_INSTRUCTION_TIMEOUT: Final = 1 << 31

# VM-exit controls (table 25-13)
EXIT_SAVE_DEBUG_CONTROLS: Final = 1 << 2
EXIT_HOST_ADDRESS_SPACE_SIZE: Final = 1 << 9
EXIT_LOAD_PERF_GLOBAL_CTRL: Final = 1 << 12
EXIT_ACKNOWLEDGE_INTERRUPT: Final = 1 << 15
EXIT_SAVE_PAT: Final = 1 << 18
EXIT_LOAD_PAT: Final = 1 << 19
EXIT_SAVE_EFER: Final = 1 << 20
EXIT_LOAD_EFER: Final = 1 << 21
EXIT_SAVE_PREEMPTION_TIMER: Final = 1 << 22
EXIT_CLEAR_BNDCFGS: Final = 1 << 23
EXIT_CONCEAL_VMX_FROM_PT: Final = 1 << 24
EXIT_CLEAR_RTIT_CTL: Final = 1 << 25
EXIT_CLEAR_LBR_CTL: Final = 1 << 26
EXIT_CLEAR_UINV: Final = 1 << 27
EXIT_LOAD_CET_STATE: Final = 1 << 28
EXIT_LOAD_PKRS: Final = 1 << 29
EXIT_SAVE_PERF_GLOBAL_CTRL: Final = 1 << 30
EXIT_ACTIVATE_SECONDARY_EXIT_CONTROLS: Final = 1 << 31

# VM-entry controls (table 25-15)
ENTRY_LOAD_DEBUG_CONTROLS: Final = 1 << 2
ENTRY_IA32E_MODE_GUEST: Final = 1 << 9
ENTRY_ENTRY_TO_SMM: Final = 1 << 10
ENTRY_DEACTIVATE_DUAL_MONITOR: Final = 1 << 11
ENTRY_LOAD_PERF_GLOBAL_CTRL: Final = 1 << 13
ENTRY_LOAD_PAT: Final = 1 << 14
ENTRY_LOAD_EFER: Final = 1 << 15
ENTRY_LOAD_BNDCFGS: Final = 1 << 16
ENTRY_CONCEAL_VMX_FROM_PT: Final = 1 << 17
ENTRY_LOAD_RTIT_CTL: Final = 1 << 18
ENTRY_LOAD_UINV: Final = 1 << 19
ENTRY_LOAD_CET_STATE: Final = 1 << 20
ENTRY_LOAD_GUEST_LBR_CTL: Final = 1 << 21
ENTRY_LOAD_PKRS: Final = 1 << 22

# Capability MSRs (Vol. 3D, appendix A)
IA32_VMX_BASIC: Final = 0x480
IA32_VMX_PINBASED_CTLS: Final = 0x481
IA32_VMX_PROCBASED_CTLS: Final = 0x482
IA32_VMX_EXIT_CTLS: Final = 0x483
IA32_VMX_ENTRY_CTLS: Final = 0x484
IA32_VMX_MISC: Final = 0x485
IA32_VMX_CR0_FIXED0: Final = 0x486
IA32_VMX_CR0_FIXED1: Final = 0x487
IA32_VMX_CR4_FIXED0: Final = 0x488
IA32_VMX_CR4_FIXED1: Final = 0x489
IA32_VMX_VMCS_ENUM: Final = 0x48A
IA32_VMX_PROCBASED_CTLS2: Final = 0x48B
IA32_VMX_EPT_VPID_CAP: Final = 0x48C
IA32_VMX_TRUE_PINBASED_CTLS: Final = 0x48D
IA32_VMX_TRUE_PROCBASED_CTLS: Final = 0x48E
IA32_VMX_TRUE_EXIT_CTLS: Final = 0x48F
IA32_VMX_TRUE_ENTRY_CTLS: Final = 0x490
IA32_VMX_VMFUNC: Final = 0x491
IA32_VMX_PROCBASED_CTLS3: Final = 0x492
IA32_VMX_EXIT_CTLS2: Final = 0x493


class VmxBasic(Bits, storage=u64):
    """IA32_VMX_BASIC (appendix A.1)."""

    revision: u32 = bits(30, 0)
    region_size: u16 = bits(44, 32)  # bytes, at most 4096
    addresses_are_32_bit: bool = bit(48)
    dual_monitor: bool = bit(49)
    memory_type: u8 = bits(53, 50)  # 6: write-back
    io_information: bool = bit(54)  # exits for INS and OUTS fill VM_EXIT_INSTRUCTION_INFORMATION
    true_controls: bool = bit(55)  # the TRUE_ MSRs exist
    exceptions_without_error_code: bool = bit(56)


class EptVpidCapability(Bits, storage=u64):
    """IA32_VMX_EPT_VPID_CAP (appendix A.10)."""

    execute_only: bool = bit(0)
    four_levels: bool = bit(6)
    five_levels: bool = bit(7)
    uncacheable: bool = bit(8)
    write_back: bool = bit(14)
    leaf_2_mib: bool = bit(16)
    leaf_1_gib: bool = bit(17)
    invept: bool = bit(20)
    accessed_and_dirty: bool = bit(21)
    advanced_exit_information: bool = bit(22)
    shadow_stack: bool = bit(23)
    invept_single: bool = bit(25)
    invept_all: bool = bit(26)
    invvpid: bool = bit(32)
    invvpid_address: bool = bit(40)
    invvpid_single: bool = bit(41)
    invvpid_all: bool = bit(42)
    invvpid_single_keeping_globals: bool = bit(43)


# Kinds of INVEPT and INVVPID (Vol. 3C, 31.3)
INVEPT_SINGLE: Final = u64(1)
INVEPT_ALL: Final = u64(2)
INVVPID_ADDRESS: Final = u64(0)
INVVPID_SINGLE: Final = u64(1)
INVVPID_ALL: Final = u64(2)
INVVPID_SINGLE_KEEPING_GLOBALS: Final = u64(3)


class EptPointer(Bits, storage=u64):
    """EPTP (Vol. 3C, table 25-9)."""

    memory_type: u8 = bits(2, 0)  # of the EPT structures: 0 uncacheable, 6 write-back
    walk_length: u8 = bits(5, 3)  # levels - 1
    accessed_and_dirty: bool = bit(6, default=False)
    shadow_stack: bool = bit(7, default=False)
    page_frame: u64 = bits(51, 12)


class EptTableEntry(Bits, storage=u64):
    """An EPT entry that refers to the next structure (Vol. 3C, 29.3.2)."""

    read: bool = bit(0)
    write: bool = bit(1)
    execute: bool = bit(2)
    accessed: bool = bit(8, default=False)
    page_frame: u64 = bits(51, 12)


class EptLeaf(Bits, storage=u64):
    """An EPT entry that maps a page: of 4 KiB, or with `large` of 2 MiB or 1 GiB by its level."""

    read: bool = bit(0)
    write: bool = bit(1)
    execute: bool = bit(2)
    memory_type: u8 = bits(5, 3)
    ignore_pat: bool = bit(6, default=False)
    large: bool = bit(7)
    accessed: bool = bit(8, default=False)
    dirty: bool = bit(9, default=False)
    page_frame: u64 = bits(51, 12)  # low bits zero in a large page


class InterruptionType(Enum):
    """Bits 10:8 of interruption information (Vol. 3C, tables 25-17 and 25-18)."""

    EXTERNAL_INTERRUPT = u8(0)
    NMI = u8(2)
    HARDWARE_EXCEPTION = u8(3)
    SOFTWARE_INTERRUPT = u8(4)
    PRIVILEGED_SOFTWARE_EXCEPTION = u8(5)  # INT1
    SOFTWARE_EXCEPTION = u8(6)  # INT3, INTO
    OTHER_EVENT = u8(7)


class InterruptionInformation(Bits, storage=u32):
    """VM-entry and VM-exit interruption information and IDT-vectoring information: one format."""

    vector: u8 = bits(7, 0)
    kind: InterruptionType = bits(10, 8)
    has_error_code: bool = bit(11)
    nmi_unblocking: bool = bit(12, default=False)  # at exits: IRET removed blocking by NMI
    valid: bool = bit(31, default=True)


class Interruptibility(Bits, storage=u32):
    """Guest interruptibility state (Vol. 3C, table 25-3)."""

    blocking_by_sti: bool = bit(0)
    blocking_by_mov_ss: bool = bit(1)
    blocking_by_smi: bool = bit(2)
    blocking_by_nmi: bool = bit(3)
    enclave_interruption: bool = bit(4)


class ActivityState(Enum):
    """Guest activity state."""

    ACTIVE = u32(0)
    HLT = u32(1)
    SHUTDOWN = u32(2)
    WAIT_FOR_SIPI = u32(3)


class SegmentAccessRights(Bits, storage=u32):
    """Guest segment access rights (Vol. 3C, table 25-2)."""

    kind: u8 = bits(3, 0)
    is_code_or_data: bool = bit(4)
    privilege: u8 = bits(6, 5)
    present: bool = bit(7)
    available: bool = bit(12, default=False)
    is_64_bit_code: bool = bit(13, default=False)
    is_32_bit: bool = bit(14, default=False)
    granular: bool = bit(15, default=False)
    unusable: bool = bit(16, default=False)


# Exit qualifications (Vol. 3C, 28.2.1)


class ControlRegisterAccessKind(Enum):
    """What the guest tried with a control register."""

    MOV_TO = u8(0)
    MOV_FROM = u8(1)
    CLTS = u8(2)
    LMSW = u8(3)


class ControlRegisterAccess(Bits, storage=u64):
    """Exit qualification of CONTROL_REGISTER_ACCESS (table 28-3)."""

    control_register: u8 = bits(3, 0)
    kind: ControlRegisterAccessKind = bits(5, 4)
    lmsw_from_memory: bool = bit(6)
    register: u8 = bits(11, 8)  # rax rcx rdx rbx rsp rbp rsi rdi r8 to r15
    lmsw_source: u16 = bits(31, 16)


class DebugRegisterAccess(Bits, storage=u64):
    """Exit qualification of MOV_DR (table 28-4)."""

    debug_register: u8 = bits(2, 0)
    is_read: bool = bit(4)
    register: u8 = bits(11, 8)


class IoAccess(Bits, storage=u64):
    """Exit qualification of IO_INSTRUCTION (table 28-5)."""

    size_code: u8 = bits(2, 0)  # 0: 1 byte, 1: 2 bytes, 3: 4 bytes
    is_in: bool = bit(3)
    is_string: bool = bit(4)
    has_rep: bool = bit(5)
    is_immediate: bool = bit(6)
    port: u16 = bits(31, 16)


class EptViolation(Bits, storage=u64):
    """Exit qualification of EPT_VIOLATION (table 28-7)."""

    data_read: bool = bit(0)
    data_write: bool = bit(1)
    instruction_fetch: bool = bit(2)
    was_readable: bool = bit(3)
    was_writable: bool = bit(4)
    was_executable: bool = bit(5)
    was_user_executable: bool = bit(6)
    linear_address_valid: bool = bit(7)
    is_translation: bool = bit(8)  # of the linear address itself, not of a paging structure on the way
    nmi_unblocking: bool = bit(12)


# VM-instruction errors (Vol. 3C, 31.4): VM_INSTRUCTION_ERROR after VMfailValid
VM_INSTRUCTION_ERRORS: Final = {
    1: "VMCALL executed in VMX root operation",
    2: "VMCLEAR with invalid physical address",
    3: "VMCLEAR with VMXON pointer",
    4: "VMLAUNCH with non-clear VMCS",
    5: "VMRESUME with non-launched VMCS",
    6: "VMRESUME after VMXOFF",
    7: "VM entry with invalid control fields",
    8: "VM entry with invalid host-state fields",
    9: "VMPTRLD with invalid physical address",
    10: "VMPTRLD with VMXON pointer",
    11: "VMPTRLD with incorrect VMCS revision identifier",
    12: "VMREAD or VMWRITE from or to unsupported VMCS component",
    13: "VMWRITE to read-only VMCS component",
    15: "VMXON executed in VMX root operation",
    16: "VM entry with invalid executive-VMCS pointer",
    17: "VM entry with non-launched executive VMCS",
    18: "VM entry with executive-VMCS pointer not VMXON pointer",
    19: "VMCALL with non-clear VMCS",
    20: "VMCALL with invalid VM-exit control fields",
    22: "VMCALL with incorrect MSEG revision identifier",
    23: "VMXOFF under dual-monitor treatment of SMIs and SMM",
    24: "VMCALL with invalid SMM-monitor features",
    25: "VM entry with invalid VM-execution control fields in executive VMCS",
    26: "VM entry with events blocked by MOV SS",
    28: "Invalid operand to INVEPT or INVVPID",
}

# Every field by name, for dumps.
FIELDS: Final = {name: value for name, value in list(globals().items()) if isinstance(value, Field)}
