"""What this processor's VMX can do (SDM Vol. 3D, appendix A): read from its capability MSRs, checked, and turned into control values.

Nothing is assumed: a control that the monitor needs and the processor lacks is refused by name before VMXON.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.vmx import (
    ENTRY_IA32E_MODE_GUEST,
    ENTRY_LOAD_DEBUG_CONTROLS,
    ENTRY_LOAD_EFER,
    ENTRY_LOAD_PAT,
    EXIT_ACKNOWLEDGE_INTERRUPT,
    EXIT_HOST_ADDRESS_SPACE_SIZE,
    EXIT_LOAD_EFER,
    EXIT_LOAD_PAT,
    EXIT_SAVE_DEBUG_CONTROLS,
    EXIT_SAVE_EFER,
    EXIT_SAVE_PAT,
    EXIT_SAVE_PREEMPTION_TIMER,
    IA32_VMX_BASIC,
    IA32_VMX_CR0_FIXED0,
    IA32_VMX_CR0_FIXED1,
    IA32_VMX_CR4_FIXED0,
    IA32_VMX_CR4_FIXED1,
    IA32_VMX_ENTRY_CTLS,
    IA32_VMX_EPT_VPID_CAP,
    IA32_VMX_EXIT_CTLS,
    IA32_VMX_MISC,
    IA32_VMX_PINBASED_CTLS,
    IA32_VMX_PROCBASED_CTLS,
    IA32_VMX_PROCBASED_CTLS2,
    PIN_EXTERNAL_INTERRUPT_EXITING,
    PIN_NMI_EXITING,
    PIN_PREEMPTION_TIMER,
    PRIMARY_ACTIVATE_SECONDARY_CONTROLS,
    PRIMARY_CR3_LOAD_EXITING,
    PRIMARY_CR3_STORE_EXITING,
    PRIMARY_CR8_LOAD_EXITING,
    PRIMARY_CR8_STORE_EXITING,
    PRIMARY_HLT_EXITING,
    PRIMARY_INTERRUPT_WINDOW_EXITING,
    PRIMARY_MONITOR_EXITING,
    PRIMARY_MWAIT_EXITING,
    PRIMARY_RDPMC_EXITING,
    PRIMARY_USE_IO_BITMAPS,
    PRIMARY_USE_MSR_BITMAPS,
    PRIMARY_USE_TSC_OFFSETTING,
    SECONDARY_ENABLE_ENCLS_EXITING,
    SECONDARY_ENABLE_EPT,
    SECONDARY_ENABLE_INVPCID,
    SECONDARY_ENABLE_RDTSCP,
    SECONDARY_ENABLE_VPID,
    SECONDARY_RDRAND_EXITING,
    SECONDARY_RDSEED_EXITING,
    SECONDARY_UNRESTRICTED_GUEST,
    SECONDARY_WBINVD_EXITING,
)
from dsl.lang import Array, Failure, Struct, machine, static, text, u8, u32, u64
from dsl.lang.intrinsics import cpuid, rdmsr, wrmsr
from vmm.console import console_hex, console_newline, console_text

IA32_FEATURE_CONTROL: Final = 0x3A
FEATURE_CONTROL_LOCK: Final = 1 << 0
FEATURE_CONTROL_VMX: Final = 1 << 2  # outside SMX
TRUE_OFFSET: Final = 0xC  # the TRUE_ MSR of a control field: PINBASED 48Dh, PROCBASED 48Eh, EXIT 48Fh, ENTRY 490h
BASIC_TRUE_CONTROLS: Final = 1 << 55
BASIC_MEMORY_TYPE_SHIFT: Final = 50
WRITE_BACK: Final = 6
CPUID_VMX: Final = 1 << 5  # leaf 1, ECX
CPUID_XSAVE: Final = 1 << 26

PIN_REQUIRED: Final = PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_PREEMPTION_TIMER
PRIMARY_REQUIRED: Final = (
    PRIMARY_USE_TSC_OFFSETTING
    | PRIMARY_HLT_EXITING
    | PRIMARY_MWAIT_EXITING
    | PRIMARY_RDPMC_EXITING
    | PRIMARY_CR8_LOAD_EXITING  # CR8 is the host's task priority: a guest must not reach it
    | PRIMARY_CR8_STORE_EXITING
    | PRIMARY_USE_IO_BITMAPS
    | PRIMARY_USE_MSR_BITMAPS
    | PRIMARY_MONITOR_EXITING
    | PRIMARY_ACTIVATE_SECONDARY_CONTROLS
)
PRIMARY_UNWANTED: Final = PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING
SECONDARY_REQUIRED: Final = (
    SECONDARY_ENABLE_EPT | SECONDARY_ENABLE_VPID | SECONDARY_WBINVD_EXITING | SECONDARY_UNRESTRICTED_GUEST
)
SECONDARY_OPTIONAL: Final = (
    SECONDARY_ENABLE_RDTSCP
    | SECONDARY_RDRAND_EXITING
    | SECONDARY_ENABLE_INVPCID
    | SECONDARY_ENABLE_ENCLS_EXITING
    | SECONDARY_RDSEED_EXITING
)
EXIT_REQUIRED: Final = (
    EXIT_SAVE_DEBUG_CONTROLS
    | EXIT_HOST_ADDRESS_SPACE_SIZE
    | EXIT_ACKNOWLEDGE_INTERRUPT
    | EXIT_SAVE_PAT
    | EXIT_LOAD_PAT
    | EXIT_SAVE_EFER
    | EXIT_LOAD_EFER
    | EXIT_SAVE_PREEMPTION_TIMER  # see handle_hot_exit
)
ENTRY_REQUIRED: Final = ENTRY_LOAD_DEBUG_CONTROLS | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER
# IA32_VMX_EPT_VPID_CAP: 4 levels, write-back, 2-MiB pages, INVEPT, of all contexts; INVVPID, of all contexts
EPT_REQUIRED: Final = 1 << 6 | 1 << 14 | 1 << 16 | 1 << 20 | 1 << 26
VPID_REQUIRED: Final = 1 << 32 | 1 << 42

REFUSED: Final = 1  # failure: a message has said what is missing


class Capability(Struct):
    """The control values for this machine. Written once, before VMXON."""

    revision: u32
    timer_shift: u32  # the preemption timer counts at TSC >> this
    pin: u32
    primary: u32
    secondary: u32
    exit: u32
    entry: u32
    reserved: u32
    cr0_fixed0: u64
    cr0_fixed1: u64
    cr4_fixed0: u64
    cr4_fixed1: u64


CAPABILITY: Final = static(Capability)


@machine
def say_refusal(what: Array[u8], found: u64) -> None:
    """Say which check failed and the value it looked at."""
    console_text(text("refused: "))
    console_text(what)
    console_text(text("; found "))
    console_hex(found)
    console_newline()


@machine
def allowed_controls(capability: u64, required: u32, optional: u32) -> u32 | Failure:
    """Combine the bits that must be 1 (low half), those wanted, and what may be 1 (high half) (SDM Vol. 3D, A.3.1).

    Fails with the required bits that may not be 1.
    """
    must = capability.truncate(u32)
    may = (capability >> 32).truncate(u32)
    missing = required & ~may
    if missing != 0:
        return Failure(u64(missing))
    return must | required | (optional & may)


@machine
def controls_msr(basic: u64, number: u32) -> u64:
    """Read a control field's capability MSR: the TRUE_ one, where there is one."""
    if basic & BASIC_TRUE_CONTROLS != 0:
        return rdmsr(number + TRUE_OFFSET)
    return rdmsr(number)


