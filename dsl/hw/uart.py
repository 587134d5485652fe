"""The 16550 UART (National Semiconductor PC16550D data sheet): registers as offsets from the base port, and their bits."""

from __future__ import annotations

from typing import Final

from dsl.lang import Bits, bit, bits, u8

COM1: Final = 0x3F8
COM2: Final = 0x2F8
CLOCK_HZ: Final = 1_843_200  # the divisor for a rate is CLOCK_HZ / 16 / rate

RECEIVE: Final = 0  # RBR; with divisor access: divisor latch, low
TRANSMIT: Final = 0  # THR
INTERRUPT_ENABLE: Final = 1  # IER; with divisor access: divisor latch, high
INTERRUPT_IDENTIFICATION: Final = 2  # IIR, read
FIFO_CONTROL: Final = 2  # FCR, written
LINE_CONTROL: Final = 3  # LCR
MODEM_CONTROL: Final = 4  # MCR
LINE_STATUS: Final = 5  # LSR
MODEM_STATUS: Final = 6  # MSR
SCRATCH: Final = 7  # SCR


class InterruptEnable(Bits, storage=u8):
    """IER."""

    received_data: bool = bit(0)
    transmitter_empty: bool = bit(1)
    line_status: bool = bit(2)
    modem_status: bool = bit(3)


class InterruptIdentification(Bits, storage=u8):
    """IIR."""

    nothing_pending: bool = bit(0)
    source: u8 = bits(3, 1)  # 0 modem status, 1 transmitter empty, 2 received data, 3 line status, 6 character timeout
    fifos_enabled: u8 = bits(7, 6)


class FifoControl(Bits, storage=u8):
    """FCR."""

    enable: bool = bit(0)
    clear_receive: bool = bit(1)
    clear_transmit: bool = bit(2)
    trigger: u8 = bits(7, 6)  # 0: 1 byte, 1: 4, 2: 8, 3: 14


class LineControl(Bits, storage=u8):
    """LCR."""

    word_length: u8 = bits(1, 0)  # bits - 5
    two_stop_bits: bool = bit(2)
    parity: u8 = bits(5, 3)
    is_break: bool = bit(6)
    divisor_access: bool = bit(7)


class ModemControl(Bits, storage=u8):
    """MCR."""

    data_terminal_ready: bool = bit(0)
    request_to_send: bool = bit(1)
    out_1: bool = bit(2)
    out_2: bool = bit(3)  # on a PC: lets the interrupt through
    loopback: bool = bit(4)


class LineStatus(Bits, storage=u8):
    """LSR."""

    data_ready: bool = bit(0)
    overrun: bool = bit(1)
    parity_error: bool = bit(2)
    framing_error: bool = bit(3)
    is_break: bool = bit(4)
    transmitter_holding_empty: bool = bit(5)
    transmitter_empty: bool = bit(6)
    fifo_error: bool = bit(7)
