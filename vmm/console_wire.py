"""From the rings to the wire: which channel's text comes next, its prefix, its escapes (docs/formats.md, "Console")."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, text, u8, u64, upto
from dsl.std.print import DIGITS, Line, append_decimal, append_text, line_bytes
from vmm.console import BOX_LIMIT, CONSOLE, MONITOR, NEVER, NEWLINE, NOBODY, Channel, console_line, console_newline
from vmm.devices.ring import RING_SIZE, ring_count, ring_peek, ring_push, ring_room, ring_take

LINE_LIMIT: Final = 200  # columns of text; a longer line is cut
PARTIAL_NS: Final = 50_000_000  # a line without an end is shown after this time
WIRE_RESERVE: Final = 64  # one byte of a box may become: line end, prefix (34), escape (4)
BACKSPACE: Final = 0x08
TAB: Final = 0x09
RETURN: Final = 0x0D
TAB_COLUMNS: Final = 8


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
