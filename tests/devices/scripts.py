"""Port scripts that both the reference PC and our models run: `record.py` runs them in QEMU, `test_traces.py` on a Board.

A step is ("out", port, value), ("in", port) or ("in", port, mask), the same with "4" for double words,
("inta",): take one
interrupt if there is one, and ("wait", us). A mask leaves out bits that depend on the moment of the read,
or in which the reference
departs from the data sheet; the comment beside it says which.
"""

from __future__ import annotations

from typing import Any, Final

Step = tuple[Any, ...]

COM1: Final = 0x3F8
RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = (COM1 + offset for offset in range(8))
PIC1, PIC1_DATA, PIC2, PIC2_DATA = 0x20, 0x21, 0xA0, 0xA1
PIT0, PIT1, PIT2, PIT_CONTROL, SPEAKER = 0x40, 0x41, 0x42, 0x43, 0x61
NO_COMMAND: Final = 0xF7  # the reference always shows "last write was a command"
NO_NULL_COUNT: Final = (
    0xBF  # the reference never shows "null count"; the data sheet does between control word and count
)


def out(port: int, *values: int) -> list[Step]:
    """Write bytes to one port."""
    return [("out", port, value) for value in values]


def initialize_pics(icw4: int = 0x01) -> list[Step]:
    """The four initialization words of both chips, vectors 30h and 38h, and nothing masked."""
    return [
        *out(PIC1, 0x11), *out(PIC1_DATA, 0x30, 0x04, icw4, 0x00),
        *out(PIC2, 0x11), *out(PIC2_DATA, 0x38, 0x02, icw4, 0x00),
    ]  # fmt: skip


def look_at_pics() -> list[Step]:
    """IRR, ISR and mask of both chips."""
    steps: list[Step] = []
    for command, data in ((PIC1, PIC1_DATA), (PIC2, PIC2_DATA)):
        steps += [*out(command, 0x0A), ("in", command), *out(command, 0x0B), ("in", command), ("in", data)]
    return steps


def stop_timer() -> list[Step]:
    """Channel 0 in mode 4 without a count: no more edges."""
    return out(PIT_CONTROL, 0x38)


# A quiet start: the reference comes out of reset without firmware, our Board as firmware leaves it.
UART_START: Final[list[Step]] = [
    *out(LCR, 0),
    *out(IER, 0),
    *out(IIR, 0),
    *out(MCR, 0),
    ("in", LSR),
    ("in", RBR),
    ("in", MSR),
]

UART_REGISTERS: Final[list[Step]] = [
    *UART_START,
    *(step for value in (0x00, 0x55, 0xAA, 0xFF) for step in (("out", SCR, value), ("in", SCR))),
    *(step for value in range(0, 256, 17) for step in (("out", IER, value & 0xF0), ("in", IER))),
    *(step for value in (0x0F, 0x05, 0x0A, 0x00) for step in (("out", IER, value), ("in", IER))),
    *(step for value in (0x1F, 0xFF, 0x0B, 0x00) for step in (("out", MCR, value), ("in", MCR))),
    *(step for value in (0x03, 0x1B, 0x7F, 0x00) for step in (("out", LCR, value), ("in", LCR))),
    *out(LCR, 0x83), *out(RBR, 0x0C), *out(IER, 0xA5), ("in", RBR), ("in", IER), *out(LCR, 0x03), ("in", IER),
    *out(LCR, 0x83), ("in", RBR), ("in", IER), *out(RBR, 1), *out(IER, 0), *out(LCR, 0x03),
    ("in", IIR), ("in", LSR), ("in", MSR), *out(LSR, 0xFF), ("in", LSR), *out(MSR, 0x00), ("in", MSR),
]  # fmt: skip

UART_FIFOS: Final[list[Step]] = [
    *UART_START, *out(LCR, 0x83), *out(RBR, 1), *out(IER, 0), *out(LCR, 0x03),
    ("in", IIR), *out(IIR, 0x01), ("in", IIR), *out(IIR, 0x07), ("in", IIR), *out(IIR, 0xC1), ("in", IIR),
    *out(IIR, 0x00), ("in", IIR),
    # the probe of Linux's driver: with FIFOs and DLAB
    *out(IIR, 0x01), *out(LCR, 0x80), ("in", IIR), *out(LCR, 0x00), *out(IIR, 0x00),
]  # fmt: skip

