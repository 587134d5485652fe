"""The monitor's start: from the loader's jump to the first guest instruction, top to bottom."""

from __future__ import annotations

from boot.handoff import FREE_MEMORY, HANDOFF_MAGIC, HANDOFF_VERSION, Handoff
from dsl.lang import Failure, asm, function_address, machine, text, u32, u64, upto
from dsl.lang.intrinsics import rdtsc
from vmm.address_space import take_over_address_space
from vmm.apic import calibrate_timers, initialize_apic, silence_io_apic, silence_pic
from vmm.box import BOXES
from vmm.box_start import make_boxes
from vmm.chain import IDENTITY, forget_identity, take_over_identity
from vmm.clock import CLOCK
from vmm.console import console_decimal, console_initialize, console_line, console_text
from vmm.console_port import console_announce_focus
from vmm.cpu import BOOT_CPU, MAIN_STACK, MAIN_STACK_SIZE, initialize_cpu
from vmm.engine import has_invpcid, has_rdtscp, prepare_cpu, prepare_engine
from vmm.entropy import forget_entropy, prepare_entropy
from vmm.evidence import show_evidence, take_over_evidence
from vmm.exits.cpuid import EXTENDED_STATE, prepare_cpuid, prepare_extended_state
from vmm.exits.msr import pass_optional_msrs
from vmm.interrupts import halt_machine, interrupt_stubs
from vmm.memory import FRAME_TABLE, MEMORY_LIMIT, declare_free_range
from vmm.scheduler import SCHEDULER, schedule
from vmm.screen import screen_initialize
from vmm.switch import announce_mitigations, choose_mitigations


@machine(naked=True)
def start() -> None:
    """Entry: rdi is the handoff's address in the direct map. Safe because nothing is on the old stack that is wanted."""
    asm(
        """
        lea rsp, [rip + {stack}]
        add rsp, {stack_size}
        xor ebp, ebp
        call {main}
        ud2
        """,
        stack=MAIN_STACK,
        stack_size=MAIN_STACK_SIZE,
        main=main,
    )


@machine
def main(handoff: Handoff) -> None:
    """Take over from the loader, make the boxes, run them. Never returns."""
    silence_pic()
    console_initialize()
    initialize_cpu(BOOT_CPU, u32(0), function_address(interrupt_stubs))
    if not is_handoff_good(handoff):
        console_line(text("refused: the loader's handoff is not version 1"))
        halt_machine()
    take_over_address_space()
    screen_initialize(handoff)
    take_over_evidence(handoff)
    if not prepare_machine(handoff):
        show_evidence(handoff)
        halt_machine()
    take_over_identity(handoff)
    prepare_entropy(IDENTITY.cdi.seal)
    if not make_boxes(handoff):
        halt_machine()
    console_announce_focus()
    SCHEDULER.started_tsc = rdtsc()
    SCHEDULER.last = BOXES.count - 1
    schedule()
    forget_identity()
    forget_entropy()
    halt_machine()


@machine
def is_handoff_good(handoff: Handoff) -> bool:
    """Say whether the handoff is one that this monitor understands."""
    return handoff.magic == HANDOFF_MAGIC and handoff.version == HANDOFF_VERSION


@machine
def prepare_machine(handoff: Handoff) -> bool:
    """Memory, timers, and the processor's virtualization. False: a message has said what is missing."""
    if not declare_memory(handoff):
        return False
    if not initialize_apic():
        console_line(text("refused: this machine has no local APIC (CPUID leaf 1, EDX bit 9)"))
        return False
    silence_io_apic()
    engine = prepare_engine()
    if isinstance(engine, Failure):
        console_line(text("refused: the monitor cannot run boxes on this machine"))
        return False
    prepare_extended_state()
    calibrated = calibrate_timers()
    if isinstance(calibrated, Failure):
        console_line(text("refused: the PIT's channel 2 does not count"))
        return False
    prepared = prepare_cpu()
    if isinstance(prepared, Failure):
        console_line(text("refused: VMXON failed"))
        return False
    prepare_cpuid(has_rdtscp(), has_invpcid(), CLOCK.tsc_hz)
    pass_optional_msrs(has_rdtscp(), EXTENDED_STATE.has_spec_ctrl)
    choose_mitigations()
    announce_machine()
    announce_mitigations()
    return True


@machine
def declare_memory(handoff: Handoff) -> bool:
    """Enter the free RAM of the handoff's map into the ownership table."""
    for index in upto(u64(handoff.range_count)):
        row = handoff.ranges[index]
        if row.kind == FREE_MEMORY:
            declared = declare_free_range(row.base, row.size)
            if isinstance(declared, Failure):
                console_line(text("refused: the loader's memory map overlaps itself"))
                return False
            if row.base + row.size > MEMORY_LIMIT:
                console_line(text("monitor: memory above 64 GiB is not used"))
    return True


@machine
def announce_machine() -> None:
    """Say what was found."""
    console_text(text("monitor: VMX on, TSC "))
    console_decimal(u64(CLOCK.tsc_khz))
    console_text(text(" kHz, "))
    console_decimal(FRAME_TABLE.free_count * 2)
    console_line(text(" MiB free"))
