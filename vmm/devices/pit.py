"""The 8254 interval timer and port 61h (Intel 8254 data sheet; 82371AB for the port). Channel 0 is the tick, channel 2 the speaker's.

Nothing counts here: a channel remembers the tick at which it was loaded, and every answer is computed from the ticks since. Modes 0, 2, 3
and 4 work; 1 and 5, which need a gate edge, are accepted and never fire. Counting is binary; the BCD bit is kept for the status byte and
has no other effect. Ticks that nobody looked at in time are not made up for: one edge stands for all of them.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, machine, multiply_wide, u8, u16, u64, upto

FREQUENCY: Final = 1_193_182  # Hz
NANOSECONDS: Final = 1_000_000_000
TICKS_PER_NS: Final = (FREQUENCY << 64) // NANOSECONDS  # as a 0.64 fixed-point number
NS_PER_TICK_SHIFT: Final = 54
NS_PER_TICK: Final = (NANOSECONDS << NS_PER_TICK_SHIFT) // FREQUENCY + 1  # 10.54 fixed point, rounded up
NS_OF_TICK: Final = NANOSECONDS // FREQUENCY + 1
NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF
CHANNELS: Final = 3
SPEAKER: Final = 2

ACCESS_LOW: Final = 1
ACCESS_HIGH: Final = 2
ACCESS_BOTH: Final = 3

MODE_TERMINAL_COUNT: Final = 0
MODE_RATE: Final = 2
MODE_SQUARE: Final = 3
MODE_STROBE: Final = 4

STATUS_OUT: Final = 0x80
STATUS_NULL_COUNT: Final = 0x40


class PitChannel(Struct):
    """One counter. Ticks are those of `ticks_at`."""

    start: u64  # tick at which the count was loaded
    held: u64  # ticks that had passed when the gate closed
    count: u64  # 1 to 65536
    next_edge: u64  # tick of the next rising edge of OUT; NEVER for none
    latched: u16
    latched_bytes: u8  # how many bytes of `latched` are still to be read
    latched_status: u8
    low_byte: u8  # written first, waits for its high byte
    access: u8  # ACCESS_...
    mode: u8
    bcd: bool
    gate: bool
    loaded: bool  # a count was written since the control word
    status_latched: bool
    high_next: bool  # the next byte read, in two-byte access, is the high one
    high_written_next: bool  # the same for writes
    mode_written: u8  # the status byte shows 6 and 7 as they were written
    reserved: u16


class Pit(Struct):
    """The three counters; port 61h bits 1:0 are the speaker's."""

    channels: Array[PitChannel] = array(CHANNELS)
    speaker: u8
    reserved: Array[u8] = array(7)


@machine
def ticks_at(now: u64) -> u64:
    """Return the timer ticks in `now` ns, rounded down: monotonic, never more than one tick off, over all of u64."""
    return multiply_wide(now, u64(TICKS_PER_NS)).high


@machine
def time_of_tick(tick: u64) -> u64:
    """Return a time in ns at which `tick` has been reached, less than a tick after the first such; NEVER for NEVER."""
    if tick >= (1 << NS_PER_TICK_SHIFT):
        return u64(NEVER)
    product = multiply_wide(tick, u64(NS_PER_TICK))
    time = (product.high << (64 - NS_PER_TICK_SHIFT)) + (product.low >> NS_PER_TICK_SHIFT) + 1
    return time if ticks_at(time) >= tick else time + NS_OF_TICK  # ticks_at may be one less than exact


@machine
def pit_reset(pit: Pit, now: u64) -> None:
    """Put the timer into the state that firmware leaves: all in mode 3 at 18.2 Hz, the speaker's gate closed."""
    pit.clear()
    for index in upto(u64(CHANNELS)):
        channel = pit.channels[index]
        channel.mode = u8(MODE_SQUARE)
        channel.mode_written = u8(MODE_SQUARE)
        channel.access = u8(ACCESS_BOTH)
        channel.gate = index != SPEAKER
        load(channel, u16(0), ticks_at(now))


