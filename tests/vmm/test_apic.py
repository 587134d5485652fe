"""The host's interrupt controllers: what firmware left unmasked is masked, and nothing else changes."""

from __future__ import annotations

import pytest

from boot.handoff import DIRECT_MAP
from dsl.lang import Machine, address_of
from vmm.apic import IO_APIC, initialize_apic, silence_io_apic
from vmm.cpu import BOOT_CPU

pytestmark = pytest.mark.t0
LOCAL_APIC = 0xFEE0_0000
MASKED = 1 << 16


class IoApicChip:
    """An 82093AA with `pins` pins, or nothing at all (no pins: the bus reads as all ones)."""

    def __init__(self, pins: int) -> None:
        self.pins = pins
        self.selected = 0
        self.registers = {0x10 + index: 0x20 + index for index in range(2 * pins)}  # all unmasked
        self.registers[1] = (pins - 1) << 16 | 0x11

    def read(self, offset: int, width: int) -> int:
        assert width == 32
        if self.pins == 0:
            return 0xFFFF_FFFF
        return self.selected if offset == 0 else self.registers[self.selected]

    def write(self, offset: int, width: int, value: int) -> None:
        assert width == 32
        if offset == 0:
            self.selected = value
        else:
            assert self.pins
            assert self.selected in self.registers, hex(self.selected)
            self.registers[self.selected] = value


@pytest.mark.parametrize("pins", [0, 1, 24, 120])
def test_every_pin_is_masked(model: Machine, pins: int) -> None:
    """No pin of the I/O APIC can interrupt afterwards; a machine without one is left alone."""
    chip = IoApicChip(pins)
    model.memory.map_device(DIRECT_MAP + IO_APIC, 0x1000, chip)
    silence_io_apic()
    for pin in range(pins):
        assert chip.registers[0x10 + 2 * pin] == MASKED
        assert chip.registers[0x11 + 2 * pin] == 0x20 + 2 * pin + 1  # the destination is nobody's business


@pytest.mark.parametrize("entries", [3, 4, 5, 6])
def test_local_sources_are_masked(model: Machine, entries: int) -> None:
    """Counters, thermal sensor and corrected machine checks are masked where they exist; what goes to firmware as SMI stays."""

    class LocalChip:
        registers: dict[int, int] = {0x30: entries << 16 | 0x14, 0x340: 0x400, 0x330: 0x200, 0x2F0: 0x55}

        def read(self, offset: int, width: int) -> int:
            return self.registers.get(offset, 0)

        def write(self, offset: int, width: int, value: int) -> None:
            self.registers[offset] = value

    chip = LocalChip()
    chip.registers = dict(LocalChip.registers)
    model.memory.map_device(DIRECT_MAP + LOCAL_APIC, 0x1000, chip)
    model.cpuid[(1, 0)] = (0, 0, 0, 1 << 9)
    BOOT_CPU.self_address = address_of(BOOT_CPU)
    model.cpu.msrs |= {0x1B: LOCAL_APIC | 0x900, 0xC000_0101: int(address_of(BOOT_CPU).as_u64())}
    assert initialize_apic()
    assert chip.registers[0x340] == 0x400 | (MASKED if entries >= 4 else 0)
    assert chip.registers[0x330] == 0x200
    assert chip.registers[0x2F0] == 0x55 | (MASKED if entries >= 6 else 0)
    assert chip.registers[0x350] & MASKED  # LINT0: the PIC's way in
    assert chip.registers[0x320] & MASKED  # the timer, until it is wanted
