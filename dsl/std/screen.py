"""The VGA text screen: 80 columns, 25 rows, scrolling. Goes on where firmware's cursor stands."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, HostVirtual, Struct, address_of, array, machine, u8, u16, u64, upto
from dsl.lang.intrinsics import copy_words, in8, out8

COLUMNS: Final = 80
ROWS: Final = 25
CELLS: Final = 2000
ROW_SIZE: Final = 160  # bytes
TEXT_PHYSICAL: Final = 0xB8000
CURSOR_INDEX: Final = u16(0x3D4)  # CRT controller: index, data
CURSOR_DATA: Final = u16(0x3D5)
CURSOR_HIGH: Final = u8(0x0E)
CURSOR_LOW: Final = u8(0x0F)
GREY_ON_BLACK: Final = u16(0x0700)
BLANK: Final = u16(0x0720)
NEWLINE: Final = u8(ord("\n"))


class TextMemory(Struct, size=4000):
    """The visible page of text memory: character and attribute a cell, row by row."""

    cells: Array[u16] = array(CELLS)


class Screen(Struct, size=16):
    """Where text memory is seen, and the next cell to write."""

    memory: HostVirtual
    position: u64


@machine
def screen_start(screen: Screen, memory: HostVirtual) -> None:
    """Take the screen over; text memory (physical 0xb8000) is seen at `memory`."""
    screen.memory = memory
    out8(CURSOR_INDEX, CURSOR_HIGH)
    high = in8(CURSOR_DATA)
    out8(CURSOR_INDEX, CURSOR_LOW)
    position = (u64(high) << 8) | u64(in8(CURSOR_DATA))
    screen.position = position if position < CELLS else u64(0)


@machine
def screen_write(screen: Screen, data: Array[u8]) -> None:
    """Write bytes; a newline begins the next row; other control characters show as their glyphs."""
    # Safe because the owner of the Screen gave the address of text memory.
    page = TextMemory.at(screen.memory)
    for index in upto(data.length):
        if data[index] == NEWLINE:
            screen.position += COLUMNS - screen.position % COLUMNS
        else:
            page.cells[screen.position] = GREY_ON_BLACK | u16(data[index])
            screen.position += 1
        if screen.position >= CELLS:
            scroll(page)
            screen.position -= COLUMNS
    show_cursor(screen.position)


@machine
def scroll(page: TextMemory) -> None:
    """Move all rows up by one and blank the last."""
    # Safe because both ranges lie inside the page, and the copy goes from its first word to its last, downward in memory.
    copy_words(address_of(page.cells), address_of(page.cells) + ROW_SIZE, u64((CELLS - COLUMNS) * 2 // 8))
    page.cells.slice(CELLS - COLUMNS, COLUMNS).fill(BLANK)


@machine
def show_cursor(position: u64) -> None:
    """Move the blinking cursor."""
    out8(CURSOR_INDEX, CURSOR_HIGH)
    out8(CURSOR_DATA, (position >> 8).truncate(u8))
    out8(CURSOR_INDEX, CURSOR_LOW)
    out8(CURSOR_DATA, position.truncate(u8))