UART_TRANSMIT_INTERRUPT: Final[list[Step]] = [
    *UART_START, *out(LCR, 0x83), *out(RBR, 1), *out(IER, 0), *out(LCR, 0x03), ("in", IIR),
    *out(IER, 0x02), ("in", IIR), ("in", IIR),  # asked for, told, gone
    *out(IER, 0x00), ("in", IIR), *out(IER, 0x02), ("in", IIR), *out(IER, 0x00),  # asked for again
    *out(IER, 0x02), *out(IER, 0x02), ("in", IIR), *out(IER, 0x02), ("in", IIR),  # no change, no new request
    *out(RBR, 0x41), ("wait", 300), ("in", IIR), ("in", LSR), ("in", IIR),  # a byte went out
    *out(RBR, 0x42), ("wait", 300), *out(IER, 0x00), ("in", IIR), *out(IER, 0x03), ("in", IIR), ("in", IIR),
    *out(IIR, 0x07), ("in", IIR), ("in", IIR), *out(IIR, 0x05), ("in", IIR), *out(IIR, 0x00), ("in", IIR),
    ("in", IIR),
]  # fmt: skip

UART_LOOPBACK: Final[list[Step]] = [
    *UART_START, *out(LCR, 0x83), *out(RBR, 1), *out(IER, 0), *out(LCR, 0x03),
    *(step for value in range(0x10, 0x20) for step in (("out", MCR, value), ("in", MSR))),
    *out(MCR, 0x1A), ("in", MSR), ("in", LSR), *out(RBR, 0x5A), ("wait", 300), ("in", LSR), ("in", RBR), ("in", LSR),
    # overrun without FIFOs
    *out(RBR, 0x01), *out(RBR, 0x02), ("wait", 300), ("in", LSR), ("in", LSR), ("in", RBR), ("in", LSR),
    *out(IER, 0x05), *out(RBR, 0x03), ("wait", 300), ("in", IIR), *out(RBR, 0x04), ("wait", 300), ("in", IIR),
    ("in", LSR), ("in", IIR),
    ("in", RBR), ("in", IIR), *out(MCR, 0x00), ("in", MSR),
]  # fmt: skip

UART_RECEIVE_FIFO: Final[list[Step]] = [
    *UART_START, *out(LCR, 0x83), *out(RBR, 1), *out(IER, 0), *out(LCR, 0x03), *out(MCR, 0x10), *out(IER, 0x05),
    *out(IIR, 0x47), ("in", IIR),  # trigger at 4
    *out(RBR, 1), ("in", IIR), *out(RBR, 2), *out(RBR, 3), ("in", IIR), *out(RBR, 4), ("in", IIR), ("in", LSR),
    ("in", RBR), ("in", IIR), ("wait", 2000), ("in", IIR), ("in", LSR), ("in", RBR), ("in", IIR), ("wait", 2000),
    ("in", IIR),
    ("in", RBR), ("in", RBR), ("in", IIR), ("in", LSR), ("in", RBR), ("wait", 2000), ("in", IIR),
    *(("out", RBR, 0x40 + n) for n in range(16)), ("in", LSR), ("in", IIR), *out(RBR, 0x77), ("in", IIR),
    ("in", LSR), ("in", LSR), ("in", IIR),
    *(("in", RBR) for _ in range(16)), ("in", LSR), ("in", IIR),
    *out(IIR, 0xC1), *(("out", RBR, n) for n in range(13)), ("in", IIR), *out(RBR, 13), ("in", IIR),
    *out(IIR, 0xC3), ("in", LSR), ("in", IIR), *out(RBR, 9), *out(IIR, 0x00), ("in", LSR), ("in", IIR), *out(MCR, 0),
]  # fmt: skip

