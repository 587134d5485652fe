"""The text screen as emitted code: every cell is what a screen of 80 by 25 shows, and the cursor stands behind the last one."""

from __future__ import annotations

import pytest

from dsl.std.screen import CELLS, COLUMNS, ROWS, screen_start, screen_write
from tests.std.ported import MEMORY, Ported

pytestmark = pytest.mark.t1
PAGE, SCREEN, TEXT, GUARD = 0x1000, 0x4000, 0x5000, b"\xa5\x5a" * 64
BLANK = 0x0720


def shown(cells: list[int], position: int, data: bytes) -> int:
    """Write into the cells as the screen should; the new position."""
    for byte in data:
        if byte == 10:
            position = (position // COLUMNS + 1) * COLUMNS
        else:
            cells[position] = 0x700 | byte
            position += 1
        if position >= CELLS:
            cells[:] = cells[COLUMNS:] + [BLANK] * COLUMNS
            position -= COLUMNS
    return position


@pytest.mark.parametrize("position", [0, 5, 79, 80, 81, 1919, 1920, 1999])
@pytest.mark.parametrize(
    "data", [b"", b"a", b"\n", b"ab\ncd\n\ne", bytes(range(256)), b"x" * 80, b"long\n" * 30 + b"end"]
)
def test_cells_and_cursor(position: int, data: bytes) -> None:
    """Text, line ends and scrolling, from wherever the cursor stood."""
    world = Ported(screen_write)
    cells = [0x1F00 | number % 251 for number in range(CELLS)]
    world.write(PAGE - len(GUARD), GUARD + b"".join(cell.to_bytes(2, "little") for cell in cells) + GUARD)
    address = world.write(PAGE, b"")
    screen = world.write(SCREEN, address.to_bytes(8, "little") + position.to_bytes(8, "little"))
    world.call(screen, world.write(TEXT, data), len(data))
    end = shown(cells, position, data)
    assert world.get(PAGE - len(GUARD), CELLS * 2 + 2 * len(GUARD)) == (
        GUARD + b"".join(cell.to_bytes(2, "little") for cell in cells) + GUARD
    )
    assert world.get(SCREEN, 16) == address.to_bytes(8, "little") + end.to_bytes(8, "little")
    assert world.accesses == [
        ("out", 0x3D4, 14),
        ("out", 0x3D5, end >> 8),
        ("out", 0x3D4, 15),
        ("out", 0x3D5, end & 0xFF),
    ]


@pytest.mark.parametrize("position", [0, 1, 255, 256, CELLS - 1, CELLS, CELLS + 1, 0xFFFF])
def test_it_goes_on_where_the_cursor_stands(position: int) -> None:
    """If that is on the screen; else at the top."""
    bytes_left = [position >> 8, position & 0xFF]
    world = Ported(screen_start, lambda port: bytes_left.pop(0))
    world.call(world.write(SCREEN, b"\xff" * 16), MEMORY + PAGE)
    start = position if position < CELLS else 0
    assert world.get(SCREEN, 16) == (MEMORY + PAGE).to_bytes(8, "little") + start.to_bytes(8, "little")
    assert [row[:2] for row in world.accesses] == [("out", 0x3D4), ("in", 0x3D5)] * 2
    assert [row[2] for row in world.accesses if row[0] == "out"] == [14, 15]
    assert ROWS * COLUMNS == CELLS
