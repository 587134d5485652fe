"""Boxes that use their devices at random: what each script is about is its name."""

from __future__ import annotations

from collections.abc import Callable

from dsl.hw import vmx
from tests.model.processor import TSC_HZ
from tests.model.random_source import (
    CLOCK,
    COM1,
    KEYBOARD,
    LOG,
    MICROSECOND,
    PCI,
    PIC1,
    PIC2,
    PIT,
    REASON,
    SPEAKER,
    Source,
    far_ahead,
    hypercall,
    ins,
    outs,
    pics_ready,
    quickly,
)
from tests.model.vmx_operation import Exit, Guest, Script


def uart(guest: Guest, source: Source) -> Script:
    """The serial port: registers, FIFOs, input that is read late, a ring that fills, interrupts."""
    registers = [COM1 + offset for offset in (0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7)]
    yield from pics_ready(source)
    for round_number in range(6):
        yield from outs(
            source, (COM1 + 3, 0x83), (COM1, source.byte()), (COM1 + 1, source.choice((0, 1))), (COM1 + 3, 3)
        )
        yield from outs(
            source,
            (COM1 + 2, source.choice((0x00, 0x01, 0x41, 0x81, 0xC7, 0xC1))),
            (COM1 + 4, source.choice((8, 0x0B, 0x18, 0x1B, 0))),
        )
        yield from outs(source, (COM1 + 1, source.choice((0, 1, 2, 3, 5, 7, 0xF, 0xFF))))
        guest.machine.ports.typed += source.randbytes(source.choice((1, 3, 13, 14, 20, 40)))
        yield source.pause(12_000)
        for _ in range(25):
            step = source.randrange(12)
            if step < 8:
                yield source.io(source.choice(registers), source.random() < 0.6, source.byte())
            elif step == 8:
                yield source.window()
            elif step == 9:
                yield source.pause(source.choice((50, 400, 5000)))
            elif step == 10 and round_number > 2:
                yield from source.halt()
            else:
                yield from (source.io(COM1 + 2, True), source.io(COM1 + 5, True))
        if source.randrange(2):
            yield from outs(source, (PIC1, 0x20))


def uart_full_ring(guest: Guest, source: Source) -> Script:
    """Output that the console cannot take away in time: THRE goes, comes back with room, and asks for an interrupt."""
    yield from pics_ready(source)
    guest.write(0x4000, bytes(source.randrange(32, 127) for _ in range(256)))
    yield from outs(source, (COM1 + 2, 0xC7), (COM1 + 4, 8), (COM1 + 1, source.choice((2, 7))))
    for _ in range(4):
        for _ in range(9):
            yield hypercall(source, LOG, rdi=0x4000, rsi=source.choice((256, 256, 255, 250)))
        for _ in range(30):
            yield from quickly(outs(source, (COM1, 0x41)))
            if source.randrange(4) == 0:
                yield from quickly(ins(source, COM1 + source.choice((2, 5))))
        yield from outs(source, (COM1 + 2, source.choice((1, 5, 0x87))), (COM1 + 1, 0), (COM1 + 1, 2))
        for _ in range(8):
            yield source.io(COM1 + source.choice((2, 5, 2, 5, 1)), True)
            yield source.pause(source.choice((100, 1500, 3000)))
            yield source.window()
        yield from outs(source, (PIC1, 0x20))
    guest.machine.ports.typed += source.randbytes(2300)
    for _ in range(150):  # the port is looked at when it is due: at most 16 bytes at a time
        guest.machine.clock.pass_ticks(1_100 * MICROSECOND)
        yield Exit(REASON.PREEMPTION_TIMER, fields={vmx.GUEST_RFLAGS: 2, vmx.GUEST_INTERRUPTIBILITY: 0})
    for _ in range(40):
        yield source.io(COM1 + source.choice((0, 0, 0, 5, 2)), True)


