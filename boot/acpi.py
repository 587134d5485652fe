"""The ACPI root pointer that a BIOS leaves in low memory (ACPI 6.4, 5.2.5.1). What is behind it: dsl/std/acpi.py."""

from __future__ import annotations

from typing import Final

from dsl.lang import HostPhysical, HostVirtual, array_at, machine, u8, u64
from dsl.std.acpi import byte_sum

EBDA_POINTER: Final = 0x40E  # u16: the extended BIOS data area's segment
EBDA_SEARCHED: Final = 1024
ROM_BASE: Final = 0xE0000
ROM_SIZE: Final = 0x20000
SIGNATURE: Final = int.from_bytes(b"RSD PTR ", "little")
CHECKED_SIZE: Final = 20  # the bytes of the structure's first version sum to zero
STEP: Final = 16


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
