"""The console: all boxes and the monitor on the one serial line (docs/formats.md, "Console").

Every box has a ring for each direction in its board; the monitor has one here. `console_poll` turns what waits in them into lines on the
`wire` ring, gives the serial port what its FIFO takes, and hands input to the box in focus. Nothing here waits for the port, but
`console_flush`, which is for the end of the machine.

    box rings, monitor ring -> runs (a line, or a part that is old or long enough) -> prefix, escapes -> wire -> 16550

A run is written as a whole before another box's begins. What a box can do to the screen: print, go back over its own text on the same
line, begin the next line. So it can forge neither another's prefix nor the monitor's.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Ref, Struct, array, machine, minimum, static, text, u8, u64, upto
from dsl.lang.intrinsics import out8
from dsl.std.print import (
    DIGITS,
    Line,
    append_byte,
    append_decimal,
    append_hexadecimal,
    append_padded_text,
    append_text,
    line_bytes,
)
from dsl.std.serial import DATA, serial_can_receive, serial_can_send, serial_receive, serial_start
from vmm.devices.ring import RING_SIZE, ByteRing, ring_count, ring_peek, ring_push, ring_room, ring_take

BOX_LIMIT: Final = 16
MONITOR: Final = BOX_LIMIT  # the monitor's channel
CHANNEL_LIMIT: Final = BOX_LIMIT + 1
NOBODY: Final = CHANNEL_LIMIT
NAME_LIMIT: Final = 32  # bytes

LINE_LIMIT: Final = 200  # columns of text; a longer line is cut
PARTIAL_NS: Final = 50_000_000  # a line without an end is shown after this time
BUSY_POLL_NS: Final = 1_000_000  # a FIFO of 16 characters drains in 1.4 ms
IDLE_POLL_NS: Final = 10_000_000  # keys arrive no faster
WIRE_RESERVE: Final = 64  # one byte of a box may become: line end, prefix (34), escape (4)
NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF

ATTENTION: Final = 0x01  # Ctrl-A
BACKSPACE: Final = 0x08
TAB: Final = 0x09
NEWLINE: Final = 0x0A
RETURN: Final = 0x0D
TAB_COLUMNS: Final = 8

FIFO_SIZE: Final = 16
FLUSH_LIMIT: Final = 4_000_000  # looks at the port, in console_flush: more than the rings need at 115200 baud


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
    for position in upto(words.length):
        _ = ring_push(output, words[position])
    return True


# From the rings to the wire


@machine
def put(value: u8) -> None:
    """Add a byte to the wire; the caller has seen to the room."""
    _ = ring_push(CONSOLE.wire, value)


@machine
def end_wire_line() -> None:
    """End the line on the wire."""
    put(u8(RETURN))
    put(u8(NEWLINE))
    CONSOLE.open_channel = u64(NOBODY)


@machine
def put_prefix(channel: Channel) -> None:
    """Begin a line on the wire: `name| `, or `name+ ` when the channel's own line goes on."""
    for index in upto(channel.name_size):
        put(channel.name[index])
    put(u8(0x2B) if channel.in_line else u8(0x7C))
    put(u8(0x20))
    channel.column = u64(0)
    channel.width = u64(0)


@machine
def make_place(channel: Channel, columns: u64) -> None:
    """See to it that the cursor stands on the line of the running channel, with room for `columns`."""
    own = CONSOLE.open_channel == CONSOLE.run_channel
    if own and channel.width + columns <= LINE_LIMIT:
        return
    if CONSOLE.open_channel != NOBODY:
        end_wire_line()
    put_prefix(channel)
    channel.in_line = True
    CONSOLE.open_channel = CONSOLE.run_channel


@machine
def put_shown(channel: Channel, value: u8, columns: u64) -> None:
    """Print a byte that takes 1 to `columns` columns."""
    make_place(channel, columns)
    put(value)
    channel.column += 1
    channel.width += columns


@machine
def put_escaped(channel: Channel, value: u8) -> None:
    """Print a byte as \\xNN."""
    make_place(channel, u64(4))
    put(u8(0x5C))
    put(u8(0x78))
    put(DIGITS[value >> 4])
    put(DIGITS[value & 15])
    channel.column += 4
    channel.width += 4


@machine
def put_backspace(channel: Channel) -> None:
    """Go back one column; where that would leave the channel's own text, print the byte escaped."""
    if CONSOLE.open_channel != CONSOLE.run_channel or channel.column == 0:
        put_escaped(channel, u8(BACKSPACE))
        return
    put(u8(BACKSPACE))
    channel.column -= 1
    channel.width -= 1


