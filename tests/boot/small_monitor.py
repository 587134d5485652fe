"""A monitor for the boot tests: says on COM1 what it was handed, and in which state, and stops."""

from __future__ import annotations

from typing import Final

from boot.handoff import Handoff
from dsl.lang import Array, HostVirtual, asm, cli, hlt, machine, out16, static, static_array, text, u8, u16, u64, upto
from dsl.std.print import (
    Line,
    append_decimal,
    append_hexadecimal,
    append_hexadecimal_bytes,
    append_text,
    line_bytes,
    line_clear,
)
from dsl.std.serial import serial_write

STACK_SIZE: Final = 16384
DEBUGGER: Final = u16(0x8A00)  # the emulator's debug port: this value switches it on
TO_DEBUGGER: Final = u16(0x8AE0)
STACK: Final = static_array(u8, STACK_SIZE, align=16)
REGISTERS: Final = static_array(u64, 15)
LINE: Final = static(Line)


@machine(naked=True)
def monitor_start() -> None:
    """Keep what the registers held, then go on with a stack."""
    asm(
        """
        push rax
        lea rax, [rip + {registers}]
        mov qword ptr [rax + 8], rbx
        mov qword ptr [rax + 16], rcx
        mov qword ptr [rax + 24], rdx
        mov qword ptr [rax + 32], rsi
        mov qword ptr [rax + 40], rbp
        mov qword ptr [rax + 48], r8
        mov qword ptr [rax + 56], r9
        mov qword ptr [rax + 64], r10
        mov qword ptr [rax + 72], r11
        mov qword ptr [rax + 80], r12
        mov qword ptr [rax + 88], r13
        mov qword ptr [rax + 96], r14
        mov qword ptr [rax + 104], r15
        pop rbx
        mov qword ptr [rax], rbx
        pushfq
        pop rbx
        mov qword ptr [rax + 112], rbx
        lea rsp, [rip + {stack}]
        add rsp, {size}
        call {main}
        ud2
        """,
        registers=REGISTERS,
        stack=STACK,
        size=STACK_SIZE,
        main=monitor_main,
    )


@machine
def put(name: Array[u8], value: u64) -> None:
    """One line: a name and a number."""
    append_text(LINE, name)
    append_text(LINE, text(" "))
    append_hexadecimal(LINE, value)
    end_line()


@machine
def end_line() -> None:
    """Send the line."""
    append_text(LINE, text("\n"))
    serial_write(line_bytes(LINE))
    line_clear(LINE)


@machine
def put_bytes(name: Array[u8], data: Array[u8]) -> None:
    """A name and bytes, in lines of 64."""
    offset = u64(0)
    while offset < data.length:
        count = data.length - offset if data.length - offset < 64 else u64(64)
        append_text(LINE, name)
        append_text(LINE, text(" "))
        append_hexadecimal_bytes(LINE, data.slice(offset, count))
        end_line()
        offset += count


@machine
def monitor_main(place: HostVirtual) -> None:
    """Print the handoff."""
    # Safe because the loader gives the handoff's address.
    handoff = Handoff.at(place)
    append_text(LINE, text("monitor"))
    end_line()
    for index in upto(15):
        append_text(LINE, text("register "))
        append_decimal(LINE, index)
        put(text(":"), REGISTERS[index])
    put(text("place"), place.as_u64())
    put(text("magic"), handoff.magic)
    put(text("version"), u64(handoff.version))
    put(text("size"), u64(handoff.size))
    for index in upto(u64(handoff.range_count)):
        put(text("range base"), handoff.ranges[index].base)
        put(text("range size"), handoff.ranges[index].size)
    put(text("monitor physical"), handoff.monitor_physical.as_u64())
    put(text("monitor memory"), handoff.monitor_memory)
    put(text("tables"), handoff.page_tables.as_u64())
    put(text("tables size"), handoff.page_tables_size)
    for index in upto(u64(handoff.entry_count)):
        entry = handoff.entries[index]
        put(text("entry kind"), u64(entry.kind))
        put(text("entry place"), entry.physical.as_u64())
        put(text("entry size"), entry.size)
        put_bytes(text("entry row"), entry.row)
    put(text("mode"), u64(handoff.mode))
    put(text("posture"), handoff.posture)
    put(text("acpi"), handoff.acpi_root.as_u64())
    put(text("security version"), handoff.security_version)
    put_bytes(text("signer"), handoff.signer_key)
    device = handoff.device_certificate
    put_bytes(text("device"), device.content.slice(0, u64(device.size)))
    monitor = handoff.monitor_certificate
    put_bytes(text("certificate"), monitor.content.slice(0, u64(monitor.size)))
    append_text(LINE, text("terrane| stopped"))
    end_line()
    out16(DEBUGGER, DEBUGGER)
    out16(DEBUGGER, TO_DEBUGGER)
    while True:
        cli()
        hlt()
