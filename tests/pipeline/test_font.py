"""The font is what the package's file says; a file that is no such font is described."""

from __future__ import annotations

import struct

import pytest

from pipeline import font
from pipeline.font import FontError, rasterize

pytestmark = pytest.mark.t0
CHARACTERS = range(0x20, 0x7F)


def pcf(
    *,
    order: str = ">",
    compressed: bool = True,
    left: int = 1,
    right: int = 7,
    ascent: int = 10,
    absent: int = 0,
    bits: int = 8,
) -> bytes:
    """A font of one shape: the glyph of character c has c's low six bits in each line, between left and right."""
    mark = (4 if order == ">" else 0) | bits | 2  # lines of four bytes
    if compressed:
        row = bytes(value + 0x80 for value in (left, right, 8, ascent, 2))
        metrics = struct.pack(order + "H", 95) + row * 95
    else:
        metrics = struct.pack(order + "I", 95) + struct.pack(order + "5hH", left, right, 8, ascent, 2, 0) * 95
    lines = ascent + 2
    bitmaps = struct.pack(order + "I", 95) + b"".join(
        struct.pack(order + "I", index * lines * 4) for index in range(95)
    )
    bitmaps += bytes(16) + b"".join(bytes([(c & 63) << 2, 0, 0, 0]) * lines for c in CHARACTERS)
    numbers = [0xFFFF if c == absent else c - 0x20 for c in CHARACTERS]
    encodings = struct.pack(order + "5H", 0x20, 0x7E, 0, 0, 0) + struct.pack(order + "95H", *numbers)
    tables = [(4, mark | (0x100 if compressed else 0), metrics), (8, mark, bitmaps), (32, mark, encodings)]
    head, body, offset = b"\1fcp" + struct.pack("<I", 3), b"", 8 + 16 * 3
    for kind, form, content in tables:
        content = struct.pack("<I", form) + content
        head += struct.pack("<IIII", kind, form, len(content), offset + len(body))
        body += content
    return head + body


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_glyphs_are_placed_in_their_cells(order: str, compressed: bool) -> None:
    """In either byte order, with either kind of metrics; two lines free above, two below the ten and two of ink."""
    table = rasterize(pcf(order=order, compressed=compressed))
    assert len(table) == 95 * 16
    for index, c in enumerate(CHARACTERS):
        assert table[index * 16 :][:16] == bytes(2) + bytes([(c & 63) << 1]) * 12 + bytes(2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "expected a PCF file beginning"),
        (pcf()[:-40], "that ends early"),
        (pcf()[:900], "that ends early"),
        (pcf(absent=0x41), "expected a glyph for 'A', found none"),
        (pcf(bits=0), "expected bitmaps with the leftmost pixel in the highest bit"),
        (pcf(right=9), "expected ' ' in a cell of 8x16"),
        (pcf(left=-1), "expected ' ' in a cell of 8x16"),
        (pcf(left=0, right=12), "expected glyphs of at most 8 pixels, found ' ' with 12"),
        (pcf(ascent=13), "expected ' ' in a cell of 8x16"),
        (b"\1fcp" + bytes(4), "expected a table of kind 0x20, found none"),
    ],
)
def test_what_is_no_such_font_is_described(content: bytes, message: str) -> None:
    with pytest.raises(FontError, match=message):
        rasterize(content)


def test_the_package_holds_a_font_with_its_licence() -> None:
    """Each printable character has ink of its own, but for the space; and the licence is the one that is written down."""
    table = font.font_table()
    glyphs = [table[at : at + 16] for at in range(0, len(table), 16)]
    assert glyphs[0] == bytes(16)
    assert len(set(glyphs)) == 95
    assert b"SIL OPEN FONT LICENSE Version 1.1" in font.font_licence()
