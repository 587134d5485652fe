"""The monitor's address space: no low memory once the monitor runs, and a guard below its stack."""

from __future__ import annotations

import pytest

from boot.handoff import DIRECT_MAP
from dsl.lang import Machine, address_of
from tests.boot.tables import walk
from vmm.address_space import take_over_address_space
from vmm.cpu import MAIN_STACK

pytestmark = pytest.mark.t0
ROOT, LOW, STACK_TABLES = 0x100000, 0x101000, 0x110000
STACK_FRAME = 0x700000


def test_low_memory_goes_and_the_stack_gets_a_guard(model: Machine) -> None:
    """Of the first MiB nothing stays mapped; the stack's lowest page is read-only, and no other page changed."""
    memory = model.memory
    memory.map(DIRECT_MAP + ROOT, 0x20000)

    def store(table: int, index: int, entry: int) -> None:
        memory.store(DIRECT_MAP + table + index * 8, 8, entry)

    def load(physical: int, size: int) -> int:
        return memory.load(DIRECT_MAP + physical, size)

    for level, table in enumerate((LOW, LOW + 0x1000, LOW + 0x2000)):
        store(ROOT if level == 0 else table - 0x1000, 0, table | 3)
    for page in range(256):
        store(LOW + 0x2000, page, page << 12 | 3)
    stack = int(address_of(MAIN_STACK).as_u64())
    assert stack % 4096 == 0
    table = ROOT
    for level in (3, 2, 1):
        index = stack >> 12 + 9 * level & 511
        child = load(table + index * 8, 8) & ~0xFFF
        if not child:
            child = STACK_TABLES + level * 0x1000
            store(table, index, child | 3)
        table = child
    first = stack >> 12 & 511
    for page in range(first - 1, first + 3):
        store(table, page, STACK_FRAME + ((page - first) << 12) | 3 | 1 << 63)
    before = dict(walk(load, ROOT))
    model.cpu.control[3] = ROOT

    take_over_address_space()

    after = dict(walk(load, ROOT))
    assert {address for address in before if address not in after} == {page << 12 for page in range(256)}
    changed = {address for address, leaf in after.items() if leaf != before[address]}
    assert changed == {stack}
    assert after[stack] == (STACK_FRAME, False, False)
