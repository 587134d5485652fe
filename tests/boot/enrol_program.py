"""A UEFI application that gives firmware the signed changes of `pipeline.secure_boot`, and says what it answered.

PK comes first: a machine without one takes any KEK and db, one that has it checks who signed them.
"""

from __future__ import annotations

from typing import Final

from boot.firmware import write_console
from dsl.hw.uefi import SystemTable
from dsl.lang import (
    HostVirtual,
    Struct,
    address_of,
    asm,
    at,
    efi_call,
    machine,
    static,
    supplied,
    table,
    text,
    u8,
    u16,
    u64,
)
from dsl.lang.intrinsics import hlt
from dsl.std.print import Line, append_hexadecimal, append_text, line_bytes, line_clear
from pipeline.secure_boot import ATTRIBUTES, GLOBAL_VARIABLE, IMAGE_SECURITY

CAPACITY: Final = 4096  # bytes of a change; its size in the table SIZES


class Services(Struct, size=136):
    """The system table's run-time services: addresses of functions."""

    set_variable: u64 = at(88)


class Table(Struct, size=120):
    """The system table, as far as it is needed here."""

    runtime_services: HostVirtual = at(88)


DB: Final = supplied(u8, CAPACITY, "test.db")
KEK: Final = supplied(u8, CAPACITY, "test.KEK")
PK: Final = supplied(u8, CAPACITY, "test.PK")
SIZES: Final = supplied(u64, 3, "test.sizes")  # of PK, KEK and db
DB_NAME: Final = table(u16, [ord("d"), ord("b"), 0])
KEK_NAME: Final = table(u16, [ord("K"), ord("E"), ord("K"), 0])
PK_NAME: Final = table(u16, [ord("P"), ord("K"), 0])
GLOBAL: Final = table(u8, GLOBAL_VARIABLE.bytes_le)
SECURITY: Final = table(u8, IMAGE_SECURITY.bytes_le)
CHANGE: Final = u64(ATTRIBUTES)
LINE: Final = static(Line)


@machine
def enrol(
    system: SystemTable, services: Services, name: HostVirtual, space: HostVirtual, size: u64, change: HostVirtual
) -> None:
    """Ask for one change; a line with the status."""
    status = efi_call(services.set_variable, name.as_u64(), space.as_u64(), CHANGE, size, change.as_u64())
    line_clear(LINE)
    append_text(LINE, text("enrolled, status "))
    append_hexadecimal(LINE, status)
    write_console(system, line_bytes(LINE))


@machine
def main(place: HostVirtual) -> None:
    """All three, then the end."""
    # Safe because firmware gives this address to every application.
    system = SystemTable.at(place)
    services = Services.at(Table.at(place).runtime_services)
    enrol(system, services, address_of(PK_NAME), address_of(GLOBAL), SIZES[0], address_of(PK))
    enrol(system, services, address_of(KEK_NAME), address_of(GLOBAL), SIZES[1], address_of(KEK))
    enrol(system, services, address_of(DB_NAME), address_of(SECURITY), SIZES[2], address_of(DB))
    write_console(system, text("enrolment ends"))
    while True:
        hlt()


@machine(naked=True)
def start() -> None:
    """Firmware's entry: rdx is the system table."""
    asm(
        """
        and rsp, -16
        sub rsp, 32
        mov rdi, rdx
        call {main}
        ud2
        """,
        main=main,
    )
