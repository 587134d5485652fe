"""The interrupt controllers of the host: PIC and I/O APIC, silenced, and the local APIC with its timer (8259A, 82093AA, SDM Vol. 3A 11).

No device interrupts the monitor. What firmware left unmasked would do so for ever, since nobody here answers the device.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import CPUID_EDX_APIC, IA32_APIC_BASE
from dsl.lang import (
    Array,
    Device,
    Failure,
    HostPhysical,
    Struct,
    array,
    at,
    machine,
    minimum,
    static,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import cli, cpuid, out8, rdmsr, sti_hlt, wrmsr
from vmm.clock import CALIBRATION_COUNT, NANOSECONDS, PIT_HZ, calibrate, fraction, scale
from vmm.cpu import CPU
from vmm.memory import to_host_virtual

VECTOR_PIC: Final = 0x20  # to 0x2F
VECTOR_TIMER: Final = 0x30
VECTOR_APIC_ERROR: Final = 0x31
VECTOR_APIC_SPURIOUS: Final = 0x3F

PIC_MASTER: Final = 0x20
PIC_SLAVE: Final = 0xA0
PIC_INITIALIZE: Final = 0x11
PIC_CASCADE: Final = 2

APIC_X2APIC: Final = 1 << 10
APIC_ENABLE: Final = 1 << 11
APIC_ADDRESS: Final = 0x000F_FFFF_FFFF_F000
X2APIC_BASE: Final = 0x800  # MSR of a register: this plus its offset / 16

APIC_VERSION: Final = 0x30
APIC_TASK_PRIORITY: Final = 0x80
APIC_END_OF_INTERRUPT: Final = 0xB0
APIC_SPURIOUS: Final = 0xF0
APIC_LVT_CMCI: Final = 0x2F0
APIC_LVT_TIMER: Final = 0x320
APIC_LVT_THERMAL: Final = 0x330
APIC_LVT_COUNTERS: Final = 0x340
APIC_LVT_LINT0: Final = 0x350
APIC_LVT_LINT1: Final = 0x360
APIC_LVT_ERROR: Final = 0x370
APIC_TIMER_START: Final = 0x380
APIC_TIMER_NOW: Final = 0x390
APIC_TIMER_DIVIDE: Final = 0x3E0
LVT_MASKED: Final = 1 << 16
LVT_MODE: Final = 7 << 8
LVT_SMI: Final = 2 << 8
LVT_NMI: Final = 4 << 8
SOFTWARE_ENABLE: Final = 1 << 8
DIVIDE_BY_1: Final = 0b1011
TIMER_MOST: Final = 0xFFFF_FFFF

IO_APIC: Final = (
    0xFEC0_0000  # a PC's first; what else there is needs ACPI to be found, and PCI devices have no INTx by now
)
IO_APIC_VERSION: Final = 1
IO_APIC_PINS: Final = 0x10  # two registers a pin; the low one has the mask, as in the local vector table
IO_APIC_PIN_LIMIT: Final = 120  # as many as the index can name


class ApicRegister(Struct, size=16):
    """One register of the local APIC's page: 32 bits, every 16 bytes."""

    value: Device[u32]
    padding: u32
    padding_end: u64


class IoApic(Struct, size=32):
    """The I/O APIC's window: what is written to `select` chooses the register that `window` is."""

    select: Device[u32]
    window: Device[u32] = at(0x10)
    padding: Array[u8] = array(12, at=0x14)


class LocalApic(Struct):
    """Where the local APIC's registers are, when they are memory."""

    page: HostPhysical


LOCAL_APIC: Final = static(LocalApic)


@machine
def silence_pic() -> None:
    """Remap the two 8259s out of the exceptions' way, and mask every line. Comes before anything else that concerns interrupts."""
    out8(u16(PIC_MASTER), u8(PIC_INITIALIZE))
    out8(u16(PIC_SLAVE), u8(PIC_INITIALIZE))
    out8(u16(PIC_MASTER + 1), u8(VECTOR_PIC))
    out8(u16(PIC_SLAVE + 1), u8(VECTOR_PIC + 8))
    out8(u16(PIC_MASTER + 1), u8(1 << PIC_CASCADE))
    out8(u16(PIC_SLAVE + 1), u8(PIC_CASCADE))
    out8(u16(PIC_MASTER + 1), u8(1))
    out8(u16(PIC_SLAVE + 1), u8(1))
    out8(u16(PIC_MASTER + 1), u8(0xFF))
    out8(u16(PIC_SLAVE + 1), u8(0xFF))


@machine
def silence_io_apic() -> None:
    """Mask every pin of the first I/O APIC, if there is one."""
    # Safe because the direct map covers the first 4 GiB, and nothing but the I/O APIC answers there.
    chip = IoApic.at(to_host_virtual(HostPhysical(IO_APIC)))
    chip.select = u32(IO_APIC_VERSION)
    version = chip.window
    if version == 0 or ~version == 0:
        return
    for pin in upto(minimum((version >> 16 & 0xFF) + 1, u32(IO_APIC_PIN_LIMIT))):
        chip.select = u32(IO_APIC_PINS) + pin * 2
        chip.window = u32(LVT_MASKED)


