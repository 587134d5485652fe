"""A 16550A serial port (National Semiconductor PC16550D data sheet), with a byte ring on either side of the wire.

A transmitted byte leaves at once, into the output ring. The transmitter counts as empty while the ring has room for a whole FIFO: so a
box that prints faster than the console drains waits, as on a slow line, and loses nothing if it looks at THRE or takes interrupts.
Received bytes come from the input ring as soon as the receiver has room. Line errors and breaks never happen; the modem lines are
those of a connected terminal (CTS, DSR, DCD on) and never change, outside loopback.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, machine, table, u8, u16, u64, upto
from vmm.devices.ring import ByteRing, ring_count, ring_push, ring_room, ring_take

FIFO_SIZE: Final = 16
RECEIVER_TRIGGERS: Final = table(u8, [1, 4, 8, 14])  # bytes, by FCR bits 7:6

# Registers, as offsets from the base port
DATA: Final = 0  # RBR, THR; divisor latch low with DLAB
INTERRUPT_ENABLE: Final = 1  # IER; divisor latch high with DLAB
INTERRUPT_IDENTIFICATION: Final = 2  # IIR read, FCR written
LINE_CONTROL: Final = 3
MODEM_CONTROL: Final = 4
LINE_STATUS: Final = 5
MODEM_STATUS: Final = 6
SCRATCH: Final = 7

IER_RECEIVED: Final = 0x01
IER_TRANSMITTER_EMPTY: Final = 0x02
IER_LINE_STATUS: Final = 0x04
IER_MODEM_STATUS: Final = 0x08

IIR_MODEM_STATUS: Final = 0x00
IIR_NONE: Final = 0x01
IIR_TRANSMITTER_EMPTY: Final = 0x02
IIR_RECEIVED: Final = 0x04
IIR_LINE_STATUS: Final = 0x06
IIR_TIMEOUT: Final = 0x0C
IIR_FIFOS: Final = 0xC0

FCR_ENABLE: Final = 0x01
FCR_CLEAR_RECEIVER: Final = 0x02
FCR_CLEAR_TRANSMITTER: Final = 0x04

LCR_DIVISOR_ACCESS: Final = 0x80

MCR_OUT2: Final = 0x08  # on a PC: gates the interrupt line
MCR_LOOPBACK: Final = 0x10

LSR_DATA_READY: Final = 0x01
LSR_OVERRUN: Final = 0x02
LSR_EMPTY: Final = 0x60  # THRE and TEMT

MSR_CONNECTED: Final = 0xB0  # DCD, DSR, CTS

# One character is ten bits of 16 clocks of divisor / 1.8432 MHz; the receiver times out after four.
TIMEOUT_PER_DIVISOR_NS: Final = 4 * 86_806
NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF  # a deadline that does not come


class Uart(Struct):
    """The registers of one port and its receiver FIFO. The transmitter needs none: see the module."""

    timeout_deadline: u64  # ns; NEVER: no character timeout is running
    fifo_first: u64  # index of the oldest received byte
    fifo_count: u64
    divisor: u16
    interrupt_enable: u8
    fifo_control: u8
    line_control: u8
    modem_control: u8
    scratch: u8
    overrun: bool
    timed_out: bool
    transmitter_interrupt: bool  # "transmitter empty" waits to be identified
    transmitter_blocked: bool  # the output ring lacked room for a FIFO when last seen
    fifo: Array[u8] = array(FIFO_SIZE)
    reserved: Array[u8] = array(5)


@machine
def uart_reset(uart: Uart) -> None:
    """Put the port into the state after a master reset."""
    uart.clear()
    uart.divisor = u16(12)  # 9600: what firmware leaves
    uart.timeout_deadline = u64(NEVER)


@machine
def fifos_enabled(uart: Uart) -> bool:
    """Tell whether FCR bit 0 is set."""
    return uart.fifo_control & FCR_ENABLE != 0


@machine
def receiver_capacity(uart: Uart) -> u64:
    """Return how many received bytes can wait: 16, or one without FIFOs."""
    return u64(FIFO_SIZE) if fifos_enabled(uart) else u64(1)


@machine
def receiver_trigger(uart: Uart) -> u64:
    """Return how many received bytes raise an interrupt without a timeout."""
    if not fifos_enabled(uart):
        return u64(1)
    return u64(RECEIVER_TRIGGERS[uart.fifo_control >> 6])


@machine
def restart_timeout(uart: Uart, now: u64) -> None:
    """Run the character timeout anew while bytes wait in the FIFO, stop it when none do."""
    uart.timed_out = False
    uart.timeout_deadline = u64(NEVER)
    if fifos_enabled(uart) and uart.fifo_count != 0:
        uart.timeout_deadline = now + u64(uart.divisor) * TIMEOUT_PER_DIVISOR_NS


@machine
def receive(uart: Uart, value: u8, now: u64) -> None:
    """Take a byte off the line; a full receiver keeps what it has and notes the overrun."""
    capacity = receiver_capacity(uart)
    if uart.fifo_count >= capacity:
        uart.overrun = True
        if capacity == 1:
            uart.fifo[uart.fifo_first] = value  # without FIFOs the new byte replaces the old one
        return
    uart.fifo[(uart.fifo_first + uart.fifo_count) & (FIFO_SIZE - 1)] = value
    uart.fifo_count += 1
    restart_timeout(uart, now)


@machine
def empty_receiver(uart: Uart) -> None:
    """Forget the received bytes."""
    uart.fifo_first = u64(0)
    uart.fifo_count = u64(0)
    uart.timed_out = False
    uart.timeout_deadline = u64(NEVER)


@machine
def uart_advance(uart: Uart, output: ByteRing, incoming: ByteRing, now: u64) -> u64:
    """Bring the port up to `now`: fetch input, end a timeout, notice room in the output ring. Return its next deadline in ns, or NEVER."""
    if uart.modem_control & MCR_LOOPBACK == 0:
        for _ in upto(FIFO_SIZE):
            if uart.fifo_count >= receiver_capacity(uart) or ring_count(incoming) == 0:
                break
            receive(uart, ring_take(incoming), now)
    if uart.timeout_deadline <= now:
        uart.timed_out = True
        uart.timeout_deadline = u64(NEVER)
    blocked = ring_room(output) < FIFO_SIZE
    if uart.transmitter_blocked and not blocked:
        uart.transmitter_interrupt = True
    uart.transmitter_blocked = blocked
    return uart.timeout_deadline


@machine
def identify_interrupt(uart: Uart) -> u8:
    """Return the pending interrupt of the highest priority as IIR bits 3:0 (data sheet, table IV)."""
    enabled = uart.interrupt_enable
    if enabled & IER_LINE_STATUS != 0 and uart.overrun:
        return u8(IIR_LINE_STATUS)
    if enabled & IER_RECEIVED != 0 and uart.timed_out:
        return u8(IIR_TIMEOUT)
    if enabled & IER_RECEIVED != 0 and uart.fifo_count >= receiver_trigger(uart):
        return u8(IIR_RECEIVED)
    if enabled & IER_TRANSMITTER_EMPTY != 0 and uart.transmitter_interrupt:
        return u8(IIR_TRANSMITTER_EMPTY)
    return u8(IIR_NONE)


@machine
def uart_line(uart: Uart) -> bool:
    """Return the level of the interrupt line: OUT2 gates it on a PC, and loopback holds OUT2 off."""
    if uart.modem_control & (MCR_OUT2 | MCR_LOOPBACK) != MCR_OUT2:
        return False
    return identify_interrupt(uart) != IIR_NONE


@machine
def modem_status(uart: Uart) -> u8:
    """Return MSR: a connected terminal, or in loopback the four outputs on the four inputs."""
    control = uart.modem_control
    if control & MCR_LOOPBACK == 0:
        return u8(MSR_CONNECTED)
    return ((control & 0x0C) << 4) | ((control & 0x02) << 3) | ((control & 0x01) << 5)


@machine
def line_status(uart: Uart) -> u8:
    """Return LSR and clear its error bit, as a read does."""
    status = u8(0) if uart.transmitter_blocked else u8(LSR_EMPTY)
    if uart.fifo_count != 0:
        status |= LSR_DATA_READY
    if uart.overrun:
        status |= LSR_OVERRUN
    uart.overrun = False
    return status


@machine
def read_received(uart: Uart, now: u64) -> u8:
    """Take the oldest received byte: zero when the FIFO is empty, the last byte again without FIFOs."""
    value = uart.fifo[uart.fifo_first]
    if uart.fifo_count == 0:
        return u8(0) if fifos_enabled(uart) else value
    uart.fifo_count -= 1
    if fifos_enabled(uart):
        uart.fifo_first = (uart.fifo_first + 1) & (FIFO_SIZE - 1)
    restart_timeout(uart, now)
    return value


@machine
def identify_and_acknowledge(uart: Uart) -> u8:
    """Return IIR; a "transmitter empty" that is reported is thereby done."""
    identification = identify_interrupt(uart)
    if identification == IIR_TRANSMITTER_EMPTY:
        uart.transmitter_interrupt = False
    return identification | IIR_FIFOS if fifos_enabled(uart) else identification


@machine
def uart_read(uart: Uart, output: ByteRing, incoming: ByteRing, offset: u16, now: u64) -> u8:
    """Read the register at `offset` (0 to 7) from the base port."""
    _ = uart_advance(uart, output, incoming, now)
    divisor_access = uart.line_control & LCR_DIVISOR_ACCESS != 0
    if offset == DATA:
        return uart.divisor.truncate(u8) if divisor_access else read_received(uart, now)
    if offset == INTERRUPT_ENABLE:
        return (uart.divisor >> 8).truncate(u8) if divisor_access else uart.interrupt_enable
    if offset == INTERRUPT_IDENTIFICATION:
        return identify_and_acknowledge(uart)
    if offset == LINE_CONTROL:
        return uart.line_control
    if offset == MODEM_CONTROL:
        return uart.modem_control
    if offset == LINE_STATUS:
        return line_status(uart)
    if offset == MODEM_STATUS:
        return modem_status(uart)
    return uart.scratch


@machine
def transmit(uart: Uart, output: ByteRing, value: u8, now: u64) -> None:
    """Send a byte: into the ring, or in loopback into the receiver. A byte that a driver sends against THRE may be lost, as on the wire."""
    if uart.modem_control & MCR_LOOPBACK != 0:
        receive(uart, value, now)
        uart.transmitter_interrupt = True
        return
    _ = ring_push(output, value)
    uart.transmitter_blocked = ring_room(output) < FIFO_SIZE
    uart.transmitter_interrupt = not uart.transmitter_blocked


@machine
def write_interrupt_enable(uart: Uart, value: u8) -> None:
    """Write IER. Enabling "transmitter empty" while it is empty asks for that interrupt at once (Linux's driver probes for this)."""
    changed = uart.interrupt_enable ^ value
    uart.interrupt_enable = value & 0x0F
    if changed & IER_TRANSMITTER_EMPTY != 0:
        uart.transmitter_interrupt = value & IER_TRANSMITTER_EMPTY != 0 and not uart.transmitter_blocked


@machine
def write_fifo_control(uart: Uart, value: u8) -> None:
    """Write FCR: turning the FIFOs on or off clears both."""
    toggled = (value ^ uart.fifo_control) & FCR_ENABLE != 0
    uart.fifo_control = value & 0xC9
    if toggled or value & FCR_CLEAR_RECEIVER != 0:
        empty_receiver(uart)
    if toggled or value & FCR_CLEAR_TRANSMITTER != 0:
        uart.transmitter_interrupt = not uart.transmitter_blocked


@machine
def uart_write(uart: Uart, output: ByteRing, incoming: ByteRing, offset: u16, value: u8, now: u64) -> None:
    """Write the register at `offset` (0 to 7) from the base port; the status registers ignore it."""
    _ = uart_advance(uart, output, incoming, now)
    divisor_access = uart.line_control & LCR_DIVISOR_ACCESS != 0
    if offset == DATA:
        if divisor_access:
            uart.divisor = (uart.divisor & 0xFF00) | u16(value)
        else:
            transmit(uart, output, value, now)
    elif offset == INTERRUPT_ENABLE:
        if divisor_access:
            uart.divisor = (uart.divisor & 0x00FF) | (u16(value) << 8)
        else:
            write_interrupt_enable(uart, value)
    elif offset == INTERRUPT_IDENTIFICATION:
        write_fifo_control(uart, value)
    elif offset == LINE_CONTROL:
        uart.line_control = value
    elif offset == MODEM_CONTROL:
        uart.modem_control = value & 0x1F
    elif offset == SCRATCH:
        uart.scratch = value
