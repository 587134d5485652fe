"""VM entry and exit: the stub between the run loop and the guest (SDM Vol. 3C, 26 to 27).

    run loop --> enter_guest --> guest --> guest_exit --> handle_hot_exit --+--> resume_guest --> guest
                                               the run loop <-- slow path <--+

At an exit the processor sets RSP to the CPU's `ExitFrame`, whose first word is the virtual CPU. The caller-saved registers are stored
first; a hot exit touches nothing else and goes straight back. Every other exit stores the rest and returns to the run loop with the
answer of `handle_hot_exit`.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import HostVirtual, asm, function_address, machine, offset_of, u64
from vmm.cpu import ExitFrame
from vmm.vcpu import Registers, VirtualCpu
from vmm.vmx.hot import handle_hot_exit

# What enter_guest returns besides the answers of handle_hot_exit
OUTCOME_NOT_ENTERED: Final = 3  # an NMI came before VMRESUME: look at it, then enter again
OUTCOME_ENTRY_REFUSED: Final = 4  # VMLAUNCH or VMRESUME failed: see VM_INSTRUCTION_ERROR
OUTCOME_NOT_LAUNCHED: Final = 5  # an NMI came before VMLAUNCH

REGISTERS: Final = offset_of(VirtualCpu, "registers")
RAX: Final = REGISTERS + offset_of(Registers, "rax")
RCX: Final = REGISTERS + offset_of(Registers, "rcx")
RDX: Final = REGISTERS + offset_of(Registers, "rdx")
RBX: Final = REGISTERS + offset_of(Registers, "rbx")
RBP: Final = REGISTERS + offset_of(Registers, "rbp")
RSI: Final = REGISTERS + offset_of(Registers, "rsi")
RDI: Final = REGISTERS + offset_of(Registers, "rdi")
R8: Final = REGISTERS + offset_of(Registers, "r8")
R9: Final = REGISTERS + offset_of(Registers, "r9")
R10: Final = REGISTERS + offset_of(Registers, "r10")
R11: Final = REGISTERS + offset_of(Registers, "r11")
R12: Final = REGISTERS + offset_of(Registers, "r12")
R13: Final = REGISTERS + offset_of(Registers, "r13")
R14: Final = REGISTERS + offset_of(Registers, "r14")
R15: Final = REGISTERS + offset_of(Registers, "r15")
FRAME_VCPU: Final = offset_of(ExitFrame, "virtual_cpu")
FRAME_STACK: Final = offset_of(ExitFrame, "saved_stack")
FRAME_NMI: Final = offset_of(ExitFrame, "nmi_pending")
FRAME_REFILL: Final = offset_of(ExitFrame, "refills_returns")
RETURN_PREDICTIONS: Final = 32  # as many as a processor's return stack buffer has at most
RESTART_SIZE: Final = (
    9  # resume_guest and launch_guest begin with 8 bytes that change nothing; at 8 is VMRESUME or VMLAUNCH
)


@machine
def resume_address() -> HostVirtual:
    """Where an NMI handler sends a stub that it interrupted just before VMRESUME."""
    return function_address(resume_guest)


@machine
def launch_address() -> HostVirtual:
    """The same, before VMLAUNCH."""
    return function_address(launch_guest)


@machine(naked=True)
def enter_guest(vcpu: VirtualCpu, frame: ExitFrame, is_launched: bool) -> u64:
    """Run the guest until an exit that is not hot. The current VMCS is the guest's.

    Returns an answer of `handle_hot_exit` or an OUTCOME. Safe because the callee-saved registers are kept on the caller's stack, whose
    pointer is in the frame, and the guest's are all loaded before the entry.
    """
    asm(
        """
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov qword ptr [rsi + {frame_stack}], rsp
        mov qword ptr [rsi + {frame_vcpu}], rdi
        mov rsp, rsi
        test dl, dl
        mov rax, qword ptr [rdi + {rax}]
        mov rcx, qword ptr [rdi + {rcx}]
        mov rdx, qword ptr [rdi + {rdx}]
        mov rbx, qword ptr [rdi + {rbx}]
        mov rbp, qword ptr [rdi + {rbp}]
        mov rsi, qword ptr [rdi + {rsi}]
        mov r8, qword ptr [rdi + {r8}]
        mov r9, qword ptr [rdi + {r9}]
        mov r10, qword ptr [rdi + {r10}]
        mov r11, qword ptr [rdi + {r11}]
        mov r12, qword ptr [rdi + {r12}]
        mov r13, qword ptr [rdi + {r13}]
        mov r14, qword ptr [rdi + {r14}]
        mov r15, qword ptr [rdi + {r15}]
        mov rdi, qword ptr [rdi + {rdi}]
        jz launch
        jmp {resume_guest}
        launch:
        jmp {launch_guest}
        """,
        frame_stack=FRAME_STACK, frame_vcpu=FRAME_VCPU, rax=RAX, rcx=RCX, rdx=RDX, rbx=RBX, rbp=RBP, rsi=RSI, rdi=RDI,
        r8=R8, r9=R9, r10=R10, r11=R11, r12=R12, r13=R13, r14=R14, r15=R15, resume_guest=resume_guest, launch_guest=launch_guest,
    )  # fmt: skip


@machine(naked=True)
def resume_guest() -> None:
    """Look for an NMI, then enter. All registers are the guest's. Restartable from its start: nothing before the entry changes anything."""
    asm(
        """
        cmp qword ptr [rsp + {nmi}], 0
        jne interrupted
        vmresume
        push 4
        jmp {leave_guest}
        interrupted:
        push 3
        jmp {leave_guest}
        """,
        nmi=FRAME_NMI,
        leave_guest=leave_guest,
    )


