"""Do one thing that may fault, and survive: descriptor tables of the box's own, and `attempt`.

    PROBE (registers, target) -> attempt() -> the instructions at target, which end in RET -> vector of the exception, or NO_FAULT

An exception throws away whatever the stack has become and goes back to where `attempt` was called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsl.lang import (
    Struct,
    asm,
    function_address,
    machine,
    offset_of,
    static,
    text,
    u64,
    upto,
)
from dsl.lang.intrinsics import cli, hlt
from guests.intruder.report import report_number
from guests.tables import load_gates, load_segments, set_gate

NO_FAULT: Final = 255  # no exception has this vector
EXCEPTION_COUNT: Final = 32
STUB_SIZE: Final = 8


class Probe(Struct, size=88):
    """What `attempt` loads into registers before it goes to `target`, and stores from them after."""

    rax: u64
    rbx: u64
    rcx: u64
    rdx: u64
    rsi: u64
    rdi: u64
    r8: u64
    r10: u64
    target: u64
    stack: u64  # RSP to come back to; 0: no attempt is under way
    vector: u64


PROBE: Final = static(Probe)

RAX: Final = offset_of(Probe, "rax")
RBX: Final = offset_of(Probe, "rbx")
RCX: Final = offset_of(Probe, "rcx")
RDX: Final = offset_of(Probe, "rdx")
RSI: Final = offset_of(Probe, "rsi")
RDI: Final = offset_of(Probe, "rdi")
R8: Final = offset_of(Probe, "r8")
R10: Final = offset_of(Probe, "r10")
TARGET: Final = offset_of(Probe, "target")
STACK: Final = offset_of(Probe, "stack")
VECTOR: Final = offset_of(Probe, "vector")

models: list[Callable[[], int]] = []  # what stands for the processor under CPython: acts on PROBE, returns the vector


def _model_attempt() -> u64:
    PROBE.vector = u64(models[-1]())
    return PROBE.vector


@machine(naked=True, model=_model_attempt)
def attempt() -> u64:
    """Run the instructions at PROBE.target with PROBE's registers and return the exception's vector, or NO_FAULT."""
    # Safe because the callee-saved registers lie on the stack that attempt_leave goes back to, whatever the target did.
    asm(
        """
        push rbx; push rbp; push r12; push r13; push r14; push r15
        lea r11, [rip + {probe}]
        mov qword ptr [r11 + {stack}], rsp
        mov qword ptr [r11 + {vector}], {none}
        lea rax, [rip + {finish}]
        push rax
        push qword ptr [r11 + {target}]
        mov rax, qword ptr [r11 + {rax_}]
        mov rbx, qword ptr [r11 + {rbx_}]
        mov rcx, qword ptr [r11 + {rcx_}]
        mov rdx, qword ptr [r11 + {rdx_}]
        mov rsi, qword ptr [r11 + {rsi_}]
        mov rdi, qword ptr [r11 + {rdi_}]
        mov r8, qword ptr [r11 + {r8_}]
        mov r10, qword ptr [r11 + {r10_}]
        ret
        """,
        probe=PROBE,
        finish=attempt_finish,
        stack=STACK,
        vector=VECTOR,
        target=TARGET,
        none=NO_FAULT,
        rax_=RAX,
        rbx_=RBX,
        rcx_=RCX,
        rdx_=RDX,
        rsi_=RSI,
        rdi_=RDI,
        r8_=R8,
        r10_=R10,
    )


@machine(naked=True)
def attempt_finish() -> None:
    """Come back without an exception: keep the registers."""
    # Safe because only attempt puts this address on a stack.
    asm(
        """
        lea r11, [rip + {probe}]
        mov qword ptr [r11 + {rax_}], rax
        mov qword ptr [r11 + {rbx_}], rbx
        mov qword ptr [r11 + {rcx_}], rcx
        mov qword ptr [r11 + {rdx_}], rdx
        mov qword ptr [r11 + {rsi_}], rsi
        mov qword ptr [r11 + {rdi_}], rdi
        mov qword ptr [r11 + {r8_}], r8
        mov qword ptr [r11 + {r10_}], r10
        jmp {leave}
        """,
        probe=PROBE,
        leave=attempt_leave,
        rax_=RAX,
        rbx_=RBX,
        rcx_=RCX,
        rdx_=RDX,
        rsi_=RSI,
        rdi_=RDI,
        r8_=R8,
        r10_=R10,
    )


@machine(naked=True)
def attempt_leave() -> None:
    """Return from attempt, whatever the stack has become."""
    # Safe because PROBE.stack is attempt's own stack pointer.
    asm(
        """
        lea r11, [rip + {probe}]
        mov rsp, qword ptr [r11 + {stack}]
        mov qword ptr [r11 + {stack}], 0
        mov rax, qword ptr [r11 + {vector}]
        cld
        pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx
        ret
        """,
        probe=PROBE,
        stack=STACK,
        vector=VECTOR,
    )


@machine(naked=True)
def exception_stubs() -> None:
    """Enter the 32 exceptions, 8 bytes apart; the return address of the call names the vector."""
    # Safe because nothing of the interrupted state is needed: attempt_leave restores what its caller expects.
    asm(
        """
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        call common; nop; nop; nop
        common:
        pop rdi
        lea rax, [rip + {stubs}]
        sub rdi, rax
        shr rdi, 3
        lea r11, [rip + {probe}]
        cmp qword ptr [r11 + {stack}], 0
        je unexpected
        mov qword ptr [r11 + {vector}], rdi
        jmp {leave}
        unexpected:
        jmp {report}
        """,
        stubs=exception_stubs,
        probe=PROBE,
        stack=STACK,
        vector=VECTOR,
        leave=attempt_leave,
        report=report_unexpected,
    )


@machine
def rest() -> None:
    """Stop this box for good: halt with interrupts off."""
    while True:
        cli()
        hlt()


@machine
def report_unexpected(vector: u64) -> None:
    """Say that something faulted that nobody expected to, and stop."""
    report_number(text("exception outside an attempt"), vector)
    rest()


@machine
def install_tables() -> None:
    """Load our own GDT and IDT: without them an exception ends the box."""
    load_segments()
    stubs = function_address(exception_stubs)
    for vector in upto(u64(EXCEPTION_COUNT)):
        set_gate(vector, stubs + vector * STUB_SIZE)
    load_gates()
