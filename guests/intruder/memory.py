"""Guest-physical space beyond the box's memory: read, written, executed, through a window that the box maps for itself.

A box may map any address in its own page tables; what answers there is the monitor's matter. All ones and no effect, or an exception, is
right; anything else is memory that is not ours: a breach, and it is searched.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    address_of,
    array_at,
    machine,
    static,
    static_array,
    table,
    text,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import cpuid, invlpg, read_cr3
from guests.intruder.attempt import NO_FAULT, PROBE, attempt
from guests.intruder.registers import ready
from guests.intruder.report import report, report_breach
from guests.intruder.search import search_page
from guests.intruder.snippets import (
    READ_8_ROW,
    READ_64_ROW,
    READ_ROWS,
    STRANGE_COUNT,
    STRANGE_FIRST,
    WRITE_8_ROW,
    WRITE_64_ROW,
    run,
)

PAGE_SIZE: Final = 4096
LARGE_PAGE: Final = 2 << 20
TABLE_ENTRIES: Final = 512
ADDRESS_BITS: Final = 0x000F_FFFF_FFFF_F000
PRESENT_WRITABLE: Final = 0b11
PRESENT_WRITABLE_LARGE: Final = 0x83
WINDOW: Final = 1 << 39  # the second entry of the PML4
ALL_ONES: Final = 0xFFFF_FFFF_FFFF_FFFF

SCAN_COUNT: Final = 8192  # large pages from the end of memory on: 16 GiB, one read in each
SEARCH_BUDGET: Final = 128  # large pages that are searched in full, should any answer
MAXIMUM_LEAF: Final = 0x8000_0000
ADDRESS_SIZE_LEAF: Final = 0x8000_0008
ADDRESS_SIZE_DEFAULT: Final = 36

# Where PCs keep devices, firmware and the monitor's likely places
SPECIAL: Final = table(
    u64,
    [
        0xC000_0000, 0xE000_0000, 0xF000_0000, 0xFEC0_0000, 0xFEC0_0010, 0xFED0_0000, 0xFED4_0000, 0xFED9_0000, 0xFEE0_0000, 0xFEE0_0020,
        0xFEE0_0300, 0xFEE0_0FF0, 0xFFC0_0000, 0xFFFE_0000, 0xFFFF_FFF0, 0x1_0000_0000, 0xFFFF_FFF8,
    ],
)  # fmt: skip


class Scan(Struct):
    """What the scan of the space has met."""

    tried: u64
    answered: u64
    refused: u64  # by an exception
    searched: u64  # large pages


POINTERS: Final = static_array(u64, TABLE_ENTRIES, align=4096)
DIRECTORY: Final = static_array(u64, TABLE_ENTRIES, align=4096)
SCAN: Final = static(Scan)


@machine
def table_at(entry: u64) -> Array[u64]:
    """Return the paging structure that an entry (or CR3) points at."""
    # Safe because the box's tables lie in its identity-mapped memory.
    return array_at(u64, HostVirtual(entry & ADDRESS_BITS), u64(TABLE_ENTRIES))


@machine
def own_memory_size() -> u64:
    """Return the size of the box's memory: what its first page tables map."""
    pointers = table_at(table_at(read_cr3())[0])
    pages = u64(0)
    for index in upto(pointers.length):
        if pointers[index] & 1 != 0:
            directory = table_at(pointers[index])
            for place in upto(directory.length):
                pages += directory[place] & 1
    return pages * LARGE_PAGE


@machine
def open_window() -> None:
    """Hang the window's tables into the page tables that we run on."""
    POINTERS[0] = address_of(DIRECTORY).as_u64() | PRESENT_WRITABLE
    table_at(read_cr3())[1] = address_of(POINTERS).as_u64() | PRESENT_WRITABLE


@machine
def aim(physical: u64) -> u64:
    """Map the large page that holds a guest-physical address into the window, and return the address where it is."""
    DIRECTORY[0] = (physical & ~u64(LARGE_PAGE - 1)) | PRESENT_WRITABLE_LARGE
    invlpg(HostVirtual(u64(WINDOW)))
    return (physical & (LARGE_PAGE - 1)) | WINDOW


@machine
def access(row: u64, physical: u64, value: u64) -> bool:
    """Run a snippet on a guest-physical address with rax = value; True without an exception: rax is then in PROBE."""
    ready()
    PROBE.rdi = aim(physical)
    PROBE.rax = value
    return run(row)


