"""The witness's console: `attest <64 hex digits>` gives evidence, `canaries` tells whether anything leaked in."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Failure, Struct, array, frame_array, machine, minimum, static, text, u8, u64, upto
from dsl.lang.intrinsics import cli, hlt
from dsl.std.print import Line, append_decimal, append_hexadecimal, append_hexadecimal_bytes, append_text, line_bytes
from dsl.std.serial import serial_receive, serial_start, serial_write
from dsl.std.sha256 import DIGEST_SIZE, sha256
from guests.witness.canaries import check_canaries, plant_canaries
from guests.witness.evidence import NONCE_SIZE, endorse, fetch_identity, make_bundle, make_keys
from guests.witness.waiting import prepare_waiting, wait_for_key

INPUT_LIMIT: Final = 160  # bytes of a line; "attest " and 64 digits fit
HEX_ROW: Final = 32  # bytes a line of evidence
NOT_A_DIGIT: Final = 16

BACKSPACE: Final = 0x08
NEWLINE: Final = 0x0A
RETURN: Final = 0x0D
DELETE: Final = 0x7F


class InputLine(Struct):
    """A line as it is typed. What goes beyond the limit is counted, not kept."""

    length: u64
    content: Array[u8] = array(INPUT_LIMIT)


INPUT: Final = static(InputLine)


@machine
def say(words: Array[u8]) -> None:
    """Print a line."""
    serial_write(words)
    serial_write(text("\n"))


@machine
def say_failure(what: Array[u8], status: u64) -> None:
    """Print that a hypercall was refused, and with which status."""
    line = Line()
    append_text(line, text("error: "))
    append_text(line, what)
    append_text(line, text(" expected status 0, found "))
    append_decimal(line, status)
    say(line_bytes(line))


@machine
def take_key(value: u8) -> bool:
    """Add a typed byte to INPUT; True when it ends the line."""
    if value == RETURN or value == NEWLINE:
        return True
    if value == BACKSPACE or value == DELETE:
        INPUT.length -= u64(INPUT.length != 0)
        return False
    if INPUT.length < INPUT_LIMIT:
        INPUT.content[INPUT.length] = value
    INPUT.length += 1
    return False


@machine
def read_line() -> None:
    """Fill INPUT with the next line that is typed."""
    INPUT.length = u64(0)
    wait_for_key()
    while not take_key(serial_receive()):
        wait_for_key()


@machine
def begins_with(words: Array[u8], start: Array[u8]) -> bool:
    """Tell whether words begin with start."""
    return words.length >= start.length and words.slice(u64(0), start.length).equals(start)


@machine
def digit_value(digit: u8) -> u8:
    """Return the value of a hexadecimal digit, or NOT_A_DIGIT."""
    if digit >= 0x30 and digit <= 0x39:
        return digit - 0x30
    lower = digit | 0x20
    if lower >= 0x61 and lower <= 0x66:
        return lower - 0x57
    return u8(NOT_A_DIGIT)


@machine
def parse_nonce(nonce: Array[u8], digits: Array[u8]) -> bool:
    """Set nonce to 64 hexadecimal digits; False if they are anything else."""
    if digits.length != 2 * NONCE_SIZE:
        return False
    for index in upto(nonce.length):
        high = digit_value(digits[index * 2])
        low = digit_value(digits[index * 2 + 1])
        if high == NOT_A_DIGIT or low == NOT_A_DIGIT:
            return False
        nonce[index] = (high << 4) | low
    return True


@machine
def report_canaries(damaged: u64) -> None:
    """Print whether the canaries are intact, or which are not (DAMAGED_... bits)."""
    if damaged == 0:
        say(text("witness canaries intact"))
        return
    line = Line()
    append_text(line, text("witness canaries damaged: "))
    append_hexadecimal(line, damaged)
    say(line_bytes(line))


@machine
def print_evidence(bundle: Array[u8]) -> None:
    """Print the bundle in hexadecimal between its two marks."""
    say(text("begin-evidence"))
    offset = u64(0)
    while offset < bundle.length:
        count = minimum(bundle.length - offset, u64(HEX_ROW))
        line = Line()
        append_hexadecimal_bytes(line, bundle.slice(offset, count))
        say(line_bytes(line))
        offset += count
    digest = frame_array(u8, DIGEST_SIZE)
    sha256(digest, bundle)
    last = Line()
    append_text(last, text("end-evidence "))
    append_hexadecimal_bytes(last, digest)
    say(line_bytes(last))


@machine
def attest(digits: Array[u8]) -> None:
    """Obey `attest`: endorse what is to be said now, over the nonce, and print the evidence."""
    nonce = frame_array(u8, NONCE_SIZE)
    if not parse_nonce(nonce, digits):
        line = Line()
        append_text(line, text("error: attest: expected 64 hexadecimal digits, found "))
        append_decimal(line, digits.length)
        append_text(line, text(" characters"))
        say(line_bytes(line))
        return
    damaged = check_canaries()
    endorsed = endorse(nonce, text("canaries intact") if damaged == 0 else text("canaries damaged"))
    if isinstance(endorsed, Failure):
        say_failure(text("ENDORSE"), endorsed.code)
        return
    print_evidence(make_bundle())
    report_canaries(check_canaries())


@machine
def obey() -> None:
    """Obey the line in INPUT; an empty one is nothing."""
    if INPUT.length == 0:
        return
    if INPUT.length > INPUT_LIMIT:
        line = Line()
        append_text(line, text("error: expected a line of at most 160 bytes, found "))
        append_decimal(line, INPUT.length)
        say(line_bytes(line))
        return
    words = INPUT.content.slice(u64(0), INPUT.length)
    if begins_with(words, text("attest ")):
        attest(words.slice(u64(7), words.length - 7))
    elif words.equals(text("canaries")):
        report_canaries(check_canaries())
    else:
        say(text('error: expected "attest <64 hexadecimal digits>" or "canaries"'))


@machine
def prepare() -> bool:
    """Make the keys, learn the identity, plant the canaries. False, and said why, when the monitor refuses."""
    keys = make_keys()
    if isinstance(keys, Failure):
        say_failure(text("RANDOM"), keys.code)
        return False
    identity = fetch_identity()
    if isinstance(identity, Failure):
        say_failure(text("GET_ID"), identity.code)
        return False
    plant_canaries()
    return True


@machine
def start() -> None:
    """The box's first instruction: 64-bit mode, flat, interrupts off, no descriptor tables of its own yet."""
    _ = serial_start()
    prepare_waiting()
    if not prepare():
        say(text("witness cannot work"))
        while True:
            cli()
            hlt()
    say(text("witness ready"))
    while True:
        read_line()
        obey()
