"""IN and OUT: the box's devices answer. Most are hot exits (vmm/vmx/hot.py) and do not come here."""

from __future__ import annotations

from dsl.lang import machine
from vmm.box import Box
from vmm.devices.board import board_take_reset
from vmm.engine import advance_instruction, inject_general_protection, io_exit
from vmm.exits.ports import access_port
from vmm.exits.stop import stop_box
from vmm.vcpu import Resume, StopReason


@machine
def handle_io(box: Box) -> Resume:
    """Let the board answer. INS and OUTS are #GP(0): no device here is used that way."""
    access = io_exit()
    if access.is_string:
        inject_general_protection(box.vcpu)
        return Resume.GUEST
    access_port(box, access.port, access.width, access.is_in)
    if not access.is_in and board_take_reset(box.board):
        return stop_box(box, StopReason.RESET_REQUESTED)
    advance_instruction()
    return Resume.GUEST