@machine
def elapsed(channel: PitChannel, tick: u64) -> u64:
    """Return the ticks that the channel has counted since its load."""
    return tick - channel.start if channel.gate else channel.held


@machine
def is_periodic(channel: PitChannel) -> bool:
    """Tell whether the mode reloads the count by itself."""
    return channel.mode == MODE_RATE or channel.mode == MODE_SQUARE


@machine
def schedule(channel: PitChannel, tick: u64) -> None:
    """Work out the first rising edge of OUT after `tick`."""
    channel.next_edge = u64(NEVER)
    if not channel.loaded or not channel.gate:
        return
    passed = tick - channel.start
    if is_periodic(channel):
        channel.next_edge = channel.start + (passed // channel.count + 1) * channel.count
    elif channel.mode == MODE_TERMINAL_COUNT and passed < channel.count:
        channel.next_edge = channel.start + channel.count
    elif channel.mode == MODE_STROBE and passed <= channel.count:
        channel.next_edge = channel.start + channel.count + 1  # OUT is low for the one tick before


@machine
def load(channel: PitChannel, value: u16, tick: u64) -> None:
    """Start counting from `value`; 0 means 65536."""
    channel.count = u64(65536) if value == 0 else u64(value)
    channel.start = tick
    channel.held = u64(0)
    channel.loaded = True
    schedule(channel, tick)


@machine
def current_count(channel: PitChannel, tick: u64) -> u16:
    """Return what the counting element holds."""
    passed = elapsed(channel, tick)
    if channel.mode == MODE_SQUARE:
        return (channel.count - (passed * 2) % channel.count).truncate(u16)
    if channel.mode == MODE_RATE:
        return (channel.count - passed % channel.count).truncate(u16)
    return (channel.count - passed).truncate(u16)


@machine
def output(channel: PitChannel, tick: u64) -> bool:
    """Return the level of OUT."""
    if not channel.loaded:
        return channel.mode != MODE_TERMINAL_COUNT
    passed = elapsed(channel, tick)
    if channel.mode == MODE_TERMINAL_COUNT:
        return passed >= channel.count
    if channel.mode == MODE_RATE:
        return not channel.gate or passed % channel.count != channel.count - 1
    if channel.mode == MODE_SQUARE:
        return not channel.gate or passed % channel.count < (channel.count + 1) >> 1
    if channel.mode == MODE_STROBE:
        return passed != channel.count
    return True


@machine
def latch_count(channel: PitChannel, tick: u64) -> None:
    """Hold the count for reading; a count that is already held stays."""
    if channel.latched_bytes != 0:
        return
    channel.latched = current_count(channel, tick)
    channel.latched_bytes = u8(2) if channel.access == ACCESS_BOTH else u8(1)


@machine
def latch_status(channel: PitChannel, tick: u64) -> None:
    """Hold the status byte for reading; one that is already held stays."""
    if channel.status_latched:
        return
    status = (channel.access << 4) | (channel.mode_written << 1) | u8(channel.bcd)
    if output(channel, tick):
        status |= STATUS_OUT
    if not channel.loaded:
        status |= STATUS_NULL_COUNT
    channel.latched_status = status
    channel.status_latched = True


@machine
def read_back(pit: Pit, command: u8, tick: u64) -> None:
    """The read-back command: bits 3:1 choose channels; bit 5 clear holds counts, bit 4 clear holds status."""
    for index in upto(u64(CHANNELS)):
        channel = pit.channels[index]
        if (command >> (index + 1)) & 1 != 0:
            if command & 0x20 == 0:
                latch_count(channel, tick)
            if command & 0x10 == 0:
                latch_status(channel, tick)


@machine
def write_control(pit: Pit, word: u8, tick: u64) -> None:
    """Write port 43h: read-back, a count latch, or a channel's access, mode and counting."""
    selected = u64(word >> 6)
    if selected >= CHANNELS:
        read_back(pit, word, tick)
        return
    channel = pit.channels[selected]
    access = (word >> 4) & 3
    if access == 0:
        latch_count(channel, tick)
        return
    mode = (word >> 1) & 7
    channel.access = access
    channel.mode = mode & 3 if mode >= 6 else mode  # bit 2 does not count in modes 2 and 3
    channel.mode_written = mode
    channel.bcd = word & 1 != 0
    channel.held = elapsed(channel, tick)
    channel.loaded = False
    channel.latched_bytes = u8(0)
    channel.status_latched = False
    channel.high_next = False
    channel.high_written_next = False
    channel.next_edge = u64(NEVER)


@machine
def write_count(channel: PitChannel, value: u8, tick: u64) -> None:
    """Write a byte of the count; the last byte that the access mode asks for loads it."""
    if channel.access == ACCESS_LOW:
        load(channel, u16(value), tick)
    elif channel.access == ACCESS_HIGH:
        load(channel, u16(value) << 8, tick)
    elif channel.high_written_next:
        channel.high_written_next = False
        load(channel, (u16(value) << 8) | u16(channel.low_byte), tick)
    else:
        channel.low_byte = value
        channel.high_written_next = True


@machine
def read_latched(channel: PitChannel) -> u8:
    """Return the next byte of the held count."""
    channel.latched_bytes -= 1
    high = channel.access == ACCESS_HIGH or (channel.access == ACCESS_BOTH and channel.latched_bytes == 0)
    return (channel.latched >> 8).truncate(u8) if high else channel.latched.truncate(u8)


@machine
def read_count(channel: PitChannel, tick: u64) -> u8:
    """Read a channel's port: held status first, then a held count, then the count as it runs."""
    if channel.status_latched:
        channel.status_latched = False
        return channel.latched_status
    if channel.latched_bytes != 0:
        return read_latched(channel)
    count = current_count(channel, tick)
    high = channel.access == ACCESS_HIGH or channel.high_next
    if channel.access == ACCESS_BOTH:
        channel.high_next = not channel.high_next
    return (count >> 8).truncate(u8) if high else count.truncate(u8)


@machine
def pit_read(pit: Pit, offset: u16, now: u64) -> u8:
    """Read port 40h + offset (0 to 3); the control port cannot be read and answers all ones."""
    if offset >= CHANNELS:
        return u8(0xFF)
    return read_count(pit.channels[offset], ticks_at(now))


@machine
def pit_write(pit: Pit, offset: u16, value: u8, now: u64) -> None:
    """Write port 40h + offset (0 to 3)."""
    if offset >= CHANNELS:
        write_control(pit, value, ticks_at(now))
    else:
        write_count(pit.channels[offset], value, ticks_at(now))


@machine
def set_gate(channel: PitChannel, gate: bool, tick: u64) -> None:
    """Open or close a channel's gate: modes 0 and 4 go on where they stopped, 2 and 3 start over."""
    if gate == channel.gate:
        return
    if gate:
        channel.start = tick if is_periodic(channel) else tick - channel.held
    else:
        channel.held = tick - channel.start
    channel.gate = gate
    schedule(channel, tick)


@machine
def speaker_read(pit: Pit, now: u64) -> u8:
    """Read port 61h: gate and speaker bits as written, bit 4 toggling about every 16 us (refresh), bit 5 OUT of channel 2."""
    refresh = ((now >> 14) & 1).truncate(u8) << 4
    out = u8(output(pit.channels[SPEAKER], ticks_at(now))) << 5
    return pit.speaker | refresh | out


@machine
def speaker_write(pit: Pit, value: u8, now: u64) -> None:
    """Write port 61h: bit 0 is the gate of channel 2, bit 1 the speaker's switch."""
    pit.speaker = value & 3
    set_gate(pit.channels[SPEAKER], value & 1 != 0, ticks_at(now))


@machine
def pit_take_edge(pit: Pit, now: u64) -> bool:
    """Tell whether OUT of channel 0 rose since the last call, and look ahead to the next time."""
    channel = pit.channels[0]
    tick = ticks_at(now)
    if channel.next_edge > tick:
        return False
    schedule(channel, tick)
    return True


@machine
def pit_deadline(pit: Pit) -> u64:
    """Return when channel 0 rises next, in ns; NEVER for never."""
    return time_of_tick(pit.channels[0].next_edge)
