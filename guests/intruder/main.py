"""The intruder: tries everything a box should not be able to do, and counts. `intruder done` is its last line."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, text, u64, upto
from dsl.std.serial import serial_start, serial_write
from guests.canaries import enable_vector_registers
from guests.intruder.attempt import install_tables, rest
from guests.intruder.hypercalls import give_way, try_hypercalls
from guests.intruder.memory import own_memory_size, try_memory
from guests.intruder.ports import try_ports
from guests.intruder.registers import try_control_bits, try_forbidden, try_msrs, try_others
from guests.intruder.report import TOTALS, report, report_number
from guests.intruder.search import prepare_search, search_memory, search_registers

LAST_TURNS: Final = 256
ROUNDS: Final = 64  # times that we let the others run and look at the registers again


@machine
def search_rounds() -> None:
    """Let the other boxes run, and look at the registers each time: what a switch forgets shows here."""
    for _ in upto(u64(ROUNDS)):
        give_way()
        search_registers()


@machine
def start() -> None:
    """The box's first instruction: 64-bit mode, flat, interrupts off."""
    enable_vector_registers()
    install_tables()
    prepare_search()
    search_registers()
    _ = serial_start()
    serial_write(text("intruder starts\n"))
    memory_size = own_memory_size()
    try_forbidden()
    try_others()
    try_control_bits()
    try_msrs()
    search_registers()
    try_ports()
    try_hypercalls(memory_size)
    try_memory(memory_size)
    search_rounds()
    report(text("words of memory searched"), search_memory(memory_size), text("register searches"), u64(ROUNDS + 2))
    report_number(text("canaries found"), TOTALS.canaries)
    report_number(text("breaches"), TOTALS.breaches)
    serial_write(text("intruder done\n"))
    for _ in upto(u64(LAST_TURNS)):  # let the console show all that before the monitor says that this box has stopped
        give_way()
    rest()
