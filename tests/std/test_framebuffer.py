"""Text on a framebuffer: every pixel is the font's, rows wrap and are cleared, and nothing outside is touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsl.lang import Array, HostVirtual, array_at, u8, u32, u64
from dsl.lang.model import Machine
from dsl.std.framebuffer import GLYPH_HEIGHT, INK, Framebuffer, framebuffer_clear, framebuffer_start, framebuffer_write

pytestmark = pytest.mark.t0
FONT = bytes(glyph ^ (line * 37) & 0xFF for glyph in range(95) for line in range(16))
MEMORY, TEXT = 0x200000, 0x10000
COLUMNS, ROWS, SPARE = 5, 3, 4  # characters, characters, and pixels of a line that are not seen
GUARD = b"\xa5" * 4096


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as model:
        model.memory.map(TEXT, 0x2000)
        model.memory.write(TEXT + 0x1000, FONT)
        yield model


def text_of(machine: Machine, content: bytes) -> Array[u8]:
    machine.memory.write(TEXT, content)
    return array_at(u8, HostVirtual(TEXT), u64(len(content)))


def started(machine: Machine, width: int, height: int) -> tuple[Framebuffer, int]:
    """A screen with a guard on both sides, and its pitch in pixels. Whatever was on it before is seen if it stays."""
    pitch = width + SPARE
    machine.memory.map(MEMORY - 4096, 8192 + -(-pitch * height * 4 // 4096) * 4096)
    machine.memory.write(MEMORY - 4096, GUARD + b"\x11" * (pitch * height * 4) + GUARD[:1024])
    screen = Framebuffer()
    font = HostVirtual(TEXT + 0x1000)
    framebuffer_start(screen, HostVirtual(MEMORY), u32(width), u32(height), u32(pitch * 4), font)
    framebuffer_clear(screen, u32(height))
    return screen, pitch


def expected(cells: list[bytes], width: int, height: int, scale: int = 1) -> bytes:
    """The pixels of these rows of characters."""
    pixels = [[0] * (width + SPARE) for _ in range(height)]
    for row, characters in enumerate(cells):
        for column, character in enumerate(characters):
            for y in range(16 * scale):
                known = 0x20 <= character < 0x7F
                bits = FONT[(character - 0x20) * GLYPH_HEIGHT + y // scale] if known else 0xFF
                for x in range(8 * scale):
                    if bits & 0x80 >> x // scale:
                        pixels[row * 16 * scale + y][column * 8 * scale + x] = int(INK)
    return b"".join(pixel.to_bytes(4, "little") for line in pixels for pixel in line)


@pytest.mark.parametrize(
    ("said", "cells"),
    [
        ([b""], []),
        ([b"ab~ !"], [b"ab~ !"]),
        ([b"ab", b"c\nd"], [b"abc", b"d"]),
        ([b"abcdef"], [b"abcde", b"f"]),
        ([b"a\r\nb"], [b"a", b"b"]),
        ([b"abcde\nf"], [b"abcde", b"f"]),  # a newline after a full row is one row, not two
        ([b"1\n2\n3\n4"], [b"4", b"2", b"3"]),  # the first row is cleared, the others stay
        ([b"12345\n2\n3\n"], [b"", b"2", b"3"]),
        ([b"\x00\x1f\x7f\xff"], [b"\x00\x1f\x7f\xff"]),
    ],
)
def test_pixels_are_the_fonts(machine: Machine, said: list[bytes], cells: list[bytes]) -> None:
    width, height = COLUMNS * 8 + 3, ROWS * 16 + 5
    screen, pitch = started(machine, width, height)
    for piece in said:
        framebuffer_write(screen, text_of(machine, piece))
    assert machine.memory.read(MEMORY, pitch * height * 4) == expected(cells, width, height)
    assert machine.memory.read(MEMORY - 4096, 4096) == GUARD
    assert machine.memory.read(MEMORY + pitch * height * 4, 1024) == GUARD[:1024]


def test_a_wide_screen_gets_larger_glyphs(machine: Machine) -> None:
    width, height = 2560, 32
    screen, pitch = started(machine, width, height)
    framebuffer_write(screen, text_of(machine, b"Wide"))
    assert (int(screen.columns), int(screen.rows)) == (160, 1)
    assert machine.memory.read(MEMORY, pitch * height * 4) == expected([b"Wide"], width, height, scale=2)


def test_a_screen_too_small_for_a_character_stays_blank(machine: Machine) -> None:
    screen, pitch = started(machine, 20, 15)
    framebuffer_write(screen, text_of(machine, b"text\n"))
    assert not any(machine.memory.read(MEMORY, pitch * 15 * 4))
