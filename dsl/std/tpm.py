"""Talking to a TPM 2.0 through its registers: commands written, sent, and their answers read, all with bounds.

An answer is believed in nothing: its size, tag and every length in it are checked before use; each wait has an end. What goes wrong is a
`Failure` whose code is a `TpmFault`, or RESPONSE plus the TPM's own response code. One caller at a time; `TPM` holds the command under
construction and the last answer.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.hw.tpm import PASSWORD
from dsl.lang import (
    Array,
    Failure,
    HostVirtual,
    Struct,
    array,
    byte_swap,
    machine,
    static,
    u8,
    u16,
    u32,
    u64,
)
from dsl.lang.intrinsics import rdtsc

TICKS: Final = 8_000_000  # in a millisecond: no time-stamp counter is faster, so that a wait is never too short
COMMAND_CAPACITY: Final = 512
ANSWER_CAPACITY: Final = 1024
HEAD_SIZE: Final = 10  # tag, size, code
RESPONSE: Final = 1 << 32  # added to a TPM's response code, to make a Failure's
AUTHORIZATION: Final = bytes.fromhex("00000009 40000009 0000 00 0000")  # one session: an empty password
FIFO: Final = 1
CRB: Final = 2


class TpmFault(Enum):
    """What a TPM did wrong."""

    NO_LOCALITY = u64(1)
    NOT_READY = u64(2)
    TAKES_TOO_FEW = u64(3)  # it does not take the whole command
    TAKES_TOO_MANY = u64(4)  # it expects more
    NO_ANSWER = u64(5)
    ANSWER_SHORT = u64(6)
    ANSWER_LONG = u64(7)
    ANSWER_SIZE = u64(8)
    ANSWER_TAG = u64(9)
    ANSWER_CONTENT = u64(10)
    DEVICE_FAILED = u64(11)
    BUFFERS = u64(12)
    LOG_FULL = u64(13)
    NO_DEVICE = u64(14)


class Tpm(Struct):
    """The TPM in use. `registers`: locality 0 of a FIFO, or the control area of a CRB."""

    registers: HostVirtual
    interface: u32  # 0: none
    command_room: u32  # bytes that its buffers hold
    answer_room: u32
    reserved: u32
    command_buffer: HostVirtual  # of a CRB
    answer_buffer: HostVirtual
    size: u64  # of the command
    offset: u64  # of what is read next in the answer
    end: u64  # of what there is to read
    command: Array[u8] = array(COMMAND_CAPACITY)
    answer: Array[u8] = array(ANSWER_CAPACITY)
    malformed: bool  # more was read than there is
    padding: Array[u8] = array(7)


TPM: Final = static(Tpm)


@machine
def is_over(started: u64, milliseconds: u64) -> bool:
    """Whether that much time has passed, at least."""
    return rdtsc() - started > milliseconds * TICKS


def command(code: u32, *pieces: bytes | int, sessions: bool = False) -> bytes:
    """A command as a table for `begin`, at build time: an int stands for four bytes. Its size is put in when it is sent."""
    content = b"".join(piece if isinstance(piece, bytes) else piece.to_bytes(4, "big") for piece in pieces)
    return (0x8002 if sessions else 0x8001).to_bytes(2, "big") + bytes(4) + int(code).to_bytes(4, "big") + content


@machine
def begin(template: Array[u8]) -> None:
    """Begin a command: all that is constant in it. What is not is set in TPM.command, at its offset."""
    TPM.size = template.length
    TPM.command.slice(0, template.length).copy_from(template)


@machine
def set_session(offset: u64, session: u32) -> None:
    """Set the session of an authorization area that begins there: PASSWORD (empty), or a policy's, which stays open."""
    TPM.command.store_be32(offset + 4, session)
    TPM.command[offset + 10] = u8(session != PASSWORD)


@machine
def put_bytes(data: Array[u8]) -> None:
    """Append bytes as they are."""
    TPM.command.slice(TPM.size, data.length).copy_from(data)
    TPM.size += data.length


@machine
def put_sized(data: Array[u8]) -> None:
    """Append bytes with their number before them."""
    TPM.command.store_u16(TPM.size, byte_swap(data.length.truncate(u16)))
    TPM.size += 2
    put_bytes(data)


@machine
def take_u16() -> u16:
    """Read two bytes of the answer; 0, and malformed, if they are not there."""
    if TPM.end - TPM.offset < 2:
        TPM.malformed = True
        return u16(0)
    TPM.offset += 2
    return byte_swap(TPM.answer.load_u16(TPM.offset - 2))


@machine
def take_u32() -> u32:
    """Read four bytes of the answer; 0, and malformed, if they are not there."""
    if TPM.end - TPM.offset < 4:
        TPM.malformed = True
        return u32(0)
    TPM.offset += 4
    return TPM.answer.load_be32(TPM.offset - 4)


@machine
def take_u8() -> u8:
    """Read a byte of the answer; 0, and malformed, if it is not there."""
    if TPM.end == TPM.offset:
        TPM.malformed = True
        return u8(0)
    TPM.offset += 1
    return TPM.answer[TPM.offset - 1]


@machine
def take_bytes(size: u64) -> Array[u8]:
    """That many bytes of the answer, in place; none, and malformed, if they are not there."""
    if TPM.end - TPM.offset < size:
        TPM.malformed = True
        return TPM.answer.slice(0, 0)
    TPM.offset += size
    return TPM.answer.slice(TPM.offset - size, size)


@machine
def take_sized() -> Array[u8]:
    """Bytes of the answer with their number before them, in place."""
    return take_bytes(u64(take_u16()))


@machine
def taken() -> Failure | None:
    """Whether what was read was all there, and all that there is."""
    if TPM.malformed or TPM.offset != TPM.end:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return None
