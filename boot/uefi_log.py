"""Firmware's event log under UEFI: found while firmware lives, copied once it was left (TCG EFI Protocol Specification 1.00, 6.4.4, 7)."""

from __future__ import annotations

from typing import Final

from boot.firmware import only_protocol
from boot.parameters import BootParameters
from dsl.hw.uefi import CRYPTO_AGILE, FINAL_EVENTS_TABLE, SUCCESS, TCG2_PROTOCOL, BootServices, FinalEvents, Tcg2
from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    address_of,
    array_at,
    efi_call,
    frame_array,
    machine,
    size_of,
    static,
    table,
    u8,
    u64,
)
from dsl.std.event_log import FIRMWARE_LIMIT, EventLog, event_end, events_end, first_end, log_take

TCG2: Final = table(u8, TCG2_PROTOCOL)
FINAL_EVENTS: Final = table(u8, FINAL_EVENTS_TABLE)


class FirmwareLog(Struct, size=32):
    """Where firmware's log is. Location 0: there is none."""

    location: HostVirtual
    last: HostVirtual  # where its last event begins
    final: HostVirtual  # the table of what comes after
    before: u64  # events in that table which the log has, too


LOG: Final = static(FirmwareLog)


@machine
def note_log(boot: BootServices, final: u64) -> None:
    """Ask firmware where its log is, as late as can be; `final`: the table of later events, or 0."""
    protocol = only_protocol(boot, TCG2)
    if protocol == HostVirtual(0):
        return
    answer = frame_array(u64, 3)
    place = address_of(answer).as_u64()
    # Safe because firmware says that its protocol is there.
    ask = Tcg2.at(protocol).get_event_log
    status = efi_call(ask, protocol.as_u64(), u64(CRYPTO_AGILE), place, place + 8, place + 16)
    if status != SUCCESS or answer[1] < answer[0] or answer[1] - answer[0] > FIRMWARE_LIMIT:
        return
    LOG.location = HostVirtual(answer[0])
    LOG.last = HostVirtual(answer[1])
    LOG.final = HostVirtual(final)
    if final != 0:
        LOG.before = FinalEvents.at(LOG.final).count  # Safe because firmware says that its table is there.


@machine
def firmware_events() -> Array[u8]:
    """The log as firmware gave it, up to the end of its last event. Safe because it is only walked as far as its events go."""
    events = array_at(u8, LOG.location, u64(2 * FIRMWARE_LIMIT))
    last = LOG.last - LOG.location
    end = first_end(events) if last == 0 else event_end(events, last)
    return events.slice(0, end)


@machine
def copy_log(parameters: BootParameters, place: HostVirtual) -> None:
    """After firmware was left: copy its log, and what it logged on the way out, to where there is room for LOG_CAPACITY bytes."""
    if LOG.location == HostVirtual(0):
        return
    log = EventLog()
    log.base = place
    log_take(log, firmware_events())
    if LOG.final != HostVirtual(0) and log.used != 0:
        # Safe because the events follow the table's head, and are only walked as far as they go.
        events = array_at(u8, LOG.final + size_of(FinalEvents), u64(FIRMWARE_LIMIT))
        begin = events_end(events, u64(0), LOG.before)
        later = FinalEvents.at(LOG.final).count - LOG.before
        log_take(log, events.slice(begin, events_end(events, begin, later) - begin))
    parameters.event_log = place.as_u64()
    parameters.event_log_size = log.used
