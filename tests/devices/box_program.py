"""What the monitor does with the board of a box, as one function for machine code that is called from Python. The box's time is 0."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, static, u8, u16, u64
from tests.devices.replay_program import ADVANCE, DRAIN, READ, TYPE, WRITE
from vmm.box import Box
from vmm.devices.ring import ring_push
from vmm.exits.ports import access_port, needs_run_loop
from vmm.scheduler import advance_devices

NEEDS_RUN_LOOP: Final = 8
BOX: Final = static(Box)


@machine
def advance(now: u64) -> u64:
    """Bring the devices up to a time, if they need it; the next time that does."""
    advance_devices(BOX, now)
    return BOX.device_deadline


@machine
def access(port: u16, width: u64, value: u64, is_in: bool) -> u64:
    """Let the box use a port; its RAX after that."""
    BOX.vcpu.registers.rax = value
    access_port(BOX, port, width, is_in)
    return BOX.vcpu.registers.rax


@machine
def step(operation: u64, port: u64, width: u64, value: u64, now: u64) -> u64:
    """Obey one operation and return its answer: of NEEDS_RUN_LOOP, whether it has something to do."""
    if operation == ADVANCE:
        return advance(now)
    if operation == READ or operation == WRITE:
        return access(port.truncate(u16), width, value, operation == READ)
    if operation == TYPE:
        return u64(ring_push(BOX.board.input, value.truncate(u8)))
    if operation == DRAIN:  # as the console does
        BOX.board.output.taken = BOX.board.output.written
        BOX.board.needs_advance = True
        advance_devices(BOX, now)
        return BOX.device_deadline
    return u64(needs_run_loop(BOX))
