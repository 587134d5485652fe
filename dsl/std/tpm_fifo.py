"""The FIFO interface of a TPM (PTP 6.5.2; also TIS 1.3), locality 0: a command sent byte by byte, its answer read byte by byte."""

from __future__ import annotations

from dsl.hw.tpm import (
    ACCESS_ACTIVE,
    ACCESS_REQUEST,
    ACCESS_VALID,
    BURST_MASK,
    BURST_SHIFT,
    DURATION,
    STATUS_DATA,
    STATUS_EXPECT,
    STATUS_GO,
    STATUS_READY,
    STATUS_VALID,
    TIMEOUT_A,
    TIMEOUT_B,
    TIMEOUT_C,
    TIMEOUT_D,
    FifoRegisters,
)
from dsl.lang import Failure, machine, u8, u32, u64, upto
from dsl.lang.intrinsics import rdtsc
from dsl.std.tpm import ANSWER_CAPACITY, COMMAND_CAPACITY, HEAD_SIZE, TPM, TpmFault, is_over


@machine
def fifo() -> FifoRegisters:
    """The registers. Safe because whoever set TPM.registers checked that they are mapped, and no RAM."""
    return FifoRegisters.at(TPM.registers)


@machine
def fifo_request() -> Failure | None:
    """Make locality 0 the active one; it stays so."""
    registers = fifo()
    identity = registers.identity
    if identity == 0 or identity == 0xFFFFFFFF:
        return Failure(TpmFault.NO_DEVICE.value)
    wanted = u8(ACCESS_VALID | ACCESS_ACTIVE)
    started = rdtsc()
    asked = False
    while registers.access & wanted != wanted:
        if is_over(started, u64(TIMEOUT_A)):
            return Failure(TpmFault.NO_LOCALITY.value)
        if not asked and registers.access & ACCESS_VALID != 0:
            registers.access = u8(ACCESS_REQUEST)
            asked = True
    return None


@machine
def wait_status(mask: u32, value: u32, milliseconds: u64) -> bool:
    """Wait until these bits of the status are so."""
    registers = fifo()
    started = rdtsc()
    while registers.status & mask != value:
        if is_over(started, milliseconds):
            return False
    return True


@machine
def wait_burst() -> u64:
    """How many bytes can go over without another look; 0 if none until the time is over."""
    registers = fifo()
    started = rdtsc()
    while True:
        burst = (registers.status >> BURST_SHIFT) & BURST_MASK
        if burst != 0:
            return u64(burst)
        if is_over(started, u64(TIMEOUT_D)):
            return u64(0)


@machine
def fifo_write(offset: u64, end: u64) -> bool:
    """Send these bytes of the command; False if the TPM stops taking them."""
    registers = fifo()
    burst = u64(0)
    for index in upto(end - offset, at_most=COMMAND_CAPACITY):
        if burst == 0:
            burst = wait_burst()
            if burst == 0:
                return False
        registers.data = TPM.command[offset + index]
        burst -= 1
    return True


@machine
def fifo_read(offset: u64, end: u64) -> bool:
    """Read these bytes of the answer; False if the TPM stops giving them."""
    registers = fifo()
    data = u32(STATUS_VALID | STATUS_DATA)
    burst = u64(0)
    for index in upto(end - offset, at_most=ANSWER_CAPACITY):
        if burst == 0:
            if wait_status(data, data, u64(TIMEOUT_C)):
                burst = wait_burst()
            if burst == 0:
                return False
        TPM.answer[offset + index] = registers.data
        burst -= 1
    return True


@machine
def fifo_send() -> Failure | None:
    """Send the command and start it. The TPM takes its last byte as the last: it says so before and after (PTP 6.5.2.5)."""
    registers = fifo()
    registers.status = u32(STATUS_READY)
    if not wait_status(u32(STATUS_READY), u32(STATUS_READY), u64(TIMEOUT_B)):
        return Failure(TpmFault.NOT_READY.value)
    expecting = u32(STATUS_VALID | STATUS_EXPECT)
    if not fifo_write(u64(0), TPM.size - 1) or not wait_status(expecting, expecting, u64(TIMEOUT_C)):
        return Failure(TpmFault.TAKES_TOO_FEW.value)
    if not fifo_write(TPM.size - 1, TPM.size):
        return Failure(TpmFault.TAKES_TOO_FEW.value)
    if not wait_status(expecting, u32(STATUS_VALID), u64(TIMEOUT_C)):
        return Failure(TpmFault.TAKES_TOO_MANY.value)
    registers.status = u32(STATUS_GO)
    return None


@machine
def fifo_receive() -> Failure | None:
    """Wait for the answer and read it, as long as it says it is."""
    data = u32(STATUS_VALID | STATUS_DATA)
    if not wait_status(data, data, u64(DURATION)):
        return Failure(TpmFault.NO_ANSWER.value)
    if not fifo_read(u64(0), u64(HEAD_SIZE)):
        return Failure(TpmFault.ANSWER_SHORT.value)
    size = u64(TPM.answer.load_be32(2))
    if size < HEAD_SIZE or size > ANSWER_CAPACITY:
        return Failure(TpmFault.ANSWER_SIZE.value)
    if not fifo_read(u64(HEAD_SIZE), size):
        return Failure(TpmFault.ANSWER_SHORT.value)
    if not wait_status(data, u32(STATUS_VALID), u64(TIMEOUT_C)):
        return Failure(TpmFault.ANSWER_LONG.value)
    TPM.end = size
    return None


@machine
def fifo_transmit() -> Failure | None:
    """Send the command, read the answer; in any case the TPM is told to forget both."""
    sent = fifo_send()
    if isinstance(sent, Failure):
        fifo().status = u32(STATUS_READY)
        return sent
    received = fifo_receive()
    fifo().status = u32(STATUS_READY)
    return received