@machine
def unlock_vmx() -> Failure | None:
    """Make sure that IA32_FEATURE_CONTROL allows VMXON, and lock it."""
    control = rdmsr(u32(IA32_FEATURE_CONTROL))
    if control & FEATURE_CONTROL_LOCK == 0:
        wrmsr(u32(IA32_FEATURE_CONTROL), control | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX)
        control = rdmsr(u32(IA32_FEATURE_CONTROL))
    if control & FEATURE_CONTROL_VMX == 0:
        say_refusal(text("VT-x is switched off by the firmware: IA32_FEATURE_CONTROL is locked without bit 2"), control)
        return Failure(REFUSED)
    return None


@machine
def check_secondary(basic: u64) -> u32 | Failure:
    """Choose the secondary controls; each one that Terrane cannot do without is refused by name."""
    primary = controls_msr(basic, u32(IA32_VMX_PROCBASED_CTLS))
    if primary >> 63 == 0:
        say_refusal(
            text("the processor has no secondary VMX controls, so no EPT: IA32_VMX_PROCBASED_CTLS bit 63"), primary
        )
        return Failure(REFUSED)
    capability = rdmsr(u32(IA32_VMX_PROCBASED_CTLS2))
    may = (capability >> 32).truncate(u32)
    if may & SECONDARY_ENABLE_EPT == 0:
        say_refusal(text("the processor has no EPT: IA32_VMX_PROCBASED_CTLS2 bit 33"), capability)
        return Failure(REFUSED)
    if may & SECONDARY_UNRESTRICTED_GUEST == 0:
        say_refusal(text("the processor has no unrestricted guest: IA32_VMX_PROCBASED_CTLS2 bit 39"), capability)
        return Failure(REFUSED)
    if may & SECONDARY_ENABLE_VPID == 0:
        say_refusal(text("the processor has no VPID: IA32_VMX_PROCBASED_CTLS2 bit 37"), capability)
        return Failure(REFUSED)
    return choose(
        text("a secondary VMX control is missing"), capability, u32(SECONDARY_REQUIRED), u32(SECONDARY_OPTIONAL)
    )


