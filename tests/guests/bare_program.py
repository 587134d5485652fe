"""The intruder on a bare machine, where nothing stops it: it must find what a monitor hides. Run by test_bare.py in Bochs."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, text, u8, u16, u64
from dsl.lang.intrinsics import in8, out8
from dsl.std.serial import LINE_STATUS, serial_start, serial_write
from guests.canaries import CANARY, enable_vector_registers
from guests.intruder.attempt import install_tables, rest
from guests.intruder.hypercalls import try_hypercalls
from guests.intruder.memory import access, open_window, own_memory_size, scan_large_pages, write_once
from guests.intruder.ports import read_ports
from guests.intruder.registers import try_control_bits, try_forbidden, try_msrs
from guests.intruder.report import TOTALS, report_number
from guests.intruder.search import prepare_search, search_memory, search_registers
from guests.intruder.snippets import WRITE_64_ROW
from guests.witness.canaries import check_canaries, plant_canaries

FOREIGN: Final = 0x0140_1238  # a place beyond the program's own 4 MiB, where another box's word lies
FOREIGN_PAGES: Final = 14  # large pages: what a machine of 32 MiB has beside the program's four
TRANSMITTER_IDLE: Final = 0x40
SHUTDOWN_PORT: Final = 0x8900  # Bochs ends at 'D'


@machine
def end() -> None:
    """Let the last line leave the UART, and end Bochs."""
    while in8(LINE_STATUS) & TRANSMITTER_IDLE == 0:
        pass
    out8(u16(SHUTDOWN_PORT), u8(ord("D")))
    rest()


@machine
def start() -> None:
    """Try what does no harm to a bare machine, then plant canaries and look for them."""
    enable_vector_registers()
    install_tables()
    prepare_search()
    search_registers()
    _ = serial_start()
    size = own_memory_size()
    try_forbidden()
    try_control_bits()
    try_msrs()
    report_number(text("ports answered"), read_ports())
    try_hypercalls(size)
    report_number(text("breaches before memory"), TOTALS.breaches)
    report_number(text("canaries before planting"), TOTALS.canaries)
    open_window()
    _ = access(u64(WRITE_64_ROW), u64(FOREIGN), u64(CANARY + 7))
    scan_large_pages(size, u64(FOREIGN_PAGES))
    report_number(text("canaries in foreign memory"), TOTALS.canaries)
    report_number(text("foreign writes kept"), write_once(u64(FOREIGN + 8)))
    TOTALS.canaries = u64(0)
    plant_canaries()
    report_number(text("witness canaries damaged"), check_canaries())
    search_registers()
    report_number(text("canaries in registers"), TOTALS.canaries)
    _ = search_memory(size)
    report_number(text("canaries in all"), TOTALS.canaries)
    serial_write(text("intruder done\n"))
    end()
