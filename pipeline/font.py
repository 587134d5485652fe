"""The loader's font: glyphs of printable ASCII out of a Debian package, as the table that `dsl/std/framebuffer.py` draws from.

The package holds X11's PCF format (tables of metrics, bitmaps and encodings, each with its own byte and bit order).
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass

from dsl.std.framebuffer import FIRST_GLYPH, GLYPH_HEIGHT, GLYPH_WIDTH, GLYPHS
from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.packages import Fetched, fetch, read_lock, read_member

LOCK = paths.ROOT / "boot" / "packages.lock"
MEMBER = "./usr/share/fonts/X11/misc/ter-u16n_iso-8859-1.pcf.gz"
LICENCE = "./usr/share/doc/xfonts-terminus/copyright"
ASCENT = 12  # of the cell's GLYPH_HEIGHT lines, those above the base line
MAGIC = b"\1fcp"
METRICS, BITMAPS, ENCODINGS = 1 << 2, 1 << 3, 1 << 5
BIG_BYTES, BIG_BITS, COMPRESSED = 1 << 2, 1 << 3, 0x100
ABSENT = 0xFFFF


class FontError(PipelineError):
    """A font file that is not what was expected."""


@dataclass(frozen=True)
class Glyph:
    """Ink: how far left of the origin and above the base line it begins, and its lines, leftmost pixel in the highest of `width` bits."""

    left: int
    ascent: int
    width: int
    lines: tuple[int, ...]


def fetch_font() -> Fetched:
    """The package, from the cache or the registry."""
    return fetch(read_lock(LOCK)["font"])


def font_table() -> bytes:
    """GLYPHS of GLYPH_HEIGHT bytes, the leftmost pixel in the highest bit."""
    return rasterize(gzip.decompress(read_member(fetch_font(), MEMBER)))


def font_licence() -> bytes:
    """What the package says about its licence."""
    return read_member(fetch_font(), LICENCE)


def rasterize(pcf: bytes) -> bytes:
    """The table of a PCF font. Raises FontError for a character that is missing, or larger than its cell."""
    try:
        glyphs = [read_glyph(pcf, character) for character in range(FIRST_GLYPH, FIRST_GLYPH + GLYPHS)]
    except (struct.error, IndexError):
        raise FontError(f"font: expected a whole PCF file, found one of {len(pcf)} bytes that ends early") from None
    return b"".join(cell(glyph, FIRST_GLYPH + index) for index, glyph in enumerate(glyphs))


def cell(glyph: Glyph, character: int) -> bytes:
    """A glyph in its place in the cell."""
    top = ASCENT - glyph.ascent
    if glyph.left < 0 or glyph.left + glyph.width > GLYPH_WIDTH or top < 0 or top + len(glyph.lines) > GLYPH_HEIGHT:
        raise FontError(f"font: expected {chr(character)!r} in a cell of {GLYPH_WIDTH}x{GLYPH_HEIGHT}, found {glyph}")
    shift = GLYPH_WIDTH - glyph.left - glyph.width
    return bytes(top) + bytes(line << shift for line in glyph.lines) + bytes(GLYPH_HEIGHT - top - len(glyph.lines))


def table(pcf: bytes, kind: int) -> tuple[int, str, bytes]:
    """A table's format, the mark of its byte order for struct, and what follows the format."""
    if pcf[:4] != MAGIC:
        raise FontError(f"font: expected a PCF file beginning {MAGIC!r}, found {pcf[:4]!r}")
    for index in range(struct.unpack_from("<I", pcf, 4)[0]):
        found, form, size, offset = struct.unpack_from("<IIII", pcf, 8 + 16 * index)
        if found == kind:
            return form, ">" if form & BIG_BYTES else "<", pcf[offset + 4 : offset + size]
    raise FontError(f"font: expected a table of kind {kind:#x}, found none")


def read_glyph(pcf: bytes, character: int) -> Glyph:
    """One character's glyph."""
    number = glyph_number(pcf, character)
    left, right, ascent, descent = metrics(pcf, number)
    form, order, data = table(pcf, BITMAPS)
    if not form & BIG_BITS:
        raise FontError("font: expected bitmaps with the leftmost pixel in the highest bit, found the other order")
    (count,) = struct.unpack_from(order + "I", data)
    (offset,) = struct.unpack_from(order + "I", data, 4 + 4 * number)
    begin = 4 + 4 * count + 16 + offset
    width, stride = right - left, 1 << (form & 3)
    if width > 8:
        raise FontError(f"font: expected glyphs of at most 8 pixels, found {chr(character)!r} with {width}")
    lines = tuple(data[begin + line * stride] >> (8 - width) for line in range(ascent + descent))
    return Glyph(left, ascent, width, lines)


def glyph_number(pcf: bytes, character: int) -> int:
    """A character's number in the font, by its code, which is less than 256."""
    _, order, data = table(pcf, ENCODINGS)
    first, last, row, _, _ = struct.unpack_from(order + "5H", data)
    number = ABSENT
    if row == 0 and first <= character <= last:
        (number,) = struct.unpack_from(order + "H", data, 10 + 2 * (character - first))
    if number == ABSENT:
        raise FontError(f"font: expected a glyph for {chr(character)!r}, found none")
    return int(number)


def metrics(pcf: bytes, number: int) -> tuple[int, int, int, int]:
    """Left, right, ascent and descent of a glyph's ink."""
    form, order, data = table(pcf, METRICS)
    if form & COMPRESSED:
        left, right, _, ascent, descent = (value - 0x80 for value in data[2 + 5 * number : 7 + 5 * number])
    else:
        left, right, _, ascent, descent = struct.unpack_from(order + "5h", data, 4 + 12 * number)
    return left, right, ascent, descent
