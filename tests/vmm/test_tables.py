"""The allow-lists: the bitmaps in the emitted monitor are what the tables say, and pass nothing else."""

from __future__ import annotations

import pytest

from boot.handoff import MONITOR_BASE
from dsl.hw import x86
from tests.vmm.images import monitor
from vmm import tables

pytestmark = pytest.mark.t1


def emitted(name: str, size: int) -> bytes:
    """The bytes of a table in the compiled monitor."""
    program = monitor()
    address, found_size, _ = program.symbols[f"vmm.tables.{name}"]
    assert found_size == size
    return program.image[address - MONITOR_BASE :][:size]


def passes(bitmap: bytes, number: int, write: bool) -> bool:
    """What the processor does with the bitmap (SDM Vol. 3C, 25.6.9)."""
    if number < 0x2000:
        bit = number
    elif 0xC000_0000 <= number < 0xC000_2000:
        bit = 0x2000 + number - 0xC000_0000
    else:
        return False
    return not bitmap[(2048 if write else 0) + bit // 8] >> bit % 8 & 1


def test_msr_bitmap_passes_the_rows_and_nothing_else() -> None:
    """Every number of both ranges, read and write, from the emitted bytes."""
    bitmap = emitted("MSR_BITMAP", 4096)
    rows = {row[0]: row for row in tables.MSR_ROWS}
    for number in [*range(0x2000), *range(0xC000_0000, 0xC000_2000)]:
        row = rows.get(number)
        for write in (False, True):
            allowed = row is not None and row[2 if write else 1] == tables.PASS and row[3] == tables.ALWAYS
            assert passes(bitmap, number, write) == allowed, f"MSR {number:#x} write={write}"


def test_no_port_reaches_the_machine() -> None:
    """The I/O bitmaps intercept all 65,536 ports."""
    assert emitted("IO_BITMAP", 8192) == b"\xff" * 8192


def test_dangerous_msrs_are_never_passed() -> None:
    """Writes that would reach the host are intercepted by whatever the table becomes."""
    bitmap = emitted("MSR_BITMAP", 4096)
    for number in (0x10, 0x1B, 0x3A, 0x79, 0x1D9, 0x200, 0x2FF, 0x38F, 0x480, 0x491, 0x802, 0x830, 0xC000_0080):
        assert not passes(bitmap, number, True), hex(number)
    for number in (0x3A, 0x480, 0x802, 0xE1, 0x1F2):
        assert not passes(bitmap, number, False), hex(number)


def test_cpuid_hides_what_boxes_do_not_have() -> None:
    """Features with no emulation behind them are masked: VMX, SMX, x2APIC, PDCM, RDRAND; SGX, RDSEED, PT, LA57, CET, AMX."""
    masks = {row[0]: row[2:] for row in tables.CPUID_ROWS}
    _, _, ecx, edx = masks[1]
    for bit in (3, 5, 6, 15, 21, 24, 27, 30, 31):
        assert not ecx >> bit & 1, f"leaf 1 ECX bit {bit}"
    for bit in (7, 9, 12, 14, 28):
        assert not edx >> bit & 1, f"leaf 1 EDX bit {bit}"
    _, ebx, ecx, edx = masks[7]
    for bit in (1, 2, 4, 11, 14, 18, 25):
        assert not ebx >> bit & 1, f"leaf 7 EBX bit {bit}"
    for bit in (3, 4, 5, 7, 13, 16, 23, 31):
        assert not ecx >> bit & 1, f"leaf 7 ECX bit {bit}"
    for bit in (4, 5, 14, 20, 22, 24, 25, 28, 29):
        assert not edx >> bit & 1, f"leaf 7 EDX bit {bit}"


def test_rows_are_where_the_lookup_expects_them() -> None:
    """Row n is basic leaf n; then the extended leaves in order; then the signature."""
    leaves = [row[0] for row in tables.CPUID_ROWS]
    assert leaves[: tables.CPUID_BASIC_LIMIT + 1] == list(range(tables.CPUID_BASIC_LIMIT + 1))
    extended = leaves[tables.CPUID_EXTENDED_ROW : tables.CPUID_HYPERVISOR_ROW]
    assert extended == list(range(x86.CPUID_EXTENDED, tables.CPUID_EXTENDED_LIMIT + 1))
    assert leaves[tables.CPUID_HYPERVISOR_ROW] == x86.CPUID_HYPERVISOR


@pytest.mark.parametrize("number", [0x2000, 0xBFFF_FFFF, 0xC000_2000, 2**32 - 1])
def test_rows_outside_both_ranges_are_refused(number: int) -> None:
    """An MSR that the bitmap cannot express is an error at build time."""
    with pytest.raises(ValueError, match="neither range"):
        tables.msr_bitmap(((number, tables.PASS, tables.PASS, tables.ALWAYS, 0),))
