"""The ACPI root pointer that a BIOS leaves in low memory (ACPI 6.4, 5.2.5.1), and the static tables behind a root pointer.

Tables are found by walking the root table with bounds: whatever firmware wrote there, the search ends, and nothing above 4 GiB is read.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.acpi import RootPointer, TableHeader
from dsl.lang import Array, HostPhysical, HostVirtual, array_at, machine, size_of, u8, u32, u64, upto

EBDA_POINTER: Final = 0x40E  # u16: the extended BIOS data area's segment
EBDA_SEARCHED: Final = 1024
ROM_BASE: Final = 0xE0000
ROM_SIZE: Final = 0x20000
SIGNATURE: Final = int.from_bytes(b"RSD PTR ", "little")
CHECKED_SIZE: Final = 20  # the bytes of the structure's first version sum to zero
STEP: Final = 16
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
def search(base: u64, size: u64) -> HostPhysical:
    """The root pointer's address in a piece of low memory; 0 if it is not there."""
    # Safe because both places that are searched lie in the first MiB, which is identity-mapped.
    data = array_at(u8, HostVirtual(base), size)
    offset = u64(0)
    while offset + CHECKED_SIZE <= size:
        if data.load_u64(offset) == SIGNATURE and byte_sum(data.slice(offset, CHECKED_SIZE)) == 0:
            return HostPhysical(base + offset)
        offset += STEP
    return HostPhysical(0)


@machine
def find_acpi_root() -> HostPhysical:
    """The RSDP's address, or 0."""
    # Safe because the BIOS data area is in the first page of memory.
    segment = array_at(u8, HostVirtual(EBDA_POINTER), u64(2)).load_u16(u64(0))
    found = HostPhysical(0)
    if segment >= 0x8000 and segment <= 0xA000 - EBDA_SEARCHED // STEP:
        found = search(u64(segment) << 4, u64(EBDA_SEARCHED))
    if found == HostPhysical(0):
        found = search(u64(ROM_BASE), u64(ROM_SIZE))
    return found


@machine
def table_at(address: u64) -> Array[u8]:
    """The bytes of a table, whose sum is right; none if there is no such table below 4 GiB."""
    # Safe because nothing is read but what lies below 4 GiB, which is identity-mapped.
    nothing = array_at(u8, HostVirtual(0), u64(0))
    if address == 0 or address > FOUR_GIGABYTES - HEADER_SIZE:
        return nothing
    length = u64(TableHeader.at(HostVirtual(address)).length)
    if length < HEADER_SIZE or length > TABLE_LIMIT or length > FOUR_GIGABYTES - address:
        return nothing
    table = array_at(u8, HostVirtual(address), length)
    return table if byte_sum(table) == 0 else nothing


@machine
def find_table(root: HostPhysical, signature: u32) -> Array[u8]:
    """The first table with this signature (four characters, as a number) that the root table names; none if there is none."""
    # Safe because nothing is read but what lies below 4 GiB, which is identity-mapped.
    nothing = array_at(u8, HostVirtual(0), u64(0))
    if root == HostPhysical(0) or root.as_u64() > FOUR_GIGABYTES - size_of(RootPointer):
        return nothing
    pointer = RootPointer.at(HostVirtual(root.as_u64()))
    wide = pointer.revision >= 2 and pointer.xsdt != 0
    step = u64(8) if wide else u64(4)
    rows = table_at(pointer.xsdt if wide else u64(pointer.rsdt))
    offset = u64(HEADER_SIZE)
    while offset + step <= rows.length:
        table = table_at(rows.load_u64(offset) if wide else u64(rows.load_u32(offset)))
        if table.length != 0 and table.load_u32(0) == signature:
            return table
        offset += step
    return nothing
