"""A physical CPU: its per-CPU state behind GS, descriptor tables, interrupt stacks, the IDT (SDM Vol. 3A, 6 to 8)."""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import VECTOR_DF, VECTOR_MC, VECTOR_NMI
from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    address_of,
    array,
    machine,
    per_cpu,
    size_of,
    static,
    static_array,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import lgdt, lidt, load_data_segments, ltr, reload_code_segment, write_gs_base

SELECTOR_CODE: Final = 0x08
SELECTOR_DATA: Final = 0x10
SELECTOR_TASK: Final = 0x18
GDT_ENTRIES: Final = 5  # null, code, data, task (two)
CODE_DESCRIPTOR: Final = 0x00AF_9B00_0000_FFFF  # 64-bit, present, ring 0, accessed
DATA_DESCRIPTOR: Final = 0x00CF_9300_0000_FFFF
VECTOR_COUNT: Final = 64  # vectors with a stub of their own
GATE_COUNT: Final = 256  # firmware may have programmed any vector; those above have the stub of VECTOR_OTHERS
VECTOR_OTHERS: Final = 62  # nobody's: see vmm.interrupts
STUB_SIZE: Final = 8  # bytes a vector in `interrupt_stubs`
INTERRUPT_GATE: Final = 0x8E00  # present, ring 0, interrupts off
STACK_SIZE: Final = 8192  # bytes of an interrupt stack, and of the stack that exits run on
MAIN_STACK_SIZE: Final = 65536

IST_NMI: Final = 1
IST_DOUBLE_FAULT: Final = 2
IST_MACHINE_CHECK: Final = 3


class TaskState(Struct, size=104, packed=True):
    """The 64-bit TSS (SDM Vol. 3A, 8.7): only the interrupt stacks matter."""

    reserved_start: u32
    rsp0: u64
    rsp1: u64
    rsp2: u64
    reserved_middle: u64
    interrupt_stacks: Array[u64] = array(7)
    reserved_end: u64
    reserved_word: u16
    io_map_base: u16


class DescriptorTablePointer(Struct, size=10, packed=True):
    """The operand of LGDT and LIDT."""

    limit: u16
    base: u64


class ExitFrame(Struct, size=32, align=16):
    """What the exit stub finds at the stack pointer: the processor sets it to this frame at every exit."""

    virtual_cpu: HostVirtual  # the one that runs
    saved_stack: u64  # RSP of the run loop
    nmi_pending: u64  # not 0: an NMI came; looked at before each entry
    refills_returns: u64  # not 0: this processor needs its return predictions refilled after an exit


class PhysicalCpu(Struct):
    """One physical CPU. Reached through GS; touched by no other CPU."""

    self_address: HostVirtual
    index: u32
    timer_fired: bool
    uses_x2apic: bool
    is_stopping: bool  # an exception of the monitor's own is being reported
    reserved: u8
    timer_ticks_per_ns: u64  # of the local APIC's timer, times 2**32
    nmi_count: u64
    unexpected_interrupts: u64
    running_box: u64  # index of the box whose state is in the processor, or NO_BOX
    exit_stack: Array[u8] = array(STACK_SIZE)  # grows down from exit_frame
    exit_frame: ExitFrame
    stack_nmi: Array[u8] = array(STACK_SIZE)
    stack_double_fault: Array[u8] = array(STACK_SIZE)
    stack_machine_check: Array[u8] = array(STACK_SIZE)
    task: TaskState
    padding: Array[u8] = array(8)
    gdt: Array[u64] = array(GDT_ENTRIES)
    gdt_pointer: DescriptorTablePointer
    padding_gdt: Array[u8] = array(6)
    idt_pointer: DescriptorTablePointer
    padding_idt: Array[u8] = array(14)


class Gate(Struct, size=16):
    """An interrupt gate of the IDT."""

    offset_low: u16
    selector: u16
    stack_and_type: u16  # IST in bits 2:0, type in the high byte
    offset_middle: u16
    offset_high: u32
    reserved: u32


