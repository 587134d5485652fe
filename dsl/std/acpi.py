"""The static ACPI tables behind a root pointer (ACPI 6.4, 5.2). Never AML.

Tables are found by walking the root table with bounds: whatever firmware wrote there, the search ends, and nothing above 4 GiB is read.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.acpi import RootPointer, TableHeader
from dsl.lang import Array, HostPhysical, HostVirtual, array_at, machine, size_of, u8, u32, u64, upto

FOUR_GIGABYTES: Final = 1 << 32
HEADER_SIZE: Final = 36
TABLE_LIMIT: Final = 1 << 20  # no static table that is looked for is longer


@machine
def byte_sum(data: Array[u8]) -> u8:
    """The sum of the bytes, modulo 256."""
    total = u8(0)
    for index in upto(data.length):
        total += data[index]
    return total


@machine
def table_at(base: u64, address: u64) -> Array[u8]:
    """The bytes of the table at a physical address, whose sum is right; none if there is no such table below 4 GiB."""
    # Safe because nothing is read but what lies below 4 GiB, which the caller has mapped at `base`.
    nothing = array_at(u8, HostVirtual(0), u64(0))
    if address == 0 or address > FOUR_GIGABYTES - HEADER_SIZE:
        return nothing
    length = u64(TableHeader.at(HostVirtual(base + address)).length)
    if length < HEADER_SIZE or length > TABLE_LIMIT or length > FOUR_GIGABYTES - address:
        return nothing
    table = array_at(u8, HostVirtual(base + address), length)
    return table if byte_sum(table) == 0 else nothing


@machine
def find_table(base: u64, root: HostPhysical, signature: u32) -> Array[u8]:
    """The first table with this signature (four characters, as a number) that the root table names; none if there is none.

    `base`: the virtual address of physical address 0; the lowest 4 GiB are mapped from there.
    """
    # Safe because nothing is read but what lies below 4 GiB, which the caller has mapped at `base`.
    nothing = array_at(u8, HostVirtual(0), u64(0))
    if root == HostPhysical(0) or root.as_u64() > FOUR_GIGABYTES - size_of(RootPointer):
        return nothing
    pointer = RootPointer.at(HostVirtual(base + root.as_u64()))
    wide = pointer.revision >= 2 and pointer.xsdt != 0
    step = u64(8) if wide else u64(4)
    rows = table_at(base, pointer.xsdt if wide else u64(pointer.rsdt))
    offset = u64(HEADER_SIZE)
    while offset + step <= rows.length:
        table = table_at(base, rows.load_u64(offset) if wide else u64(rows.load_u32(offset)))
        if table.length != 0 and table.load_u32(0) == signature:
            return table
        offset += step
    return nothing