def line_events(source: Source) -> list[Callable[[], Script]]:
    """What moves the lines that this box has: timer, keyboard, serial port, mouse."""
    return [
        lambda: outs(source, (PIT + 3, 0x30), (PIT, source.choice((1, 20, 200))), (PIT, 0)),
        lambda: outs(source, (PIT + 3, 0x38)),
        lambda: outs(source, (0x64, 0x60), (0x60, source.choice((0x47, 0x45, 0x46, 0x44, 0x57)))),
        lambda: outs(source, (0x64, 0xD2), (0x60, source.byte())),
        lambda: outs(source, (0x64, 0xD3), (0x60, source.byte())),
        lambda: ins(source, KEYBOARD),
        lambda: outs(source, (COM1 + 4, 8), (COM1 + 1, 0), (COM1 + 1, 2)),
        lambda: ins(source, COM1 + 2),
    ]


def pic(guest: Guest, source: Source) -> Script:
    """The interrupt controllers in all their modes, with lines that rise and fall."""
    events = line_events(source)
    for _ in range(7):
        if source.randrange(3):
            yield from pics_ready(source, source.choice((1, 1, 0x11, 0x11, 0x03, 0x13, 0x0D)))
        else:
            for chip in (PIC1, PIC2):
                first = source.choice((0x10, 0x11, 0x12, 0x13, 0x18, 0x19))
                rows = [(chip, first), *((chip + 1, source.byte()) for _ in range(source.choice((1, 2, 3, 3))))]
                yield from outs(source, *rows)
        for _ in range(34):
            chip = source.choice((PIC1, PIC1, PIC2))
            step = source.randrange(10)
            if step < 3:
                yield from source.choice(events)()
            elif step < 5:
                command = source.choice(
                    (
                        0x20,
                        0xA0,
                        0x60 | source.randrange(8),
                        0xE0 | source.randrange(8),
                        0xC0 | source.randrange(8),
                        0x80,
                        0x00,
                        0x40,
                    )
                )
                yield from outs(source, (chip, command))
            elif step == 5:
                yield from outs(source, (chip, source.choice((0x0A, 0x0B, 0x0C, 0x0E, 0x68, 0x48, 0x6F))))
            elif step == 6:
                mask = source.choice((0, 0, 0xFB, 0x02, 0xEC, 0x11, source.byte()))
                yield source.io(chip + 1, False, mask)
            elif step == 7:
                yield source.io(source.choice((chip, chip, chip + 1, 0x4D0, 0x4D1)), True)
            elif step == 8:
                yield source.window()
            else:
                yield from outs(source, (source.choice((0x4D0, 0x4D1)), source.byte()))


def pit(guest: Guest, source: Source) -> Script:
    """The timer's channels in all modes and ways to be read, the speaker's gate, ticks that interrupt."""
    yield from pics_ready(source)
    for round_number in range(45):
        channel, mode, access = source.choice((0, 0, 1, 2, 2)), source.randrange(8), source.choice((1, 2, 3, 3))
        yield source.io(PIT + 3, False, channel << 6 | access << 4 | mode << 1 | source.choice((0, 0, 1)))
        count = source.choice((source.getrandbits(16), 0, 1, 2, 3, 0x10, 0x4A9, 0xFFFF))
        if channel == 0 and mode & 2:  # not a tick every microsecond
            count |= 0xF0F0
        for _ in range(source.choice((1, 2, 2, 2, 3)) if access == 3 else 1):
            yield source.io(PIT + channel, False, count & 0xFF)
            count >>= 8
        for _ in range(source.randrange(7)):
            step = source.randrange(8)
            if step == 0:
                yield source.io(PIT + 3, False, 0xC0 | source.getrandbits(6))  # read-back
            elif step == 1:
                yield source.io(PIT + 3, False, source.choice((0, 1, 2)) << 6)
            elif step < 5:
                yield source.io(PIT + source.randrange(4), True)
            elif step == 5:
                yield source.io(SPEAKER, bool(source.randrange(2)), source.choice((0, 1, 2, 3, 0xFF)))
            elif step == 6:
                yield source.pause(source.choice((1, 20, 300, 2000)))
            else:
                yield source.window()
        if round_number in (20, 33):
            far_ahead(guest, source)
        if source.randrange(3) == 0:
            yield from outs(source, (PIC1, 0x20))


