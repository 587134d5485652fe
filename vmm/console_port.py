"""The console's serial port and its person: what is sent and received, the attention sequence, the focus (docs/formats.md, "Console").

Nothing here waits for the port, but `console_flush`, which is for the end of the machine.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, minimum, text, u8, u64, upto
from dsl.lang.intrinsics import out8
from dsl.std.print import DIGITS, Line, append_byte, append_decimal, append_padded_text, append_text, line_bytes
from dsl.std.serial import DATA, serial_can_receive, serial_can_send, serial_receive
from vmm.console import BOX_LIMIT, CONSOLE, NEVER, console_line
from vmm.console_wire import PARTIAL_NS, fill_wire
from vmm.devices.ring import ring_count, ring_push, ring_take
from vmm.screen import has_screen, screen_show

BUSY_POLL_NS: Final = 1_000_000  # a FIFO of 16 characters drains in 1.4 ms
IDLE_POLL_NS: Final = 10_000_000  # keys arrive no faster
ATTENTION: Final = 0x01  # Ctrl-A
FIFO_SIZE: Final = 16
FLUSH_LIMIT: Final = 4_000_000  # looks at the port, in console_flush: more than the rings need at 115200 baud


@machine
def send() -> None:
    """Give the port what its FIFO takes, and the screen the same; without either, throw the wire's bytes away."""
    if not CONSOLE.present and not has_screen():
        CONSOLE.wire.taken = CONSOLE.wire.written
        return
    if ring_count(CONSOLE.wire) == 0 or (CONSOLE.present and not serial_can_send()):
        return
    for _ in upto(minimum(ring_count(CONSOLE.wire), u64(FIFO_SIZE))):
        value = ring_take(CONSOLE.wire)
        if CONSOLE.present:
            out8(DATA, value)
        screen_show(value)


@machine
def receive() -> None:
    """Take what the port has received, at most a FIFO."""
    if not CONSOLE.present:
        return
    for _ in upto(u64(FIFO_SIZE)):
        if not serial_can_receive():
            return
        console_input(serial_receive())


@machine
def console_input(value: u8) -> None:
    """Take a byte from the person: for the box in focus, unless the attention came first. A box that does not read loses input."""
    if CONSOLE.attention:
        CONSOLE.attention = False
        if value == ATTENTION:
            deliver(value)
        else:
            obey(value)
    elif value == ATTENTION:
        CONSOLE.attention = True
    else:
        deliver(value)


@machine
def deliver(value: u8) -> None:
    """Give a byte to the box in focus."""
    incoming = CONSOLE.channels[CONSOLE.focus].input
    if incoming is not None:
        _ = ring_push(incoming, value)


@machine
def digit_value(value: u8) -> u64:
    """Return the value of a hexadecimal digit; NEVER for another byte."""
    lower = value | 0x20
    if value >= 0x30 and value <= 0x39:
        return u64(value - 0x30)
    if lower >= 0x61 and lower <= 0x66:
        return u64(lower - 0x57)
    return u64(NEVER)


@machine
def obey(key: u8) -> None:
    """Obey the key after the attention: a digit moves the focus, another lists the boxes."""
    index = digit_value(key)
    if index >= BOX_LIMIT:
        list_boxes()
        return
    if CONSOLE.channels[index].input is None:
        line = Line()
        append_text(line, text("focus: there is no box "))
        append_decimal(line, index)
        console_line(line_bytes(line))
        return
    CONSOLE.focus = index
    console_announce_focus()


@machine
def console_announce_focus() -> None:
    """Say which box the input goes to."""
    line = Line()
    append_text(line, text("focus: "))
    append_padded_text(line, CONSOLE.channels[CONSOLE.focus].name)
    console_line(line_bytes(line))


@machine
def list_boxes() -> None:
    """Say which digits choose which boxes."""
    line = Line()
    append_text(line, text("boxes:"))
    for index in upto(u64(BOX_LIMIT)):
        if CONSOLE.channels[index].input is not None:
            append_byte(line, u8(0x20))
            append_byte(line, DIGITS[index])
            append_byte(line, u8(0x3D))
            append_padded_text(line, CONSOLE.channels[index].name)
    console_line(line_bytes(line))


@machine
def console_poll(now: u64) -> u64:
    """Move everything on by one bounded step, and return the time in ns at which the next call is due."""
    receive()
    fill_wire(now)
    send()
    busy = ring_count(CONSOLE.wire) != 0 or CONSOLE.run_left != 0
    return now + (u64(BUSY_POLL_NS) if busy else u64(IDLE_POLL_NS))


@machine
def console_flush(now: u64) -> None:
    """Wait until all that was said is sent, lines without an end included: for the end of the machine only. Gives up on a dead port."""
    for _ in upto(u64(FLUSH_LIMIT)):
        fill_wire(now + PARTIAL_NS)
        if ring_count(CONSOLE.wire) == 0 and CONSOLE.run_left == 0:
            return
        send()
