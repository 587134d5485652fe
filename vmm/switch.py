"""The switch between boxes: everything of one box leaves the processor, eagerly, before another's comes in (DESIGN section 7).

What the VMCS switches by itself: RIP, RSP, RFLAGS, segments, CR0, CR3, CR4, DR7, DEBUGCTL, EFER, PAT, SYSENTER, FS and GS base. Kept in
memory and never in the processor: general registers, CR8. What guests do not have, so that nothing is left over: XSS (XSAVES is #UD, the
MSR #GP), PKRU (CR4.PKE is reserved to them and XCR0[9] refused).
"""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import (
    CPUID_7_EDX_ARCH_CAPABILITIES,
    CPUID_7_EDX_L1D_FLUSH,
    CPUID_7_EDX_MD_CLEAR,
    CPUID_7_EDX_SPEC_CTRL,
    IA32_ARCH_CAPABILITIES,
    IA32_CSTAR,
    IA32_FLUSH_CMD,
    IA32_FMASK,
    IA32_KERNEL_GS_BASE,
    IA32_LSTAR,
    IA32_PRED_CMD,
    IA32_SPEC_CTRL,
    IA32_STAR,
    IA32_TSC_AUX,
)
from dsl.lang import Array, Struct, machine, static, text, u8, u16, u32, u64
from dsl.lang.intrinsics import (
    cpuid,
    rdmsr,
    read_cr2,
    read_dr0,
    read_dr1,
    read_dr2,
    read_dr3,
    read_dr6,
    verw,
    write_cr2,
    write_dr0,
    write_dr1,
    write_dr2,
    write_dr3,
    write_dr6,
    wrmsr,
    xrstor64,
    xsave64,
    xsetbv,
)
from vmm.console import console_line, console_text
from vmm.cpu import CPU, SELECTOR_DATA
from vmm.engine import has_rdtscp
from vmm.exits.cpuid import EXTENDED_STATE
from vmm.vcpu import SwitchState

PREDICTOR_BARRIER: Final = 1  # of IA32_PRED_CMD: IBPB
FLUSH_L1D: Final = 1  # of IA32_FLUSH_CMD

ARCH_IBRS_ALL: Final = 1 << 1
ARCH_PBRSB_NO: Final = 1 << 24
ARCH_RETURNS_SAFE: Final = ARCH_IBRS_ALL | ARCH_PBRSB_NO  # a guest's calls predict no return of ours
ARCH_L1TF_SAFE: Final = 1 << 3  # SKIP_L1DFL_VMENTRY
ARCH_RDCL_NO: Final = 1 << 0
ARCH_MDS_NO: Final = 1 << 5
DR6_AT_RESET: Final = 0xFFFF_0FF0


class Mitigations(Struct):
    """What this processor needs and has against transient execution. Written once; said at start."""

    uses_predictor_barrier: bool
    flushes_l1d: bool
    clears_buffers: bool


MITIGATIONS: Final = static(Mitigations)


@machine
def choose_mitigations() -> None:
    """Look what the processor needs (IA32_ARCH_CAPABILITIES) and offers (CPUID leaf 7)."""
    features = cpuid(u32(7), u32(0)).edx if cpuid(u32(0), u32(0)).eax >= 7 else u32(0)
    safe = u64(0)
    if features & CPUID_7_EDX_ARCH_CAPABILITIES != 0:
        safe = rdmsr(u32(IA32_ARCH_CAPABILITIES))
    MITIGATIONS.uses_predictor_barrier = features & CPUID_7_EDX_SPEC_CTRL != 0
    MITIGATIONS.flushes_l1d = features & CPUID_7_EDX_L1D_FLUSH != 0 and safe & (ARCH_L1TF_SAFE | ARCH_RDCL_NO) == 0
    CPU.current().exit_frame.refills_returns = u64(safe & ARCH_RETURNS_SAFE != ARCH_RETURNS_SAFE)
    MITIGATIONS.clears_buffers = features & CPUID_7_EDX_MD_CLEAR != 0 and safe & ARCH_MDS_NO == 0


