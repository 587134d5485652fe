"""The handoff: what the loader gives the monitor, and all that it gives (docs/formats.md, "Handoff").

The loader fills it in memory of its own; the monitor reads it through its direct map. The addresses of the monitor's world stand here
too, because the loader builds it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from boot.header import EntryKind as EntryKind  # a loaded entry's kind is part of the handoff
from dsl.lang import Array, HostPhysical, Struct, array, u8, u32, u64
from dsl.std.dice import Cdi

HANDOFF_MAGIC: Final = int.from_bytes(b"TRNHANDO", "little")
HANDOFF_VERSION: Final = 2
HANDOFF_SIZE: Final = 20480
HANDOFF_RANGES: Final = 64
HANDOFF_ENTRIES: Final = 120
CERTIFICATE_CAPACITY: Final = 1024
FREE_MEMORY: Final = 1  # MemoryRange.kind: RAM for boxes
TPM_OWNER_NONE: Final = 0
TPM_OWNER_MONITOR: Final = 1
TPM_STATE_SHIFT: Final = 8  # of a TpmState in the posture

MONITOR_BASE: Final = 0xFFFFFFFF80000000  # where the monitor is linked and runs
MONITOR_SPAN: Final = 0x40000000  # the one GiB of address space above MONITOR_BASE that the monitor may use
DIRECT_MAP: Final = 0xFFFF800000000000  # physical address 0 in the monitor's world
DIRECT_MAP_SPAN: Final = 1 << 39  # memory above 512 GiB is not used


class MemoryRange(Struct, size=24):
    """Physical memory: base and size in bytes, multiples of 4096."""

    base: u64
    size: u64
    kind: u32
    reserved: u32


class LoadedEntry(Struct, size=120):
    """An entry of the image that was copied, hashed there and found to be what the header says.

    The development secret never appears: it was erased.
    """

    kind: u32  # boot.header.EntryKind
    reserved: u32
    physical: HostPhysical  # page-aligned
    size: u64  # bytes
    digest: Array[u8] = array(32)  # SHA-256
    row: Array[u8] = array(64)  # the signed entry row: DICE code input


class Certificate(Struct, size=1028):
    """DER X.509: bytes 0 to size - 1 of content."""

    size: u32
    content: Array[u8] = array(1024)


class TpmState(Enum):
    """What became of the TPM in this boot (docs/evidence.md, "Postures and modes")."""

    ABSENT = u32(0)
    READY = u32(1)
    UNPROVISIONED = u32(2)
    PCRS = u32(3)
    LOCKED_OUT = u32(4)
    BROKEN = u32(5)
    WITHHELD = u32(6)
    UNSUPPORTED = u32(7)


class Quote(Struct, size=584):
    """A TPM's quote: TPMS_ATTEST and TPMT_SIGNATURE. Sizes zero: none."""

    attest_size: u32
    signature_size: u32
    attest: Array[u8] = array(256)
    signature: Array[u8] = array(320)


class Handoff(Struct, size=20480, align=4096):
    """Loader -> monitor. Reserved fields are zero."""

    magic: u64
    version: u32
    size: u32
    range_count: u32
    entry_count: u32
    ranges: Array[MemoryRange] = array(64)
    monitor_physical: HostPhysical
    monitor_memory: u64  # bytes, multiple of 2 MiB
    page_tables: HostPhysical
    page_tables_size: u64  # bytes
    entries: Array[LoadedEntry] = array(120)
    cdi: Cdi  # the monitor's secrets
    signer_key: Array[u8] = array(32)  # Ed25519 public key that signed the image header
    mode: u32  # Open DICE mode
    tpm_owner: u32
    device_certificate: Certificate
    monitor_certificate: Certificate
    framebuffer: HostPhysical  # zero: text mode
    framebuffer_width: u32
    framebuffer_height: u32
    framebuffer_pitch: u32  # bytes
    framebuffer_row: u32  # of characters, the first below the loader's lines
    acpi_root: HostPhysical  # RSDP, or zero
    event_log: HostPhysical
    event_log_size: u64
    security_version: u64
    posture: u64  # the monitor's, and with it every box's (dsl/std/dice.py)
    font: HostPhysical  # the loader's, for the framebuffer (dsl/std/framebuffer.py)
    tpm_state: u32  # TpmState
    tpm_interface: u32  # dsl/std/tpm.py; 0: none
    tpm_registers: HostPhysical  # locality 0 of a FIFO, the control area of a CRB
    quote: Quote
    reserved_tail: Array[u8] = array(1656)