@machine
def search_large_page(physical: u64) -> None:
    """Search a large page that answers, within the budget."""
    if SCAN.searched >= SEARCH_BUDGET:
        return
    SCAN.searched += 1
    start = physical & ~u64(LARGE_PAGE - 1)
    for page in upto(u64(LARGE_PAGE // PAGE_SIZE)):
        offset = page * PAGE_SIZE
        if access(u64(READ_64_ROW), start + offset, u64(0)):
            search_page(HostVirtual(aim(start + offset)), start + offset)


@machine
def read_once(physical: u64) -> None:
    """Read eight bytes; memory that answers anything but all ones is a breach, and is searched."""
    SCAN.tried += 1
    if not access(u64(READ_64_ROW), physical, u64(0)):
        SCAN.refused += 1
    elif PROBE.rax != ALL_ONES:
        SCAN.answered += 1
        report_breach(text("guest-physical read"), physical)
        search_large_page(physical)


@machine
def address_bits() -> u64:
    """Return the width of physical addresses that CPUID tells."""
    if cpuid(u32(MAXIMUM_LEAF), u32(0)).eax < ADDRESS_SIZE_LEAF:
        return u64(ADDRESS_SIZE_DEFAULT)
    return u64(cpuid(u32(ADDRESS_SIZE_LEAF), u32(0)).eax & 0xFF)


@machine
def read_around_powers(memory_size: u64) -> None:
    """Read below and at every power of two beyond memory, up to 2**51: beyond the processor's width the page tables themselves refuse."""
    for bit in upto(u64(52)):
        power = u64(1) << bit
        if power > memory_size:
            read_once(power - 8)
            read_once(power)
            read_once(power + (LARGE_PAGE - 8))


@machine
def scan_large_pages(first: u64, count: u64) -> None:
    """Read one word in each of `count` large pages."""
    for index in upto(count):
        read_once(first + index * LARGE_PAGE)


@machine
def scan_reads(memory_size: u64) -> None:
    """Read one word in every large page of the 16 GiB after memory, the special places, and around the powers of two."""
    scan_large_pages(memory_size, u64(SCAN_COUNT))
    for index in upto(SPECIAL.length):
        read_once(SPECIAL[index])
    read_around_powers(memory_size)
    report(text("guest-physical reads"), SCAN.tried, text("answered"), SCAN.answered)


@machine
def write_once(physical: u64) -> u64:
    """Write, and read back: 1 if the write stayed (a breach), else 0."""
    for row in upto(u64(2)):
        written = access(u64(WRITE_8_ROW) if row == 0 else u64(WRITE_64_ROW), physical, u64(0x5A))
        if written and access(u64(READ_8_ROW), physical, u64(0)) and PROBE.rax & 0xFF == 0x5A:
            report_breach(text("guest-physical write"), physical)
            return u64(1)
    return u64(0)


@machine
def scan_writes(memory_size: u64) -> None:
    """Write to one address in every 64th large page of the 16 GiB after memory, and to the special places."""
    kept = u64(0)
    count = u64(SCAN_COUNT // 64)
    for index in upto(count):
        kept += write_once(memory_size + index * (64 * LARGE_PAGE))
    for index in upto(SPECIAL.length):
        kept += write_once(SPECIAL[index])
    report(text("guest-physical writes"), count + SPECIAL.length, text("kept"), kept)


@machine
def scan_forms(memory_size: u64) -> None:
    """Read every width across the end of memory, and use instructions that a monitor should not emulate."""
    answered = u64(0)
    for form in upto(u64(READ_ROWS)):
        answered += u64(access(form + READ_8_ROW, memory_size, u64(0)))
        answered += u64(access(form + READ_8_ROW, memory_size + (LARGE_PAGE - 1), u64(0)))
    passed = u64(0)
    for form in upto(u64(STRANGE_COUNT)):
        passed += u64(access(form + STRANGE_FIRST, memory_size, u64(0)))
    report(text("read forms"), u64(2 * READ_ROWS), text("answered"), answered)
    report(text("unusual memory instructions"), u64(STRANGE_COUNT), text("passed"), passed)


@machine
def fetch_once(physical: u64) -> u64:
    """Execute what is at an address: 1 if that came back without an exception (a breach), else 0."""
    ready()
    PROBE.target = aim(physical)
    if attempt() != NO_FAULT:
        return u64(0)
    report_breach(text("guest-physical fetch"), physical)
    return u64(1)


@machine
def scan_fetches(memory_size: u64) -> None:
    """Execute at one address in every 64th large page of the 16 GiB after memory, and at the special places."""
    ran = u64(0)
    count = u64(SCAN_COUNT // 64)
    for index in upto(count):
        ran += fetch_once(memory_size + index * (64 * LARGE_PAGE))
    for index in upto(SPECIAL.length):
        ran += fetch_once(SPECIAL[index])
    report(text("guest-physical fetches"), count + SPECIAL.length, text("ran"), ran)


@machine
def try_memory(memory_size: u64) -> None:
    """Try the guest-physical space."""
    open_window()
    report(text("physical address bits"), address_bits(), text("memory MiB"), memory_size >> 20)
    scan_reads(memory_size)
    scan_writes(memory_size)
    scan_forms(memory_size)
    scan_fetches(memory_size)
