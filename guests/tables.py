"""Descriptor tables of a 64-bit guest (SDM Vol. 3A, 3.5 and 6.14): flat segments, and gates for the vectors that it wants."""

from __future__ import annotations

from typing import Final

from dsl.lang import HostVirtual, Struct, address_of, machine, static, static_array, u16, u64
from dsl.lang.intrinsics import lgdt, lidt, load_data_segments, reload_code_segment

SELECTOR_CODE: Final = 0x08
SELECTOR_DATA: Final = 0x10
CODE_DESCRIPTOR: Final = 0x00AF_9B00_0000_FFFF  # 64-bit, present, ring 0
DATA_DESCRIPTOR: Final = 0x00CF_9300_0000_FFFF
INTERRUPT_GATE: Final = 0x8E00  # present, ring 0, interrupts off
VECTOR_COUNT: Final = 64


class TablePointer(Struct, size=10, packed=True):
    """The operand of LGDT and LIDT."""

    limit: u16
    base: u64


POINTER: Final = static(TablePointer)
GDT: Final = static_array(u64, 3)
IDT: Final = static_array(u64, 2 * VECTOR_COUNT, align=16)


@machine
def load_segments() -> None:
    """Load a GDT with flat code and data, and all segment registers from it. FS and GS bases become zero."""
    GDT[1] = u64(CODE_DESCRIPTOR)
    GDT[2] = u64(DATA_DESCRIPTOR)
    POINTER.limit = u16(3 * 8 - 1)
    POINTER.base = address_of(GDT).as_u64()
    lgdt(address_of(POINTER))
    reload_code_segment(u16(SELECTOR_CODE))
    load_data_segments(u16(SELECTOR_DATA))


@machine
def set_gate(vector: u64, target: HostVirtual) -> None:
    """Let a vector (below VECTOR_COUNT) go to an address."""
    address = target.as_u64()
    gate = (address & 0xFFFF) | (SELECTOR_CODE << 16) | (INTERRUPT_GATE << 32) | ((address & 0xFFFF_0000) << 32)
    IDT[vector * 2] = gate
    IDT[vector * 2 + 1] = address >> 32


@machine
def load_gates() -> None:
    """Load the IDT. A vector without a gate ends the box."""
    POINTER.limit = u16(2 * VECTOR_COUNT * 8 - 1)
    POINTER.base = address_of(IDT).as_u64()
    lidt(address_of(POINTER))