UART_INTERRUPT_LINE: Final[list[Step]] = [
    *stop_timer(), *initialize_pics(), *UART_START, *out(LCR, 0x03), *out(MCR, 0x08),
    *out(PIC1, 0x20), *look_at_pics(), *out(IER, 0x02), *look_at_pics(), ("inta",), *look_at_pics(), ("in", IIR),
    *out(PIC1, 0x20), ("inta",),
    *look_at_pics(), *out(RBR, 0x41), ("wait", 300), ("inta",), *out(PIC1, 0x20), ("in", IIR), ("inta",),
    *out(IER, 0), *look_at_pics(),
]  # fmt: skip

PIC_REGISTERS: Final[list[Step]] = [
    *stop_timer(), *out(IER, 0), *initialize_pics(), *look_at_pics(),
    *(step for value in (0xFF, 0xA5, 0x00) for port in (PIC1_DATA, PIC2_DATA) for step in (("out", port, value), ("in", port))),
    *(step for value in (0xFF, 0x00, 0xFF) for port in (0x4D0, 0x4D1) for step in (("out", port, value), ("in", port))),
    *out(0x4D0, 0), *out(0x4D1, 0), *out(PIC1, 0x0C), ("in", PIC1), ("in", PIC1), *out(PIC2, 0x0C),
    ("in", PIC2_DATA), ("in", PIC2_DATA),
    ("inta",), *look_at_pics(),
]  # fmt: skip


def timer_edge() -> list[Step]:
    """One edge on line 0: mode 0 counts 100 ticks and stays high until the next control word."""
    return [*out(PIT_CONTROL, 0x30), *out(PIT0, 100, 0), ("wait", 300)]


def keyboard_edge() -> list[Step]:
    """One edge on line 1: a byte put into the keyboard's output buffer."""
    return [*out(0x64, 0xD2), *out(0x60, 0x5A), ("wait", 50)]


def mouse_edge() -> list[Step]:
    """One edge on line 12: a byte put into the mouse's output buffer."""
    return [*out(0x64, 0xD3), *out(0x60, 0xA5), ("wait", 50)]


def empty_keyboard() -> list[Step]:
    """Read the output buffer, so that its lines fall."""
    return [("in", 0x60), ("wait", 50)]


KEYBOARD_READY: Final[list[Step]] = [
    *out(0x64, 0xAD), *out(0x64, 0xA7), ("in", 0x60, 0), *out(0x64, 0xAA), ("in", 0x60), *out(0x64, 0x60),
    *out(0x60, 0x47),
]  # fmt: skip

PIC_SERVICE: Final[list[Step]] = [
    *stop_timer(), *out(IER, 0), *initialize_pics(), *KEYBOARD_READY,
    *timer_edge(), *look_at_pics(), ("inta",), *look_at_pics(), ("inta",), *timer_edge(), ("inta",),
    *out(PIC1, 0x20), ("inta",), *out(PIC1, 0x20),
    # a higher line waits for nobody, a lower one for the end of interrupt
    *keyboard_edge(), ("inta",), *timer_edge(), ("inta",), *look_at_pics(), *out(PIC1, 0x20), *look_at_pics(),
    *out(PIC1, 0x61), *look_at_pics(),
    *empty_keyboard(), *timer_edge(), ("inta",), *keyboard_edge(), ("inta",), *out(PIC1, 0x60), ("inta",),
    *out(PIC1, 0x20), *empty_keyboard(),
    # masks
    *out(PIC1_DATA, 0x01), *timer_edge(), ("inta",), *look_at_pics(), *out(PIC1_DATA, 0x00), ("inta",),
    *out(PIC1, 0x20),
    # the slave
    *mouse_edge(), *look_at_pics(), ("inta",), *look_at_pics(), *out(PIC2, 0x20), *look_at_pics(),
    *out(PIC1, 0x20), *empty_keyboard(),
    *mouse_edge(), *out(PIC2_DATA, 0xFF), ("inta",), *look_at_pics(), *out(PIC2_DATA, 0x00), *look_at_pics(),
    *out(PIC1, 0x20),
    ("inta",), *out(PIC2, 0x64), *out(PIC1, 0x62), *empty_keyboard(), *look_at_pics(),
]  # fmt: skip

