"""The processor that the model is: its CPUID answers and MSRs, as data that a test may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dsl.hw import vmx, x86

REVISION = 0x12
TIMER_SHIFT = 5
PHYSICAL_BITS = 39
TSC_HZ = 1_000_000_000
WRITE_BACK = 6
XSTATE = 0xD
LEGACY_AND_HEADER = 576  # bytes of an XSAVE area without extended parts

BASIC = REVISION | 1024 << 32 | WRITE_BACK << 50 | 1 << 54 | 1 << 55
MISC = TIMER_SHIFT | 7 << 6 | 4 << 16
# Controls: (must be 1, may be 1) of the TRUE_ MSRs; the older ones have the default1 bits fixed
PIN = (0x16, 0x7F)
PRIMARY = (0x0400_6172, 0xFFF9_FFFE)
PRIMARY_DEFAULT1 = 0x0401_E172
SECONDARY = (0, 0x0011_3FFF | 1 << 19 | 1 << 25)
EXIT = (0x0003_6DFB, 0x01FF_FFFF)
EXIT_DEFAULT1 = 0x0003_6DFF
ENTRY = (0x0000_11FB, 0x0003_FFFF)
ENTRY_DEFAULT1 = 0x0000_11FF
EPT_VPID = 0x0000_0F01_0673_4141

CPUID = {
    # (leaf, subleaf or None): EAX, EBX, ECX, EDX
    (0, None): (0xD, 0x756E6547, 0x6C65746E, 0x49656E69),
    (1, None): (0x000706E5, 0x00100800, 0x7FFAFBBF & ~(1 << 21) & ~(1 << 27), 0xBFEBFBFF),
    (2, None): (0x00FEFF01, 0xF0, 0, 0),
    (4, 0): (0x1C004121, 0x02C0003F, 0x3F, 0),
    (7, 0): (0, 0x219C27EB & ~(1 << 14), 0x0040_0004, 0xBC00_0400),
    (0xD, 0): (7, 832, 832, 0),
    (0xD, 1): (0xF, 832, 0, 0),
    (0xD, 2): (256, 576, 0, 0),
    (0x8000_0000, None): (0x8000_0008, 0, 0, 0),
    (0x8000_0001, None): (0, 0, 0x121, 0x2C10_0800),
    (0x8000_0002, None): (0x6E727554, 0x20746C61, 0x65646F4D, 0x206C),
    (0x8000_0007, None): (0, 0, 0, 1 << 8),
    (0x8000_0008, None): (0x3000 | PHYSICAL_BITS, 0, 0, 0),
}
IA32_FEATURE_CONTROL = 0x3A
GENERAL_MSRS = {
    x86.IA32_APIC_BASE: 0xFEE0_0900,
    IA32_FEATURE_CONTROL: 0,
    x86.IA32_SPEC_CTRL: 0,
    x86.IA32_PRED_CMD: 0,
    x86.IA32_ARCH_CAPABILITIES: 0,
    x86.IA32_FLUSH_CMD: 0,
    x86.IA32_PAT: 0x0007_0406_0007_0406,
    x86.IA32_EFER: 0xD00,
    x86.IA32_STAR: 0,
    x86.IA32_LSTAR: 0,
    x86.IA32_CSTAR: 0,
    x86.IA32_FMASK: 0,
    x86.IA32_FS_BASE: 0,
    x86.IA32_GS_BASE: 0,
    x86.IA32_KERNEL_GS_BASE: 0,
    x86.IA32_TSC_AUX: 0,
}


def controls(pair: tuple[int, int], default1: int = 0) -> int:
    """A control field's capability MSR: what must be 1 in the low half, what may be in the high half."""
    return (pair[0] | default1) | (pair[1] | default1) << 32


