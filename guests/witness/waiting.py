"""Wait for a key as an operating system does: halted until the serial port interrupts. So a machine where nothing happens can sleep."""

from __future__ import annotations

from typing import Final

from dsl.lang import asm, function_address, machine, u8, u16, u64
from dsl.lang.intrinsics import cli, out8, sti_hlt
from dsl.std.serial import INTERRUPT_ENABLE, MODEM_CONTROL, serial_can_receive
from guests.tables import load_gates, load_segments, set_gate

PIC_MASTER: Final = 0x20
PIC_MASTER_DATA: Final = 0x21
PIC_SLAVE: Final = 0xA0
PIC_SLAVE_DATA: Final = 0xA1
PIT_CONTROL: Final = 0x43
VECTOR_MASTER: Final = 0x20
VECTOR_SLAVE: Final = 0x28
LINE_SERIAL: Final = 4
LINE_SPURIOUS: Final = 7
ONLY_SERIAL: Final = ~(1 << LINE_SERIAL) & 0xFF
NO_TICKS: Final = 0x38  # channel 0 waits in mode 4 for a count that never comes
RECEIVED: Final = 0x01  # serial interrupt enable
TERMINAL_READY_WITH_INTERRUPTS: Final = 0x0B  # DTR, RTS, OUT2


@machine(naked=True)
def serial_interrupt() -> None:
    """End the interrupt: that the halt is over is all that was wanted."""
    # Safe because every register is as it was.
    asm(
        """
        push rax
        mov al, 0x20
        out 0x20, al
        pop rax
        iretq
        """
    )


@machine
def initialize_pics() -> None:
    """Give the interrupt controllers vectors 20h and 28h and mask all lines but the serial port's."""
    out8(u16(PIC_MASTER), u8(0x11))
    out8(u16(PIC_MASTER_DATA), u8(VECTOR_MASTER))
    out8(u16(PIC_MASTER_DATA), u8(0x04))
    out8(u16(PIC_MASTER_DATA), u8(0x01))
    out8(u16(PIC_SLAVE), u8(0x11))
    out8(u16(PIC_SLAVE_DATA), u8(VECTOR_SLAVE))
    out8(u16(PIC_SLAVE_DATA), u8(0x02))
    out8(u16(PIC_SLAVE_DATA), u8(0x01))
    out8(u16(PIC_MASTER_DATA), u8(ONLY_SERIAL))
    out8(u16(PIC_SLAVE_DATA), u8(0xFF))


@machine
def prepare_waiting() -> None:
    """Set up tables, interrupt controllers and the serial port's interrupt. FS and GS bases become zero."""
    load_segments()
    set_gate(u64(VECTOR_MASTER + LINE_SERIAL), function_address(serial_interrupt))
    set_gate(u64(VECTOR_MASTER + LINE_SPURIOUS), function_address(serial_interrupt))
    load_gates()
    initialize_pics()
    out8(u16(PIT_CONTROL), u8(NO_TICKS))
    out8(MODEM_CONTROL, u8(TERMINAL_READY_WITH_INTERRUPTS))
    out8(INTERRUPT_ENABLE, u8(RECEIVED))


@machine
def wait_for_key() -> None:
    """Halt until a byte has arrived. Interrupts are off before and after: a byte between the look and the halt ends the halt at once."""
    while not serial_can_receive():
        sti_hlt()
        cli()
