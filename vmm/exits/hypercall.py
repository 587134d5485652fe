"""Hypercalls (docs/formats.md, "Hypercalls"): every argument is copied in once, checked, and answered with a status.

What they cost is charged to the caller: the scheduler counts the time from exit to entry as the box's own.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Failure,
    Untrusted,
    address_of,
    array_at,
    dispatch,
    erase,
    frame_array,
    machine,
    minimum,
    size_of,
    static,
    u8,
    u32,
    u64,
    untrusted,
)
from dsl.std.dice import write_endorsement
from vmm.abi import (
    ABI_VERSION,
    ENDORSE_DATA_LIMIT,
    TRANSFER_LIMIT,
    BoxIdentity,
    Endorsement,
    EndorseRequest,
    Hypercall,
    Status,
)
from vmm.box import Box
from vmm.chain import IDENTITY
from vmm.console import console_box_text
from vmm.descriptor import FLAG_HYPERCALLS_FROM_ANY_RING
from vmm.engine import advance_instruction, privilege_ring
from vmm.entropy import random_bytes
from vmm.evidence import evidence_item
from vmm.guest_memory import check_range, copy_in, copy_out
from vmm.vcpu import Resume

# Places to build what is copied out. One CPU serves hypercalls at a time; they hold nothing between two of them.
IDENTITY_ANSWER: Final = static(BoxIdentity)
ENDORSE_REQUEST: Final = static(EndorseRequest)
ENDORSE_ANSWER: Final = static(Endorsement)


@machine
def call_version(box: Box) -> Status:
    """VERSION: rdi becomes the version of this interface."""
    box.vcpu.registers.rdi = u64(ABI_VERSION)
    return Status.OK


@machine
def write_answer(box: Box, buffer: Untrusted[u64], answer: Array[u8]) -> Status:
    """Copy an answer out."""
    transferred = copy_out(box.memory, buffer, answer)
    if isinstance(transferred, Failure):
        return Status.BAD_ADDRESS
    return Status.OK


@machine
def is_size_at_least(size: u64, least: u64) -> bool:
    """Say whether the caller's buffer holds an answer of `least` bytes."""
    return size >= least


@machine
def call_get_id(box: Box) -> Status:
    """GET_ID: rdi buffer, rsi its size. Writes a BoxIdentity."""
    registers = box.vcpu.registers
    if not is_size_at_least(registers.rsi, u64(size_of(BoxIdentity))):
        return Status.BAD_SIZE
    answer = IDENTITY_ANSWER
    answer.descriptor_sha256.copy_from(box.identity)
    answer.label.copy_from(box.label)
    answer.public_key.copy_from(box.keys.public_key)
    answer.mode = IDENTITY.mode
    answer.device.copy_from(IDENTITY.device)
    answer.monitor.copy_from(IDENTITY.monitor)
    answer.box.copy_from(box.certificate)
    # Safe because a Struct of that size is exactly its bytes.
    return write_answer(box, untrusted(registers.rdi), array_at(u8, address_of(answer), u64(size_of(BoxIdentity))))


@machine
def call_endorse(box: Box) -> Status:
    """ENDORSE: rdi EndorseRequest, rsi its size, rdx buffer, r10 its size. Writes an Endorsement: one signature, bounded work."""
    registers = box.vcpu.registers
    if registers.rsi != size_of(EndorseRequest):
        return Status.BAD_SIZE
    if not is_size_at_least(registers.r10, u64(size_of(Endorsement))):
        return Status.BAD_SIZE
    buffer = untrusted(registers.rdx)
    checked = check_range(box.memory, buffer, u64(size_of(Endorsement)))
    if isinstance(checked, Failure):
        return Status.BAD_ADDRESS
    request = ENDORSE_REQUEST
    # Safe because a Struct of that size is exactly its bytes.
    request_bytes = array_at(u8, address_of(request), u64(size_of(EndorseRequest)))
    transferred = copy_in(box.memory, untrusted(registers.rdi), request_bytes)
    if isinstance(transferred, Failure):
        return Status.BAD_ADDRESS
    size = untrusted(request.data_size).at_most(u32(ENDORSE_DATA_LIMIT))
    if isinstance(size, Failure):
        return Status.BAD_SIZE
    if request.reserved != 0:
        return Status.BAD_SIZE
    answer = ENDORSE_ANSWER  # zero behind the certificate, whose size is always the same
    data = request.data.slice(u64(0), u64(size))
    written = write_endorsement(answer.der, box.keys, request.public_key, request.nonce, data)
    answer.size = written.truncate(u32)
    # Safe because a Struct of that size is exactly its bytes.
    return write_answer(box, buffer, array_at(u8, address_of(answer), u64(size_of(Endorsement))))


