"""What a TPM shows of this boot (docs/evidence.md, "The bundle"): kept for boxes to ask for, and printed where no box can run."""

from __future__ import annotations

from typing import Final

from boot.handoff import Certificate, Handoff, Quote
from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    array_at,
    between,
    frame_array,
    machine,
    minimum,
    static,
    text,
    u8,
    u32,
    u64,
)
from dsl.std.print import Line, append_hexadecimal_bytes, append_text, line_bytes, line_clear
from dsl.std.serial import serial_write
from dsl.std.sha256 import Sha256, sha256_begin, sha256_finish, sha256_update
from vmm.abi import EvidenceItem
from vmm.console_port import console_flush
from vmm.memory import to_host_virtual

MAGIC: Final = int.from_bytes(b"TRNEVID1", "little")
VERSION: Final = 1
HEAD_SIZE: Final = 16
ITEM_HEAD_SIZE: Final = 8
DEVICE: Final = u32(1)
MONITOR: Final = u32(2)
PIECE: Final = 32  # bytes in a line


class Measured(Struct):
    """The quote, and where the event log is: in memory of no box."""

    quote: Quote
    log: HostVirtual
    log_size: u64


MEASURED: Final = static(Measured)


@machine
def take_over_evidence(handoff: Handoff) -> None:
    """Keep what the loader handed over of it."""
    MEASURED.quote.copy_from(handoff.quote)
    MEASURED.log = to_host_virtual(handoff.event_log)
    MEASURED.log_size = handoff.event_log_size


@machine
def evidence_item(kind: u64) -> Array[u8]:
    """One item; empty where there is none, or no such kind."""
    quote = MEASURED.quote
    if kind == EvidenceItem.QUOTE.value:
        return quote.attest.slice(0, u64(quote.attest_size))
    if kind == EvidenceItem.SIGNATURE.value:
        return quote.signature.slice(0, u64(quote.signature_size))
    size = MEASURED.log_size if kind == EvidenceItem.EVENT_LOG.value else u64(0)
    # Safe because the loader put the log there, and the direct map covers it.
    return array_at(u8, MEASURED.log, size)


class Printer(Struct):
    """What was printed so far."""

    stream: Sha256
    line: Line


PRINTER: Final = static(Printer)


@machine
def begin_line() -> Line:
    """A new line of the monitor's."""
    line_clear(PRINTER.line)
    append_text(PRINTER.line, text("terrane| "))
    return PRINTER.line


@machine
def end_line() -> None:
    """Send it."""
    append_text(PRINTER.line, text("\n"))
    serial_write(line_bytes(PRINTER.line))


@machine
def put(data: Array[u8]) -> None:
    """Print bytes of the bundle, in lines of hex digits."""
    sha256_update(PRINTER.stream, data)
    offset = u64(0)
    while offset < data.length:
        size = minimum(data.length - offset, u64(PIECE))
        append_hexadecimal_bytes(begin_line(), data.slice(offset, size))
        end_line()
        offset += size


@machine
def put_item(kind: u32, data: Array[u8]) -> None:
    """Print an item."""
    head = frame_array(u8, ITEM_HEAD_SIZE)
    head.store_u32(0, kind)
    head.store_u32(4, data.length.truncate(u32))
    put(head)
    put(data)


@machine
def put_certificate(kind: u32, certificate: Certificate) -> None:
    """Print a certificate."""
    put_item(kind, certificate.content.slice(0, u64(certificate.size)))


@machine
def show_evidence(handoff: Handoff) -> None:
    """Print the bundle on the serial line: the chain's certificates, and what there is of a TPM."""
    console_flush(u64(0))
    count = u32(2)
    for kind in between(EvidenceItem.QUOTE.value, EvidenceItem.EVENT_LOG.value + 1):
        count += u32(evidence_item(kind).length != 0)
    append_text(begin_line(), text("begin-evidence"))
    end_line()
    sha256_begin(PRINTER.stream)
    head = frame_array(u8, HEAD_SIZE)
    head.store_u64(0, u64(MAGIC))
    head.store_u32(8, u32(VERSION))
    head.store_u32(12, count)
    put(head)
    put_certificate(DEVICE, handoff.device_certificate)
    put_certificate(MONITOR, handoff.monitor_certificate)
    for kind in between(EvidenceItem.QUOTE.value, EvidenceItem.EVENT_LOG.value + 1):
        item = evidence_item(kind)
        if item.length != 0:
            put_item(kind.truncate(u32), item)
    digest = frame_array(u8, 32)
    sha256_finish(digest, PRINTER.stream)
    append_text(begin_line(), text("end-evidence "))
    append_hexadecimal_bytes(PRINTER.line, digest)
    end_line()