PIC_PRIORITIES: Final[list[Step]] = [
    *stop_timer(), *out(IER, 0), *initialize_pics(), *KEYBOARD_READY,
    # rotation: line 1 becomes the highest
    *out(PIC1, 0xC0), *timer_edge(), *keyboard_edge(), ("inta",), ("inta",), *look_at_pics(), *out(PIC1, 0x20),
    ("inta",), *out(PIC1, 0x20), *empty_keyboard(),
    # rotate on end of interrupt, unspecific and specific
    *timer_edge(), ("inta",), *out(PIC1, 0xA0), *timer_edge(), *keyboard_edge(), ("inta",), *out(PIC1, 0xE1),
    ("inta",), *out(PIC1, 0xE0), *empty_keyboard(),
    *timer_edge(), *keyboard_edge(), ("inta",), *out(PIC1, 0x20), ("inta",), *out(PIC1, 0x20), *empty_keyboard(),
    *out(PIC1, 0xC7),
    # special mask: a masked line in service blocks nobody (the reference looks again only at the mask's write)
    *timer_edge(), ("inta",), *keyboard_edge(), ("inta",), *out(PIC1, 0x68), *out(PIC1_DATA, 0x01), ("inta",),
    ("inta",), *look_at_pics(),
    *out(PIC1, 0x48), *out(PIC1_DATA, 0x00), *out(PIC1, 0x60), *out(PIC1, 0x61), *empty_keyboard(), *look_at_pics(),
    # poll
    *timer_edge(), *out(PIC1, 0x0C), ("in", PIC1), *look_at_pics(), *out(PIC1, 0x20), *look_at_pics(),
    # automatic end of interrupt, with and without rotation
    *initialize_pics(0x03), *timer_edge(), ("inta",), *look_at_pics(), *timer_edge(), ("inta",), *out(PIC1, 0x80),
    *timer_edge(), ("inta",), *timer_edge(), *keyboard_edge(), ("inta",), ("inta",), *empty_keyboard(),
    *out(PIC1, 0x00), *look_at_pics(),
    # a reset by ICW1 forgets requests, service and masks
    *initialize_pics(), *timer_edge(), ("inta",), *out(PIC1_DATA, 0xFC), *keyboard_edge(), *out(PIC1, 0x11),
    *out(PIC1_DATA, 0x50, 0x04, 0x01),
    *look_at_pics(), *empty_keyboard(), *timer_edge(), ("inta",), *out(PIC1, 0x20),
]  # fmt: skip


def counting(channel: int, mode: int, count: int, access: int = 3) -> list[Step]:
    """Load a channel."""
    bytes_written = {1: [count & 0xFF], 2: [count >> 8], 3: [count & 0xFF, count >> 8]}[access]
    return [*out(PIT_CONTROL, channel << 6 | access << 4 | mode << 1), *out(PIT0 + channel, *bytes_written)]


PIT_STATUS: Final[list[Step]] = [
    *out(SPEAKER, 0x01),
    *(
        step
        for channel in (0, 2)
        for mode in (0, 2, 3, 4, 6, 7)
        for access in (1, 2, 3)
        for step in (
            *counting(channel, mode, 0xFFFF, access),
            *out(PIT_CONTROL, 0xE0 | 2 << channel),
            # the reference shows OUT of modes 2 and 4 inverted, and takes 6 and 7 for 0
            ("in", PIT0 + channel, 0xFF if mode in (0, 3) else 0x7F),
        )
    ),
    *out(PIT_CONTROL, 0x31), *out(PIT_CONTROL, 0xE2), ("in", PIT0, NO_NULL_COUNT & 0x7F), *out(PIT0, 0, 0),
    *out(PIT_CONTROL, 0xE2), ("in", PIT0),
    # status and count held together: the status comes first; holding twice keeps the first
    *counting(2, 0, 0x1234), *out(PIT_CONTROL, 0xC8, 0xE8), ("in", PIT2), ("in", PIT2, 0xF0), ("in", PIT2),
    *stop_timer(),
]  # fmt: skip