@machine
def call_random(box: Box) -> Status:
    """RANDOM: rdi buffer, rsi size, at most 256."""
    registers = box.vcpu.registers
    size = untrusted(registers.rsi).at_most(u64(TRANSFER_LIMIT))
    if isinstance(size, Failure):
        return Status.BAD_SIZE
    if size == 0:
        return Status.BAD_SIZE
    buffer = untrusted(registers.rdi)
    checked = check_range(box.memory, buffer, size)
    if isinstance(checked, Failure):
        return Status.BAD_ADDRESS
    bytes_made = frame_array(u8, TRANSFER_LIMIT)
    out = bytes_made.slice(u64(0), size)
    filled = random_bytes(out)
    if isinstance(filled, Failure):
        return Status.NO_ENTROPY
    status = write_answer(box, buffer, out)
    erase(bytes_made)
    return status


@machine
def call_log(box: Box) -> Status:
    """LOG: rdi buffer, rsi size, at most 256: printed as the box's output. AGAIN when the console has no room yet."""
    registers = box.vcpu.registers
    size = untrusted(registers.rsi).at_most(u64(TRANSFER_LIMIT))
    if isinstance(size, Failure):
        return Status.BAD_SIZE
    if size == 0:
        return Status.BAD_SIZE
    copied = frame_array(u8, TRANSFER_LIMIT)
    words = copied.slice(u64(0), size)
    transferred = copy_in(box.memory, untrusted(registers.rdi), words)
    if isinstance(transferred, Failure):
        return Status.BAD_ADDRESS
    if not console_box_text(u64(box.index), words):
        return Status.AGAIN
    return Status.OK


@machine
def call_yield(box: Box) -> Status:
    """YIELD: always succeeds; handle_hypercall gives up the slice."""
    return Status.OK


@machine
def call_evidence(box: Box) -> Status:
    """EVIDENCE: rdi buffer, rsi size, at most 256, rdx EvidenceItem, r10 offset in it. rdi becomes the item's size: 0 if there is none."""
    registers = box.vcpu.registers
    item = evidence_item(registers.rdx)
    size = untrusted(registers.rsi).at_most(u64(TRANSFER_LIMIT))
    if isinstance(size, Failure):
        return Status.BAD_SIZE
    offset = untrusted(registers.r10).at_most(item.length)
    if isinstance(offset, Failure):
        return Status.BAD_SIZE
    count = minimum(size, item.length - offset)
    if count != 0:
        status = write_answer(box, untrusted(registers.rdi), item.slice(offset, count))
        if status != Status.OK:
            return status
    registers.rdi = item.length
    return Status.OK


@machine
def call_unknown(box: Box) -> Status:
    """Any other number."""
    return Status.UNKNOWN_CALL


CALLS: Final = dispatch(
    {
        Hypercall.LOG: call_log,
        Hypercall.ENDORSE: call_endorse,
        Hypercall.RANDOM: call_random,
        Hypercall.GET_ID: call_get_id,
        Hypercall.VERSION: call_version,
        Hypercall.YIELD: call_yield,
        Hypercall.EVIDENCE: call_evidence,
    },
    default=call_unknown,
)


@machine
def handle_hypercall(box: Box) -> Resume:
    """VMCALL: from ring 0 only, unless the descriptor allows any ring."""
    registers = box.vcpu.registers
    number = registers.rax
    if privilege_ring() != 0 and box.flags & FLAG_HYPERCALLS_FROM_ANY_RING == 0:
        registers.rax = Status.NOT_PERMITTED.value
        advance_instruction()
        return Resume.GUEST
    registers.rax = CALLS.call(number, box).value
    advance_instruction()
    return Resume.YIELD if number == Hypercall.YIELD.value else Resume.GUEST
