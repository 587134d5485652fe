"""The seam of a board as one function, for machine code that is called from Python."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, static, u8, u16, u32, u64
from vmm.devices.board import (
    Board,
    board_acknowledge,
    board_advance,
    board_interrupt_pending,
    board_port_read,
    board_port_write,
    board_reset,
    board_set_clock,
    board_take_reset,
)
from vmm.devices.ring import ring_push

RESET: Final = 0
READ: Final = 1
WRITE: Final = 2
ADVANCE: Final = 3
ACKNOWLEDGE: Final = 4
TAKE_RESET: Final = 5
TYPE: Final = 6  # a byte arrives
DRAIN: Final = 7  # the other end of the wire takes everything
NOTHING: Final = 0xFFFF_FFFF_FFFF_FFFF

BOARD: Final = static(Board)


@machine
def acknowledge() -> u64:
    """Take an interrupt if there is one."""
    return u64(board_acknowledge(BOARD)) if board_interrupt_pending(BOARD) else u64(NOTHING)


@machine
def control(operation: u64, value: u64, now: u64) -> u64:
    """Obey what is no access to a port."""
    if operation == RESET:
        board_set_clock(BOARD, u64(1_772_377_445))
        board_reset(BOARD, value, now)
        return u64(0)
    if operation == ACKNOWLEDGE:
        return acknowledge()
    if operation == TAKE_RESET:
        return u64(board_take_reset(BOARD))
    if operation == TYPE:
        return u64(ring_push(BOARD.input, value.truncate(u8)))
    BOARD.output.taken = BOARD.output.written
    return u64(0)


@machine
def step(operation: u64, port: u64, width: u64, value: u64, now: u64) -> u64:
    """Obey one operation and return its answer."""
    if operation == READ:
        return u64(board_port_read(BOARD, port.truncate(u16), width, now))
    if operation == WRITE:
        board_port_write(BOARD, port.truncate(u16), width, value.truncate(u32), now)
        return u64(0)
    if operation == ADVANCE:
        return board_advance(BOARD, now)
    return control(operation, value, now)
