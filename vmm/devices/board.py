"""The devices of one box, and the seam to the monitor: ports, time, interrupts, reset.

A port belongs to the row of `REGIONS` that holds it, if the box has that device; every other port (80h and E9h among them) reads as all
ones and swallows writes. All ports but CF8h are bytes: a wider access is split, lowest port first. Time `now` is in ns since the
box's start and never decreases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from dsl.lang import Array, Struct, array, dispatch, machine, minimum, table, u8, u16, u32, u64, upto
from vmm.descriptor import DEVICE_CLOCK, DEVICE_INTERRUPTS_AND_TIMER, DEVICE_KEYBOARD, DEVICE_PCI, DEVICE_SERIAL
from vmm.devices.i8042 import (
    KeyboardController,
    i8042_keyboard_line,
    i8042_mouse_line,
    i8042_read_data,
    i8042_read_status,
    i8042_reset,
    i8042_take_reset,
    i8042_write_command,
    i8042_write_data,
)
from vmm.devices.pci import (
    PciPorts,
    pci_read_address,
    pci_read_byte,
    pci_reset,
    pci_take_reset,
    pci_write_address,
    pci_write_byte,
)
from vmm.devices.pic import (
    Pic,
    elcr_read,
    elcr_write,
    pic_acknowledge,
    pic_pending,
    pic_pulse,
    pic_read,
    pic_reset,
    pic_set_line,
    pic_write,
)
from vmm.devices.pit import (
    Pit,
    pit_deadline,
    pit_read,
    pit_reset,
    pit_take_edge,
    pit_write,
    speaker_read,
    speaker_write,
)
from vmm.devices.ring import ByteRing, ring_count, ring_reset
from vmm.devices.rtc import Rtc, rtc_read, rtc_reset, rtc_write
from vmm.devices.uart import Uart, uart_advance, uart_line, uart_read, uart_reset, uart_write

LINE_TIMER: Final = 0
LINE_KEYBOARD: Final = 1
LINE_SERIAL: Final = 4
LINE_MOUSE: Final = 12

PORT_KEYBOARD_DATA: Final = 0x60
PORT_PCI_ADDRESS: Final = 0xCF8
NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF  # a deadline that does not come


class Target(Enum):
    """What answers a port."""

    ABSENT = u32(0)
    SERIAL = u32(1)
    PIC_MASTER = u32(2)
    PIC_SLAVE = u32(3)
    TRIGGER_MODES = u32(4)
    TIMER = u32(5)
    SPEAKER = u32(6)
    CLOCK = u32(7)
    KEYBOARD_DATA = u32(8)
    KEYBOARD_COMMAND = u32(9)
    PCI = u32(10)


@dataclass(frozen=True, slots=True)
class Region:
    """Ports first to first + count - 1 belong to target, in a box that has the device."""

    first: int
    count: int
    device: int  # a DEVICE_... bit of the descriptor
    target: Target


LOW_PORTS: Final = 0x100  # whose rows a table gives
REGIONS: Final = (  # those beyond LOW_PORTS first
    Region(0x3F8, 8, DEVICE_SERIAL, Target.SERIAL),
    Region(PORT_PCI_ADDRESS, 8, DEVICE_PCI, Target.PCI),
    Region(0x4D0, 2, DEVICE_INTERRUPTS_AND_TIMER, Target.TRIGGER_MODES),
    Region(0x020, 2, DEVICE_INTERRUPTS_AND_TIMER, Target.PIC_MASTER),
    Region(0x040, 4, DEVICE_INTERRUPTS_AND_TIMER, Target.TIMER),
    Region(0x061, 1, DEVICE_INTERRUPTS_AND_TIMER, Target.SPEAKER),
    Region(0x0A0, 2, DEVICE_INTERRUPTS_AND_TIMER, Target.PIC_SLAVE),
    Region(0x070, 2, DEVICE_CLOCK, Target.CLOCK),
    Region(PORT_KEYBOARD_DATA, 1, DEVICE_KEYBOARD, Target.KEYBOARD_DATA),
    Region(0x064, 1, DEVICE_KEYBOARD, Target.KEYBOARD_COMMAND),
)
REGION_COUNT: Final = len(REGIONS)  # and the row of the tables below that stands for no region: no box has its device
NOWHERE: Final = Region(0, 0, 0, Target.ABSENT)
HIGH_COUNT: Final = sum(region.first >= LOW_PORTS for region in REGIONS)


def low_rows() -> list[int]:
    """The row of each port below LOW_PORTS; REGION_COUNT for none."""
    rows = [REGION_COUNT] * LOW_PORTS
    for number, region in enumerate(REGIONS):
        if region.first < LOW_PORTS:
            rows[region.first : region.first + region.count] = [number] * region.count
    return rows


LOW_ROWS: Final = table(u8, low_rows())
REGION_FIRST: Final = table(u16, [region.first for region in (*REGIONS, NOWHERE)])
REGION_PORTS: Final = table(u16, [region.count for region in REGIONS])
REGION_DEVICE: Final = table(u64, [region.device for region in (*REGIONS, NOWHERE)])
REGION_TARGET: Final = table(u32, [int(region.target.value) for region in (*REGIONS, NOWHERE)])


class Board(Struct):
    """All devices of one box. Its box owns it; the console takes from `output` and adds to `input`."""

    devices: u64  # DEVICE_... bits
    needs_advance: bool  # the console moved bytes, or a deadline may have moved, since board_advance
    reserved: Array[u8] = array(7)
    uart: Uart
    pic: Pic
    pit: Pit
    rtc: Rtc
    keyboard: KeyboardController
    pci: PciPorts
    output: ByteRing
    input: ByteRing


@machine
def has(board: Board, device: u64) -> bool:
    """Tell whether the box has a device (a DEVICE_... bit)."""
    return board.devices & device != 0


@machine
def drive_serial_line(board: Board) -> None:
    """Bring the serial port's interrupt to the controller."""
    pic_set_line(board.pic, u8(LINE_SERIAL), uart_line(board.uart))


