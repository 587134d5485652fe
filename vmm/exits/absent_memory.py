"""Accesses to guest-physical memory that the box does not have: reads give all ones, writes go nowhere, by the closed decoder."""

from __future__ import annotations

from dsl.lang import Failure, frame_array, machine, u8, u64
from vmm.box import Box
from vmm.decoder import BUFFER_SIZE, INSTRUCTION_LIMIT, Move, decode_move, merge_absent
from vmm.engine import (
    advance_by,
    code_address,
    code_size,
    has_event,
    inject_general_protection,
    memory_exit,
    paging,
    read_register,
    write_register,
)
from vmm.exits.stop import stop_box
from vmm.guest_memory import fetch_code
from vmm.vcpu import Resume, StopReason


@machine
def decode_current(box: Box, move: Move) -> Failure | None:
    """Decode the guest's current instruction from a copy of its bytes, into `move`, which is zero."""
    code = frame_array(u8, BUFFER_SIZE)
    count = fetch_code(box.memory, paging(), code_address(), code.slice(u64(0), u64(INSTRUCTION_LIMIT)))
    return decode_move(code, count, code_size(), move)


@machine
def handle_ept_violation(box: Box) -> Resume:
    """Carry out a plain MOV on absent memory; a fetch, a page-table walk or another instruction there is #GP(0).

    An event that could not be delivered because its stack or table is absent stops the box: the real processor would go to shutdown.
    """
    vcpu = box.vcpu
    if has_event(vcpu):
        return stop_box(box, StopReason.DELIVERY_FAILURE)
    access = memory_exit()
    if not access.is_plain or access.is_fetch:
        inject_general_protection(vcpu)
        return Resume.GUEST
    move = Move()
    decoded = decode_current(box, move)
    if isinstance(decoded, Failure):
        inject_general_protection(vcpu)
        return Resume.GUEST
    if move.is_write != access.is_write:
        inject_general_protection(vcpu)
        return Resume.GUEST
    if not move.is_write:
        register = u64(move.register)
        write_register(vcpu, register, merge_absent(move, read_register(vcpu, register)))
    advance_by(u64(move.length))
    return Resume.GUEST
