"""The console's lines on the framebuffer, where firmware left one: what a person without a serial line sees. No box can draw there.

The font is the loader's, which lies in the loader's own memory: like the framebuffer, it is in no box and never handed to one.
"""

from __future__ import annotations

from typing import Final

from boot.handoff import Handoff
from dsl.lang import HostPhysical, HostVirtual, machine, static, u8, u64
from dsl.std.framebuffer import Framebuffer, framebuffer_put, framebuffer_start
from vmm.memory import to_host_virtual

ALWAYS_MAPPED: Final = 1 << 32  # the direct map has the lowest 4 GiB, whatever the machine
SCREEN: Final = static(Framebuffer)  # on BIOS machines never started: memory stays 0


@machine
def screen_initialize(handoff: Handoff) -> None:
    """Go on below the loader's lines. A framebuffer beyond the direct map is left alone."""
    size = u64(handoff.framebuffer_pitch) * u64(handoff.framebuffer_height)
    if handoff.framebuffer == HostPhysical(0) or handoff.framebuffer.as_u64() + size > ALWAYS_MAPPED:
        return
    framebuffer_start(
        SCREEN,
        to_host_virtual(handoff.framebuffer),
        handoff.framebuffer_width,
        handoff.framebuffer_height,
        handoff.framebuffer_pitch,
        to_host_virtual(handoff.font),
    )
    SCREEN.row = handoff.framebuffer_row


@machine
def has_screen() -> bool:
    """Whether there is a framebuffer to write on."""
    return SCREEN.memory != HostVirtual(0)


@machine
def screen_show(value: u8) -> None:
    """Show one byte of the console, if there is a screen."""
    if has_screen():
        framebuffer_put(SCREEN, value)
