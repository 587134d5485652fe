"""Text on a framebuffer of 32-bit pixels, for machines without a text mode. Never read: such memory is slow to read.

Printable ASCII alone has glyphs; anything else shows as a full block. When the last row is full, writing goes on in the first: each
row is cleared as it is begun.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, HostVirtual, Struct, array_at, machine, u8, u32, u64, upto

GLYPH_WIDTH: Final = 8  # pixels, one bit each, the leftmost in the highest bit
GLYPH_HEIGHT: Final = 16
FIRST_GLYPH: Final = 0x20
GLYPHS: Final = 95
FONT_SIZE: Final = 1520  # GLYPHS of GLYPH_HEIGHT bytes
INK: Final = u32(0x00C0C0C0)  # grey in either order of colours
PAPER: Final = u32(0)
PIXEL_SIZE: Final = 4
WIDE: Final = 2560  # pixels from which on glyphs are drawn twice as large
BLOCK: Final = u8(0xFF)
NEWLINE: Final = u8(ord("\n"))
CARRIAGE_RETURN: Final = u8(ord("\r"))


class Framebuffer(Struct, size=48):
    """Where pixels are, and the next character cell to write. Address zero: there is none."""

    memory: HostVirtual
    pitch: u64  # pixels from one line to the next
    columns: u32
    rows: u32
    column: u32
    row: u32
    scale: u64  # pixels, both ways, that one of the font's makes
    font: HostVirtual  # FONT_SIZE bytes


@machine
def framebuffer_start(
    screen: Framebuffer, memory: HostVirtual, width: u32, height: u32, pitch: u32, font: HostVirtual
) -> None:
    """Take the screen over, from its first row on. Width and height in pixels; pitch in bytes, a multiple of 4, at least a line's."""
    screen.memory = memory
    screen.pitch = u64(pitch) // PIXEL_SIZE
    screen.scale = u64(2) if width >= WIDE else u64(1)
    scale = screen.scale.truncate(u32)
    screen.columns = width // (GLYPH_WIDTH * scale)
    screen.rows = height // (GLYPH_HEIGHT * scale)
    screen.column = u32(0)
    screen.row = u32(0)
    screen.font = font


@machine
def framebuffer_clear(screen: Framebuffer, height: u32) -> None:
    """Clear all of its lines, `height` in number."""
    # Safe because firmware gave address and size; what it gave is all that is written.
    array_at(u32, screen.memory, screen.pitch * u64(height)).fill(PAPER)


@machine
def framebuffer_write(screen: Framebuffer, data: Array[u8]) -> None:
    """Write bytes."""
    for index in upto(data.length):
        framebuffer_put(screen, data[index])


@machine
def framebuffer_put(screen: Framebuffer, character: u8) -> None:
    """Write one byte; a newline begins the next row, and so does a full one; a carriage return is nothing."""
    if screen.columns == 0 or screen.rows == 0 or character == CARRIAGE_RETURN:
        return
    if character == NEWLINE:
        next_row(screen)
        return
    if screen.column == screen.columns:
        next_row(screen)
    draw(screen, character)
    screen.column += 1


@machine
def next_row(screen: Framebuffer) -> None:
    """Begin the next row, or the first, with nothing in it."""
    screen.column = u32(0)
    screen.row += 1
    if screen.row == screen.rows:
        screen.row = u32(0)
    row_pixels(screen).fill(PAPER)


@machine
def row_pixels(screen: Framebuffer) -> Array[u32]:
    """The pixels of the current row of characters, all of its lines."""
    count = screen.pitch * screen.scale * GLYPH_HEIGHT
    # Safe because the row is below `rows`, of which the screen holds as many.
    return array_at(u32, screen.memory + u64(screen.row) * count * PIXEL_SIZE, count)


@machine
def draw(screen: Framebuffer, character: u8) -> None:
    """Draw one character in the current cell."""
    pixels = row_pixels(screen)
    # Safe because whoever started the screen gave a font of that size.
    font = array_at(u8, screen.font, u64(FONT_SIZE))
    glyph = u64(character - FIRST_GLYPH)  # wraps for what lies below
    left = u64(screen.column) * screen.scale * GLYPH_WIDTH
    for line in upto(GLYPH_HEIGHT):
        bits = font[glyph * GLYPH_HEIGHT + line] if glyph < GLYPHS else BLOCK
        for below in upto(screen.scale):
            place = (line * screen.scale + below) * screen.pitch + left
            mask = u8(0x80)
            while mask != 0:
                colour = INK if bits & mask != 0 else PAPER
                for _ in upto(screen.scale):
                    pixels[place] = colour
                    place += 1
                mask = mask >> 1
