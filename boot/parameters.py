"""What the part that knows the firmware leaves for the loader body: stage 2 at 0x7000 (docs/formats.md, "Physical memory on the BIOS
path"), `boot/uefi.py` in memory of its own.
"""

from __future__ import annotations

from typing import Final

from boot.header import HEADER_SIZE
from boot.refusal import Refusal, Rule, good
from dsl.lang import Array, HostPhysical, Struct, array, machine, u8, u32, u64

PARAMETERS_BASE: Final = 0x7000  # on the BIOS path
PARAMETERS_MAGIC: Final = int.from_bytes(b"TRNBOOT1", "little")
PARAMETERS_VERSION: Final = 1
FIRMWARE_RANGES: Final = 120
FIRMWARE_BIOS: Final = 0
FIRMWARE_UEFI: Final = 1
MEASUREMENTS: Final = (
    0xE000  # on the BIOS path: answers of the TPM, one in MEASUREMENT_SIZE bytes; the body's is the last
)
MEASUREMENT_SIZE: Final = 256
MEASUREMENT_ROWS: Final = 16
RAM: Final = 1  # FirmwareRange.kind: usable memory; every other kind is not
RANGE_VALID: Final = 1  # FirmwareRange.attributes bit 0; bit 1 set means non-volatile memory
RANGE_ATTRIBUTES_RAM: Final = 3  # the bits that decide whether a range of kind RAM is ordinary memory


class FirmwareRange(Struct, size=24):
    """One range of memory, as firmware gave it (from UEFI, RAM alone): it may overlap others, be empty, or run past 2**64."""

    base: u64
    size: u64
    kind: u32
    attributes: u32


class BootParameters(Struct, size=3072):
    """Written by stage 2 or boot/uefi.py. What a BIOS does not tell is zero."""

    magic: u64
    version: u32
    drive: u32  # BIOS drive number
    staging_base: u64  # where the Terrane partition was read to
    staging_size: u64  # bytes read
    range_count: u32
    firmware: u32  # FIRMWARE_BIOS or FIRMWARE_UEFI
    acpi_root: HostPhysical  # from UEFI; a BIOS leaves it to be looked for
    loader_base: u64  # RAM that the loader itself lies in, and that it does not hand over; none in the first MiB
    loader_size: u64
    ranges: Array[FirmwareRange] = array(120)
    framebuffer: HostPhysical  # 32-bit pixels, or zero
    framebuffer_width: u32  # pixels
    framebuffer_height: u32
    framebuffer_pitch: u32  # bytes
    measured: u32  # by a BIOS's TPM calls: low byte the pieces of stage 2, next byte 1 if the body was (MEASUREMENTS)
    event_log: u64  # room for a log that begins with firmware's, from UEFI
    event_log_size: u64  # bytes of firmware's
    reserved_tail: Array[u8] = array(88)


@machine
def check_parameters(parameters: BootParameters) -> Refusal:
    """Check that stage 2, or the UEFI part, and the loader body speak of the same thing."""
    if parameters.magic != PARAMETERS_MAGIC:
        return Refusal(Rule.PARAMETERS_MAGIC, u64(0), u64(PARAMETERS_MAGIC), parameters.magic)
    if parameters.version != PARAMETERS_VERSION:
        return Refusal(Rule.PARAMETERS_VERSION, u64(0), u64(PARAMETERS_VERSION), u64(parameters.version))
    if parameters.range_count == 0 or parameters.range_count > FIRMWARE_RANGES:
        return Refusal(Rule.PARAMETERS_RANGES, u64(0), u64(FIRMWARE_RANGES), u64(parameters.range_count))
    if parameters.staging_size < HEADER_SIZE:
        return Refusal(Rule.STAGING_SIZE, u64(0), u64(HEADER_SIZE), parameters.staging_size)
    return good()