@machine
def mask_source(index: u32, offset: u32) -> None:
    """Mask entry `index` of the local vector table, where the processor has it; what firmware wants for itself (SMI) stays."""
    if (apic_read(u32(APIC_VERSION)) >> 16) & 0xFF >= index:
        entry = apic_read(offset)
        if entry & LVT_MODE != LVT_SMI:
            apic_write(offset, entry | LVT_MASKED)


@machine
def apic_register(offset: u32) -> ApicRegister:
    """A register of the local APIC in memory."""
    # Safe because the page is the local APIC's, as IA32_APIC_BASE says, in the direct map; offset is one of the constants above.
    return ApicRegister.at(to_host_virtual(LOCAL_APIC.page) + u64(offset))


@machine
def apic_read(offset: u32) -> u32:
    """Read a register of this CPU's local APIC."""
    if CPU.current().uses_x2apic:
        return rdmsr(u32(X2APIC_BASE) + (offset >> 4)).truncate(u32)
    return apic_register(offset).value


@machine
def apic_write(offset: u32, value: u32) -> None:
    """Write a register of this CPU's local APIC."""
    if CPU.current().uses_x2apic:
        wrmsr(u32(X2APIC_BASE) + (offset >> 4), u64(value))
    else:
        apic_register(offset).value = value


@machine
def end_of_interrupt() -> None:
    """Tell the local APIC that its highest interrupt was handled."""
    apic_write(u32(APIC_END_OF_INTERRUPT), u32(0))


@machine
def initialize_apic() -> bool:
    """Enable this CPU's local APIC with everything masked but NMI, errors and, later, the timer. False: there is none."""
    if cpuid(u32(1), u32(0)).edx & CPUID_EDX_APIC == 0:
        return False
    cpu = CPU.current()
    base = rdmsr(u32(IA32_APIC_BASE))
    cpu.uses_x2apic = base & APIC_X2APIC != 0
    LOCAL_APIC.page = HostPhysical(base & APIC_ADDRESS)
    if base & APIC_ENABLE == 0:
        wrmsr(u32(IA32_APIC_BASE), base | APIC_ENABLE)
    apic_write(u32(APIC_SPURIOUS), u32(SOFTWARE_ENABLE | VECTOR_APIC_SPURIOUS))
    apic_write(u32(APIC_TASK_PRIORITY), u32(0))
    apic_write(u32(APIC_LVT_LINT0), u32(LVT_MASKED))
    apic_write(u32(APIC_LVT_LINT1), u32(LVT_NMI))
    apic_write(u32(APIC_LVT_ERROR), u32(VECTOR_APIC_ERROR))
    apic_write(u32(APIC_LVT_TIMER), u32(VECTOR_TIMER | LVT_MASKED))
    mask_source(u32(4), u32(APIC_LVT_COUNTERS))
    mask_source(u32(5), u32(APIC_LVT_THERMAL))
    mask_source(u32(6), u32(APIC_LVT_CMCI))
    apic_write(u32(APIC_TIMER_DIVIDE), u32(DIVIDE_BY_1))
    return True


@machine
def calibrate_timers() -> Failure | None:
    """Measure TSC and local APIC timer in the same 10 ms; interrupts must be off."""
    apic_write(u32(APIC_TIMER_START), u32(TIMER_MOST))
    calibrated = calibrate()
    if isinstance(calibrated, Failure):
        return calibrated
    elapsed = u64(u32(TIMER_MOST) - apic_read(u32(APIC_TIMER_NOW)))
    apic_write(u32(APIC_TIMER_START), u32(0))
    CPU.current().timer_ticks_per_ns = fraction(elapsed * PIT_HZ // CALIBRATION_COUNT, u64(NANOSECONDS))
    return None


@machine
def start_apic_timer(ticks: u32) -> None:
    """Let the timer run once over `ticks`, and interrupt."""
    apic_write(u32(APIC_LVT_TIMER), u32(VECTOR_TIMER))
    apic_write(u32(APIC_TIMER_START), ticks)


@machine
def wait_for_interrupt(nanoseconds: u64) -> None:
    """Halt this CPU until an interrupt comes: the local APIC's timer after that time, at the latest."""
    cpu = CPU.current()
    cpu.timer_fired = False
    ticks = scale(nanoseconds, cpu.timer_ticks_per_ns)
    if ticks == 0:
        return
    start_apic_timer(ticks.truncate(u32) if ticks < TIMER_MOST else u32(TIMER_MOST))
    sti_hlt()  # an interrupt that came before is pending until now: none is lost
    cli()
    apic_write(u32(APIC_TIMER_START), u32(0))
    apic_write(u32(APIC_LVT_TIMER), u32(VECTOR_TIMER | LVT_MASKED))