def vmx_msrs() -> dict[int, int]:
    """The capability MSRs of a processor with all that the monitor wants."""
    return {
        vmx.IA32_VMX_BASIC: BASIC,
        vmx.IA32_VMX_PINBASED_CTLS: controls(PIN),
        vmx.IA32_VMX_PROCBASED_CTLS: controls(PRIMARY, PRIMARY_DEFAULT1),
        vmx.IA32_VMX_EXIT_CTLS: controls(EXIT, EXIT_DEFAULT1),
        vmx.IA32_VMX_ENTRY_CTLS: controls(ENTRY, ENTRY_DEFAULT1),
        vmx.IA32_VMX_MISC: MISC,
        vmx.IA32_VMX_CR0_FIXED0: 0x8000_0021,
        vmx.IA32_VMX_CR0_FIXED1: 0xFFFF_FFFF,
        vmx.IA32_VMX_CR4_FIXED0: 0x2000,
        vmx.IA32_VMX_CR4_FIXED1: 0x0037_67FF,
        vmx.IA32_VMX_VMCS_ENUM: 0x2E,
        vmx.IA32_VMX_PROCBASED_CTLS2: controls(SECONDARY),
        vmx.IA32_VMX_EPT_VPID_CAP: EPT_VPID,
        vmx.IA32_VMX_TRUE_PINBASED_CTLS: controls(PIN),
        vmx.IA32_VMX_TRUE_PROCBASED_CTLS: controls(PRIMARY),
        vmx.IA32_VMX_TRUE_EXIT_CTLS: controls(EXIT),
        vmx.IA32_VMX_TRUE_ENTRY_CTLS: controls(ENTRY),
    }


@dataclass(frozen=True)
class Processor:
    """What CPUID and RDMSR say. An MSR that is no key does not exist."""

    msrs: Mapping[int, int] = field(default_factory=lambda: GENERAL_MSRS | vmx_msrs())
    cpuid: Mapping[tuple[int, int | None], tuple[int, int, int, int]] = field(default_factory=lambda: dict(CPUID))

    def with_msrs(self, changes: Mapping[int, int | None]) -> Processor:
        """Another processor; None takes an MSR away."""
        merged = {**self.msrs, **changes}
        return replace(self, msrs={number: value for number, value in merged.items() if value is not None})

    def without_features(self, leaf: int, eax: int = 0, ebx: int = 0, ecx: int = 0, edx: int = 0) -> Processor:
        """Another processor, whose CPUID leaf lacks these bits."""
        key = (leaf, None) if (leaf, None) in self.cpuid else (leaf, 0)
        words = tuple(word & ~gone for word, gone in zip(self.cpuid[key], (eax, ebx, ecx, edx), strict=True))
        return replace(self, cpuid={**self.cpuid, key: (words[0], words[1], words[2], words[3])})

    def answer(self, leaf: int, subleaf: int, xcr0: int = 1) -> tuple[int, int, int, int]:
        """What CPUID gives. Leaf Dh has the size of what XCR0 enables (SDM Vol. 1, 13.2)."""
        if (leaf, subleaf) == (XSTATE, 0):
            eax, _, ecx, edx = self.cpuid[XSTATE, 0]
            parts = [self.cpuid.get((XSTATE, part), (0, 0, 0, 0)) for part in range(2, 63) if xcr0 >> part & 1]
            return eax, max([LEGACY_AND_HEADER, *(size + offset for size, offset, *_ in parts)]), ecx, edx
        if (leaf, None) in self.cpuid:
            return self.cpuid[leaf, None]
        return self.cpuid.get((leaf, subleaf), (0, 0, 0, 0))

    @property
    def has_true_controls(self) -> bool:
        """Whether the TRUE_ MSRs exist."""
        return bool(self.msrs[vmx.IA32_VMX_BASIC] >> 55 & 1)

    def control_limits(self, plain: int, true: int | None = None) -> tuple[int, int]:
        """The bits of a control field that must be 1, and those that may be."""
        value = self.msrs[true if true is not None and self.has_true_controls else plain]
        return value & 0xFFFF_FFFF, value >> 32
