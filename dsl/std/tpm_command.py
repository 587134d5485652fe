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
    PASSWORD,
    PCR_BYTES,
    PCR_EVENT,
    PCR_READ,
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
    CRB,
    HEAD_SIZE,
    RESPONSE,
    TPM,
    TpmFault,
    begin,
    is_over,
    put_authorization,
    put_sized,
    put_u8,
    put_u16,
    put_u32,
    take_bytes,
    take_sized,
    take_u8,
    take_u16,
    take_u32,
    taken,
)
from dsl.std.tpm_crb import crb_buffers, crb_request, crb_transmit
from dsl.std.tpm_fifo import fifo_request, fifo_transmit

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
        TPM.end = u64(HEAD_SIZE)
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
def ask_capability(capability: u32, first: u32) -> Failure | None:
    """Ask for one value; what is read next is the list, which begins with its length."""
    begin(GET_CAPABILITY)
    put_u32(capability)
    put_u32(first)
    put_u32(u32(1))
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    _ = take_u8()  # whether there are more
    if take_u32() != capability or TPM.malformed:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return None


@machine
def read_property(name: u32) -> u32 | Failure:
    """A property of the TPM."""
    asked = ask_capability(CAPABILITY_PROPERTIES, name)
    if isinstance(asked, Failure):
        return asked
    count = take_u32()
    found = take_u32()
    value = take_u32()
    end = taken()
    if isinstance(end, Failure):
        return end
    if count != 1 or found != name:
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
    asked = ask_capability(CAPABILITY_PCRS, u32(0))
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
def put_selection(mask: u32) -> None:
    """Append a PCR selection: these PCRs of the SHA-256 bank, by bit."""
    put_u32(u32(1))
    put_u16(SHA256)
    put_u8(u8(PCR_BYTES))
    put_u8(mask.truncate(u8))
    put_u8((mask >> 8).truncate(u8))
    put_u8((mask >> 16).truncate(u8))


@machine
def read_pcr(number: u32) -> Array[u8] | Failure:
    """The SHA-256 value of a PCR, in the answer's place."""
    begin(PCR_READ)
    put_selection(u32(1) << number)
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
    begin(PCR_EVENT)
    put_u32(pcr)
    put_authorization(PASSWORD)
    put_sized(data)
    return execute()


@machine
def read_public(index: u32) -> Failure | None:
    """Ask whether an NV index is defined: nothing wrong, or a TPM's response code."""
    begin(NV_READ_PUBLIC)
    put_u32(index)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    _ = take_sized()
    _ = take_sized()
    return taken()


@machine
def read_index(index: u32, session: u32, size: u64) -> Array[u8] | Failure:
    """The bytes of an NV index, authorized by its own (empty) password or policy, in the answer's place."""
    begin(NV_READ)
    put_u32(index)
    put_u32(index)
    put_authorization(session)
    put_u16(size.truncate(u16))
    put_u16(u16(0))
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    value = take_sized()
    end = taken()
    if isinstance(end, Failure):
        return end
    if value.length != size:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    return value


@machine
def lock_index(index: u32, session: u32) -> Failure | None:
    """Make an NV index unreadable until the next reset."""
    begin(NV_READ_LOCK)
    put_u32(index)
    put_u32(index)
    put_authorization(session)
    return finish()


@machine
def flush(handle: u32) -> Failure | None:
    """Forget a session or an object."""
    begin(FLUSH_CONTEXT)
    put_u32(handle)
    return finish()


@machine
def ask_quote(key: u32, qualifying: Array[u8], mask: u32) -> Failure | None:
    """Have a key quote PCRs of the SHA-256 bank by its own scheme. What is read next: the attested bytes, sized, then the signature."""
    begin(QUOTE)
    put_u32(key)
    put_authorization(PASSWORD)
    put_sized(qualifying)
    put_u16(NULL_ALGORITHM)
    put_selection(mask)
    return execute()
