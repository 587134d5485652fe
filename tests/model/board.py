"""The few devices that the monitor itself touches: UART, PIC, PIT's channel 2, RTC, and the local APIC's page."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.processor import TSC_HZ

COM1 = 0x3F8
LINE_STATUS_IDLE = 0x60
PIT_HZ = 1_193_182
PORT_B = 0x61
PIT_OUTPUT = 0x20
RTC = {
    0: 0x30,
    2: 0x20,
    4: 0x10,
    7: 0x05,
    8: 0x06,
    9: 0x24,
    0x32: 0x20,
    0xA: 0x26,
    0xB: 0x02,
}  # 2024-06-05 10:20:30, in BCD
APIC_TIMER_DIVISOR = 10  # TSC ticks a tick
APIC_LVT_TIMER, APIC_TIMER_START, APIC_TIMER_NOW, APIC_END_OF_INTERRUPT = 0x320, 0x380, 0x390, 0xB0
LVT_MASKED = 1 << 16


@dataclass
class Clock:
    """The TSC. It moves when something takes time, never by itself."""

    ticks: int = 3 << 40  # a machine that has been on for a while: more than 32 bits count

    def pass_ticks(self, count: int) -> None:
        """Let time pass."""
        self.ticks += count


@dataclass
class Ports:
    """What IN and OUT reach."""

    clock: Clock
    serial: bytearray = field(default_factory=bytearray)
    typed: bytearray = field(default_factory=bytearray)  # what the serial port still has to give
    registers: dict[int, int] = field(default_factory=dict)
    written: list[tuple[int, int]] = field(default_factory=list)
    count_end: int = 0  # TSC value at which channel 2's output rises
    has_timer: bool = True

    def read(self, port: int) -> int:
        """IN of a byte. Takes a microsecond; a look at the PIT's output takes a millisecond, to keep runs short."""
        self.clock.pass_ticks(TSC_HZ // 1_000_000)
        if port == COM1 + 5:
            return LINE_STATUS_IDLE | bool(self.typed)
        if port == COM1 and self.typed:
            return self.typed.pop(0)
        if port == 0x71:
            return RTC.get(self.registers.get(0x70, 0) & 0x7F, 0)
        if port == PORT_B:
            now = self.clock.ticks
            self.clock.ticks = max(now, min(self.count_end, now + TSC_HZ // 1000))
            is_high = self.has_timer and self.count_end and self.clock.ticks >= self.count_end
            return self.registers.get(PORT_B, 0) & ~PIT_OUTPUT | (PIT_OUTPUT if is_high else 0)
        return self.registers.get(port, 0)

    def write(self, port: int, value: int) -> None:
        """OUT of a byte."""
        self.clock.pass_ticks(TSC_HZ // 1_000_000)
        self.written.append((port, value))
        if port == COM1 and not self.registers.get(COM1 + 3, 0) & 0x80:
            self.serial.append(value)
            return
        if port == PORT_B and value & 1 and not self.registers.get(PORT_B, 0) & 1:
            count = [value for number, value in self.written if number == 0x42][-2:]
            self.count_end = self.clock.ticks + (count[0] | count[1] << 8) * TSC_HZ // PIT_HZ
        self.registers[port] = value


@dataclass
class IoApic:
    """The I/O APIC: 24 pins behind an index and a window; firmware left them all unmasked."""

    registers: dict[int, int] = field(
        default_factory=lambda: {1: 23 << 16 | 0x11} | dict.fromkeys(range(0x10, 0x40), 0x20)
    )
    selected: int = 0

    def read(self, offset: int) -> int:
        """Read the index or the window."""
        return self.selected if offset == 0 else self.registers.get(self.selected, 0)

    def write(self, offset: int, value: int) -> None:
        """Write the index or the window."""
        if offset == 0:
            self.selected = value
        else:
            self.registers[self.selected] = value


@dataclass
class Apic:
    """The local APIC: registers, and a timer that runs once."""

    clock: Clock
    registers: dict[int, int] = field(default_factory=dict)
    started: int = 0
    ended_interrupts: int = 0

    def read(self, offset: int) -> int:
        """Read a register."""
        if offset == APIC_TIMER_NOW:
            passed = (self.clock.ticks - self.started) // APIC_TIMER_DIVISOR
            return max(0, self.registers.get(APIC_TIMER_START, 0) - passed)
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Write a register."""
        self.registers[offset] = value
        if offset == APIC_TIMER_START:
            self.started = self.clock.ticks
        elif offset == APIC_END_OF_INTERRUPT:
            self.ended_interrupts += 1

    def timer_end(self) -> int | None:
        """The TSC value at which the timer interrupts; None: it does not."""
        count = self.registers.get(APIC_TIMER_START, 0)
        if not count or self.registers.get(APIC_LVT_TIMER, LVT_MASKED) & LVT_MASKED:
            return None
        return self.started + count * APIC_TIMER_DIVISOR

    def timer_vector(self) -> int:
        """The vector of the timer."""
        return self.registers[APIC_LVT_TIMER] & 0xFF
