"""Counts primes on the bare machine and says so on the serial port."""

from typing import Final

from dsl.lang import asm, between, machine, static_array, text, u8, u64
from dsl.std.power import power_off
from dsl.std.print import Line, append_decimal, append_text, line_bytes
from dsl.std.serial import serial_drain, serial_start, serial_write

STACK: Final = static_array(u8, 4096)


@machine
def main() -> None:
    count = u64(0)
    for number in between(u64(2), u64(1000)):
        divisor = u64(2)
        while number % divisor != 0:
            divisor += 1
        count += u64(divisor == number)
    line = Line()
    append_decimal(line, count)
    append_text(line, text(" primes below 1000\n"))
    assert serial_start(), "there is a serial port"
    serial_write(line_bytes(line))
    serial_drain()
    power_off()


@machine(naked=True)
def start() -> None:
    asm("lea rsp, [rip + {end}]; add rsp, 4096; call {main}; ud2", end=STACK, main=main)
