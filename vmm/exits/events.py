"""Exits that are events of the host or of the guest: exceptions, NMI, interrupts, timer, window, HLT."""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import VECTOR_AC, VECTOR_DB, VECTOR_MC
from dsl.lang import machine, text, u64
from dsl.lang.intrinsics import read_dr6, write_dr6
from vmm.box import Box
from vmm.console import console_line
from vmm.engine import (
    advance_instruction,
    end_general_detect,
    exception_exit,
    interrupt_vector,
    interrupts_enabled,
    replace_interrupted_delivery,
)
from vmm.exits.stop import handle_unknown_exit, stop_box
from vmm.interrupts import dispatch_vector, halt_machine, take_blocked_nmi
from vmm.vcpu import Resume, StopReason

DEBUG_STATUS: Final = 0x600F  # B0 to B3, BD, BS: what an exit for #DB reports
DEBUG_STATUS_CLEARED: Final = 0xF  # #DB sets B0 to B3 anew


@machine
def handle_exception(box: Box) -> Resume:
    """#DB and #AC go back to the guest (they are intercepted so that no loop of them can hold the processor); NMI is the host's."""
    exception = exception_exit()
    if exception.is_nmi:
        take_blocked_nmi()
        return Resume.GUEST
    if exception.vector == VECTOR_MC:
        console_line(text("stopped: machine check while a box ran"))
        halt_machine()
    if exception.vector == VECTOR_DB:
        write_dr6((read_dr6() & ~u64(DEBUG_STATUS_CLEARED)) | (exception.qualification & DEBUG_STATUS))
        end_general_detect()
    elif exception.vector != VECTOR_AC:
        return handle_unknown_exit(box)
    replace_interrupted_delivery(box.vcpu, exception.information, exception.error_code)
    return Resume.GUEST


@machine
def handle_external_interrupt(box: Box) -> Resume:
    """An interrupt of the host: its owner takes it."""
    dispatch_vector(interrupt_vector())
    return Resume.GUEST


@machine
def handle_preemption_timer(box: Box) -> Resume:
    """The deadline has come: the run loop looks at what is due."""
    return Resume.GUEST


@machine
def handle_interrupt_window(box: Box) -> Resume:
    """The guest can take an interrupt now: the run loop delivers it, and asks for another window or for none."""
    return Resume.GUEST


@machine
def handle_hlt(box: Box) -> Resume:
    """Wait for an interrupt, in the scheduler; with interrupts off that is for ever."""
    if not interrupts_enabled():
        return stop_box(box, StopReason.HALTED_FOREVER)
    advance_instruction()
    return Resume.HALT