@machine
def put_newline(channel: Channel) -> None:
    """End the channel's line."""
    make_place(channel, u64(0))
    end_wire_line()
    channel.in_line = False


@machine
def put_byte(channel: Channel, value: u8) -> None:
    """Bring one byte of a channel to the wire. CRs before a newline are dropped, others are escaped."""
    if value == RETURN:
        channel.return_pending = True
        return
    if channel.return_pending and value != NEWLINE:
        put_escaped(channel, u8(RETURN))
    channel.return_pending = False
    if value == NEWLINE:
        put_newline(channel)
    elif value == TAB:
        put_shown(channel, value, u64(TAB_COLUMNS))
    elif value == BACKSPACE:
        put_backspace(channel)
    elif value >= 0x20 and value < 0x7F:
        put_shown(channel, value, u64(1))
    else:
        put_escaped(channel, value)


@machine
def ready_bytes(index: u64, now: u64) -> u64:
    """Return how many bytes of a channel form a run now: up to its first newline, or a line's worth, or what has waited long enough.

    Text that continues the line under the cursor (the echo of a key) does not wait.
    """
    channel = CONSOLE.channels[index]
    output = channel.output
    if output is None:
        return u64(0)
    count = ring_count(output)
    if count == 0:
        return u64(0)
    while channel.scanned < count:
        if ring_peek(output, channel.scanned) == NEWLINE:
            return channel.scanned + 1
        channel.scanned += 1
    if channel.waiting_since == NEVER:
        channel.waiting_since = now
    if count >= LINE_LIMIT or CONSOLE.open_channel == index or now - channel.waiting_since >= PARTIAL_NS:
        return count
    return u64(0)


@machine
def begin_run(now: u64) -> bool:
    """Choose the next channel that has a run, the monitor first, then the boxes in turn; False for none."""
    if start_run_of(u64(MONITOR), now):
        return True
    last = CONSOLE.last_box
    for step in upto(u64(BOX_LIMIT)):
        index = (last + step + 1) & (BOX_LIMIT - 1)
        if start_run_of(index, now):
            CONSOLE.last_box = index
            return True
    return False


@machine
def start_run_of(index: u64, now: u64) -> bool:
    """Begin to write a channel's run, if it has one."""
    ready = ready_bytes(index, now)
    if ready == 0:
        return False
    channel = CONSOLE.channels[index]
    channel.scanned = u64(0)
    channel.waiting_since = u64(NEVER)
    CONSOLE.run_channel = index
    CONSOLE.run_left = ready
    return True


@machine
def continue_run() -> None:
    """Write the run to the wire as far as there is room."""
    channel = CONSOLE.channels[CONSOLE.run_channel]
    output = channel.output
    if output is None:
        CONSOLE.run_left = u64(0)
        return
    while CONSOLE.run_left != 0 and ring_room(CONSOLE.wire) >= WIRE_RESERVE:
        CONSOLE.run_left -= 1
        put_byte(channel, ring_take(output))


@machine
def report_lost() -> None:
    """Say how much of the monitor's output was lost, once there is room again."""
    if CONSOLE.lost == 0 or ring_count(CONSOLE.monitor) > RING_SIZE // 2:
        return
    line = Line()
    append_decimal(line, CONSOLE.lost)
    append_text(line, text(" bytes of the monitor's output were lost here"))
    CONSOLE.lost = u64(0)
    console_newline()
    console_line(line_bytes(line))


@machine
def fill_wire(now: u64) -> None:
    """Bring runs to the wire until none is ready or the wire is full. Bounded: the wire's ring is what is left to fill."""
    report_lost()
    while ring_room(CONSOLE.wire) >= WIRE_RESERVE:
        if CONSOLE.run_left == 0 and not begin_run(now):
            return
        continue_run()


# The wire and the port


@machine
def send() -> None:
    """Give the port what its FIFO takes; without a port, throw the wire's bytes away."""
    if not CONSOLE.present:
        CONSOLE.wire.taken = CONSOLE.wire.written
        return
    if ring_count(CONSOLE.wire) == 0 or not serial_can_send():
        return
    for _ in upto(minimum(ring_count(CONSOLE.wire), u64(FIFO_SIZE))):
        out8(DATA, ring_take(CONSOLE.wire))


@machine
def receive() -> None:
    """Take what the port has received, at most a FIFO."""
    if not CONSOLE.present:
        return
    for _ in upto(u64(FIFO_SIZE)):
        if not serial_can_receive():
            return
        console_input(serial_receive())


# Input


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


# What the monitor calls


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
