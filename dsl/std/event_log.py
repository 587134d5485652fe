"""The crypto-agile event log (PFP 10): its end found, events appended. Firmware's part is not believed: it is only walked.

A log is a piece of memory: bytes 0 to `used` are events, of which the first is in the old format and says what the others look like.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.tpm import DIGEST_LIMIT, EVENT_NO_ACTION
from dsl.lang import Array, Failure, HostVirtual, Struct, array_at, machine, minimum, table, u8, u16, u32, u64, upto
from dsl.std.tpm import TPM, TpmFault, take_bytes, take_u16, take_u32, taken
from dsl.std.tpm_command import digest_size

LOG_CAPACITY: Final = 131072
FIRMWARE_LIMIT: Final = 65536  # bytes of firmware's log that are taken over
FIRST_HEAD: Final = 32  # PCR, type, SHA-1, size
EVENT_HEAD: Final = 12  # PCR, type, number of digests
DIGESTS: Final = 8  # at most, in one event
SPECIFICATION: Final = table(u8, b"Spec ID Event03\0" + bytes.fromhex("00000000 00 02 69 02"))


class EventLog(Struct, size=16):
    """A log of LOG_CAPACITY bytes; base 0: none."""

    base: HostVirtual
    used: u64


@machine
def log_memory(log: EventLog) -> Array[u8]:
    """All of its memory. Safe because whoever set the base has that much there."""
    return array_at(u8, log.base, u64(LOG_CAPACITY))


@machine
def event_end(events: Array[u8], offset: u64) -> u64:
    """Where the event at `offset` ends; 0 if there is none that lies in these bytes."""
    if events.length - offset < EVENT_HEAD:
        return u64(0)
    count = events.load_u32(offset + 8)
    if count == 0 or count > DIGESTS:
        return u64(0)
    place = offset + EVENT_HEAD
    for _ in upto(count, at_most=DIGESTS):
        size = digest_size(events.load_u16(place)) if events.length - place >= 2 else u64(0)
        if size == 0 or events.length - place < size + 6:
            return u64(0)
        place += size + 2
    data = u64(events.load_u32(place))
    place += 4
    return place + data if data <= events.length - place else u64(0)


@machine
def events_end(events: Array[u8], offset: u64, limit: u64) -> u64:
    """Where the last of the events that follow one another from `offset` ends, `limit` of them at most."""
    place = offset
    left = limit
    while left != 0:
        end = event_end(events, place)
        if end == 0:
            return place
        place = end
        left -= 1
    return place


@machine
def first_end(events: Array[u8]) -> u64:
    """Where the log's first event ends; 0 if it is not the one that says how the others look."""
    if events.length < FIRST_HEAD + 16 or not events.slice(FIRST_HEAD, 16).equals(SPECIFICATION.slice(0, 16)):
        return u64(0)
    data = u64(events.load_u32(FIRST_HEAD - 4))
    return FIRST_HEAD + data if data <= events.length - FIRST_HEAD else u64(0)


@machine
def log_take(log: EventLog, events: Array[u8]) -> None:
    """Append whole events as they are; too many are left out, which a verifier will see."""
    if events.length <= LOG_CAPACITY - log.used:
        log_memory(log).slice(log.used, events.length).copy_from(events)
        log.used += events.length


@machine
def log_take_all(log: EventLog, events: Array[u8]) -> None:
    """Begin with a whole log in memory that is larger; nothing is taken of what is none."""
    first = first_end(events)
    if first != 0:
        log_take(log, events.slice(0, events_end(events, first, events.length)))


@machine
def log_begin(log: EventLog, banks: Array[u16]) -> None:
    """Begin a log of our own: events have one digest for each of these banks."""
    memory = log_memory(log)
    size = SPECIFICATION.length + 4 + banks.length * 4 + 1
    memory.slice(0, FIRST_HEAD + size).fill(u8(0))
    memory.store_u32(4, EVENT_NO_ACTION)
    memory.store_u32(FIRST_HEAD - 4, size.truncate(u32))
    memory.slice(FIRST_HEAD, SPECIFICATION.length).copy_from(SPECIFICATION)
    place = FIRST_HEAD + SPECIFICATION.length
    memory.store_u32(place, banks.length.truncate(u32))
    for index in upto(banks.length):
        memory.store_u16(place + 4 + index * 4, banks[index])
        memory.store_u16(place + 6 + index * 4, digest_size(banks[index]).truncate(u16))
    log.used = FIRST_HEAD + size


@machine
def has_bank(log: EventLog, algorithm: u16) -> bool:
    """Whether the log's first event says that each event has a digest of this bank."""
    memory = log_memory(log)
    list_offset = u64(FIRST_HEAD) + SPECIFICATION.length
    for index in upto(minimum(memory.load_u32(list_offset), u32(DIGESTS)), at_most=DIGESTS):
        if memory.load_u16(list_offset + 4 + u64(index) * 4) == algorithm:
            return True
    return False


@machine
def log_event(log: EventLog, pcr: u32, kind: u32, data: Array[u8]) -> Failure | None:
    """Append an event with the digests that are read next in the TPM's answer (TPML_DIGEST_VALUES), which must end with them.

    Of them the log takes those of its own banks: a firmware may leave active ones alone.
    """
    memory = log_memory(log)
    count = take_u32()
    if count == 0 or count > DIGESTS:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    if LOG_CAPACITY - log.used < EVENT_HEAD + DIGESTS * (DIGEST_LIMIT + 2) + 4 + data.length:
        return Failure(TpmFault.LOG_FULL.value)
    place = log.used
    memory.store_u32(place, pcr)
    memory.store_u32(place + 4, kind)
    place += EVENT_HEAD
    logged = u32(0)
    for _ in upto(count, at_most=DIGESTS):
        algorithm = take_u16()
        size = digest_size(algorithm)
        digest = take_bytes(size)
        if size == 0 or TPM.malformed:
            return Failure(TpmFault.ANSWER_CONTENT.value)
        if has_bank(log, algorithm):
            memory.store_u16(place, algorithm)
            memory.slice(place + 2, size).copy_from(digest)
            place += size + 2
            logged += 1
    end = taken()
    if isinstance(end, Failure):
        return end
    memory.store_u32(log.used + 8, logged)
    memory.store_u32(place, data.length.truncate(u32))
    memory.slice(place + 4, data.length).copy_from(data)
    log.used = place + 4 + data.length
    return None
