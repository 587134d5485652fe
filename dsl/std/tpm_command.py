"""One command to a TPM and its answer, whichever interface it has; and the few commands that a loader needs (TPM 2.0 Library, part 3)."""

from __future__ import annotations

from typing import Final

from dsl.hw.tpm import (
    CAPABILITY_PCRS,
    CAPABILITY_PROPERTIES,
    DIGEST_SIZES,
    FLUSH_CONTEXT,
    GET_CAPABILITY,
    NO_SESSIONS,
    NULL_ALGORITHM,
    NV_READ,
    NV_READ_LOCK,
    NV_READ_PUBLIC,
    PCR_EVENT,
    PCR_READ,
    PROPERTY_PERMANENT,
    QUOTE,
    RETRY,
    SESSIONS,
    SHA256,
    TESTING,
    TIMEOUT_B,
    YIELDED,
)
from dsl.lang import Array, Failure, byte_swap, machine, table, u8, u16, u32, u64, upto
from dsl.lang.intrinsics import rdtsc
from dsl.std.tpm import (
    AUTHORIZATION,
    CRB,
    HEAD_SIZE,
    RESPONSE,
    TPM,
    TpmFault,
    begin,
    command,
    is_over,
    put_sized,
    set_session,
    take_bytes,
    take_sized,
    take_u8,
    take_u16,
    take_u32,
    taken,
)
from dsl.std.tpm_crb import crb_buffers, crb_request, crb_transmit
from dsl.std.tpm_fifo import fifo_request, fifo_transmit

HANDLE: Final = HEAD_SIZE  # where the first handle of a command is; the second is four bytes further
SELECTION: Final = b"\0\0\0\1" + int(SHA256).to_bytes(2, "big") + bytes([3, 0, 0, 0])  # PCRs of the SHA-256 bank
SELECTION_MAP: Final = 7  # offset of the bit map, 3 bytes, in it
QUALIFYING: Final = HANDLE + 4 + len(AUTHORIZATION) + 2
QUALIFYING_SIZE: Final = 32
QUOTED_MAP: Final = QUALIFYING + QUALIFYING_SIZE + 2 + SELECTION_MAP  # behind the scheme
ASK_PERMANENT: Final = table(u8, command(GET_CAPABILITY, int(CAPABILITY_PROPERTIES), int(PROPERTY_PERMANENT), 1))
ASK_BANKS: Final = table(u8, command(GET_CAPABILITY, int(CAPABILITY_PCRS), 0, 1))
READ_PCR: Final = table(u8, command(PCR_READ, SELECTION))
EXTEND: Final = table(u8, command(PCR_EVENT, 0, AUTHORIZATION, sessions=True))
READ_PUBLIC: Final = table(u8, command(NV_READ_PUBLIC, 0))
READ_INDEX: Final = table(u8, command(NV_READ, 0, 0, AUTHORIZATION, bytes(4), sessions=True))
READ_SIZE: Final = HANDLE + 8 + len(AUTHORIZATION)
LOCK_INDEX: Final = table(u8, command(NV_READ_LOCK, 0, 0, AUTHORIZATION, sessions=True))
FLUSH: Final = table(u8, command(FLUSH_CONTEXT, 0))
ASK_QUOTE: Final = table(
    u8,
    command(
        QUOTE,
        0,
        AUTHORIZATION,
        QUALIFYING_SIZE.to_bytes(2, "big") + bytes(QUALIFYING_SIZE),
        int(NULL_ALGORITHM).to_bytes(2, "big"),
        SELECTION,
        sessions=True,
    ),
)
BANKS_LIMIT: Final = 16
ALGORITHMS: Final = table(u64, [int(algorithm) for algorithm, _ in DIGEST_SIZES])
SIZES: Final = table(u64, [size for _, size in DIGEST_SIZES])


@machine
def tpm_start() -> Failure | None:
    """Take locality 0 of the TPM that TPM.registers and TPM.interface name."""
    if TPM.interface == CRB:
        requested = crb_request()
        if isinstance(requested, Failure):
            return requested
        return crb_buffers()
    return fifo_request()


@machine
def transmit() -> Failure | None:
    """Send the command, take the answer."""
    if TPM.interface == CRB:
        return crb_transmit()
    return fifo_transmit()


@machine
def check_answer() -> Failure | None:
    """Check tag and response code; what is read next are its parameters."""
    tag = TPM.answer.load_u16(0)
    code = TPM.answer.load_be32(6)
    if code != 0:
        if tag != byte_swap(NO_SESSIONS) or TPM.end != HEAD_SIZE:
            return Failure(TpmFault.ANSWER_TAG.value)
        return Failure(RESPONSE + u64(code))
    if tag != TPM.command.load_u16(0):
        return Failure(TpmFault.ANSWER_TAG.value)
    if tag == byte_swap(SESSIONS):
        size = u64(take_u32())
        if TPM.malformed or size > TPM.end - TPM.offset:
            return Failure(TpmFault.ANSWER_CONTENT.value)
        TPM.end = (
            TPM.offset + size
        )  # what follows are the sessions' parts, which say nothing to a password's or policy's user
    return None


@machine
def is_to_be_repeated(code: u32) -> bool:
    """Whether the TPM asks to have the same command again, for no fault of ours."""
    return code == RETRY or code == YIELDED or code == TESTING