@machine
def after_serial_access(board: Board) -> None:
    """The line follows at once; what waits for the receiver, or times out there, is for board_advance."""
    drive_serial_line(board)
    if ring_count(board.input) != 0 or board.uart.timeout_deadline != NEVER:
        board.needs_advance = True


@machine
def drive_keyboard_lines(board: Board) -> None:
    """Bring the keyboard controller's interrupts to the interrupt controller."""
    pic_set_line(board.pic, u8(LINE_KEYBOARD), i8042_keyboard_line(board.keyboard))
    pic_set_line(board.pic, u8(LINE_MOUSE), i8042_mouse_line(board.keyboard))


@machine
def read_absent(board: Board, offset: u16, now: u64) -> u8:
    """Nobody drives the bus: all ones."""
    return u8(0xFF)


@machine
def read_serial(board: Board, offset: u16, now: u64) -> u8:
    """Read a register of the serial port."""
    value = uart_read(board.uart, board.output, board.input, offset, now)
    after_serial_access(board)
    return value


@machine
def read_pic_master(board: Board, offset: u16, now: u64) -> u8:
    """Read port 20h or 21h."""
    return pic_read(board.pic, False, offset)


@machine
def read_pic_slave(board: Board, offset: u16, now: u64) -> u8:
    """Read port A0h or A1h."""
    return pic_read(board.pic, True, offset)


@machine
def read_trigger_modes(board: Board, offset: u16, now: u64) -> u8:
    """Read port 4D0h or 4D1h."""
    return elcr_read(board.pic, offset != 0)


@machine
def read_timer(board: Board, offset: u16, now: u64) -> u8:
    """Read a port of the timer."""
    return pit_read(board.pit, offset, now)


@machine
def read_speaker(board: Board, offset: u16, now: u64) -> u8:
    """Read port 61h."""
    return speaker_read(board.pit, now)


@machine
def read_clock(board: Board, offset: u16, now: u64) -> u8:
    """Read port 70h or 71h."""
    return rtc_read(board.rtc, offset, now)


