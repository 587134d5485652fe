"""The host's descriptor tables and interrupt vectors."""

from __future__ import annotations

import pytest

from dsl.lang import HostVirtual, Machine
from vmm.cpu import (
    GATE_COUNT,
    IDT,
    IST_DOUBLE_FAULT,
    IST_MACHINE_CHECK,
    IST_NMI,
    STUB_SIZE,
    VECTOR_COUNT,
    VECTOR_OTHERS,
    fill_idt,
)
from vmm.interrupts import Owner, owner_of

pytestmark = pytest.mark.t0
STUBS = 0xFFFF_FFFF_8000_1000


def test_every_vector_has_a_gate(model: Machine) -> None:
    """All 256 vectors are present interrupt gates; NMI, #DF and #MC have stacks of their own; what has no stub goes to nobody's."""
    assert GATE_COUNT == 256
    assert owner_of(VECTOR_OTHERS) is Owner.NOBODY
    fill_idt(HostVirtual(STUBS))
    stacks = {2: IST_NMI, 8: IST_DOUBLE_FAULT, 18: IST_MACHINE_CHECK}
    for vector in range(256):
        gate = IDT[vector]
        target = int(gate.offset_low) | int(gate.offset_middle) << 16 | int(gate.offset_high) << 32
        stub = vector if vector < VECTOR_COUNT else VECTOR_OTHERS
        assert target == STUBS + stub * STUB_SIZE
        assert int(gate.stack_and_type) == 0x8E00 | stacks.get(vector, 0)
        assert int(gate.selector) == 8
