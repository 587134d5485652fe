"""Host interrupts and exceptions: the stubs of all vectors, who owns which, the PIC and the local APIC (SDM Vol. 3A, 6 and 11).

The host runs with interrupts off but for the one instruction in which it waits. While a guest runs, an external interrupt ends in an exit,
and `dispatch_vector` is called with the acknowledged vector; while the host waits it comes through the IDT and ends there too.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.hw.x86 import CPUID_EDX_APIC, IA32_APIC_BASE, VECTOR_NMI, VECTOR_PF, VECTOR_UD
from dsl.lang import (
    Device,
    Failure,
    HostPhysical,
    Struct,
    asm,
    check_files,
    check_places,
    function_address,
    image_base,
    machine,
    static,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
)
from dsl.lang.intrinsics import cli, cpuid, hlt, out8, rdmsr, read_cr2, sti_hlt, wrmsr
from vmm.clock import CALIBRATION_COUNT, NANOSECONDS, PIT_HZ, calibrate, fraction, scale
from vmm.console import console_decimal, console_flush, console_hex, console_newline, console_text
from vmm.cpu import CPU, STUB_SIZE, VECTOR_COUNT
from vmm.memory import to_host_virtual
from vmm.vmx.entry import RESTART_SIZE, launch_address, resume_address

VECTOR_PIC: Final = 0x20  # to 0x2F
VECTOR_TIMER: Final = 0x30
VECTOR_APIC_ERROR: Final = 0x31
VECTOR_APIC_SPURIOUS: Final = 0x3F
CHECK_ROW_SIZE: Final = 8  # bytes: u32 offset from the image's base, u16 file, u16 line
FILE_NAME_SIZE: Final = 32  # bytes


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

PIC_MASTER: Final = 0x20
PIC_SLAVE: Final = 0xA0
PIC_INITIALIZE: Final = 0x11
PIC_CASCADE: Final = 2

APIC_X2APIC: Final = 1 << 10
APIC_ENABLE: Final = 1 << 11
APIC_ADDRESS: Final = 0x000F_FFFF_FFFF_F000
X2APIC_BASE: Final = 0x800  # MSR of a register: this plus its offset / 16

APIC_TASK_PRIORITY: Final = 0x80
APIC_END_OF_INTERRUPT: Final = 0xB0
APIC_SPURIOUS: Final = 0xF0
APIC_LVT_TIMER: Final = 0x320
APIC_LVT_LINT0: Final = 0x350
APIC_LVT_LINT1: Final = 0x360
APIC_LVT_ERROR: Final = 0x370
APIC_TIMER_START: Final = 0x380
APIC_TIMER_NOW: Final = 0x390
APIC_TIMER_DIVIDE: Final = 0x3E0
LVT_MASKED: Final = 1 << 16
LVT_NMI: Final = 4 << 8
SOFTWARE_ENABLE: Final = 1 << 8
DIVIDE_BY_1: Final = 0b1011
TIMER_MOST: Final = 0xFFFF_FFFF


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


class ApicRegister(Struct, size=16):
    """One register of the local APIC's page: 32 bits, every 16 bytes."""

    value: Device[u32]
    padding: u32
    padding_end: u64


class LocalApic(Struct):
    """Where the local APIC's registers are, when they are memory."""

    page: HostPhysical


LOCAL_APIC: Final = static(LocalApic)


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
def say_place(rip: u64) -> None:
    """Say file and line of the failed check at an address of the monitor, if it is one."""
    offset = rip - image_base().as_u64()
    places = check_places()
    names = check_files()
    position = u64(0)
    while position + CHECK_ROW_SIZE <= places.length:
        if u64(places.load_u32(position)) == offset:
            name = u64(places.load_u16(position + 4)) * FILE_NAME_SIZE
            console_text(text(" at "))
            console_padded(name)
            console_text(text(":"))
            console_decimal(u64(places.load_u16(position + 6)))
            return
        position += CHECK_ROW_SIZE
    if names.length == 0:
        console_text(text(" (no table of places)"))


@machine
def console_padded(position: u64) -> None:
    """Say a file name of the place table, without its padding."""
    names = check_files()
    size = u64(0)
    while size < FILE_NAME_SIZE and names[position + size] != 0:
        size += 1
    console_text(names.slice(position, size))


@machine
def stop_on_exception(frame: InterruptFrame, vector: u64) -> None:
    """Say where and why, and halt: the monitor never goes on after an exception of its own."""
    console_newline()
    console_text(text("stopped: "))
    if vector == VECTOR_UD:
        console_text(text("a check failed"))
        say_place(frame.rip)
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
    while True:
        cli()
        hlt()


# The controllers


