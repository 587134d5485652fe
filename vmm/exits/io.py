"""IN and OUT: the box's devices answer."""

from __future__ import annotations

from dsl.lang import machine, u32, u64
from vmm.box import Box, box_time
from vmm.devices.board import board_port_read, board_port_write, board_take_reset
from vmm.engine import advance_instruction, inject_general_protection, io_exit
from vmm.exits.stop import stop_box
from vmm.vcpu import Resume, StopReason


@machine
def merge_input(old: u64, width: u64, value: u32) -> u64:
    """RAX after IN of `width` bytes: narrow ones keep the upper bits, 4 bytes clear them."""
    if width == 1:
        return (old & 0xFFFF_FFFF_FFFF_FF00) | u64(value & 0xFF)
    if width == 2:
        return (old & 0xFFFF_FFFF_FFFF_0000) | u64(value & 0xFFFF)
    return u64(value)


@machine
def handle_io(box: Box) -> Resume:
    """Let the board answer. INS and OUTS are #GP(0): no device here is used that way."""
    access = io_exit()
    if access.is_string:
        inject_general_protection(box.vcpu)
        return Resume.GUEST
    registers = box.vcpu.registers
    now = box_time(box)
    if access.is_in:
        registers.rax = merge_input(
            registers.rax, access.width, board_port_read(box.board, access.port, access.width, now)
        )
    else:
        board_port_write(box.board, access.port, access.width, registers.rax.truncate(u32), now)
        if board_take_reset(box.board):
            return stop_box(box, StopReason.RESET_REQUESTED)
    advance_instruction()
    return Resume.GUEST
