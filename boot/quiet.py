"""Making the machine quiet before anything is believed: no other processor runs, no device writes to memory on its own.

From here on firmware is not called. Devices and firmware code (SMM) are trusted until then.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Device, HostVirtual, Struct, at, machine, u16, u32, u64, upto
from dsl.lang.intrinsics import in32, out32, rdmsr, wrmsr

# PCI Local Bus Specification 3.0, 3.2.2.3.2: configuration mechanism #1
PCI_ADDRESS: Final = u16(0xCF8)
PCI_DATA: Final = u16(0xCFC)
PCI_ENABLE: Final = u32(0x80000000)
PCI_IDENTITY: Final = u32(0x00)  # vendor, device
PCI_COMMAND: Final = u32(0x04)  # command (low half), status (write one to clear)
PCI_HEADER_TYPE: Final = u32(0x0C)  # bits 23:16
PCI_NOTHING: Final = u32(0xFFFFFFFF)
PCI_MANY_FUNCTIONS: Final = u32(1 << 23)
PCI_BUS_MASTER: Final = u32(1 << 2)
PCI_COMMAND_MASK: Final = u32(0xFFFF)
PCI_SLOTS: Final = 256 * 32  # 256 buses of 32 devices
PCI_FUNCTIONS: Final = 8

# SDM Vol. 3A, "Local APIC"
APIC_BASE_MSR: Final = u32(0x1B)
APIC_ENABLED: Final = u64(1 << 11)
APIC_X2: Final = u64(1 << 10)
APIC_ADDRESS_MASK: Final = u64(0x000FFFFFFFFFF000)
X2APIC_COMMAND_MSR: Final = u32(0x830)
INIT_ALL_BUT_SELF: Final = u32(0x000C4500)  # INIT, assert, edge, all excluding self
DELIVERY_PENDING: Final = u32(1 << 12)
DELIVERY_READS: Final = 100000


class LocalApic(Struct, size=4096):
    """The local APIC's registers in memory; only those that the loader uses."""

    command_low: Device[u32] = at(0x300)


@machine
def park_processors() -> None:
    """Send INIT to every other processor: each waits for a start-up message from then on, and runs no code."""
    base = rdmsr(APIC_BASE_MSR)
    if base & APIC_ENABLED == 0:
        return  # a processor whose APIC is off cannot have started another
    if base & APIC_X2 != 0:
        wrmsr(X2APIC_COMMAND_MSR, u64(INIT_ALL_BUT_SELF))
        return
    # Safe because the loader's identity map covers the first 4 GiB, where the APIC was checked to be.
    address = base & APIC_ADDRESS_MASK
    assert address < 1 << 32, "the local APIC lies above 4 GiB"
    apic = LocalApic.at(HostVirtual(address))
    apic.command_low = INIT_ALL_BUT_SELF
    for _ in upto(DELIVERY_READS):
        if apic.command_low & DELIVERY_PENDING == 0:
            return


@machine
def pci_read(function: u32, register: u32) -> u32:
    """Read a doubleword of configuration space; function: bus, device and function number, 16 bits together."""
    out32(PCI_ADDRESS, PCI_ENABLE | (function << 8) | register)
    return in32(PCI_DATA)


@machine
def stop_bus_master(function: u32) -> bool:
    """Take from one function the right to write to memory; True if it had it."""
    command = pci_read(function, PCI_COMMAND) & PCI_COMMAND_MASK
    if command & PCI_BUS_MASTER == 0:
        return False
    out32(PCI_ADDRESS, PCI_ENABLE | (function << 8) | PCI_COMMAND)
    out32(PCI_DATA, command & ~PCI_BUS_MASTER)  # zeros leave the status half as it is
    return True


@machine
def stop_bus_masters() -> u64:
    """Turn bus mastering off in every PCI function; the result is how many had it on."""
    stopped = u64(0)
    for slot in upto(u32(PCI_SLOTS)):
        first = slot << 3
        if pci_read(first, PCI_IDENTITY) != PCI_NOTHING:
            stopped += u64(stop_bus_master(first))
            if pci_read(first, PCI_HEADER_TYPE) & PCI_MANY_FUNCTIONS != 0:
                for number in upto(u32(PCI_FUNCTIONS)):
                    function = first | number
                    if number != 0 and pci_read(function, PCI_IDENTITY) != PCI_NOTHING:
                        stopped += u64(stop_bus_master(function))
    return stopped
