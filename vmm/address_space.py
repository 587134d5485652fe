"""The monitor's own address space, as the loader built it (docs/formats.md, "Monitor address space"): what the monitor takes out of it."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, HostPhysical, HostVirtual, address_of, array_at, machine, u64
from dsl.lang.intrinsics import invlpg, read_cr3, write_cr3
from vmm.cpu import MAIN_STACK
from vmm.memory import to_host_virtual

ENTRIES: Final = 512
WRITABLE: Final = 1 << 1
ADDRESS_BITS: Final = 0x000F_FFFF_FFFF_F000
TOP_SHIFT: Final = 39  # of the index into the root table
PAGE_SHIFT: Final = 12


@machine
def table_at(entry: u64) -> Array[u64]:
    """The table that CR3 or an entry refers to."""
    # Safe because the loader built the tables from RAM that it kept from everyone, and the direct map covers it.
    return array_at(u64, to_host_virtual(HostPhysical(entry & ADDRESS_BITS)), u64(ENTRIES))


@machine
def protect_page(address: HostVirtual) -> None:
    """Take the right to write from one 4-KiB page of the monitor's own memory, which the loader maps by such pages alone."""
    shift = u64(TOP_SHIFT)
    table = table_at(read_cr3())
    while shift > PAGE_SHIFT:
        table = table_at(table[(address.as_u64() >> shift) & (ENTRIES - 1)])
        shift -= 9
    index = (address.as_u64() >> PAGE_SHIFT) & (ENTRIES - 1)
    table[index] = table[index] & ~u64(WRITABLE)
    invlpg(address)


@machine
def drop_lower_half() -> None:
    """Unmap the pages through which the loader left, which may be a box's soon: no address below the monitor's means anything any more.

    To be called when descriptor tables and stack are the monitor's own.
    """
    root = read_cr3()
    table_at(root)[0] = u64(0)
    write_cr3(root)


@machine
def take_over_address_space() -> None:
    """Drop the way that the loader came by, and make the lowest page of the stack a guard: who runs over it faults."""
    drop_lower_half()
    protect_page(address_of(MAIN_STACK))
