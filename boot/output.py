"""What the loader says: lines on COM1 and the screen, in text mode or on a framebuffer, and how it stops."""

from __future__ import annotations

from typing import Final

from boot.parameters import FIRMWARE_BIOS, BootParameters
from boot.refusal import Refusal, Rule, append_refusal
from dsl.lang import Array, HostPhysical, HostVirtual, address_of, machine, static, supplied, text, u8
from dsl.lang.intrinsics import cli, hlt
from dsl.std.framebuffer import FONT_SIZE, Framebuffer, framebuffer_clear, framebuffer_start, framebuffer_write
from dsl.std.print import Line, append_text, line_bytes, line_clear
from dsl.std.screen import TEXT_PHYSICAL, Screen, screen_start, screen_write
from dsl.std.serial import serial_start, serial_write

SCREEN: Final = static(Screen)
FRAMEBUFFER: Final = static(Framebuffer)
FONT: Final = supplied(u8, FONT_SIZE, "std.font")  # the monitor draws from it, too
LINE: Final = static(Line)  # the one line under construction: the loader runs on one CPU, without interrupts


@machine
def output_start(parameters: BootParameters) -> None:
    """Set up the UART (nothing is sent if there is none: no byte is ever taken) and take over the screen that there is, if any."""
    _ = serial_start()
    if parameters.firmware == FIRMWARE_BIOS:
        screen_start(SCREEN, HostVirtual(TEXT_PHYSICAL))
    elif parameters.framebuffer != HostPhysical(0):
        framebuffer_start(
            FRAMEBUFFER,
            HostVirtual(parameters.framebuffer.as_u64()),
            parameters.framebuffer_width,
            parameters.framebuffer_height,
            parameters.framebuffer_pitch,
            address_of(FONT),
        )
        framebuffer_clear(FRAMEBUFFER, parameters.framebuffer_height)


@machine
def put(data: Array[u8]) -> None:
    """Write bytes to COM1 and the screen."""
    serial_write(data)
    if SCREEN.memory != HostVirtual(0):
        screen_write(SCREEN, data)
    if FRAMEBUFFER.memory != HostVirtual(0):
        framebuffer_write(FRAMEBUFFER, data)


@machine
def begin_line() -> Line:
    """A new line that begins with the loader's name."""
    line_clear(LINE)
    append_text(LINE, text("terrane| "))
    return LINE


@machine
def put_line() -> None:
    """Write the line under construction, with a newline, and start it again (empty, to go on with)."""
    put(line_bytes(LINE))
    put(text("\n"))
    line_clear(LINE)


@machine
def put_piece() -> None:
    """Write the line under construction so far, and start it again (empty): for lines longer than a Line."""
    put(line_bytes(LINE))
    line_clear(LINE)


@machine
def say(words: Array[u8]) -> None:
    """One whole line."""
    append_text(begin_line(), words)
    put_line()


@machine
def stop_here() -> None:
    """Say that nothing goes on, and halt for good."""
    say(text("stopped"))
    while True:
        cli()
        hlt()


@machine
def require(refusal: Refusal) -> None:
    """Return if nothing is wrong; otherwise say what is, and stop."""
    if refusal.rule != Rule.GOOD:
        append_text(begin_line(), text("refused: "))
        append_refusal(LINE, refusal)
        put_line()
        stop_here()
