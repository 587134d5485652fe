"""The monitor's address space, built by the loader (docs/formats.md, "Monitor address space"): nothing is writable and executable.

All tables come from one zeroed block of memory, taken in order; the loader addresses physical memory by its own numbers.
"""

from __future__ import annotations

from typing import Final

from boot.handoff import DIRECT_MAP, MONITOR_BASE
from dsl.hw.x86 import HUGE_PAGE_SHIFT, LARGE_PAGE_SHIFT, PAGE_SHIFT, PAGE_SIZE
from dsl.lang import (
    Array,
    Bits,
    HostVirtual,
    Struct,
    address_of,
    array,
    between,
    bit,
    bits,
    machine,
    maximum,
    u64,
    upto,
)

LARGE_PAGE_SIZE: Final = 0x200000
FOUR_GIGABYTES: Final = 1 << 32
TABLE_ENTRIES: Final = 512
TABLE_INDEX: Final = TABLE_ENTRIES - 1
DIRECT_INDEX: Final = (DIRECT_MAP >> 39) & 511  # in the PML4
MONITOR_ROOT_INDEX: Final = (MONITOR_BASE >> 39) & 511
MONITOR_DIRECTORY_INDEX: Final = (MONITOR_BASE >> 30) & 511
FIXED_TABLES: Final = (
    7  # PML4, direct directory pointers, three for the gate, the monitor's directory pointers and directory
)


class PageEntry(Bits, storage=u64):
    """An entry of any level of 4-level paging (SDM Vol. 3A, "Paging", 4-level)."""

    present: bool = bit(0)
    writable: bool = bit(1)
    large: bool = bit(7, default=False)  # in a page directory: maps 2 MiB
    frame: u64 = bits(51, 12)
    no_execute: bool = bit(63)


class PageTable(Struct, size=4096, align=4096):
    """One paging structure."""

    entries: Array[PageEntry] = array(512)


class TableBlock(Struct, size=16):
    """The memory that tables are taken from: zeroed, page-aligned."""

    next: HostVirtual
    end: HostVirtual


class MonitorPlace(Struct, size=32):
    """Where the monitor lies: physical base, and its three ends as offsets from there (docs/formats.md, "Flat program")."""

    physical: u64
    text_end: u64
    read_only_end: u64
    memory_size: u64  # in whole 2 MiB


@machine
def direct_map_gigabytes(top: u64) -> u64:
    """How many GiB the direct map spans when RAM ends at top."""
    return (maximum(top, u64(FOUR_GIGABYTES)) + ((1 << HUGE_PAGE_SHIFT) - 1)) >> HUGE_PAGE_SHIFT


@machine
def table_block_size(top: u64, monitor_memory: u64) -> u64:
    """Bytes that build_monitor_space takes: one directory for each GiB, one table for each 2 MiB of the monitor."""
    tables = direct_map_gigabytes(top) + (monitor_memory >> LARGE_PAGE_SHIFT) + FIXED_TABLES
    return tables << PAGE_SHIFT


@machine
def build_monitor_space(block: TableBlock, top: u64, monitor: MonitorPlace, gate: u64) -> HostVirtual:
    """Build all of it and return the PML4.

    `gate`: where the loader's last instructions lie, at most a page of them, below 512 GiB and not across a multiple of 2 MiB.
    """
    root = take_table(block)
    map_everything(child_table(root, u64(DIRECT_INDEX), block), block, direct_map_gigabytes(top), monitor)
    map_gate(root, block, gate)
    monitor_pointers = child_table(root, u64(MONITOR_ROOT_INDEX), block)
    map_monitor(child_table(monitor_pointers, u64(MONITOR_DIRECTORY_INDEX), block), block, monitor)
    return address_of(root)


@machine
def take_table(block: TableBlock) -> PageTable:
    """The next table of the block."""
    assert block.next < block.end, "the page tables outgrew their block"
    # Safe because the block was allocated, is zeroed, and nothing else takes from it.
    table = PageTable.at(block.next)
    block.next = block.next + PAGE_SIZE
    return table


@machine
def child_table(parent: PageTable, index: u64, block: TableBlock) -> PageTable:
    """A new table below an entry of its parent; what its leaves may do is said there alone."""
    child = take_table(block)
    frame = address_of(child).as_u64() >> PAGE_SHIFT
    parent.entries[index] = PageEntry(present=True, writable=True, frame=frame, no_execute=False)
    return child


@machine
def map_everything(pointers: PageTable, block: TableBlock, gigabytes: u64, monitor: MonitorPlace) -> None:
    """The direct map: physical memory from 0, writable, never executable, without the monitor's own."""
    for gigabyte in upto(gigabytes, at_most=TABLE_ENTRIES):
        directory = child_table(pointers, gigabyte, block)
        for index in upto(TABLE_ENTRIES):
            physical = (gigabyte << HUGE_PAGE_SHIFT) + (index << LARGE_PAGE_SHIFT)
            if physical < monitor.physical or physical >= monitor.physical + monitor.memory_size:
                directory.entries[index] = PageEntry(
                    present=True, writable=True, large=True, frame=physical >> PAGE_SHIFT, no_execute=True
                )


@machine
def map_gate(root: PageTable, block: TableBlock, gate: u64) -> None:
    """The loader's last page or two at their own addresses, executable and nothing else: the way out of its world."""
    assert gate >> (HUGE_PAGE_SHIFT + 9) == 0, "the loader lies above 512 GiB"
    pointers = child_table(root, u64(0), block)
    directory = child_table(pointers, gate >> HUGE_PAGE_SHIFT, block)
    table = child_table(directory, (gate >> LARGE_PAGE_SHIFT) & TABLE_INDEX, block)
    first = gate >> PAGE_SHIFT
    for page in between(first, first + 2):
        assert page & TABLE_INDEX != 0 or page == first, "the loader's end lies across two page tables"
        table.entries[page & TABLE_INDEX] = PageEntry(present=True, writable=False, frame=page, no_execute=False)


@machine
def map_monitor(directory: PageTable, block: TableBlock, monitor: MonitorPlace) -> None:
    """The monitor as linked: text executable, read-only data neither, the rest writable."""
    for large_page in upto(monitor.memory_size >> LARGE_PAGE_SHIFT, at_most=TABLE_ENTRIES):
        table = child_table(directory, large_page, block)
        for page in upto(TABLE_ENTRIES):
            offset = (large_page << LARGE_PAGE_SHIFT) + (page << PAGE_SHIFT)
            table.entries[page] = PageEntry(
                present=True,
                writable=offset >= monitor.read_only_end,
                frame=(monitor.physical + offset) >> PAGE_SHIFT,
                no_execute=offset >= monitor.text_end,
            )