NO_BOX: Final = 0xFFFF_FFFF_FFFF_FFFF
CPU: Final = per_cpu(PhysicalCpu)
BOOT_CPU: Final = static(PhysicalCpu)
IDT: Final = static_array(Gate, GATE_COUNT, align=4096)
MAIN_STACK: Final = static_array(u64, MAIN_STACK_SIZE // 8, align=4096)


@machine
def stack_top(stack: Array[u8]) -> u64:
    """The address just above a stack."""
    return address_of(stack).as_u64() + stack.length


@machine
def fill_task_state(task: TaskState, cpu: PhysicalCpu) -> None:
    """Give NMI, double fault and machine check stacks of their own: they may come when no other stack can be trusted."""
    task.interrupt_stacks[IST_NMI - 1] = stack_top(cpu.stack_nmi)
    task.interrupt_stacks[IST_DOUBLE_FAULT - 1] = stack_top(cpu.stack_double_fault)
    task.interrupt_stacks[IST_MACHINE_CHECK - 1] = stack_top(cpu.stack_machine_check)
    task.io_map_base = u16(size_of(TaskState))


@machine
def fill_gdt(cpu: PhysicalCpu) -> None:
    """Write code, data and task segments (SDM Vol. 3A, 3.4.5 and 8.2.3)."""
    task = address_of(cpu.task).as_u64()
    cpu.gdt[0] = u64(0)
    cpu.gdt[SELECTOR_CODE >> 3] = u64(CODE_DESCRIPTOR)
    cpu.gdt[SELECTOR_DATA >> 3] = u64(DATA_DESCRIPTOR)
    cpu.gdt[SELECTOR_TASK >> 3] = (
        u64(size_of(TaskState) - 1) | ((task & 0xFF_FFFF) << 16) | (u64(0x89) << 40) | (((task >> 24) & 0xFF) << 56)
    )
    cpu.gdt[(SELECTOR_TASK >> 3) + 1] = task >> 32


@machine
def interrupt_stack_of(vector: u64) -> u16:
    """The IST index of a vector; 0: the stack that is in use."""
    if vector == VECTOR_NMI:
        return u16(IST_NMI)
    if vector == VECTOR_DF:
        return u16(IST_DOUBLE_FAULT)
    if vector == VECTOR_MC:
        return u16(IST_MACHINE_CHECK)
    return u16(0)


@machine
def fill_idt(stubs: HostVirtual) -> None:
    """Point every vector at its stub, or at the one for all others: none of them may end in a fault of the monitor's."""
    for vector in upto(GATE_COUNT):
        target = stubs.as_u64() + (vector if vector < VECTOR_COUNT else u64(VECTOR_OTHERS)) * STUB_SIZE
        gate = IDT[vector]
        gate.offset_low = target.truncate(u16)
        gate.selector = u16(SELECTOR_CODE)
        gate.stack_and_type = interrupt_stack_of(vector) | INTERRUPT_GATE
        gate.offset_middle = (target >> 16).truncate(u16)
        gate.offset_high = (target >> 32).truncate(u32)


@machine
def initialize_cpu(cpu: PhysicalCpu, index: u32, stubs: HostVirtual) -> None:
    """Make this the state of the CPU that runs: per-CPU base, GDT, TSS, IDT. Interrupts are off and stay off."""
    cpu.self_address = address_of(cpu)
    cpu.index = index
    cpu.running_box = u64(NO_BOX)
    fill_task_state(cpu.task, cpu)
    fill_gdt(cpu)
    cpu.gdt_pointer.limit = u16(GDT_ENTRIES * 8 - 1)
    cpu.gdt_pointer.base = address_of(cpu.gdt).as_u64()
    cpu.idt_pointer.limit = u16(GATE_COUNT * size_of(Gate) - 1)
    cpu.idt_pointer.base = address_of(IDT).as_u64()
    fill_idt(stubs)
    lgdt(address_of(cpu.gdt_pointer))
    load_data_segments(u16(SELECTOR_DATA))
    reload_code_segment(u16(SELECTOR_CODE))
    write_gs_base(address_of(cpu))
    ltr(u16(SELECTOR_TASK))
    lidt(address_of(cpu.idt_pointer))


@machine
def reload_descriptor_tables() -> None:
    """Set back the limits of GDT and IDT, which an exit makes 64 KiB (security rule: descriptor limits reloaded after an exit)."""
    cpu = CPU.current()
    lgdt(address_of(cpu.gdt_pointer))
    lidt(address_of(cpu.idt_pointer))
