"""The flat memory of the Machine model: sparse pages, some read-only, some belonging to devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from dsl.lang.failure import MachineError

PAGE: Final = 4096


class Event(NamedTuple):
    """One thing the outside can see, in order.

    kind: read, write (memory of a device or shared), erase, port_read, port_write, msr_read, msr_write; place: address, port
    or MSR; width in bits (of erase: size in bytes); value read or written (of erase: 0).
    """

    kind: str
    place: int
    width: int
    value: int


class DeviceMemory(Protocol):
    """What answers at a range of device memory. Offsets are from its start; width is in bits."""

    def read(self, offset: int, width: int) -> int:
        """The value a read gives."""

    def write(self, offset: int, width: int, value: int) -> None:
        """Take a write."""


class Memory:
    """Addresses 0 to 2**64 - 1. What was never mapped is an error to touch."""

    __slots__ = ("_devices", "_mapped", "_readable", "_writable", "observe")

    def __init__(self, observe: Callable[[Event], None]) -> None:
        self._readable: dict[int, bytearray] = {}
        self._writable: dict[int, bytearray] = {}
        self._mapped: list[tuple[int, int]] = []  # page numbers: first, end; zeroed at first touch
        self._devices: list[tuple[int, int, DeviceMemory]] = []  # first address, end
        self.observe = observe

    def map(self, address: int, size: int, content: bytes = b"") -> None:
        """Make size bytes from address on ordinary memory, zeroed but for content at its start. Whole pages."""
        if size < 1 or address < 0 or address + size > 1 << 64 or len(content) > size:
            raise MachineError(f"cannot map {size} bytes at {address:#x}")
        self._mapped.append((address // PAGE, -(-(address + size) // PAGE)))
        if content:
            self.write(address, content)

    def map_read_only(self, address: int, content: bytes) -> None:
        """Put constant bytes at address; their pages take no write."""
        position = address
        while position < address + len(content):
            page = self._readable.setdefault(position // PAGE, bytearray(PAGE))
            if position // PAGE in self._writable:
                raise MachineError(f"{position:#x} is writable already")
            count = min(PAGE - position % PAGE, address + len(content) - position)
            page[position % PAGE : position % PAGE + count] = content[position - address : position - address + count]
            position += count

    def map_device(self, address: int, size: int, device: DeviceMemory) -> None:
        """Let a device answer Device and Shared accesses to a range."""
        self._devices.append((address, address + size, device))

    def load(self, address: int, size: int) -> int:
        """The little-endian number of size bytes at address."""
        page = self._readable.get(address >> 12)
        offset = address & 0xFFF
        if page is None or offset + size > PAGE:
            return int.from_bytes(self.read(address, size), "little")
        return int.from_bytes(page[offset : offset + size], "little")

    def store(self, address: int, size: int, value: int) -> None:
        """Put a number at address as size little-endian bytes."""
        page = self._writable.get(address >> 12)
        offset = address & 0xFFF
        if page is None or offset + size > PAGE:
            self.write(address, value.to_bytes(size, "little"))
        else:
            page[offset : offset + size] = value.to_bytes(size, "little")

    def load_volatile(self, address: int, size: int) -> int:
        """Load, as an event; from a device if one answers here."""
        offset, device = self._device(address, size)
        value = self.load(address, size) if device is None else device.read(offset, size * 8)
        if not 0 <= value < 1 << size * 8:
            raise MachineError(f"the device at {address:#x} gave {value:#x} for {size} bytes")
        self.observe(Event("read", address, size * 8, value))
        return value

    def store_volatile(self, address: int, size: int, value: int) -> None:
        """Store, as an event; to a device if one answers here."""
        self.observe(Event("write", address, size * 8, value))
        offset, device = self._device(address, size)
        if device is None:
            self.store(address, size, value)
        else:
            device.write(offset, size * 8, value)

    def _device(self, address: int, size: int) -> tuple[int, DeviceMemory | None]:
        """The device that answers here, if one does, and the offset in its range."""
        for start, end, device in self._devices:
            if start <= address and address + size <= end:
                return address - start, device
        return 0, None

    def read(self, address: int, size: int) -> bytes:
        """Size bytes from address on."""
        result = bytearray()
        while len(result) < size:
            position = address + len(result)
            offset = position % PAGE
            page = self._readable.get(position // PAGE) or self._touch(position // PAGE, "read")
            result += page[offset : offset + size - len(result)]
        return bytes(result)

    def write(self, address: int, content: bytes) -> None:
        """Put bytes at address."""
        done = 0
        while done < len(content):
            position = address + done
            offset = position % PAGE
            page = self._writable.get(position // PAGE) or self._touch(position // PAGE, "write")
            count = min(PAGE - offset, len(content) - done)
            page[offset : offset + count] = content[done : done + count]
            done += count

    def _touch(self, number: int, what: str) -> bytearray:
        """The page, made if it is mapped but was never used."""
        if number in self._readable and number not in self._writable:
            raise MachineError(f"write to read-only memory in the page at {number * PAGE:#x}")
        if not any(first <= number < end for first, end in self._mapped):
            raise MachineError(f"{what} of memory that is not mapped, in the page at {number * PAGE:#x}")
        page = bytearray(PAGE)
        self._readable[number] = self._writable[number] = page
        return page
