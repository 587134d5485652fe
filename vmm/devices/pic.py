"""The pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet; ELCR as in the 82371AB).

A request that was latched stays so when an edge-triggered line falls again before the acknowledge: an interrupt is never turned into a
spurious one that way. (The data sheet asks devices to hold the line; other virtual machines latch too.)
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Struct,
    array,
    count_trailing_zeros,
    machine,
    rotate_right,
    shift_left_wrapping,
    u8,
    u16,
    u64,
)

CASCADE: Final = 2  # the master's input that the slave drives
SPURIOUS: Final = 7  # what is acknowledged when nothing asks any more
NO_REQUEST: Final = 8

ICW1: Final = 0x10
ICW1_NEEDS_ICW4: Final = 0x01
ICW1_SINGLE: Final = 0x02
OCW3: Final = 0x08
OCW3_POLL: Final = 0x04
OCW3_SELECT: Final = 0x02
OCW3_MASK_SELECT: Final = 0x40

# Which initialization word the data port expects next; 0: none, it is the mask
EXPECT_MASK: Final = 0
EXPECT_ICW2: Final = 1
EXPECT_ICW3: Final = 2
EXPECT_ICW4: Final = 3

ELCR_MASTER: Final = 0xF8  # lines 0, 1 and 2 are always edge-triggered
ELCR_SLAVE: Final = 0xDE  # and so are 8 and 13


class PicChip(Struct):
    """One 8259A."""

    requests: u8  # IRR
    in_service: u8  # ISR
    mask: u8  # IMR
    lines: u8  # levels last seen
    level_triggered: u8  # ELCR: one bit a line
    vector_base: u8
    first_priority: u8  # the line of the highest priority
    expected: u8  # EXPECT_...
    needs_icw4: bool
    single: bool
    automatic_end: bool
    rotate_on_automatic_end: bool
    special_mask: bool
    special_nested: bool
    reads_in_service: bool
    polled: bool


class Pic(Struct):
    """Both chips: 0 the master, 1 the slave on its line 2."""

    chips: Array[PicChip] = array(2)


@machine
def pic_reset(pic: Pic) -> None:
    """Put both chips into the state that firmware leaves to a kernel that will initialize them: no request, all masked."""
    pic.chips[0].clear()
    pic.chips[1].clear()
    pic.chips[0].mask = u8(0xFF)
    pic.chips[1].mask = u8(0xFF)


@machine
def highest(chip: PicChip, lines: u8) -> u8:
    """Return the place in the priority order (0 first) of the first line in `lines`; NO_REQUEST for none."""
    return count_trailing_zeros(rotate_right(lines, chip.first_priority))


@machine
def request(chip: PicChip) -> u8:
    """Return the line to be served now, or NO_REQUEST."""
    wanted = chip.requests & ~chip.mask
    if wanted == 0:
        return u8(NO_REQUEST)
    asking = highest(chip, wanted)
    blocking = chip.in_service
    if chip.special_mask:
        blocking &= ~chip.mask
    if chip.special_nested:
        blocking &= ~u8(1 << CASCADE)
    if asking >= highest(chip, blocking):
        return u8(NO_REQUEST)
    return (asking + chip.first_priority) & 7


@machine
def drive(chip: PicChip, bit: u8, level: bool) -> None:
    """Set the level of one input line, given as its mask."""
    if level:
        chip.requests |= bit & (chip.level_triggered | ~chip.lines)
        chip.lines |= bit
    else:
        chip.requests &= ~(bit & chip.level_triggered)
        chip.lines &= ~bit


@machine
def shifted_bit(line: u8) -> u8:
    """Return the mask of a line on its chip: only bits 2:0 count."""
    return shift_left_wrapping(u8(1), line)


@machine
def cascade(pic: Pic) -> None:
    """Bring the slave's output to the master's line 2."""
    drive(pic.chips[0], u8(1 << CASCADE), request(pic.chips[1]) != NO_REQUEST)


@machine
def pic_set_line(pic: Pic, line: u8, level: bool) -> None:
    """Set the level of interrupt line 0 to 15. An edge-triggered line that stays as it was changes nothing, and most calls are that."""
    chip = pic.chips[u64(line >> 3) & 1]
    bit = shifted_bit(line)
    if chip.level_triggered & bit == 0 and (chip.lines & bit != 0) == level:
        return
    drive(chip, bit, level)
    cascade(pic)


@machine
def pic_pulse(pic: Pic, line: u8) -> None:
    """Let a line fall and rise: one edge, whatever it was."""
    pic_set_line(pic, line, False)
    pic_set_line(pic, line, True)


@machine
def pic_pending(pic: Pic) -> bool:
    """Return the level of the INTR output."""
    return request(pic.chips[0]) != NO_REQUEST


@machine
def accept(chip: PicChip, line: u8) -> None:
    """Move a line from requested to in service, or end it at once where that is automatic."""
    bit = shifted_bit(line)
    if not chip.automatic_end:
        chip.in_service |= bit
    elif chip.rotate_on_automatic_end:
        chip.first_priority = (line + 1) & 7
    if chip.level_triggered & bit == 0:
        chip.requests &= ~bit


@machine
def acknowledge_chip(chip: PicChip) -> u8:
    """Accept what the chip serves next and return its line: SPURIOUS, and nothing accepted, when there is none."""
    line = request(chip)
    if line == NO_REQUEST:
        return u8(SPURIOUS)
    accept(chip, line)
    return line


@machine
def pic_acknowledge(pic: Pic) -> u8:
    """Answer the CPU's two INTA cycles: accept the request of the highest priority and return its vector."""
    master = pic.chips[0]
    line = acknowledge_chip(master)
    if line != CASCADE:
        return master.vector_base + line
    slave = pic.chips[1]
    vector = slave.vector_base + acknowledge_chip(slave)
    cascade(pic)
    return vector