@machine
def silence_pic() -> None:
    """Remap the two 8259s out of the exceptions' way, and mask every line. Comes before anything else that concerns interrupts."""
    out8(u16(PIC_MASTER), u8(PIC_INITIALIZE))
    out8(u16(PIC_SLAVE), u8(PIC_INITIALIZE))
    out8(u16(PIC_MASTER + 1), u8(VECTOR_PIC))
    out8(u16(PIC_SLAVE + 1), u8(VECTOR_PIC + 8))
    out8(u16(PIC_MASTER + 1), u8(1 << PIC_CASCADE))
    out8(u16(PIC_SLAVE + 1), u8(PIC_CASCADE))
    out8(u16(PIC_MASTER + 1), u8(1))
    out8(u16(PIC_SLAVE + 1), u8(1))
    out8(u16(PIC_MASTER + 1), u8(0xFF))
    out8(u16(PIC_SLAVE + 1), u8(0xFF))


@machine
def apic_register(offset: u32) -> ApicRegister:
    """A register of the local APIC in memory."""
    # Safe because the page is the local APIC's, as IA32_APIC_BASE says, in the direct map; offset is one of the constants above.
    return ApicRegister.at(to_host_virtual(LOCAL_APIC.page) + u64(offset))


@machine
def apic_read(offset: u32) -> u32:
    """Read a register of this CPU's local APIC."""
    if CPU.current().uses_x2apic:
        return rdmsr(u32(X2APIC_BASE) + (offset >> 4)).truncate(u32)
    return apic_register(offset).value


@machine
def apic_write(offset: u32, value: u32) -> None:
    """Write a register of this CPU's local APIC."""
    if CPU.current().uses_x2apic:
        wrmsr(u32(X2APIC_BASE) + (offset >> 4), u64(value))
    else:
        apic_register(offset).value = value


@machine
def end_of_interrupt() -> None:
    """Tell the local APIC that its highest interrupt was handled."""
    apic_write(u32(APIC_END_OF_INTERRUPT), u32(0))


@machine
def initialize_apic() -> bool:
    """Enable this CPU's local APIC with everything masked but the timer and NMI. False: there is none."""
    if cpuid(u32(1), u32(0)).edx & CPUID_EDX_APIC == 0:
        return False
    cpu = CPU.current()
    base = rdmsr(u32(IA32_APIC_BASE))
    cpu.uses_x2apic = base & APIC_X2APIC != 0
    LOCAL_APIC.page = HostPhysical(base & APIC_ADDRESS)
    if base & APIC_ENABLE == 0:
        wrmsr(u32(IA32_APIC_BASE), base | APIC_ENABLE)
    apic_write(u32(APIC_SPURIOUS), u32(SOFTWARE_ENABLE | VECTOR_APIC_SPURIOUS))
    apic_write(u32(APIC_TASK_PRIORITY), u32(0))
    apic_write(u32(APIC_LVT_LINT0), u32(LVT_MASKED))
    apic_write(u32(APIC_LVT_LINT1), u32(LVT_NMI))
    apic_write(u32(APIC_LVT_ERROR), u32(VECTOR_APIC_ERROR))
    apic_write(u32(APIC_LVT_TIMER), u32(VECTOR_TIMER | LVT_MASKED))
    apic_write(u32(APIC_TIMER_DIVIDE), u32(DIVIDE_BY_1))
    return True


@machine
def calibrate_timers() -> Failure | None:
    """Measure TSC and local APIC timer in the same 10 ms; interrupts must be off."""
    apic_write(u32(APIC_TIMER_START), u32(TIMER_MOST))
    calibrated = calibrate()
    if isinstance(calibrated, Failure):
        return calibrated
    elapsed = u64(u32(TIMER_MOST) - apic_read(u32(APIC_TIMER_NOW)))
    apic_write(u32(APIC_TIMER_START), u32(0))
    CPU.current().timer_ticks_per_ns = fraction(elapsed * PIT_HZ // CALIBRATION_COUNT, u64(NANOSECONDS))
    return None


@machine
def start_apic_timer(ticks: u32) -> None:
    """Let the timer run once over `ticks`, and interrupt."""
    apic_write(u32(APIC_LVT_TIMER), u32(VECTOR_TIMER))
    apic_write(u32(APIC_TIMER_START), ticks)


@machine
def wait_for_interrupt(nanoseconds: u64) -> None:
    """Halt this CPU until an interrupt comes: the local APIC's timer after that time, at the latest."""
    cpu = CPU.current()
    cpu.timer_fired = False
    ticks = scale(nanoseconds, cpu.timer_ticks_per_ns)
    if ticks == 0:
        return
    start_apic_timer(ticks.truncate(u32) if ticks < TIMER_MOST else u32(TIMER_MOST))
    sti_hlt()  # an interrupt that came before is pending until now: none is lost
    cli()
    apic_write(u32(APIC_TIMER_START), u32(0))
    apic_write(u32(APIC_LVT_TIMER), u32(VECTOR_TIMER | LVT_MASKED))


@machine(naked=True)
def take_blocked_nmi() -> None:
    """Run the NMI handler for an NMI that ended in an exit: its IRET unblocks NMIs again."""
    asm(
        """
        int 2
        ret
        """
    )
