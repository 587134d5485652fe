"""The framebuffer as emitted code draws, pixel for pixel, what it draws under CPython, and touches nothing else."""

from __future__ import annotations

import pytest

from dsl.lang import Array, HostVirtual, Machine, array_at, size_of, u8, u32, u64
from dsl.std.framebuffer import INK, Framebuffer, framebuffer_clear, framebuffer_start, framebuffer_write
from tests.std.ported import MEMORY, Ported

pytestmark = pytest.mark.t1
FONT = bytes(glyph ^ (line * 37) & 0xFF for glyph in range(95) for line in range(16))
SCREEN, TEXT, FONT_PLACE, PIXELS = 0x0, 0x100, 0x1000, 0x2000
AREA = 0x34000  # of pixels, guards included
BEFORE = 0x404  # bytes of the first guard: an address without a zero byte
PAST = b"\x11\x22\x33\x44" * (AREA // 4)
SHAPES = [
    (43, 53, 47),
    (8, 16, 8),
    (15, 31, 16),
    (7, 40, 8),
    (40, 15, 40),
    (2559, 16, 2560),
    (2560, 16, 2560),
    (1600, 17, 1600),
]
SAID = [b"", b"ab~ !\x7f\x80\xff\x1f\x20", b"abcdefghijk", b"a\r\nb\n\nc\n", b"1\n2\n3\n4\n5"]


def drawn(width: int, height: int, pitch: int, said: bytes) -> tuple[bytes, bytes]:
    """The screen's fields and the pixels, under CPython."""
    with Machine() as machine:
        machine.memory.map(MEMORY, 0x40000)
        machine.memory.write(MEMORY + TEXT, said)
        machine.memory.write(MEMORY + FONT_PLACE, FONT)
        machine.memory.write(MEMORY + PIXELS, PAST)
        screen = Framebuffer.at(HostVirtual(MEMORY + SCREEN))
        shape = (u32(width), u32(height), u32(pitch * 4))
        framebuffer_start(screen, HostVirtual(MEMORY + PIXELS + BEFORE), *shape, HostVirtual(MEMORY + FONT_PLACE))
        framebuffer_clear(screen, u32(height))
        text: Array[u8] = array_at(u8, HostVirtual(MEMORY + TEXT), u64(len(said)))
        framebuffer_write(screen, text)
        return machine.memory.read(MEMORY + SCREEN, size_of(Framebuffer)), machine.memory.read(MEMORY + PIXELS, AREA)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_draws_the_same(shape: tuple[int, int, int]) -> None:
    """Start, clear and write, for screens of every kind."""
    width, height, pitch = shape
    assert height * pitch * 4 + 0x800 <= AREA
    for said in SAID:
        start, clear, write = (
            Ported(function) for function in (framebuffer_start, framebuffer_clear, framebuffer_write)
        )
        arguments = (MEMORY + SCREEN, MEMORY + PIXELS + BEFORE, width, height, pitch * 4, MEMORY + FONT_PLACE)
        start.call(*arguments)
        screen = start.struct(SCREEN, Framebuffer)
        for world in (clear, write):
            world.write(FONT_PLACE, FONT)
            world.write(TEXT, said)
        clear.write(SCREEN, screen)
        clear.write(PIXELS, PAST)
        clear.call(MEMORY + SCREEN, height)
        write.write(SCREEN, clear.struct(SCREEN, Framebuffer))
        write.write(PIXELS, clear.get(PIXELS, AREA))
        write.call(MEMORY + SCREEN, MEMORY + TEXT, len(said))
        assert (write.struct(SCREEN, Framebuffer), write.get(PIXELS, AREA)) == drawn(width, height, pitch, said), (
            shape,
            said,
        )


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_each_pixel_of_the_font_becomes_as_many(scale: int) -> None:
    """Both ways, and nothing beside the cells is touched."""
    said, width, height = b"a~\x07", 24 * scale + 5, 16 * scale
    world = Ported(framebuffer_write)
    world.write(PIXELS, PAST)
    fields = (MEMORY + PIXELS + BEFORE, width, 3 | 1 << 32, 0, scale, MEMORY + FONT_PLACE)
    screen = world.write(SCREEN, b"".join(field.to_bytes(8, "little") for field in fields))
    world.write(FONT_PLACE, FONT)
    world.call(screen, world.write(TEXT, said), len(said))
    pixels = [PAST[:4]] * (width * height)
    for column, character in enumerate(said):
        glyph = FONT[(character - 0x20) * 16 :][:16] if character >= 0x20 else b"\xff" * 16
        for y in range(height):
            for x in range(8 * scale):
                ink = glyph[y // scale] << x // scale & 0x80
                pixels[y * width + column * 8 * scale + x] = int(INK).to_bytes(4, "little") if ink else bytes(4)
    assert world.get(PIXELS, AREA) == PAST[:BEFORE] + b"".join(pixels) + PAST[BEFORE + 4 * width * height :]
