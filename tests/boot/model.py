"""A machine under CPython for the loader body: RAM, UART, screen, PCI, and the parameters that stage 2 leaves."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from dsl.lang.model import Machine
from tests.boot.keys import FONT

STAGING = 0x1000000
RAM_END = 0x4000000
COM1 = 0x3F8
HEADER_KEY = "boot.header_key"


@dataclass
class Uart:
    """A 16550 that is always ready."""

    sent: bytearray = field(default_factory=bytearray)
    registers: dict[int, int] = field(default_factory=dict)

    def read(self, port: int, width: int) -> int:
        return 0x60 if port == COM1 + 5 else self.registers.get(port, 0)

    def write(self, port: int, width: int, value: int) -> None:
        if port == COM1 and not self.registers.get(COM1 + 3, 0) & 0x80:
            self.sent.append(value)
        else:
            self.registers[port] = value


@dataclass
class Cursor:
    """The CRT controller's index and data."""

    index: int = 0
    registers: dict[int, int] = field(default_factory=dict)

    def read(self, port: int, width: int) -> int:
        return self.registers.get(self.index, 0)

    def write(self, port: int, width: int, value: int) -> None:
        if port == 0x3D4:
            self.index = value
        else:
            self.registers[self.index] = value


@dataclass
class Pci:
    """Configuration mechanism 1; functions by (bus << 8 | device << 3 | function), as lists of doublewords."""

    functions: dict[int, list[int]] = field(default_factory=dict)
    address: int = 0

    def read(self, port: int, width: int) -> int:
        function = self.functions.get(self.address >> 8 & 0xFFFF)
        return 0xFFFFFFFF if function is None else function[(self.address & 0xFF) // 4]

    def write(self, port: int, width: int, value: int) -> None:
        if port == 0xCF8:
            self.address = value
        else:
            self.functions[self.address >> 8 & 0xFFFF][(self.address & 0xFF) // 4] = value


def parameters(partition: bytes, rows: list[tuple[int, int, int, int]] | None = None) -> bytes:
    """BootParameters as stage 2 writes them."""
    if rows is None:
        rows = [(0, 0x9FC00, 1, 1), (0x9FC00, 0x400, 2, 1), (0x100000, RAM_END - 0x100000, 1, 1)]
    head = struct.pack("<8sIIQQI", b"TRNBOOT1", 1, 0x80, STAGING, len(partition), len(rows)).ljust(64, b"\0")
    return head + b"".join(struct.pack("<QQII", *row) for row in rows)


def machine_with(
    partition: bytes, key: bytes, rows: list[tuple[int, int, int, int]] | None = None
) -> tuple[Machine, Uart, Pci]:
    """A machine where stage 2 has just ended."""
    machine = Machine(supplied={HEADER_KEY: key, "std.font": FONT})
    uart, cursor, pci = Uart(), Cursor(), Pci()
    for port in range(COM1, COM1 + 8):
        machine.ports[port] = uart
    machine.ports |= {0x3D4: cursor, 0x3D5: cursor, 0xCF8: pci, 0xCFC: pci}
    machine.memory.map(0, RAM_END)
    machine.memory.map_device(0xFEE00000, 4096, Apic())
    machine.memory.write(0x7000, parameters(partition, rows))
    machine.memory.write(STAGING, partition)
    machine.cpuid |= {(leaf, 0): (7 if leaf == 0 else 0, 0, 0, 0) for leaf in (0, 1, 7)}  # no SHA extensions
    machine.cpuid |= {(0x80000000, 0): (0x80000008, 0, 0, 0), (0x80000008, 0): (36, 0, 0, 0)}
    machine.msrs[0x1B] = 0xFEE00900
    return machine, uart, pci


@dataclass
class Apic:
    """A local APIC that delivers at once."""

    commands: list[int] = field(default_factory=list)

    def read(self, offset: int, width: int) -> int:
        return 0

    def write(self, offset: int, width: int, value: int) -> None:
        self.commands.append(value)
