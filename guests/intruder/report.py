"""The intruder's lines: `intruder: <what> <number> ...`, and its two totals."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, machine, static, text, u8, u64
from dsl.std.print import Line, append_decimal, append_hexadecimal, append_text, line_bytes
from dsl.std.serial import serial_write


class Totals(Struct):
    """What must stay zero."""

    breaches: u64  # things that a box must not be able to do
    canaries: u64  # words of another box's


TOTALS: Final = static(Totals)


@machine
def begin(line: Line, what: Array[u8]) -> None:
    """Begin a line."""
    append_text(line, text("intruder: "))
    append_text(line, what)


@machine
def add(line: Line, what: Array[u8], value: u64) -> None:
    """Append a word and a number."""
    append_text(line, text(" "))
    append_text(line, what)
    append_text(line, text(" "))
    append_decimal(line, value)


@machine
def finish(line: Line) -> None:
    """Print the line."""
    append_text(line, text("\n"))
    serial_write(line_bytes(line))


@machine
def report(what: Array[u8], tried: u64, verb: Array[u8], count: u64) -> None:
    """Print `intruder: what tried verb count`."""
    line = Line()
    begin(line, what)
    append_text(line, text(" "))
    append_decimal(line, tried)
    add(line, verb, count)
    finish(line)


@machine
def report_number(what: Array[u8], value: u64) -> None:
    """Print `intruder: what value`."""
    line = Line()
    begin(line, what)
    append_text(line, text(" "))
    append_decimal(line, value)
    finish(line)


@machine
def report_breach(what: Array[u8], where: u64) -> None:
    """Count something that must not be possible, and print it (the first 32: a flood helps nobody)."""
    TOTALS.breaches += 1
    if TOTALS.breaches > 32:
        return
    line = Line()
    begin(line, text("BREACH "))
    append_text(line, what)
    append_text(line, text(" at "))
    append_hexadecimal(line, where)
    finish(line)


@machine
def report_canary(where: Array[u8], place: u64) -> None:
    """Count a word that belongs to another box, and print where it was (the first 32)."""
    TOTALS.canaries += 1
    if TOTALS.canaries > 32:
        return
    line = Line()
    begin(line, text("CANARY in "))
    append_text(line, where)
    append_text(line, text(" "))
    append_hexadecimal(line, place)
    finish(line)