def rtc(guest: Guest, source: Source) -> Script:
    """The clock and its memory, on dates up to centuries from now, in all formats."""
    for round_number in range(60):
        register = source.choice(
            (0, 2, 4, 6, 7, 8, 9, 0x32, 1, 3, 5, 0xA, 0xB, 0xC, 0xD, 0xE, 0x7F, source.getrandbits(8))
        )
        yield source.io(CLOCK, False, register)
        for _ in range(source.randrange(3)):
            yield source.io(CLOCK + 1, False, source.byte())
        yield source.io(CLOCK + 1, True)
        yield source.io(CLOCK, True, width=source.choice((1, 2)))
        if round_number % 3 == 0:
            yield from outs(source, (CLOCK, 0x0B), (CLOCK + 1, source.choice((0, 2, 4, 6, 0xFF))))
            guest.machine.clock.pass_ticks(source.choice((86_400, 86_400 * 31, 3600 * 5, 86_400 * 365 * 4)) * TSC_HZ)
            for shown in (4, 6, 7, 8, 9, 0x32):
                yield source.io(CLOCK, False, shown)
                yield source.io(CLOCK + 1, True)
        if round_number % 5 == 0:
            guest.machine.clock.pass_ticks(
                TSC_HZ - guest.machine.clock.ticks % TSC_HZ - source.choice((100_000, 300_000))
            )
            yield from outs(source, (CLOCK, 0x0A))
            for _ in range(6):
                yield source.io(CLOCK + 1, True)


def i8042(guest: Guest, source: Source) -> Script:
    """The keyboard controller's commands, but those that ask for a reset."""
    commands = [
        0x20,
        0x60,
        0xA7,
        0xA8,
        0xA9,
        0xAA,
        0xAB,
        0xAD,
        0xAE,
        0xC0,
        0xD0,
        0xD1,
        0xD2,
        0xD3,
        0xD4,
        0xDD,
        0xDF,
        0xF1,
        0xFF,
        0xE3,
        0x00,
    ]
    yield from pics_ready(source)
    for _ in range(110):
        command = source.choice(commands)
        yield source.io(0x64, False, command)
        if source.randrange(3) and (command in (0x60, 0xD1, 0xD2, 0xD3, 0xD4) or source.randrange(2)):
            yield source.io(KEYBOARD, False, source.byte() | (command == 0xD1))
        if source.randrange(2):
            yield source.io(0x64, True)
        if source.randrange(3) == 0:
            yield source.io(KEYBOARD, True)
        if source.randrange(4) == 0:
            yield source.window()
            yield from outs(source, (PIC2, 0x20), (PIC1, 0x20))


def board(guest: Guest, source: Source) -> Script:
    """All ports in all widths, over the edges of the devices: what reads and writes must not ask for a reset."""
    edges = [
        first + offset
        for first in (0x20, 0x21, 0x40, 0x43, 0x61, 0x71, 0xA1, 0x3F8, 0x3FF, 0x4D0, 0x4D1)
        for offset in (-3, -1, 0, 1, 2)
    ]
    for number in range(170):
        if number % 10 == 0:
            yield source.io(PCI, bool(source.randrange(2)), source.getrandbits(32), 4)
            yield source.io(PCI + source.choice((-3, 0, 3, 4, 5, 7, 8)), True, 0, source.choice((1, 2, 4)))
            yield source.io(PCI + 1, False, source.getrandbits(8) & ~4)
            yield source.io(PCI + source.choice((2, 4, 8)), False, source.getrandbits(32), source.choice((1, 2, 4)))
        port = source.choice((source.choice(edges), source.getrandbits(16), source.randrange(0x100)))
        is_in = bool(source.randrange(2)) or any(place in range(port, port + 4) for place in (0x60, 0x64, PCI, PCI + 1))
        yield source.io(port, is_in, source.getrandbits(32), source.choice((1, 2, 4)))
        if number % 50 == 49:
            far_ahead(guest, source)