@machine
def say_executed(is_executed: bool, name: Array[u8]) -> None:
    """Say a name if that is executed."""
    if is_executed:
        console_text(name)


@machine
def announce_mitigations() -> None:
    """Say what is executed against transient execution: what is not named is not needed here, or not to be had."""
    console_text(text("monitor: against speculation:"))
    say_executed(MITIGATIONS.uses_predictor_barrier, text(" IBPB at a switch;"))
    say_executed(MITIGATIONS.flushes_l1d, text(" L1D flush before entry;"))
    say_executed(MITIGATIONS.clears_buffers, text(" VERW before entry;"))
    say_executed(CPU.current().exit_frame.refills_returns != 0, text(" returns refilled after exit;"))
    console_line(text(" masked indices, no indirect branch"))


@machine
def clear_buffers() -> None:
    """Before an entry from the slow path, which may have touched secrets or another box's state: flush the first-level data cache, clear
    the fill buffers, where the processor needs it.
    """
    if MITIGATIONS.flushes_l1d:
        wrmsr(u32(IA32_FLUSH_CMD), u64(FLUSH_L1D))
    if MITIGATIONS.clears_buffers:
        verw(u16(SELECTOR_DATA))


@machine
def forget_predictions() -> None:
    """Between two boxes: nothing that one trained is there for the other."""
    if MITIGATIONS.uses_predictor_barrier:
        wrmsr(u32(IA32_PRED_CMD), u64(PREDICTOR_BARRIER))


@machine
def reset_state(state: SwitchState) -> None:
    """The state of a box that has not run: as after reset. The XSAVE area is zero, which is the initial state of every component."""
    state.xcr0 = u64(1)
    state.dr6 = u64(DR6_AT_RESET)


@machine
def save_state(state: SwitchState) -> None:
    """Take a box's state out of the processor. The host's XCR0 is all that guests may have while this runs."""
    xsetbv(u32(0), EXTENDED_STATE.allowed)
    xsave64(state.xsave_area, EXTENDED_STATE.allowed)
    state.cr2 = read_cr2()
    state.dr0 = read_dr0()
    state.dr1 = read_dr1()
    state.dr2 = read_dr2()
    state.dr3 = read_dr3()
    state.dr6 = read_dr6()
    state.star = rdmsr(u32(IA32_STAR))
    state.lstar = rdmsr(u32(IA32_LSTAR))
    state.cstar = rdmsr(u32(IA32_CSTAR))
    state.fmask = rdmsr(u32(IA32_FMASK))
    state.kernel_gs_base = rdmsr(u32(IA32_KERNEL_GS_BASE))
    if has_rdtscp():
        state.tsc_aux = rdmsr(u32(IA32_TSC_AUX))
    if EXTENDED_STATE.has_spec_ctrl:
        state.spec_ctrl = rdmsr(u32(IA32_SPEC_CTRL))


@machine
def load_state(state: SwitchState) -> None:
    """Bring a box's state into the processor, all of it."""
    xsetbv(u32(0), EXTENDED_STATE.allowed)
    xrstor64(state.xsave_area, EXTENDED_STATE.allowed)
    xsetbv(u32(0), state.xcr0)
    write_cr2(state.cr2)
    write_dr0(state.dr0)
    write_dr1(state.dr1)
    write_dr2(state.dr2)
    write_dr3(state.dr3)
    write_dr6(state.dr6)
    wrmsr(u32(IA32_STAR), state.star)
    wrmsr(u32(IA32_LSTAR), state.lstar)
    wrmsr(u32(IA32_CSTAR), state.cstar)
    wrmsr(u32(IA32_FMASK), state.fmask)
    wrmsr(u32(IA32_KERNEL_GS_BASE), state.kernel_gs_base)
    if has_rdtscp():
        wrmsr(u32(IA32_TSC_AUX), state.tsc_aux)
    if EXTENDED_STATE.has_spec_ctrl:
        wrmsr(u32(IA32_SPEC_CTRL), state.spec_ctrl)
    forget_predictions()
