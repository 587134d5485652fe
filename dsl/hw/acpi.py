"""The static ACPI structures that trusted code reads (ACPI 6.5, 5.2): the root pointer and table headers. Never AML."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, u8, u32, u64

RSDP_SIGNATURE: Final = b"RSD PTR "  # on a 16-byte boundary in the first KiB of the EBDA, or in E0000h to FFFFFh


class RootPointer(Struct, size=36, packed=True):
    """RSDP (5.2.5.3). Both byte sums are zero modulo 256: of the first 20 bytes, and of all."""

    signature: Array[u8] = array(8)
    checksum: u8
    oem: Array[u8] = array(6)
    revision: u8  # 0: only the first 20 bytes exist
    rsdt: u32
    length: u32
    xsdt: u64
    extended_checksum: u8
    reserved: Array[u8] = array(3)


class TableHeader(Struct, size=36, packed=True):
    """What every table begins with (5.2.6). The byte sum of the whole table is zero modulo 256."""

    signature: Array[u8] = array(4)
    length: u32
    revision: u8
    checksum: u8
    oem: Array[u8] = array(6)
    oem_table: Array[u8] = array(8)
    oem_revision: u32
    creator: u32
    creator_revision: u32