PIT_COUNTS: Final[list[Step]] = [
    *out(SPEAKER, 0x01),
    # soon after the load the high byte is still what was written
    *(
        step
        for channel in (0, 2)
        for mode in (0, 2, 4)
        for step in (
            *counting(channel, mode, 0xABF0),
            *out(PIT_CONTROL, channel << 6), ("in", PIT0 + channel, 0xC0), ("in", PIT0 + channel),
            ("in", PIT0 + channel, 0), ("in", PIT0 + channel),  # unlatched, low then high
            *out(PIT_CONTROL, 0xD0 | 2 << channel), ("in", PIT0 + channel, 0xC0), ("in", PIT0 + channel),
        )
    ),
    *counting(2, 0, 0x88F0, 2), *out(PIT_CONTROL, 0x80), ("in", PIT2, 0xF0), ("in", PIT2, 0xF0),  # high byte only
    *counting(2, 0, 0x00F0, 1), *out(PIT_CONTROL, 0x80), ("in", PIT2, 0xC0), ("in", PIT2, 0xC0),
    # a count that is held does not move
    *counting(2, 0, 0x9000), ("wait", 1000), *out(PIT_CONTROL, 0x80), ("wait", 5000), ("in", PIT2, 0),
    ("in", PIT2, 0xFE), ("in", PIT2, 0), ("in", PIT2, 0xF0),
    *stop_timer(),
]  # fmt: skip

PIT_SPEAKER: Final[list[Step]] = [
    *(step for value in (0, 1, 2, 3) for step in (("out", SPEAKER, value), ("in", SPEAKER, 0x0F))),
    *out(SPEAKER, 0x00), *out(SPEAKER, 0x01), *counting(2, 0, 1193), ("in", SPEAKER, 0xEF), ("wait", 500),
    ("in", SPEAKER, 0xEF),
    ("wait", 700), ("in", SPEAKER, 0xEF), *out(PIT_CONTROL, 0xE8), ("in", PIT2),
    *counting(2, 3, 11932), ("wait", 2000), ("in", SPEAKER, 0xEF), ("wait", 5000), ("in", SPEAKER, 0xEF),
    ("wait", 5000), ("in", SPEAKER, 0xEF),
]  # fmt: skip

PIT_INTERRUPTS: Final[list[Step]] = [
    *stop_timer(), *out(IER, 0), *initialize_pics(), ("inta",), *out(PIC1, 0x20),
    # once
    *counting(0, 0, 1193), ("wait", 300), ("inta",), ("wait", 1200), ("inta",), *out(PIC1, 0x20), ("wait", 3000),
    ("inta",),
    # once
    *counting(0, 4, 1193), ("wait", 300), ("inta",), ("wait", 1200), ("inta",), *out(PIC1, 0x20), ("wait", 3000),
    ("inta",),
    *counting(0, 2, 11932), ("wait", 5000), ("inta",), ("wait", 6000), ("inta",), *out(PIC1, 0x20), ("inta",),
    ("wait", 10000), ("inta",), *out(PIC1, 0x20),
    *counting(0, 3, 11932), ("wait", 5000), ("inta",), ("wait", 7000), ("inta",), *out(PIC1, 0x20),
    ("wait", 10000), ("inta",), *out(PIC1, 0x20),
    *stop_timer(), ("wait", 20000), ("inta",),
]  # fmt: skip

CMOS: Final[list[Step]] = [
    ("in", 0x70),
    *out(0x70, 0x0A), *out(0x71, 0x26), ("in", 0x71, 0x7F), *out(0x71, 0x2F), ("in", 0x71, 0x7F), *out(0x71, 0x26),
    *out(0x70, 0x0B), *out(0x71, 0x02), ("in", 0x71), *out(0x71, 0x06), ("in", 0x71), *out(0x71, 0x02),
    *out(0x70, 0x0C), ("in", 0x71), ("in", 0x71), *out(0x70, 0x0D), ("in", 0x71), *out(0x71, 0), ("in", 0x71),
    *out(0x70, 0x8D), ("in", 0x71),
    *(step for register in (0x04, 0x06, 0x07, 0x08, 0x09, 0x32) for step in (("out", 0x70, register), ("in", 0x71))),
    *out(0x70, 0x0B), *out(0x71, 0x06),
    *(step for register in (0x04, 0x06, 0x07, 0x08, 0x09, 0x32) for step in (("out", 0x70, register), ("in", 0x71))),
    *out(0x70, 0x0B), *out(0x71, 0x00), *out(0x70, 0x04), ("in", 0x71), *out(0x70, 0x0B), *out(0x71, 0x04),
    *out(0x70, 0x04), ("in", 0x71),
    *out(0x70, 0x0B), *out(0x71, 0x02),
    *(step for register in (0x40, 0x7F, 0x01) for value in (0x5A, 0xA5)
      for step in (("out", 0x70, register), ("out", 0x71, value), ("in", 0x71))),
]  # fmt: skip

