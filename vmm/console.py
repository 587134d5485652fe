"""The console: all boxes and the monitor on the one serial line (docs/formats.md, "Console"). Here: its state, and what the monitor says.

Every box has a ring for each direction in its board; the monitor has one here. vmm.console_wire turns what waits in them into lines on the
`wire` ring; vmm.console_port gives the serial port what its FIFO takes, and hands input to the box in focus.

    box rings, monitor ring -> runs (a line, or a part that is old or long enough) -> prefix, escapes -> wire -> 16550

A run is written as a whole before another box's begins. What a box can do to the screen: print, go back over its own text on the same
line, begin the next line. So it can forge neither another's prefix nor the monitor's.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Ref, Struct, array, machine, minimum, static, text, u8, u64, upto
from dsl.std.print import (
    Line,
    append_decimal,
    append_hexadecimal,
    line_bytes,
)
from dsl.std.serial import serial_start
from vmm.devices.ring import RING_SIZE, ByteRing, ring_push, ring_room

BOX_LIMIT: Final = 16
MONITOR: Final = BOX_LIMIT  # the monitor's channel
CHANNEL_LIMIT: Final = BOX_LIMIT + 1
NOBODY: Final = CHANNEL_LIMIT
NAME_LIMIT: Final = 32  # bytes

NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF

NEWLINE: Final = 0x0A


class Channel(Struct):
    """One source of lines."""

    output: Ref[ByteRing] | None
    input: Ref[ByteRing] | None
    name_size: u64
    scanned: u64  # bytes at the head of `output` that hold no newline
    waiting_since: u64  # ns: when they were first seen; NEVER for none
    column: u64  # at most that many backspaces stay within the channel's own text
    width: u64  # at least that many columns are used on the current line
    in_line: bool  # its line has begun and not ended
    return_pending: bool  # a CR was taken and not yet decided about
    reserved: Array[u8] = array(6)
    name: Array[u8] = array(NAME_LIMIT)


class Console(Struct):
    """All state of the console. One CPU at a time."""

    open_channel: u64  # whose unfinished line the cursor stands on, or NOBODY
    run_channel: u64  # whose run is being written
    run_left: u64  # bytes of it still in the ring
    last_box: u64  # the box that had the last run
    focus: u64  # the box that gets the input
    lost: u64  # bytes of the monitor's that found no room
    present: bool  # there is a serial port
    attention: bool  # the last byte of input was the attention
    reserved: Array[u8] = array(6)
    monitor: ByteRing
    wire: ByteRing
    channels: Array[Channel] = array(CHANNEL_LIMIT)


CONSOLE: Final = static(Console)


# Setting up


@machine
def console_initialize() -> None:
    """Set the serial port to 115200 8N1 with FIFOs and no interrupts, and forget all boxes. Without a port, output is thrown away."""
    CONSOLE.clear()
    CONSOLE.open_channel = u64(NOBODY)
    CONSOLE.present = serial_start()
    attach(u64(MONITOR), text("terrane"), CONSOLE.monitor, None)


@machine
def console_attach(index: u64, name: Array[u8], output: ByteRing, incoming: ByteRing) -> None:
    """Give box `index` (below BOX_LIMIT, in image order) its name (at most 32 bytes, zero padded or not) and its rings."""
    assert index < BOX_LIMIT, "the console has 16 boxes"
    attach(index, name, output, incoming)


@machine
def attach(index: u64, name: Array[u8], output: ByteRing, incoming: ByteRing | None) -> None:
    """Fill in a channel."""
    channel = CONSOLE.channels[index]
    channel.clear()
    channel.output = output
    channel.input = incoming
    channel.waiting_since = u64(NEVER)
    size = u64(0)
    while size < minimum(name.length, u64(NAME_LIMIT)) and name[size] != 0:
        channel.name[size] = name[size]
        size += 1
    channel.name_size = size


# The monitor's own words


@machine
def console_byte(value: u8) -> None:
    """Say one byte as the monitor. What finds no room is counted and reported later: the monitor never waits for the port."""
    if CONSOLE.lost != 0 or not ring_push(CONSOLE.monitor, value):
        CONSOLE.lost += 1


@machine
def console_text(words: Array[u8]) -> None:
    """Say a text as the monitor; the line goes on."""
    for index in upto(words.length):
        console_byte(words[index])


@machine
def console_padded(words: Array[u8]) -> None:
    """Say a zero-padded text as the monitor, without its padding."""
    size = u64(0)
    while size < words.length and words[size] != 0:
        size += 1
    console_text(words.slice(u64(0), size))


@machine
def console_newline() -> None:
    """End the monitor's line."""
    console_byte(u8(NEWLINE))


@machine
def console_line(words: Array[u8]) -> None:
    """Say a text as the monitor and end the line."""
    console_text(words)
    console_newline()


@machine
def console_hex(value: u64) -> None:
    """Say a number as 0x and 16 hexadecimal digits."""
    line = Line()
    append_hexadecimal(line, value)
    console_text(line_bytes(line))


@machine
def console_decimal(value: u64) -> None:
    """Say a number in decimal."""
    line = Line()
    append_decimal(line, value)
    console_text(line_bytes(line))


@machine
def console_box_text(index: u64, words: Array[u8]) -> bool:
    """Add a text to the output of box `index`: all of it, or nothing and False when its ring lacks the room."""
    output = CONSOLE.channels[index].output
    if output is None:
        return False
    if ring_room(output) < words.length:
        return False
    for position in upto(words.length, at_most=RING_SIZE):
        _ = ring_push(output, words[position])
    return True
