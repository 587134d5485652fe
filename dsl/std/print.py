"""Lines of text built in memory: the one home of text, decimal and hexadecimal output.

A program fills a Line and then hands `line_bytes(line)` to its own output (UART, screen, ring). A line that is full drops what follows and
says so by its last character, '~'.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, machine, table, text, u8, u64, upto

LINE_CAPACITY: Final = 248
FULL_MARK: Final = u8(ord("~"))
DIGITS: Final = table(u8, b"0123456789abcdef")
POWERS_OF_TEN: Final = table(u64, [10**exponent for exponent in range(19, -1, -1)])


class Line(Struct, size=256):
    """Text under construction: bytes 0 to length - 1 of content are valid."""

    length: u64
    content: Array[u8] = array(248)


@machine
def line_clear(line: Line) -> None:
    """Start again with an empty line."""
    line.length = u64(0)


@machine
def line_bytes(line: Line) -> Array[u8]:
    """The text so far, in place."""
    return line.content.slice(0, line.length)


@machine
def append_byte(line: Line, character: u8) -> None:
    """Append one byte, or mark the line full."""
    if line.length < LINE_CAPACITY:
        line.content[line.length] = character
        line.length += 1
    else:
        line.content[LINE_CAPACITY - 1] = FULL_MARK


@machine
def append_text(line: Line, characters: Array[u8]) -> None:
    """Append bytes as they are."""
    for index in upto(characters.length):
        append_byte(line, characters[index])


@machine
def append_padded_text(line: Line, characters: Array[u8]) -> None:
    """Append the bytes before the first zero (a field that is padded with zeros)."""
    for index in upto(characters.length):
        if characters[index] == 0:
            return
        append_byte(line, characters[index])


@machine
def append_decimal(line: Line, value: u64) -> None:
    """Append a number in decimal, without leading zeros."""
    rest = value
    started = False
    for index in upto(POWERS_OF_TEN.length):
        power = POWERS_OF_TEN[index]
        digit = rest // power
        rest = rest % power
        if digit != 0 or started or power == 1:
            started = True
            append_byte(line, DIGITS[digit])


@machine
def append_hexadecimal(line: Line, value: u64) -> None:
    """Append 0x and sixteen hexadecimal digits."""
    append_text(line, text("0x"))
    rest = value
    for _ in upto(16):
        append_byte(line, DIGITS[rest >> 60])
        rest = rest << 4


@machine
def append_hexadecimal_bytes(line: Line, data: Array[u8]) -> None:
    """Append two hexadecimal digits a byte, first byte first."""
    for index in upto(data.length):
        append_byte(line, DIGITS[data[index] >> 4])
        append_byte(line, DIGITS[data[index] & 15])