KEYBOARD: Final[list[Step]] = [
    *out(0x64, 0xAD), *out(0x64, 0xA7), ("in", 0x60, 0), *out(0x64, 0xAA), ("in", 0x64, NO_COMMAND), ("in", 0x60),
    ("in", 0x64, NO_COMMAND), ("in", 0x60),
    *out(0x64, 0x60), *out(0x60, 0x74), ("in", 0x64, NO_COMMAND), *out(0x64, 0x20), ("in", 0x64, NO_COMMAND),
    ("in", 0x60), ("in", 0x64, NO_COMMAND),
    *out(0x64, 0xAB), ("in", 0x60), *out(0x64, 0xA9), ("in", 0x60), *out(0x64, 0xAE), *out(0x64, 0x20), ("in", 0x60),
    *out(0x64, 0xA8), *out(0x64, 0x20), ("in", 0x60), *out(0x64, 0xA7), *out(0x64, 0x20), ("in", 0x60),
    *out(0x64, 0xAD), *out(0x64, 0x20), ("in", 0x60),
    *out(0x64, 0xC0), ("in", 0x60), *out(0x64, 0xFF), ("in", 0x64, NO_COMMAND),
    *out(0x64, 0xD2), *out(0x60, 0x5A), ("in", 0x64, NO_COMMAND), ("in", 0x60), ("in", 0x64, NO_COMMAND), *out(0x64, 0xD3),
    *out(0x60, 0xA5), ("in", 0x64, NO_COMMAND), ("in", 0x60), ("in", 0x64, NO_COMMAND),
]  # fmt: skip

PCI_PORTS: Final[list[Step]] = [
    ("out4", 0xCF8, 0x80000000), ("in4", 0xCF8), ("out4", 0xCF8, 0x8000F8FC), ("in4", 0xCF8),
    # a device that neither machine has: 0:1Fh.0, and bus 255
    ("out4", 0xCF8, 0x8000F800), ("in4", 0xCFC), ("in", 0xCFC), ("in", 0xCFF), ("out4", 0xCF8, 0x80FFF800),
    ("in4", 0xCFC),
    ("out4", 0xCF8, 0x00000000), ("in4", 0xCFC), ("in4", 0xCF8), ("out", 0xCF9, 0x02), ("in", 0xCF9),
    ("out", 0xCF9, 0x00), ("in", 0xCF9),
]  # fmt: skip

ABSENT_PORTS: Final[list[Step]] = [
    step
    for port in (0x100, 0x2F8, 0x3E8, 0x278, 0x400, 0x1234, 0xFFF0)
    for step in (("in", port), ("in4", port), ("out", port, 0), ("in", port))
]  # fmt: skip

SCRIPTS: Final[dict[str, list[Step]]] = {
    "uart_registers": UART_REGISTERS,
    "uart_fifos": UART_FIFOS,
    "uart_transmit_interrupt": UART_TRANSMIT_INTERRUPT,
    "uart_loopback": UART_LOOPBACK,
    "uart_receive_fifo": UART_RECEIVE_FIFO,
    "uart_interrupt_line": UART_INTERRUPT_LINE,
    "pic_registers": PIC_REGISTERS,
    "pic_service": PIC_SERVICE,
    "pic_priorities": PIC_PRIORITIES,
    "pit_status": PIT_STATUS,
    "pit_counts": PIT_COUNTS,
    "pit_speaker": PIT_SPEAKER,
    "pit_interrupts": PIT_INTERRUPTS,
    "cmos": CMOS,
    "keyboard": KEYBOARD,
    "pci_ports": PCI_PORTS,
    "absent_ports": ABSENT_PORTS,
}
