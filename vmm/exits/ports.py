"""A guest's IN or OUT at its box's board: the part that the hot exits and the others share."""

from __future__ import annotations

from dsl.lang import machine, u16, u32, u64
from vmm.box import Box, box_time
from vmm.devices.board import board_interrupt_pending, board_port_read, board_port_write


@machine
def merge_input(old: u64, width: u64, value: u32) -> u64:
    """RAX after IN of `width` bytes: narrow ones keep the upper bits, 4 bytes clear them."""
    if width == 1:
        return (old & 0xFFFF_FFFF_FFFF_FF00) | u64(value & 0xFF)
    if width == 2:
        return (old & 0xFFFF_FFFF_FFFF_0000) | u64(value & 0xFFFF)
    return u64(value)


@machine
def access_port(box: Box, port: u16, width: u64, is_in: bool) -> None:
    """Let the board answer; width in bytes."""
    registers = box.vcpu.registers
    now = box_time(box)
    if is_in:
        registers.rax = merge_input(registers.rax, width, board_port_read(box.board, port, width, now))
    else:
        board_port_write(box.board, port, width, registers.rax.truncate(u32), now)


@machine
def needs_run_loop(box: Box) -> bool:
    """Say whether an access left something for the run loop: a deadline that may have moved, an interrupt, a wish for a window."""
    pending = box.vcpu.pending
    waits = pending.deferred != 0 or pending.is_window_requested != 0
    return waits or box.board.needs_advance or board_interrupt_pending(box.board)
