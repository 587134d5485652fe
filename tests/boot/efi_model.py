"""A UEFI firmware under CPython, as small as the loader needs: handles with protocols, pages, a memory map, one console."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from dsl.lang.model import Machine
from tests.boot.keys import FONT
from tests.boot.model import COM1, Uart

NOT_FOUND = 1 << 63 | 14
DEVICE_ERROR = 1 << 63 | 7
INVALID = 1 << 63 | 2
TABLES, FUNCTIONS, PAGES = 0x20000, 0x80000, 0x4000000
SYSTEM, BOOT, CONSOLE, CONFIGURATION = TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000
HANDLES = TABLES + 0x4000
LOADED_IMAGE = uuid.UUID("5b1b31a1-9562-11d2-8e3f-00a0c969723b").bytes_le
DEVICE_PATH = uuid.UUID("09576e91-6d3f-11d2-8e39-00a0c969723b").bytes_le
BLOCK_IO = uuid.UUID("964e5b21-6459-11d2-8e39-00a0c969723b").bytes_le
TCG2 = uuid.UUID("607f766c-7455-42be-930b-e4d76db2720f").bytes_le
FINAL_EVENTS = uuid.UUID("1e2ed096-30e2-4254-bd89-863bbef82325").bytes_le
GRAPHICS = uuid.UUID("9042a9de-23dc-4a38-96fb-7aded080516a").bytes_le
ACPI_1 = uuid.UUID("eb9d2d30-2d88-11d3-9a16-0090273fc14d").bytes_le
ACPI_2 = uuid.UUID("8868e871-e4f1-11d3-bc22-0080c73c8881").bytes_le
IMAGE = 0x77
BLOCK = 512
STRIDE = 48  # of the memory map: more than a row, as real firmware has it
FRAMEBUFFER = 0xC000000
RAM = [(0, 0xA0, 7, 15), (0x100, 0x700, 7, 15), (0x800, 0x200, 10, 15), (0xA00, 0x3000, 4, 15), (0x3A00, 0x600, 2, 15)]


def node(kind: int, subtype: int, content: bytes) -> bytes:
    """A node of a device path."""
    return struct.pack("<BBH", kind, subtype, 4 + len(content)) + content


END = node(0x7F, 0xFF, b"")


def partition_path(disk: bytes, number: int) -> bytes:
    """The device path of a partition of a disk."""
    return node(2, 1, b"root") + node(3, 18, disk) + node(4, 1, struct.pack("<I", number) + bytes(34)) + END


@dataclass
class Firmware:
    """What the tests change before it runs, and what they look at after."""

    machine: Machine
    uart: Uart = field(default_factory=Uart)
    console: str = ""
    handles: dict[int, dict[bytes, int]] = field(default_factory=dict)
    disks: dict[int, bytes] = field(default_factory=dict)  # interface -> content
    rows: list[tuple[int, int, int, int]] = field(
        default_factory=lambda: list(RAM)
    )  # first page, pages, type, attributes
    exits: list[int] = field(default_factory=lambda: [0])  # what ExitBootServices answers, one after the other
    maps: int = 0
    allocations: list[int] = field(default_factory=list)
    allocation_status: dict[int, int] = field(default_factory=dict)  # by number
    read_status: int = 0
    graphics: int = 0
    tcg2: int = 0
    next_table: int = TABLES + 0x8000
    next_page: int = PAGES

    def __post_init__(self) -> None:
        """Place the tables, and a console."""
        memory = self.machine.memory
        memory.map(0, 0x100000)
        for port in range(COM1, COM1 + 8):
            self.machine.ports[port] = self.uart
        self.machine.ports |= {0x21: 0, 0xA1: 0}
        self.words(SYSTEM + 64, CONSOLE)
        self.words(SYSTEM + 96, BOOT, 2, CONFIGURATION)
        memory.write(CONFIGURATION, ACPI_1 + struct.pack("<Q", 0xF1000) + ACPI_2 + struct.pack("<Q", 0xF2000))
        self.words(CONSOLE + 8, self.function(self.output_string))
        services: dict[int, Callable[..., int]] = {
            40: self.allocate_pages, 56: self.get_memory_map, 152: self.handle_protocol, 232: self.exit_boot_services,
            256: lambda *_: 0, 312: self.locate_handle_buffer, 320: self.locate_protocol,
        }  # fmt: skip
        for offset, service in services.items():
            self.words(BOOT + offset, self.function(service))

    def words(self, place: int, *values: int) -> None:
        self.machine.memory.write(place, struct.pack(f"<{len(values)}Q", *values))

    def function(self, python: Callable[..., int]) -> int:
        address = FUNCTIONS + 16 * len(self.machine.callables)
        self.machine.callables[address] = python
        return address

    def put(self, content: bytes) -> int:
        """Bytes of firmware's own; their place."""
        place = self.next_table
        self.machine.memory.write(place, content)
        self.next_table += -(-len(content) // 16) * 16
        return place

    def add_partition(self, path: bytes, content: bytes, present: int = 1, block: int = BLOCK) -> int:
        """A partition with a block interface; its handle."""
        media = self.put(
            struct.pack("<IBBBBB3xIIIQ", 9, 0, present, 1, 0, 0, block, 1, 0, len(content) // max(block, 1) - 1)
        )
        interface = self.put(struct.pack("<QQQQQQ", 0, media, 0, self.function(self.read_blocks), 0, 0))
        self.disks[interface] = content
        handle = 0x100 + len(self.handles)
        self.handles[handle] = {DEVICE_PATH: self.put(path), BLOCK_IO: interface}
        return handle

    def load_from(self, handle: int) -> None:
        """Say that the loader came from this handle."""
        self.handles[IMAGE] = {LOADED_IMAGE: self.put(bytes(24) + struct.pack("<Q", handle) + bytes(64))}

    def add_screen(self, place: int = FRAMEBUFFER, width: int = 64, height: int = 32, pixel_format: int = 1) -> None:
        """A graphics mode with some pixels more a line than are seen."""
        line = width + 8
        information = self.put(struct.pack("<IIII16sI", 0, width, height, pixel_format, bytes(16), line))
        mode = self.put(struct.pack("<IIQQQQ", 1, 0, information, 36, place, line * height * 4))
        self.graphics = self.put(struct.pack("<QQQQ", 0, 0, 0, mode))

    # The services

    def output_string(self, this: int, characters: int, *_: int) -> int:
        assert this == CONSOLE
        while code := self.machine.memory.load(characters, 2):
            self.console += chr(code)
            characters += 2
        return 0

    def handle_protocol(self, handle: int, guid: int, found: int, *_: int) -> int:
        interface = self.handles.get(handle, {}).get(self.machine.memory.read(guid, 16))
        if interface is None:
            return NOT_FOUND
        self.words(found, interface)
        return 0

    def locate_protocol(self, guid: int, registration: int, found: int, *_: int) -> int:
        interface = {GRAPHICS: self.graphics, TCG2: self.tcg2}[self.machine.memory.read(guid, 16)]
        assert registration == 0
        self.words(found, interface)
        return 0 if interface else NOT_FOUND

    def locate_handle_buffer(self, kind: int, guid: int, key: int, count: int, buffer: int) -> int:
        assert (kind, key) == (2, 0)
        wanted = self.machine.memory.read(guid, 16)
        handles = [handle for handle, protocols in self.handles.items() if wanted in protocols]
        self.words(HANDLES, *handles)
        self.words(count, len(handles))
        self.words(buffer, HANDLES)
        return 0 if handles else NOT_FOUND

    def read_blocks(self, this: int, media: int, block: int, size: int, buffer: int) -> int:
        content = self.disks[this]
        if media != 9 or size % BLOCK or block * BLOCK + size > len(content):
            return INVALID
        if self.read_status and block:
            return self.read_status
        self.machine.memory.write(buffer, content[block * BLOCK :][:size])
        return 0

    def allocate_pages(self, kind: int, memory_type: int, pages: int, place: int, _: int) -> int:
        assert (kind, memory_type) == (1, 2)
        assert self.machine.memory.load(place, 8) == (1 << 32) - 1
        number = len(self.allocations)
        self.allocations.append(self.next_page)
        if status := self.allocation_status.get(number, 0):
            return status
        self.machine.memory.map(self.next_page, pages * 4096)
        self.words(place, self.next_page)
        self.next_page += pages * 4096 + 0x5000
        return 0

    def get_memory_map(self, size: int, rows: int, key: int, stride: int, version: int) -> int:
        self.maps += 1
        content = b"".join(
            struct.pack("<IIQQQQ", kind, 0, first * 4096, 0, pages, attributes).ljust(STRIDE, b"\xee")
            for first, pages, kind, attributes in self.rows
        )
        assert self.machine.memory.load(size, 8) >= len(content)
        self.machine.memory.write(rows, content)
        for place, value in ((size, len(content)), (key, 0x1234 + self.maps), (stride, STRIDE)):
            self.words(place, value)
        return 0

    def exit_boot_services(self, image: int, key: int, *_: int) -> int:
        assert image == IMAGE
        assert key == 0x1234 + self.maps, "the key of the last map"
        return self.exits.pop(0) if self.exits else INVALID


def firmware() -> Firmware:
    """A firmware with an empty machine. The machine is to be entered."""
    return Firmware(Machine(supplied={"boot.header_key": bytes(32), "std.font": FONT}, image=(0x1000000, 0x1030000)))
