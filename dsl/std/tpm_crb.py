"""The command-response buffer interface of a TPM (PTP 6.5.3): a command in one buffer, its answer in another."""

from __future__ import annotations

from dsl.hw.tpm import (
    CRB_CANCEL,
    CRB_FAILED,
    CRB_HEAD_SIZE,
    CRB_IDLE,
    CRB_READY,
    CRB_START,
    DURATION,
    LOCALITY_GRANTED,
    LOCALITY_REQUEST,
    TIMEOUT_A,
    TIMEOUT_B,
    TIMEOUT_C,
    CrbLocality,
    CrbRegisters,
    DeviceByte,
)
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import Failure, HostVirtual, machine, minimum, u32, u64, upto
from dsl.lang.intrinsics import rdtsc
from dsl.std.tpm import ANSWER_CAPACITY, COMMAND_CAPACITY, HEAD_SIZE, TPM, TpmFault, is_over


@machine
def crb() -> CrbRegisters:
    """The registers. Safe because whoever set TPM.registers checked that they are mapped, and no RAM."""
    return CrbRegisters.at(TPM.registers)


@machine
def crb_request() -> Failure | None:
    """Make locality 0 the active one, where there are localities; it stays so."""
    if TPM.registers.as_u64() & (PAGE_SIZE - 1) != CRB_HEAD_SIZE:
        return None  # a control area of its own, as firmware TPMs have it
    # Safe because the locality's registers are before the control area, in its page.
    locality = CrbLocality.at(TPM.registers - CRB_HEAD_SIZE)
    locality.control = u32(LOCALITY_REQUEST)
    started = rdtsc()
    while locality.status & LOCALITY_GRANTED == 0:
        if is_over(started, u64(TIMEOUT_A)):
            return Failure(TpmFault.NO_LOCALITY.value)
    return None


@machine
def crb_ask(request: u32) -> bool:
    """Write a request, and wait until it was taken."""
    registers = crb()
    registers.request = request
    started = rdtsc()
    while registers.request & request != 0:
        if is_over(started, u64(TIMEOUT_C)):
            return False
    return True


@machine
def crb_start(milliseconds: u64) -> bool:
    """Wait until the TPM is through with the command."""
    registers = crb()
    started = rdtsc()
    while registers.start & CRB_START != 0:
        if is_over(started, milliseconds):
            return False
    return True


@machine
def crb_read(offset: u64, end: u64) -> None:
    """Copy these bytes of the answer. Each is read once."""
    for index in upto(end - offset, at_most=ANSWER_CAPACITY):
        # Safe because the buffer was checked to hold answer_room bytes, and to be no RAM.
        TPM.answer[offset + index] = DeviceByte.at(TPM.answer_buffer + (offset + index)).value


@machine
def crb_receive() -> Failure | None:
    """Copy the answer, as long as it says it is."""
    if crb().status & CRB_FAILED != 0:
        return Failure(TpmFault.DEVICE_FAILED.value)
    crb_read(u64(0), u64(HEAD_SIZE))
    size = u64(TPM.answer.load_be32(2))
    if size < HEAD_SIZE or size > minimum(u64(ANSWER_CAPACITY), u64(TPM.answer_room)):
        return Failure(TpmFault.ANSWER_SIZE.value)
    crb_read(u64(HEAD_SIZE), size)
    TPM.end = size
    return None


@machine
def crb_transmit() -> Failure | None:
    """Put the command into its buffer, start it, copy the answer; then the TPM may rest."""
    registers = crb()
    if not crb_ask(u32(CRB_READY)) or registers.status & CRB_FAILED != 0:
        return Failure(TpmFault.NOT_READY.value)
    if TPM.size > u64(TPM.command_room):
        return Failure(TpmFault.TAKES_TOO_FEW.value)
    registers.cancel = u32(0)
    for index in upto(TPM.size, at_most=COMMAND_CAPACITY):
        # Safe because the buffer was checked to hold command_room bytes, and to be no RAM.
        DeviceByte.at(TPM.command_buffer + index).value = TPM.command[index]
    registers.start = u32(CRB_START)
    if not crb_start(u64(DURATION)):
        registers.cancel = u32(CRB_CANCEL)
        _ = crb_start(u64(TIMEOUT_B))
        return Failure(TpmFault.NO_ANSWER.value)
    received = crb_receive()
    if not crb_ask(u32(CRB_IDLE)):
        return Failure(TpmFault.NOT_READY.value)
    return received


@machine
def crb_buffers() -> Failure | None:
    """Note where the buffers are: below 4 GiB, and with room for a command's and an answer's head at least."""
    registers = crb()
    if registers.command_high != 0 or registers.answer_high != 0:
        return Failure(TpmFault.BUFFERS.value)
    TPM.command_room = registers.command_size
    TPM.answer_room = registers.answer_size
    command = u64(registers.command_low)
    answer = u64(registers.answer_low)
    TPM.command_buffer = HostVirtual(command)
    TPM.answer_buffer = HostVirtual(answer)
    if command + u64(TPM.command_room) > 1 << 32 or answer + u64(TPM.answer_room) > 1 << 32:
        return Failure(TpmFault.BUFFERS.value)
    if TPM.command_room < HEAD_SIZE or TPM.answer_room < HEAD_SIZE or command == 0 or answer == 0:
        return Failure(TpmFault.BUFFERS.value)
    return None
