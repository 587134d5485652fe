"""What UEFI gives an application, as far as a loader uses it (UEFI 2.10: chapters 4, 7, 9.1, 10.3, 12.4, 12.9, 13.9)."""

from __future__ import annotations

import uuid
from typing import Final

from dsl.lang import HostVirtual, Record, Struct, at, u8, u32, u64

SUCCESS: Final = 0
LOADER_DATA: Final = 2  # EFI_MEMORY_TYPE
ALLOCATE_MAX_ADDRESS: Final = 1
BY_PROTOCOL: Final = 2  # LocateHandleBuffer
RAM_TYPES: Final = 0b1001_1110  # by bit, what is free after boot services: loader and boot services, code and data, and conventional memory
WRITE_BACK: Final = 1 << 3  # memory attribute
MEDIA_NODE: Final = 4  # device path: type
PARTITION_NODE: Final = 1  # subtype of MEDIA_NODE: hard drive media
END_NODE: Final = 0x7F
LINEAR_32_BIT: Final = 1  # highest pixel format of which a pixel is 32 bits with grey in either order


def guid(text: str) -> bytes:
    """A GUID as it lies in memory."""
    return uuid.UUID(text).bytes_le


LOADED_IMAGE_PROTOCOL: Final = guid("5b1b31a1-9562-11d2-8e3f-00a0c969723b")
DEVICE_PATH_PROTOCOL: Final = guid("09576e91-6d3f-11d2-8e39-00a0c969723b")
BLOCK_IO_PROTOCOL: Final = guid("964e5b21-6459-11d2-8e39-00a0c969723b")
GRAPHICS_OUTPUT_PROTOCOL: Final = guid("9042a9de-23dc-4a38-96fb-7aded080516a")
TCG2_PROTOCOL: Final = guid("607f766c-7455-42be-930b-e4d76db2720f")  # TCG EFI Protocol Specification 1.00, 6
FINAL_EVENTS_TABLE: Final = guid("1e2ed096-30e2-4254-bd89-863bbef82325")  # there, 7
CRYPTO_AGILE: Final = 2  # EFI_TCG2_EVENT_LOG_FORMAT_TCG_2
ACPI_2_TABLE: Final = guid("8868e871-e4f1-11d3-bc22-0080c73c8881")
ACPI_1_TABLE: Final = guid("eb9d2d30-2d88-11d3-9a16-0090273fc14d")


class SystemTable(Struct, size=120):
    """Where everything begins; firmware's."""

    console_out: HostVirtual = at(64)  # TextOutput
    boot_services: HostVirtual = at(96)
    table_count: u64 = at(104)
    tables: HostVirtual = at(112)  # ConfigurationTable


class ConfigurationTable(Struct, size=24):
    """One of the tables that firmware hands on."""

    guid_low: u64
    guid_high: u64
    address: u64


class BootServices(Struct, size=376):
    """Addresses of functions."""

    allocate_pages: u64 = at(40)
    get_memory_map: u64 = at(56)
    handle_protocol: u64 = at(152)
    exit_boot_services: u64 = at(232)
    set_watchdog_timer: u64 = at(256)
    locate_handle_buffer: u64 = at(312)
    locate_protocol: u64 = at(320)


class TextOutput(Struct, size=80):
    """Simple text output protocol."""

    output_string: u64 = at(8)


class LoadedImage(Struct, size=96):
    """Loaded image protocol: where this program came from."""

    device: u64 = at(24)  # handle


class DevicePathNode(Struct, size=4):
    """The head of a node of a device path; length in bytes, little-endian, the head included."""

    type: u8
    subtype: u8
    length_low: u8
    length_high: u8


class BlockIo(Struct, size=48):
    """Block I/O protocol."""

    media: HostVirtual = at(8)
    read_blocks: u64 = at(24)


class BlockMedia(Struct, size=32):
    """What is in the drive."""

    identifier: u32 = at(0)
    present: u8 = at(5)
    block_size: u32 = at(12)
    last_block: u64 = at(24)


class Tcg2(Struct, size=56):
    """TCG2 protocol."""

    get_event_log: u64 = at(8)


class FinalEvents(Struct, size=16):
    """What was logged since the first GetEventLog; the events follow."""

    version: u64
    count: u64


class GraphicsOutput(Struct, size=32):
    """Graphics output protocol."""

    mode: HostVirtual = at(24)


class GraphicsMode(Struct, size=40):
    """The current mode."""

    information: HostVirtual = at(8)
    framebuffer: u64 = at(24)
    framebuffer_size: u64 = at(32)


class GraphicsInformation(Struct, size=36):
    """The mode's pixels."""

    width: u32 = at(4)
    height: u32 = at(8)
    pixel_format: u32 = at(12)
    pixels_per_line: u32 = at(32)


class MemoryDescriptor(Struct, size=40):
    """A row of the memory map; rows lie as far apart as firmware says."""

    type: u32 = at(0)
    physical: u64 = at(8)
    pages: u64 = at(24)
    attributes: u64 = at(32)


class MemoryMapAnswer(Record):
    """What GetMemoryMap gave: bytes of map, the key that ExitBootServices wants, bytes from one row to the next."""

    status: u64
    size: u64
    key: u64
    stride: u64
