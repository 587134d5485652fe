"""The loader's interrupt table: a failed check, a fault or an NMI says where it came from, and stops."""

from __future__ import annotations

from typing import Final

from boot.output import begin_line, put_line, stop_here
from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    address_of,
    array,
    asm,
    function_address,
    machine,
    static,
    text,
    u16,
    u32,
    u64,
)
from dsl.lang.intrinsics import lidt
from dsl.std.checks import append_place
from dsl.std.print import append_decimal, append_hexadecimal, append_text

CODE_SELECTOR: Final = u16(0x18)  # in stage 2's GDT
INTERRUPT_GATE: Final = u16(0x8E00)  # present, ring 0, interrupts off
NMI: Final = 2
INVALID_OPCODE: Final = 6
DOUBLE_FAULT: Final = 8
GENERAL_PROTECTION: Final = 13
PAGE_FAULT: Final = 14
VECTORS: Final = 15


class Gate(Struct, size=16):
    """An entry of the interrupt descriptor table in long mode (SDM Vol. 3A, figure "64-Bit IDT Gate Descriptors")."""

    offset_low: u16
    selector: u16
    attributes: u16
    offset_middle: u16
    offset_high: u32
    reserved: u32


class GateTable(Struct, size=240, align=16):
    """The vectors up to the page fault."""

    gates: Array[Gate] = array(15)


class TablePointer(Struct, size=10, packed=True):
    """The operand of LIDT."""

    limit: u16
    base: HostVirtual


GATES: Final = static(GateTable)


@machine(naked=True)
def on_nmi() -> None:
    """Non-maskable interrupt."""
    asm("push 0\n push {vector}\n jmp {after}", vector=NMI, after=on_any)


@machine(naked=True)
def on_invalid_opcode() -> None:
    """A failed check, or an instruction that this processor does not have."""
    asm("push 0\n push {vector}\n jmp {after}", vector=INVALID_OPCODE, after=on_any)


@machine(naked=True)
def on_double_fault() -> None:
    """Double fault (with an error code)."""
    asm("push {vector}\n jmp {after}", vector=DOUBLE_FAULT, after=on_any)


@machine(naked=True)
def on_general_protection() -> None:
    """General protection (with an error code)."""
    asm("push {vector}\n jmp {after}", vector=GENERAL_PROTECTION, after=on_any)


@machine(naked=True)
def on_page_fault() -> None:
    """Page fault (with an error code)."""
    asm("push {vector}\n jmp {after}", vector=PAGE_FAULT, after=on_any)


@machine(naked=True)
def on_any() -> None:
    """Hand vector, error code, place and CR2 on. Nothing is saved: nothing goes on."""
    asm(
        """
        cld
        mov rdi, [rsp]
        mov rsi, [rsp + 8]
        mov rdx, [rsp + 16]
        mov rcx, cr2
        and rsp, -16
        call {report}
        """,
        report=report_exception,
    )


@machine
def report_exception(vector: u64, error: u64, place: HostVirtual, address: u64) -> None:
    """Say what happened and where, and stop."""
    line = begin_line()
    append_text(line, text("loader: "))
    if vector == INVALID_OPCODE:
        append_text(line, text("failed check at "))
        if append_place(line, place):
            put_line()
            stop_here()
    append_text(line, text("exception "))
    append_decimal(line, vector)
    append_text(line, text(" at "))
    append_hexadecimal(line, place.as_u64())
    append_text(line, text(", error code "))
    append_hexadecimal(line, error)
    append_text(line, text(", address "))
    append_hexadecimal(line, address)
    put_line()
    stop_here()


@machine
def set_gate(vector: u64, handler: HostVirtual) -> None:
    """Point one vector at its handler."""
    gate = GATES.gates[vector]
    address = handler.as_u64()
    gate.offset_low = address.truncate(u16)
    gate.selector = CODE_SELECTOR
    gate.attributes = INTERRUPT_GATE
    gate.offset_middle = (address >> 16).truncate(u16)
    gate.offset_high = (address >> 32).truncate(u32)


@machine
def exceptions_start() -> None:
    """Load the table; until then an exception resets the machine."""
    set_gate(u64(NMI), function_address(on_nmi))
    set_gate(u64(INVALID_OPCODE), function_address(on_invalid_opcode))
    set_gate(u64(DOUBLE_FAULT), function_address(on_double_fault))
    set_gate(u64(GENERAL_PROTECTION), function_address(on_general_protection))
    set_gate(u64(PAGE_FAULT), function_address(on_page_fault))
    pointer = TablePointer()
    pointer.limit = u16(VECTORS * 16 - 1)
    pointer.base = address_of(GATES)
    lidt(address_of(pointer))
