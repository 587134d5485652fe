"""Host interrupts and exceptions: the stubs of all vectors, who owns which (SDM Vol. 3A, 6).

The host runs with interrupts off but for the one instruction in which it waits. While a guest runs, an external interrupt ends in an exit,
and `dispatch_vector` is called with the acknowledged vector; while the host waits it comes through the IDT and ends there too.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.hw.x86 import VECTOR_NMI, VECTOR_PF, VECTOR_UD
from dsl.lang import HostVirtual, Struct, asm, function_address, machine, table, text, u8, u64
from dsl.lang.intrinsics import cli, hlt, read_cr2
from dsl.std.checks import append_place
from dsl.std.print import Line, line_bytes
from vmm.apic import VECTOR_APIC_ERROR, VECTOR_APIC_SPURIOUS, VECTOR_PIC, VECTOR_TIMER, end_of_interrupt
from vmm.console import console_decimal, console_hex, console_newline, console_text
from vmm.console_port import console_flush
from vmm.cpu import CPU, STUB_SIZE, VECTOR_COUNT
from vmm.vmx.entry import RESTART_SIZE, launch_address, resume_address


class Owner(Enum):
    """Who answers for a vector."""

    NOBODY = u8(0)
    EXCEPTION = u8(1)  # the processor's: the monitor stops
    NMI = u8(2)
    SPURIOUS = u8(3)  # needs no end-of-interrupt
    TIMER = u8(4)
    APIC_ERROR = u8(5)


def owner_of(vector: int) -> Owner:
    """The owner table's content."""
    if vector == VECTOR_NMI:
        return Owner.NMI
    if vector < VECTOR_PIC:
        return Owner.EXCEPTION
    special = {VECTOR_TIMER: Owner.TIMER, VECTOR_APIC_ERROR: Owner.APIC_ERROR, VECTOR_APIC_SPURIOUS: Owner.SPURIOUS}
    if vector in (VECTOR_PIC + 7, VECTOR_PIC + 15):  # all lines are masked: what still comes from the PIC is spurious
        return Owner.SPURIOUS
    return special.get(vector, Owner.NOBODY)


VECTOR_OWNERS: Final = table(u8, [int(owner_of(vector).value) for vector in range(VECTOR_COUNT)])


class InterruptFrame(Struct):
    """What the common stub and the processor leave on the stack."""

    r15: u64
    r14: u64
    r13: u64
    r12: u64
    r11: u64
    r10: u64
    r9: u64
    r8: u64
    rbp: u64
    rdi: u64
    rsi: u64
    rdx: u64
    rcx: u64
    rbx: u64
    rax: u64
    vector: u64
    error_code: u64
    rip: u64
    cs: u64
    rflags: u64
    rsp: u64
    ss: u64


@machine(naked=True)
def interrupt_stubs() -> None:
    """Enter each vector, 8 bytes apart: an error code is made where the processor pushes none, and the return address of the call names
    the vector. Safe because every register is saved before the handler and restored after it, and the stack is the processor's or an IST.
    """
    asm(
        """
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        nop; nop; call common; nop
        push 0; call common; nop
        nop; nop; call common; nop
        nop; nop; call common; nop
        nop; nop; call common; nop
        nop; nop; call common; nop
        nop; nop; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        nop; nop; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        nop; nop; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        nop; nop; call common; nop
        nop; nop; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        push 0; call common; nop
        common:
        push rax
        push rbx
        push rcx
        push rdx
        push rsi
        push rdi
        push rbp
        push r8
        push r9
        push r10
        push r11
        push r12
        push r13
        push r14
        push r15
        cld
        mov rdi, rsp
        call {handler}
        pop r15
        pop r14
        pop r13
        pop r12
        pop r11
        pop r10
        pop r9
        pop r8
        pop rbp
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rbx
        pop rax
        add rsp, 16
        iretq
        """,
        handler=handle_interrupt,
    )


@machine
def handle_interrupt(frame: InterruptFrame) -> None:
    """Handle an interrupt or exception of the host."""
    vector = (frame.vector - function_address(interrupt_stubs).as_u64()) // STUB_SIZE
    if vector == VECTOR_NMI:
        note_nmi(frame)
    elif vector < VECTOR_PIC:
        stop_on_exception(frame, vector)
    else:
        dispatch_vector(vector)


@machine
def note_nmi(frame: InterruptFrame) -> None:
    """Remember an NMI for the run loop. One that came between the last look and the entry sends the stub back to look again."""
    cpu = CPU.current()
    cpu.nmi_count += 1
    cpu.exit_frame.nmi_pending = u64(1)
    if frame.rip - resume_address().as_u64() < RESTART_SIZE:
        frame.rip = resume_address().as_u64()
    elif frame.rip - launch_address().as_u64() < RESTART_SIZE:
        frame.rip = launch_address().as_u64()


@machine
def dispatch_vector(vector: u64) -> None:
    """Do what the owner of an external interrupt's vector wants, and end the interrupt."""
    cpu = CPU.current()
    if vector >= VECTOR_COUNT:
        cpu.unexpected_interrupts += 1
        end_of_interrupt()
        return
    owner = VECTOR_OWNERS[vector]
    if owner == Owner.SPURIOUS.value:
        return
    if owner == Owner.TIMER.value:
        cpu.timer_fired = True
    else:
        cpu.unexpected_interrupts += 1
    end_of_interrupt()


@machine
def stop_on_exception(frame: InterruptFrame, vector: u64) -> None:
    """Say where and why, and halt: the monitor never goes on after an exception of its own. A second one, from here, is not said.

    What waits to be sent goes first, so that there is room for these words.
    """
    cpu = CPU.current()
    if cpu.is_stopping:
        stop_cpu()
    cpu.is_stopping = True
    console_flush(u64(0))
    console_newline()
    console_text(text("stopped: "))
    if vector == VECTOR_UD:
        console_text(text("a check failed"))
        line = Line()
        if append_place(line, HostVirtual(frame.rip)):
            console_text(text(" at "))
            console_text(line_bytes(line))
    else:
        console_text(text("exception "))
        console_decimal(vector)
        console_text(text(" error "))
        console_hex(frame.error_code)
    console_text(text(" rip "))
    console_hex(frame.rip)
    console_text(text(" rsp "))
    console_hex(frame.rsp)
    if vector == VECTOR_PF:
        console_text(text(" address "))
        console_hex(read_cr2())
    console_newline()
    halt_machine()


@machine
def halt_machine() -> None:
    """Send what was said, then stop this CPU for good."""
    console_flush(u64(0))
    stop_cpu()


@machine
def stop_cpu() -> None:
    """Stop this CPU for good."""
    while True:
        cli()
        hlt()


@machine(naked=True)
def take_blocked_nmi() -> None:
    """Run the NMI handler for an NMI that ended in an exit: its IRET unblocks NMIs again."""
    asm(
        """
        int 2
        ret
        """
    )