@machine
def read_keyboard_data(board: Board, offset: u16, now: u64) -> u8:
    """Read port 60h."""
    value = i8042_read_data(board.keyboard)
    drive_keyboard_lines(board)
    return value


@machine
def read_keyboard_status(board: Board, offset: u16, now: u64) -> u8:
    """Read port 64h."""
    return i8042_read_status(board.keyboard)


@machine
def read_pci(board: Board, offset: u16, now: u64) -> u8:
    """Read one byte of the PCI configuration ports."""
    return pci_read_byte(board.pci, offset)


@machine
def write_absent(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Nobody listens."""


@machine
def write_serial(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write a register of the serial port."""
    uart_write(board.uart, board.output, board.input, offset, value, now)
    after_serial_access(board)


@machine
def write_pic_master(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port 20h or 21h."""
    pic_write(board.pic, False, offset, value)


@machine
def write_pic_slave(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port A0h or A1h."""
    pic_write(board.pic, True, offset, value)


@machine
def write_trigger_modes(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port 4D0h or 4D1h."""
    elcr_write(board.pic, offset != 0, value)


@machine
def write_timer(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write a port of the timer. An edge that is due comes first."""
    advance_timer(board, now)
    pit_write(board.pit, offset, value, now)
    board.needs_advance = True


@machine
def write_speaker(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port 61h."""
    speaker_write(board.pit, value, now)


@machine
def write_clock(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port 70h or 71h."""
    rtc_write(board.rtc, offset, value)


@machine
def write_keyboard_data(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port 60h."""
    i8042_write_data(board.keyboard, value)
    drive_keyboard_lines(board)


@machine
def write_keyboard_command(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write port 64h."""
    i8042_write_command(board.keyboard, value)
    drive_keyboard_lines(board)


@machine
def write_pci(board: Board, offset: u16, value: u8, now: u64) -> None:
    """Write one byte of the PCI configuration ports."""
    pci_write_byte(board.pci, offset, value)


READS: Final = dispatch(
    {
        Target.SERIAL: read_serial,
        Target.PIC_MASTER: read_pic_master,
        Target.TIMER: read_timer,
        Target.SPEAKER: read_speaker,
        Target.PIC_SLAVE: read_pic_slave,
        Target.TRIGGER_MODES: read_trigger_modes,
        Target.CLOCK: read_clock,
        Target.KEYBOARD_DATA: read_keyboard_data,
        Target.KEYBOARD_COMMAND: read_keyboard_status,
        Target.PCI: read_pci,
    },
    default=read_absent,
)
WRITES: Final = dispatch(
    {
        Target.SERIAL: write_serial,
        Target.PIC_MASTER: write_pic_master,
        Target.TIMER: write_timer,
        Target.SPEAKER: write_speaker,
        Target.PIC_SLAVE: write_pic_slave,
        Target.TRIGGER_MODES: write_trigger_modes,
        Target.CLOCK: write_clock,
        Target.KEYBOARD_DATA: write_keyboard_data,
        Target.KEYBOARD_COMMAND: write_keyboard_command,
        Target.PCI: write_pci,
    },
    default=write_absent,
)


@machine
def low_row(port: u16) -> u64:
    """Return the row of a port below LOW_PORTS that some box may have; REGION_COUNT for none. Of other ports, which may come here by
    speculation, only the low byte counts: no index leads beyond the table.
    """
    return u64(LOW_ROWS[port.truncate(u8)])


@machine
def region_of(board: Board, port: u16) -> u64:
    """Return the row of REGIONS that holds the port in this box; REGION_COUNT for none."""
    found = u64(REGION_COUNT)
    if port < LOW_PORTS:
        found = low_row(port)
    else:
        for row in upto(u64(HIGH_COUNT)):
            if port - REGION_FIRST[row] < REGION_PORTS[row]:
                found = row
    return found if has(board, REGION_DEVICE[found]) else u64(REGION_COUNT)


@machine
def is_deaf(port: u16) -> bool:
    """Say whether a low port has a device in no box: 80h, which systems write to in order to wait, among them."""
    return port < LOW_PORTS and low_row(port) == REGION_COUNT


@machine
def read_byte(board: Board, port: u16, now: u64) -> u8:
    """Read one port."""
    row = region_of(board, port)
    return READS.call(REGION_TARGET[row], board, port - REGION_FIRST[row], now)


@machine
def write_byte(board: Board, port: u16, value: u8, now: u64) -> None:
    """Write one port."""
    row = region_of(board, port)
    WRITES.call(REGION_TARGET[row], board, port - REGION_FIRST[row], value, now)


@machine
def board_reset(board: Board, devices: u64, now: u64) -> None:
    """Put all devices into the state that firmware leaves. `devices`: DEVICE_... bits. The clock goes on, and output still flows out."""
    board.devices = devices
    uart_reset(board.uart)
    pic_reset(board.pic)
    pit_reset(board.pit, now)
    rtc_reset(board.rtc)
    i8042_reset(board.keyboard)
    pci_reset(board.pci)
    ring_reset(board.input)


@machine
def board_set_clock(board: Board, unix_seconds: u64) -> None:
    """Say what time it was at `now` = 0."""
    board.rtc.start = unix_seconds


@machine
def board_port_read(board: Board, port: u16, width_bytes: u64, now: u64) -> u32:
    """Answer IN from `port`, 1, 2 or 4 bytes wide: zero-extended; absent ports give all ones of that width.

    Where needs_advance says so, call board_advance before the box runs on.
    """
    if port == PORT_PCI_ADDRESS and width_bytes == 4 and has(board, u64(DEVICE_PCI)):
        return pci_read_address(board.pci)
    value = u32(0)
    for index in upto(width_bytes, at_most=4):
        value |= u32(read_byte(board, port + index.truncate(u16), now)) << (index * 8)
    return value


@machine
def board_port_write(board: Board, port: u16, width_bytes: u64, value: u32, now: u64) -> None:
    """Obey OUT to `port`, 1, 2 or 4 bytes wide. Where needs_advance says so, call board_advance before the box runs on."""
    if port == PORT_PCI_ADDRESS and width_bytes == 4 and has(board, u64(DEVICE_PCI)):
        pci_write_address(board.pci, value)
        return
    for index in upto(width_bytes, at_most=4):
        write_byte(board, port + index.truncate(u16), (value >> (index * 8)).truncate(u8), now)


@machine
def advance_timer(board: Board, now: u64) -> None:
    """Raise the timer's line if its output rose."""
    if pit_take_edge(board.pit, now):
        pic_pulse(board.pic, u8(LINE_TIMER))


@machine
def board_advance(board: Board, now: u64) -> u64:
    """Bring all devices up to `now`, raise what is due, and return the next time in ns that needs this call; all ones for none.

    Bytes that the console adds to `input`, and room that it makes in `output`, need this call too: it sets needs_advance.
    """
    board.needs_advance = False
    deadline = u64(NEVER)
    if has(board, u64(DEVICE_SERIAL)):
        deadline = uart_advance(board.uart, board.output, board.input, now)
        drive_serial_line(board)
    if has(board, u64(DEVICE_INTERRUPTS_AND_TIMER)):
        advance_timer(board, now)
        deadline = minimum(deadline, pit_deadline(board.pit))
    return deadline


@machine
def board_interrupt_pending(board: Board) -> bool:
    """Return the level of the interrupt controller's output."""
    return has(board, u64(DEVICE_INTERRUPTS_AND_TIMER)) and pic_pending(board.pic)


@machine
def board_acknowledge(board: Board) -> u8:
    """Acknowledge as the CPU does (INTA) and return the vector: the spurious one when nothing asks any more."""
    return pic_acknowledge(board.pic)


@machine
def can_reset(port: u16) -> bool:
    """Say whether an access that begins at this port, up to 4 bytes wide, may ask for a reset."""
    return port - (PORT_KEYBOARD_DATA - 3) < 8 or port - (PORT_PCI_ADDRESS - 3) < 11


@machine
def board_take_reset(board: Board) -> bool:
    """Tell once whether the box asked for its own reset."""
    keyboard = i8042_take_reset(board.keyboard)
    pci = pci_take_reset(board.pci)
    return keyboard or pci
