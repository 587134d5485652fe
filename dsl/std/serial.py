"""COM1, a 16550 UART, polled: 115200 baud, 8 data bits, no parity, one stop bit (PC16550D data sheet, 8.0).

Nobody waits without bound: a byte that an absent or stuck UART does not take is dropped.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, machine, u8, u16, u32, upto
from dsl.lang.intrinsics import in8, out8

COM1: Final = 0x3F8
DATA: Final = u16(COM1)  # divisor, low, while LINE_CONTROL has DIVISOR_ACCESS
INTERRUPT_ENABLE: Final = u16(COM1 + 1)  # divisor, high
FIFO_CONTROL: Final = u16(COM1 + 2)
LINE_CONTROL: Final = u16(COM1 + 3)
MODEM_CONTROL: Final = u16(COM1 + 4)
LINE_STATUS: Final = u16(COM1 + 5)
SCRATCH: Final = u16(COM1 + 7)

DIVISOR_ACCESS: Final = u8(0x80)
EIGHT_BITS: Final = u8(3)
DIVISOR_115200: Final = u8(1)
FIFO_CLEARED: Final = u8(7)  # on, both directions emptied
TERMINAL_READY: Final = u8(3)  # DTR, RTS
DATA_READY: Final = u8(1)  # line status
TRANSMIT_EMPTY: Final = u8(0x20)
TRANSMIT_DONE: Final = u8(0x40)  # the shift register too
NOTHING_THERE: Final = u8(0xFF)  # what a port reads that no device answers

NEWLINE: Final = u8(ord("\n"))
CARRIAGE_RETURN: Final = u8(ord("\r"))
WAIT_READS: Final = 0x20000  # of the line status, more than one byte's time at one microsecond a read


@machine
def serial_start() -> bool:
    """Set the UART up, without interrupts; False if there is none."""
    out8(SCRATCH, u8(0x5A))
    if in8(SCRATCH) != 0x5A or in8(LINE_STATUS) == NOTHING_THERE:
        return False
    out8(INTERRUPT_ENABLE, u8(0))
    out8(LINE_CONTROL, DIVISOR_ACCESS)
    out8(DATA, DIVISOR_115200)
    out8(INTERRUPT_ENABLE, u8(0))
    out8(LINE_CONTROL, EIGHT_BITS)
    out8(FIFO_CONTROL, FIFO_CLEARED)
    out8(MODEM_CONTROL, TERMINAL_READY)
    return True


@machine
def serial_can_send() -> bool:
    """Whether the transmitter takes a byte now."""
    return in8(LINE_STATUS) & TRANSMIT_EMPTY != 0


@machine
def serial_can_receive() -> bool:
    """Whether a byte has arrived."""
    return in8(LINE_STATUS) & DATA_READY != 0


@machine
def serial_send(byte: u8) -> bool:
    """Send one byte, waiting for the transmitter for a bounded time; False: dropped."""
    for _ in upto(u32(WAIT_READS)):
        if serial_can_send():
            out8(DATA, byte)
            return True
    return False


@machine
def serial_receive() -> u8:
    """The byte that arrived; serial_can_receive() said that there is one."""
    return in8(DATA)


@machine
def serial_write(data: Array[u8]) -> None:
    """Send bytes, a newline as carriage return and newline; gives up at the first that is not taken."""
    for index in upto(data.length):
        if data[index] == NEWLINE:
            if not serial_send(CARRIAGE_RETURN):
                return
        if not serial_send(data[index]):
            return


@machine
def serial_drain() -> None:
    """Wait, for a bounded time, until the last byte has left."""
    for _ in upto(u32(WAIT_READS)):
        if in8(LINE_STATUS) & TRANSMIT_DONE != 0:
            return