@machine
def execute() -> Failure | None:
    """Send the command under construction and check its answer's head. (None of the commands here answers with handles and sessions.)"""
    TPM.command.store_be32(2, TPM.size.truncate(u32))
    started = rdtsc()
    while True:
        TPM.offset = u64(HEAD_SIZE)
        TPM.malformed = False
        transmitted = transmit()
        if isinstance(transmitted, Failure):
            return transmitted
        if not is_to_be_repeated(TPM.answer.load_be32(6)) or is_over(started, u64(TIMEOUT_B)):
            return check_answer()


@machine
def finish() -> Failure | None:
    """Execute a command whose answer has no parameters."""
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    return taken()


@machine
def for_bytes() -> Array[u8] | Failure:
    """Execute a command whose answer is bytes with their number before them; in the answer's place."""
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    value = take_sized()
    end = taken()
    if isinstance(end, Failure):
        return end
    return value


@machine
def ask_capability(question: Array[u8]) -> Failure | None:
    """Ask for one value; what is read next is the list, which begins with its length."""
    begin(question)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    _ = take_u8()  # whether there are more
    if take_u32() != TPM.command.load_be32(HEAD_SIZE):  # which is never 0, as it were if nothing is there
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return None


@machine
def read_permanent() -> u32 | Failure:
    """TPMA_PERMANENT: what holds until it is changed."""
    asked = ask_capability(ASK_PERMANENT)
    if isinstance(asked, Failure):
        return asked
    count = take_u32()
    found = take_u32()
    value = take_u32()
    end = taken()
    if isinstance(end, Failure):
        return end
    if count != 1 or found != PROPERTY_PERMANENT:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return value


@machine
def digest_size(algorithm: u16) -> u64:
    """The bytes of a digest; 0 for an algorithm that is not known."""
    for row in upto(ALGORITHMS.length):
        if u64(algorithm) == ALGORITHMS[row]:
            return SIZES[row]
    return u64(0)


@machine
def active_banks(banks: Array[u16]) -> u64 | Failure:
    """Write the algorithms of the banks that have PCRs; how many they are is the result. `banks` has room for BANKS_LIMIT."""
    asked = ask_capability(ASK_BANKS)
    if isinstance(asked, Failure):
        return asked
    count = take_u32()
    if count > BANKS_LIMIT:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    found = u64(0)
    for _ in upto(count, at_most=BANKS_LIMIT):
        algorithm = take_u16()
        selected = u8(0)
        map_bytes = take_bytes(u64(take_u8()))
        for index in upto(map_bytes.length):
            selected |= map_bytes[index]
        if selected != 0:
            banks[found] = algorithm
            found += 1
    end = taken()
    if isinstance(end, Failure):
        return end
    return found


@machine
def read_pcr(number: u32) -> Array[u8] | Failure:
    """The SHA-256 value of a PCR, in the answer's place."""
    begin(READ_PCR)
    TPM.command.store_u32(HEAD_SIZE + SELECTION_MAP, u32(1) << number)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    _ = take_u32()  # the update counter
    selection = take_bytes(u64(10))
    count = take_u32()
    value = take_sized()
    end = taken()
    if isinstance(end, Failure):
        return end
    if count != 1 or value.length != 32 or not selection.equals(TPM.command.slice(HEAD_SIZE, 10)):
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return value


@machine
def extend_event(pcr: u32, data: Array[u8]) -> Failure | None:
    """Extend a PCR in all active banks by the hash of the data. What is read next are the digests (TPML_DIGEST_VALUES)."""
    begin(EXTEND)
    TPM.command.store_be32(HANDLE, pcr)
    put_sized(data)
    return execute()


@machine
def read_public(index: u32) -> Failure | None:
    """Ask whether an NV index is defined: nothing wrong, or a TPM's response code."""
    begin(READ_PUBLIC)
    TPM.command.store_be32(HANDLE, index)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    _ = take_sized()
    _ = take_sized()
    return taken()


@machine
def set_index(index: u32, session: u32) -> None:
    """Set both handles of a command about an NV index, and the session."""
    TPM.command.store_be32(HANDLE, index)
    TPM.command.store_be32(HANDLE + 4, index)
    set_session(u64(HANDLE + 8), session)


@machine
def read_index(index: u32, session: u32, size: u64) -> Array[u8] | Failure:
    """The bytes of an NV index, authorized by its own (empty) password or policy, in the answer's place."""
    begin(READ_INDEX)
    set_index(index, session)
    TPM.command.store_u16(READ_SIZE, byte_swap(size.truncate(u16)))
    value = for_bytes()
    if isinstance(value, Failure):
        return value
    if value.length != size:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return value


@machine
def lock_index(index: u32, session: u32) -> Failure | None:
    """Make an NV index unreadable until the next reset."""
    begin(LOCK_INDEX)
    set_index(index, session)
    return finish()


@machine
def flush(handle: u32) -> Failure | None:
    """Forget a session or an object."""
    begin(FLUSH)
    TPM.command.store_be32(HANDLE, handle)
    return finish()


@machine
def ask_quote(key: u32, qualifying: Array[u8], mask: u32) -> Failure | None:
    """Have a key quote PCRs of the SHA-256 bank by its own scheme. What is read next: the attested bytes, sized, then the signature."""
    begin(ASK_QUOTE)
    TPM.command.store_be32(HANDLE, key)
    TPM.command.slice(QUALIFYING, QUALIFYING_SIZE).copy_from(qualifying)
    TPM.command.store_u32(QUOTED_MAP, mask)
    return execute()
