"""Events into the guest: faults, external interrupts, what was being delivered when an exit came, and the interrupt window
(SDM Vol. 3C, 25.8.3, 27.6, 28.2.4).
"""

from __future__ import annotations

from typing import Final

from dsl.hw import vmx
from dsl.hw.x86 import RFLAGS_IF, VECTOR_GP, VECTOR_UD
from dsl.lang import machine, u8, u32, u64
from dsl.lang.intrinsics import vmread, vmwrite
from vmm.vcpu import VirtualCpu
from vmm.vmx.capability import CAPABILITY
from vmm.vmx.hot import BLOCKING_BY_STI_OR_MOV_SS, FLAGS_TRAP, trap_after_instruction

VALID: Final = 1 << 31
HAS_ERROR_CODE: Final = 1 << 11
TYPE_SHIFT: Final = 8
TYPE_MASK: Final = 7 << TYPE_SHIFT
TYPE_EXTERNAL: Final = 0 << TYPE_SHIFT
TYPE_NMI: Final = 2 << TYPE_SHIFT
TYPE_HARDWARE_EXCEPTION: Final = 3 << TYPE_SHIFT
TYPE_OF_INSTRUCTION: Final = (
    4 << TYPE_SHIFT
)  # a bit of the types for which the entry needs the length of an instruction
VECTOR_AND_TYPE: Final = 0xFFF  # vector, type and HAS_ERROR_CODE


@machine
def inject(vcpu: VirtualCpu, information: u32) -> None:
    """Have the next entry deliver an event; it replaces one that waits."""
    vcpu.pending.information = information
    vmwrite(vmx.ENTRY_INTERRUPTION_INFORMATION, information)


@machine
def inject_whole(vcpu: VirtualCpu, information: u32, error_code: u32, instruction_length: u32) -> None:
    """The same, of any kind: with the error code and the instruction's length where the kind has them."""
    inject(vcpu, information)
    if information & HAS_ERROR_CODE != 0:
        vmwrite(vmx.ENTRY_EXCEPTION_ERROR_CODE, error_code)
    if information & TYPE_OF_INSTRUCTION != 0:
        vmwrite(vmx.ENTRY_INSTRUCTION_LENGTH, instruction_length)


@machine
def inject_fault(vcpu: VirtualCpu, vector: u32) -> None:
    """Raise a fault without an error code at the guest's current instruction."""
    inject(vcpu, vector | (VALID | TYPE_HARDWARE_EXCEPTION))


@machine
def inject_general_protection(vcpu: VirtualCpu) -> None:
    """Raise #GP(0) at the guest's current instruction. In real mode there is no error code."""
    error = u32(HAS_ERROR_CODE) if vmread(vmx.GUEST_CR0) & 1 != 0 else u32(0)
    vmwrite(vmx.ENTRY_EXCEPTION_ERROR_CODE, u32(0))
    inject(vcpu, error | (VALID | TYPE_HARDWARE_EXCEPTION | VECTOR_GP))


@machine
def inject_invalid_opcode(vcpu: VirtualCpu) -> None:
    """Raise #UD at the guest's current instruction."""
    inject_fault(vcpu, u32(VECTOR_UD))


@machine
def has_event(vcpu: VirtualCpu) -> bool:
    """Say whether the next entry delivers an event already."""
    return vcpu.pending.information != 0


@machine
def can_take_interrupt(vcpu: VirtualCpu) -> bool:
    """Say whether the guest would take an external interrupt at its next instruction."""
    if has_event(vcpu) or vmread(vmx.GUEST_RFLAGS) & RFLAGS_IF == 0:
        return False
    return vmread(vmx.GUEST_INTERRUPTIBILITY) & BLOCKING_BY_STI_OR_MOV_SS == 0


@machine
def interrupts_enabled() -> bool:
    """Say whether RFLAGS.IF of the current guest is set."""
    return vmread(vmx.GUEST_RFLAGS) & RFLAGS_IF != 0


@machine
def deliver_interrupt(vcpu: VirtualCpu, vector: u8) -> None:
    """Have the next entry deliver an external interrupt. The guest can take it: see can_take_interrupt."""
    inject(vcpu, u32(vector) | (VALID | TYPE_EXTERNAL))


@machine
def want_interrupt_window(vcpu: VirtualCpu, is_wanted: bool) -> None:
    """Ask for an exit as soon as the guest can take an interrupt, or take the wish back."""
    if (vcpu.pending.is_window_requested != 0) == is_wanted:
        return
    vcpu.pending.is_window_requested = u64(is_wanted)
    vmwrite(
        vmx.PRIMARY_CONTROLS, CAPABILITY.primary | (u32(vmx.PRIMARY_INTERRUPT_WINDOW_EXITING) if is_wanted else u32(0))
    )


@machine
def take_interrupted_delivery(vcpu: VirtualCpu) -> bool:
    """After an exit: the entry's event is gone, unless its delivery was cut short; then have it delivered again. Returns True for that."""
    vcpu.pending.information = u32(0)
    information = vmread(vmx.IDT_VECTORING_INFORMATION)
    if information & VALID == 0:
        return False
    inject_whole(
        vcpu,
        information & (VALID | VECTOR_AND_TYPE),
        vmread(vmx.IDT_VECTORING_ERROR_CODE),
        vmread(vmx.VM_EXIT_INSTRUCTION_LENGTH),
    )
    return True


@machine
def replace_interrupted_delivery(vcpu: VirtualCpu, information: u32, error_code: u32) -> None:
    """An intercepted exception came while another event was being delivered: it goes first.

    #DB and #AC are benign beside anything (SDM Vol. 3A, table 6-5): a fault that was being delivered happens again by itself; an external
    interrupt was acknowledged already, so it waits here until the guest can take it.
    """
    waiting = vcpu.pending.information
    if waiting & (VALID | TYPE_MASK) == VALID | TYPE_EXTERNAL:
        vcpu.pending.deferred = waiting
    keep_shadow_consistent()
    inject_whole(vcpu, information, error_code, vmread(vmx.VM_EXIT_INSTRUCTION_LENGTH))


@machine
def keep_shadow_consistent() -> None:
    """In an interrupt shadow with TF set the entry wants a single step pending (SDM Vol. 3C, 27.3.1.5), but an exit for #DB saves none.

    Any program of a guest gets there: MOV SS, then INT1, under TF.
    """
    shadow = vmread(vmx.GUEST_INTERRUPTIBILITY) & BLOCKING_BY_STI_OR_MOV_SS
    if shadow != 0 and vmread(vmx.GUEST_RFLAGS) & FLAGS_TRAP != 0:
        trap_after_instruction()


@machine
def deliver_deferred(vcpu: VirtualCpu) -> None:
    """Deliver the interrupt that had to wait for an exception, if the guest can take it."""
    if can_take_interrupt(vcpu):
        inject(vcpu, vcpu.pending.deferred)
        vcpu.pending.deferred = u32(0)