@machine(naked=True)
def launch_guest() -> None:
    """The same for the first entry of a VMCS."""
    asm(
        """
        cmp qword ptr [rsp + {nmi}], 0
        jne interrupted
        vmlaunch
        push 4
        jmp {leave_guest}
        interrupted:
        push 5
        jmp {leave_guest}
        """,
        nmi=FRAME_NMI,
        leave_guest=leave_guest,
    )


@machine(naked=True)
def guest_exit() -> None:
    """HOST_RIP: store the caller-saved registers, and RBX (which CPUID writes), try the hot exits, and go back or leave.

    Safe because RSP is the frame, whose first word is the virtual CPU that runs, and nothing is lost before it is stored.
    """
    asm(
        """
        push rdi
        mov rdi, qword ptr [rsp + 8]
        mov qword ptr [rdi + {rax}], rax
        mov qword ptr [rdi + {rcx}], rcx
        mov qword ptr [rdi + {rdx}], rdx
        mov qword ptr [rdi + {rbx}], rbx
        mov qword ptr [rdi + {rsi}], rsi
        mov qword ptr [rdi + {r8}], r8
        mov qword ptr [rdi + {r9}], r9
        mov qword ptr [rdi + {r10}], r10
        mov qword ptr [rdi + {r11}], r11
        pop qword ptr [rdi + {rdi}]
        call {handle_hot_exit}
        mov rdi, qword ptr [rsp]
        test eax, eax
        jnz slow
        mov rax, qword ptr [rdi + {rax}]
        mov rcx, qword ptr [rdi + {rcx}]
        mov rdx, qword ptr [rdi + {rdx}]
        mov rbx, qword ptr [rdi + {rbx}]
        mov rsi, qword ptr [rdi + {rsi}]
        mov r8, qword ptr [rdi + {r8}]
        mov r9, qword ptr [rdi + {r9}]
        mov r10, qword ptr [rdi + {r10}]
        mov r11, qword ptr [rdi + {r11}]
        mov rdi, qword ptr [rdi + {rdi}]
        jmp {resume_guest}
        slow:
        mov rbx, qword ptr [rdi + {rbx}]
        jmp {return_to_run_loop}
        """,
        rax=RAX, rcx=RCX, rdx=RDX, rbx=RBX, rsi=RSI, rdi=RDI, r8=R8, r9=R9, r10=R10, r11=R11,
        handle_hot_exit=handle_hot_exit, resume_guest=resume_guest, return_to_run_loop=return_to_run_loop,
    )  # fmt: skip


@machine(naked=True)
def leave_guest() -> None:
    """Not entered: return the outcome on the stack. What a hot exit stores was just loaded from there; the rest is stored next."""
    asm(
        """
        pop rax
        mov rdi, qword ptr [rsp]
        jmp {return_to_run_loop}
        """,
        return_to_run_loop=return_to_run_loop,
    )


@machine(naked=True)
def return_to_run_loop() -> None:
    """Store the callee-saved registers of the guest and return from enter_guest with rax. rdi: the virtual CPU; rsp: the frame.

    The returns of the run loop are the first that no call of ours stands before: where the processor would predict them by what the guest
    has called, its predictions are refilled first, each with a place that goes nowhere. (The returns of a hot exit all have their calls.)
    """
    asm(
        """
        mov qword ptr [rdi + {rbx}], rbx
        mov qword ptr [rdi + {rbp}], rbp
        mov qword ptr [rdi + {r12}], r12
        mov qword ptr [rdi + {r13}], r13
        mov qword ptr [rdi + {r14}], r14
        mov qword ptr [rdi + {r15}], r15
        cmp qword ptr [rsp + {frame_refill}], 0
        je refilled
        mov ecx, {rounds}
        refill:
        call second
        wait_first:
        pause
        lfence
        jmp wait_first
        second:
        call third
        wait_second:
        pause
        lfence
        jmp wait_second
        third:
        call fourth
        wait_third:
        pause
        lfence
        jmp wait_third
        fourth:
        call next
        wait_fourth:
        pause
        lfence
        jmp wait_fourth
        next:
        dec ecx
        jnz refill
        add rsp, {refilled_size}
        lfence
        refilled:
        mov rsp, qword ptr [rsp + {frame_stack}]
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret
        """,
        rbx=RBX, rbp=RBP, r12=R12, r13=R13, r14=R14, r15=R15, frame_stack=FRAME_STACK, frame_refill=FRAME_REFILL,
        rounds=RETURN_PREDICTIONS // 4, refilled_size=RETURN_PREDICTIONS * 8,
    )  # fmt: skip
