"""The hot exits: answered between exit and entry with the caller-saved registers alone stored, no device looked at, no VMCS field read
that is not needed.
"""

from __future__ import annotations

from typing import Final

from dsl.hw import vmx
from dsl.lang import address_of, machine, offset_of, u32, u64
from dsl.lang.intrinsics import rdtsc, vmread, vmwrite
from vmm.abi import ABI_VERSION, Hypercall, Status
from vmm.box import Box
from vmm.devices.board import can_reset, is_deaf
from vmm.exits.cpuid import CPUID_ANSWERS, ROW_MASK, answer_variable, row_beyond, set_answer
from vmm.exits.ports import access_port, needs_run_loop
from vmm.tables import CPUID_BASIC_LIMIT, CPUID_FIXED
from vmm.vcpu import Exit, VirtualCpu
from vmm.vmx.capability import CAPABILITY
from vmm.vmx.io_exit import io_exit

HOT_RESUME: Final = 0  # go back to the guest
HOT_EXIT: Final = 1  # not a hot exit: the run loop handles it
HOT_DEADLINE: Final = 2  # handled, but the deadline has passed, or the run loop has something to do

ARM_INTERVAL: Final = 64  # exits, a power of two
BLOCKING_BY_STI_OR_MOV_SS: Final = 0x3
FLAGS_TRAP: Final = 1 << 8
PENDING_SINGLE_STEP: Final = 1 << 14
RING_SHIFT: Final = 5  # DPL in the access rights of SS
VCPU_OFFSET: Final = offset_of(Box, "vcpu")
assert VCPU_OFFSET == 0, "answer_port finds the box where its virtual CPU is"


@machine
def handle_hot_exit(vcpu: VirtualCpu) -> u64:
    """Answer CPUID, IN and OUT, and VMCALL for VERSION from ring 0. Returns HOT_RESUME, HOT_EXIT or HOT_DEADLINE.

    The preemption timer stands while the monitor works and goes on from there (EXIT_SAVE_PREEMPTION_TIMER), so the time of a hot exit is
    at first nobody's; every ARM_INTERVAL exits it is set anew from the TSC, so that a guest cannot stretch its slice by more.
    """
    reason = vmread(vmx.EXIT_REASON)
    if reason != Exit.CPUID.value:
        if reason != Exit.VMCALL.value:
            return answer_port(vcpu) if reason == Exit.IO_INSTRUCTION.value else u64(HOT_EXIT)
        if not answer_version(vcpu):
            return u64(HOT_EXIT)
    else:
        leaf = vcpu.registers.rax.truncate(u32)
        index = (row_beyond(leaf) if leaf > CPUID_BASIC_LIMIT else u64(leaf)) & ROW_MASK
        row = CPUID_ANSWERS[index]
        if row.kind != CPUID_FIXED:
            answer_variable(vcpu, row, index)
        else:
            set_answer(vcpu, row.eax, row.ebx, row.ecx, row.edx)
    vmwrite(vmx.GUEST_RIP, u64(vmread(vmx.VM_EXIT_INSTRUCTION_LENGTH)) + vmread(vmx.GUEST_RIP))
    if vmread(vmx.GUEST_INTERRUPTIBILITY) & BLOCKING_BY_STI_OR_MOV_SS != 0:
        end_interrupt_shadow()
    if vmread(vmx.GUEST_RFLAGS) & FLAGS_TRAP != 0:
        trap_after_instruction()
    vcpu.exit_count += 1
    if vcpu.exit_count & (ARM_INTERVAL - 1) == 0 and not arm_deadline(vcpu):
        return u64(HOT_DEADLINE)
    return u64(HOT_RESUME)


@machine
def answer_port(vcpu: VirtualCpu) -> u64:
    """Answer IN or OUT. What can end the box (a string, a reset) is not hot; what leaves something to do goes by the run loop.

    As with the other hot exits, nothing of another box and no key is touched, so there is nothing to clear before the entry.
    """
    access = io_exit()
    if access.is_string or can_reset(access.port):
        return u64(HOT_EXIT)
    # Safe because virtual CPUs are the first field of their boxes (VCPU_OFFSET), and there are no others.
    box = Box.at(address_of(vcpu))
    # A byte that nobody hears needs neither the time nor the board.
    if access.is_in or access.width != 1 or not is_deaf(access.port):
        access_port(box, access.port, access.width, access.is_in)
    advance_instruction()
    vcpu.exit_count += 1
    if needs_run_loop(box):
        return u64(HOT_DEADLINE)
    if vcpu.exit_count & (ARM_INTERVAL - 1) == 0 and not arm_deadline(vcpu):
        return u64(HOT_DEADLINE)
    return u64(HOT_RESUME)


@machine
def answer_version(vcpu: VirtualCpu) -> bool:
    """Answer VMCALL if it is for VERSION, and from ring 0."""
    if vcpu.registers.rax != Hypercall.VERSION.value:
        return False
    if vmread(vmx.GUEST_SS_ACCESS_RIGHTS) & (3 << RING_SHIFT) != 0:
        return False
    vcpu.registers.rdi = u64(ABI_VERSION)
    vcpu.registers.rax = Status.OK.value
    return True


@machine
def advance_instruction() -> None:
    """Move the current guest past the instruction that exited: RIP, interrupt shadow, single step (SDM Vol. 3C, 27.7.1)."""
    advance_by(u64(vmread(vmx.VM_EXIT_INSTRUCTION_LENGTH)))


@machine
def advance_by(length: u64) -> None:
    """The same, past an instruction whose length the processor does not give."""
    vmwrite(vmx.GUEST_RIP, vmread(vmx.GUEST_RIP) + length)
    end_interrupt_shadow()
    if vmread(vmx.GUEST_RFLAGS) & FLAGS_TRAP != 0:
        trap_after_instruction()


@machine
def trap_after_instruction() -> None:
    """Have the next entry deliver the #DB of a single step."""
    vmwrite(vmx.GUEST_PENDING_DEBUG_EXCEPTIONS, vmread(vmx.GUEST_PENDING_DEBUG_EXCEPTIONS) | PENDING_SINGLE_STEP)


@machine
def end_interrupt_shadow() -> None:
    """The instruction after STI or MOV SS is done."""
    shadow = vmread(vmx.GUEST_INTERRUPTIBILITY)
    if shadow & BLOCKING_BY_STI_OR_MOV_SS != 0:
        vmwrite(vmx.GUEST_INTERRUPTIBILITY, shadow & 0xFFFF_FFFC)


@machine
def arm_deadline(vcpu: VirtualCpu) -> bool:
    """Set the preemption timer so that the guest stops at its deadline. False: the deadline has passed."""
    now = rdtsc()
    if now >= vcpu.deadline_tsc:
        return False
    vmwrite(vmx.PREEMPTION_TIMER_VALUE, ((vcpu.deadline_tsc - now) >> (CAPABILITY.timer_shift & 31)).truncate(u32))
    return True
