"""Turning an emulated machine off: the ways that Bochs and QEMU offer. A real machine just stops."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, table, u8, u16, u64, upto
from dsl.lang.intrinsics import cli, hlt, out8, out16

BOCHS_PORT: Final = u16(0x8900)  # Bochs, "unmapped" device: this word ends the emulation
BOCHS_WORD: Final = table(u8, b"Shutdown")
QEMU_PORT: Final = u16(0x604)  # QEMU's ACPI: PM1a control of PIIX4 and ICH9
QEMU_SLEEP: Final = u16(0x2000)  # SLP_EN, type 0: soft off


@machine
def power_off() -> None:
    """End the machine where it is emulated; halt the processor, interrupts off, where it is not. Never returns."""
    for index in upto(u64(8)):
        out8(BOCHS_PORT, BOCHS_WORD[index])
    out16(QEMU_PORT, QEMU_SLEEP)
    while True:
        cli()
        hlt()