@machine
def initialize(chip: PicChip, word: u8) -> None:
    """ICW1: start over. Only the trigger modes and the lines that are level-triggered and high survive."""
    trigger_modes = chip.level_triggered
    standing = chip.requests & trigger_modes
    chip.clear()
    chip.level_triggered = trigger_modes
    chip.requests = standing
    chip.expected = u8(EXPECT_ICW2)
    chip.needs_icw4 = word & ICW1_NEEDS_ICW4 != 0
    chip.single = word & ICW1_SINGLE != 0


@machine
def end_of_interrupt(chip: PicChip, command: u8, word: u8) -> None:
    """OCW2 commands 1, 3, 5, 7: end the highest interrupt in service, or the line in bits 2:0 of the word; bit 2 of the command makes it
    the lowest after.
    """
    line = word
    if command & 2 == 0:
        place = highest(chip, chip.in_service)
        if place == NO_REQUEST:
            return
        line = (place + chip.first_priority) & 7
    chip.in_service &= ~shifted_bit(line)
    if command & 4 != 0:
        chip.first_priority = (line + 1) & 7


@machine
def operate(chip: PicChip, word: u8) -> None:
    """OCW2: ends of interrupt and rotation."""
    command = word >> 5
    if command & 1 != 0:
        end_of_interrupt(chip, command, word)
    elif command == 6:
        chip.first_priority = (word + 1) & 7
    elif command != 2:  # 0 and 4; 2 does nothing
        chip.rotate_on_automatic_end = command == 4


@machine
def select(chip: PicChip, word: u8) -> None:
    """OCW3: poll, choice of the register that is read, special mask."""
    if word & OCW3_POLL != 0:
        chip.polled = True
    if word & OCW3_SELECT != 0:
        chip.reads_in_service = word & 1 != 0
    if word & OCW3_MASK_SELECT != 0:
        chip.special_mask = word & 0x20 != 0


@machine
def write_command(chip: PicChip, word: u8) -> None:
    """Write the even port: ICW1, OCW2 or OCW3."""
    if word & ICW1 != 0:
        initialize(chip, word)
    elif word & OCW3 != 0:
        select(chip, word)
    else:
        operate(chip, word)


@machine
def write_data(chip: PicChip, word: u8) -> None:
    """Write the odd port: the initialization word that is due, or else the mask."""
    expected = chip.expected
    if expected == EXPECT_MASK:
        chip.mask = word
        return
    after_icw3 = u8(EXPECT_ICW4) if chip.needs_icw4 else u8(EXPECT_MASK)
    if expected == EXPECT_ICW2:
        chip.vector_base = word & 0xF8
        chip.expected = after_icw3 if chip.single else u8(EXPECT_ICW3)
    elif expected == EXPECT_ICW3:
        chip.expected = after_icw3  # the wiring is a PC's, whatever the word says
    else:
        chip.special_nested = word & 0x10 != 0
        chip.automatic_end = word & 0x02 != 0
        chip.expected = u8(EXPECT_MASK)


@machine
def poll(chip: PicChip) -> u8:
    """Answer a read after a poll command: bit 7 and the line, which is accepted thereby; or zero."""
    chip.polled = False
    line = request(chip)
    if line == NO_REQUEST:
        return u8(0)
    accept(chip, line)
    return line | 0x80


@machine
def pic_read(pic: Pic, slave: bool, offset: u16) -> u8:
    """Read a chip's even (offset 0) or odd port."""
    chip = pic.chips[1] if slave else pic.chips[0]
    if chip.polled:
        answer = poll(chip)
        cascade(pic)
        return answer
    if offset != 0:
        return chip.mask
    return chip.in_service if chip.reads_in_service else chip.requests


@machine
def pic_write(pic: Pic, slave: bool, offset: u16, value: u8) -> None:
    """Write a chip's even (offset 0) or odd port."""
    chip = pic.chips[1] if slave else pic.chips[0]
    if offset != 0:
        write_data(chip, value)
    else:
        write_command(chip, value)
    cascade(pic)


@machine
def elcr_read(pic: Pic, slave: bool) -> u8:
    """Read which lines are level-triggered."""
    return pic.chips[1].level_triggered if slave else pic.chips[0].level_triggered


@machine
def elcr_write(pic: Pic, slave: bool, value: u8) -> None:
    """Choose which lines are level-triggered; those that a PC fixes stay edge-triggered."""
    if slave:
        pic.chips[1].level_triggered = value & ELCR_SLAVE
    else:
        pic.chips[0].level_triggered = value & ELCR_MASTER
