"""PCI configuration mechanism 1 (ports CF8h to CFFh) on a bus with nothing on it, and the reset register at CF9h.

The address register keeps what is written to it as a double word, so that a box finds the mechanism; every configuration register
answers all ones, so that it finds no device.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Struct, machine, u8, u16, u32

ADDRESS_MASK: Final = 0x80FF_FFFC  # enable, bus, device, function, register
RESET_OFFSET: Final = 1  # CF9h
RESET_CPU: Final = 0x04


class PciPorts(Struct):
    """The address register and the reset register."""

    address: u32
    reset_control: u8
    reset_asked: bool
    reserved: u16


@machine
def pci_reset(pci: PciPorts) -> None:
    """Put the ports into the state after power-on."""
    pci.clear()


@machine
def pci_read_byte(pci: PciPorts, offset: u16) -> u8:
    """Read one byte at CF8h + offset."""
    return pci.reset_control if offset == RESET_OFFSET else u8(0xFF)


@machine
def pci_write_byte(pci: PciPorts, offset: u16, value: u8) -> None:
    """Write one byte at CF8h + offset: only the reset register takes it. Bit 2 asks for a reset, and is not kept."""
    if offset != RESET_OFFSET:
        return
    if value & RESET_CPU != 0:
        pci.reset_asked = True
    pci.reset_control = value & 0x02


@machine
def pci_read_address(pci: PciPorts) -> u32:
    """Read the double word at CF8h."""
    return pci.address


@machine
def pci_write_address(pci: PciPorts, value: u32) -> None:
    """Write the double word at CF8h."""
    pci.address = value & ADDRESS_MASK


@machine
def pci_take_reset(pci: PciPorts) -> bool:
    """Tell once whether a reset was asked for."""
    asked = pci.reset_asked
    pci.reset_asked = False
    return asked