@machine
def choose(what: Array[u8], capability: u64, required: u32, optional: u32) -> u32 | Failure:
    """As allowed_controls, with a message that gives the missing bits."""
    controls = allowed_controls(capability, required, optional)
    if isinstance(controls, Failure):
        say_refusal(what, controls.code)
        return Failure(REFUSED)
    return controls


@machine
def check_translation() -> Failure | None:
    """Check what EPT and VPID can do."""
    capability = rdmsr(u32(IA32_VMX_EPT_VPID_CAP))
    if capability & EPT_REQUIRED != EPT_REQUIRED:
        say_refusal(text("EPT lacks 4 levels, write-back, 2-MiB pages or INVEPT: IA32_VMX_EPT_VPID_CAP"), capability)
        return Failure(REFUSED)
    if capability & VPID_REQUIRED != VPID_REQUIRED:
        say_refusal(text("VPID lacks INVVPID of all contexts: IA32_VMX_EPT_VPID_CAP"), capability)
        return Failure(REFUSED)
    return None


@machine
def check_controls(basic: u64) -> Failure | None:
    """Choose all five control fields."""
    pin_msr = controls_msr(basic, u32(IA32_VMX_PINBASED_CTLS))
    if (pin_msr >> 32) & PIN_PREEMPTION_TIMER == 0:
        say_refusal(text("the processor has no VMX-preemption timer: IA32_VMX_PINBASED_CTLS bit 38"), pin_msr)
        return Failure(REFUSED)
    secondary = check_secondary(basic)
    if isinstance(secondary, Failure):
        return secondary
    pin = choose(text("a pin-based VMX control is missing"), pin_msr, u32(PIN_REQUIRED), u32(0))
    if isinstance(pin, Failure):
        return pin
    primary_msr = controls_msr(basic, u32(IA32_VMX_PROCBASED_CTLS))
    primary = choose(text("a primary VMX control is missing"), primary_msr, u32(PRIMARY_REQUIRED), u32(0))
    if isinstance(primary, Failure):
        return primary
    if primary & PRIMARY_UNWANTED != 0:
        say_refusal(text("every CR3 access would exit: the processor has no true VMX controls"), u64(primary))
        return Failure(REFUSED)
    exit_msr = controls_msr(basic, u32(IA32_VMX_EXIT_CTLS))
    exit_controls = choose(text("a VM-exit control is missing"), exit_msr, u32(EXIT_REQUIRED), u32(0))
    if isinstance(exit_controls, Failure):
        return exit_controls
    entry_msr = controls_msr(basic, u32(IA32_VMX_ENTRY_CTLS))
    entry_controls = choose(text("a VM-entry control is missing"), entry_msr, u32(ENTRY_REQUIRED), u32(0))
    if isinstance(entry_controls, Failure):
        return entry_controls
    CAPABILITY.pin = pin
    CAPABILITY.primary = primary & ~u32(PRIMARY_INTERRUPT_WINDOW_EXITING)
    CAPABILITY.secondary = secondary
    CAPABILITY.exit = exit_controls
    CAPABILITY.entry = entry_controls & ~u32(ENTRY_IA32E_MODE_GUEST)
    return None


@machine
def check_capabilities() -> Failure | None:
    """Find out whether this processor can run boxes, and how. On failure a message has said which check failed."""
    features = cpuid(u32(1), u32(0)).ecx
    if features & CPUID_VMX == 0:
        say_refusal(text("the processor has no VT-x, or it is hidden: CPUID leaf 1, ECX bit 5"), u64(features))
        return Failure(REFUSED)
    if features & CPUID_XSAVE == 0:
        say_refusal(text("the processor has no XSAVE: CPUID leaf 1, ECX bit 26"), u64(features))
        return Failure(REFUSED)
    unlocked = unlock_vmx()
    if isinstance(unlocked, Failure):
        return unlocked
    basic = rdmsr(u32(IA32_VMX_BASIC))
    if (basic >> BASIC_MEMORY_TYPE_SHIFT) & 15 != WRITE_BACK:
        say_refusal(text("the VMCS is not write-back memory: IA32_VMX_BASIC bits 53:50"), basic)
        return Failure(REFUSED)
    controls = check_controls(basic)
    if isinstance(controls, Failure):
        return controls
    translation = check_translation()
    if isinstance(translation, Failure):
        return translation
    CAPABILITY.revision = basic.truncate(u32) & 0x7FFF_FFFF
    CAPABILITY.timer_shift = rdmsr(u32(IA32_VMX_MISC)).truncate(u32) & 31
    CAPABILITY.cr0_fixed0 = rdmsr(u32(IA32_VMX_CR0_FIXED0))
    CAPABILITY.cr0_fixed1 = rdmsr(u32(IA32_VMX_CR0_FIXED1))
    CAPABILITY.cr4_fixed0 = rdmsr(u32(IA32_VMX_CR4_FIXED0))
    CAPABILITY.cr4_fixed1 = rdmsr(u32(IA32_VMX_CR4_FIXED1))
    return None
