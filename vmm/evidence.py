"""The evidence of this boot where no box can ask for it: printed on the serial line (docs/evidence.md, "The bundle")."""

from __future__ import annotations

from typing import Final

from boot.handoff import Certificate, Handoff
from dsl.lang import Array, Struct, array_at, frame_array, machine, minimum, static, text, u8, u32, u64
from dsl.std.print import Line, append_hexadecimal_bytes, append_text, line_bytes, line_clear
from dsl.std.serial import serial_write
from dsl.std.sha256 import Sha256, sha256_begin, sha256_finish, sha256_update
from vmm.console_port import console_flush
from vmm.memory import to_host_virtual

MAGIC: Final = int.from_bytes(b"TRNEVID1", "little")
VERSION: Final = 1
HEAD_SIZE: Final = 16
ITEM_HEAD_SIZE: Final = 8
DEVICE: Final = u32(1)
MONITOR: Final = u32(2)
QUOTE: Final = u32(7)
SIGNATURE: Final = u32(8)
EVENT_LOG: Final = u32(9)
PIECE: Final = 32  # bytes in a line


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
    """Print the bundle: the chain's certificates, the quote if there is one, the event log if there is one."""
    console_flush(u64(0))
    quoted = handoff.quote.attest_size != 0
    logged = handoff.event_log_size != 0
    append_text(begin_line(), text("begin-evidence"))
    end_line()
    sha256_begin(PRINTER.stream)
    head = frame_array(u8, HEAD_SIZE)
    head.store_u64(0, u64(MAGIC))
    head.store_u32(8, u32(VERSION))
    head.store_u32(12, u32(2) + (u32(quoted) << 1) + u32(logged))
    put(head)
    put_certificate(DEVICE, handoff.device_certificate)
    put_certificate(MONITOR, handoff.monitor_certificate)
    if quoted:
        put_item(QUOTE, handoff.quote.attest.slice(0, u64(handoff.quote.attest_size)))
        put_item(SIGNATURE, handoff.quote.signature.slice(0, u64(handoff.quote.signature_size)))
    if logged:
        # Safe because the loader put the log there, in memory of no box, and the direct map covers it.
        put_item(EVENT_LOG, array_at(u8, to_host_virtual(handoff.event_log), handoff.event_log_size))
    digest = frame_array(u8, 32)
    sha256_finish(digest, PRINTER.stream)
    append_text(begin_line(), text("end-evidence "))
    append_hexadecimal_bytes(PRINTER.line, digest)
    end_line()
