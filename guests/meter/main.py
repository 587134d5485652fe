"""The meter: counts what an exit costs, in ticks of the time-stamp counter. In Bochs a tick is an instruction.

Only `build.py bench exits` builds it. Each line is `meter: <what> <least> <most>`: ticks between two RDTSC around one
instruction, over ROUNDS times; `nothing` is what measuring itself costs.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    HostVirtual,
    address_of,
    array_at,
    asm,
    machine,
    maximum,
    minimum,
    table,
    text,
    u8,
    u64,
    upto,
)
from dsl.lang.intrinsics import vmcall
from dsl.std.print import Line, append_decimal, append_padded_text, append_text, line_bytes
from dsl.std.serial import serial_start, serial_write
from vmm.abi import Hypercall

ROUNDS: Final = 256
LAST_TURNS: Final = 256
SNIPPET_SIZE: Final = 16
NAME_SIZE: Final = 8
NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF

PAGE_DIRECTORY: Final = (
    0x12000  # of the first GiB, as the pipeline places the page tables of a box in long mode (docs/boxes.md)
)
DIRECTORY_ENTRIES: Final = 512
ABSENT: Final = 0x3FE0_0000  # the last large page of that GiB: mapped by us, absent to the box
PRESENT_WRITABLE_LARGE: Final = 0x83

IA32_APIC_BASE: Final = 0x1B
IA32_BIOS_SIGN_ID: Final = 0x8B
LINE_STATUS: Final = 0x3FD
PORT_ABSENT: Final = 0x80

# name, the instruction, rax, rcx, rdx; rdi is ABSENT, and the instruction may write rax, rbx, rcx, rdx and rdi
SNIPPETS: Final[tuple[tuple[str, str, int, int, int], ...]] = (
    ("nothing", "", 0, 0, 0),
    ("cpuid", "0fa2", 0, 0, 0),
    ("vmcall", "0f01c1", 0, 0, 0),  # VERSION
    ("rdmsr", "0f32", 0, IA32_APIC_BASE, 0),
    ("wrmsr", "0f30", 0, IA32_BIOS_SIGN_ID, 0),
    ("out", "ee", 0, 0, PORT_ABSENT),  # out dx, al
    ("in", "ec", 0, 0, LINE_STATUS),  # in al, dx
    ("mmio", "8b07", 0, 0, 0),  # mov eax, [rdi]
)
SNIPPET_COUNT: Final = len(SNIPPETS)
RETURN: Final = b"\xc3"
NAMES: Final = table(u8, b"".join(row[0].encode().ljust(NAME_SIZE, b"\0") for row in SNIPPETS))
CODE: Final = table(u8, b"".join((bytes.fromhex(row[1]) + RETURN).ljust(SNIPPET_SIZE, b"\xcc") for row in SNIPPETS))
REGISTERS: Final = table(u64, [value for row in SNIPPETS for value in row[2:]])  # three a row: rax, rcx, rdx


@machine(naked=True)
def time_snippet(code: HostVirtual, rax: u64, rcx: u64, rdx: u64, rdi: u64) -> u64:
    """Ticks from one RDTSC to the next, with a call of the snippet between them.

    Safe because a snippet is one instruction and RET, and what the instruction writes is the caller's to lose, but RBX, which is kept.
    """
    asm("""
    push rbx
    mov r9, rdi
    mov r10, rdx
    mov r11, rcx
    mov rdi, r8
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov r8, rax
    mov rax, rsi
    mov rcx, r10
    mov rdx, r11
    call r9
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r8
    pop rbx
    ret
    """)


@machine
def report(name: Array[u8], least: u64, most: u64) -> None:
    """Print a line. `name`: padded with zeros."""
    line = Line()
    append_text(line, text("meter: "))
    append_padded_text(line, name)
    append_text(line, text(" "))
    append_decimal(line, least)
    append_text(line, text(" "))
    append_decimal(line, most)
    append_text(line, text("\n"))
    serial_write(line_bytes(line))


@machine
def measure(row: u64) -> None:
    """Time a row of SNIPPETS over and over, and print the least and the most."""
    # Safe because the snippets lie in CODE one after the other.
    code = address_of(CODE) + row * SNIPPET_SIZE
    least = u64(NEVER)
    most = u64(0)
    for _ in upto(u64(ROUNDS)):
        ticks = time_snippet(code, REGISTERS[row * 3], REGISTERS[row * 3 + 1], REGISTERS[row * 3 + 2], u64(ABSENT))
        least = minimum(least, ticks)
        most = maximum(most, ticks)
    report(NAMES.slice(row * NAME_SIZE, u64(NAME_SIZE)), least, most)


@machine
def map_absent() -> None:
    """Map a page that the box does not have, so that its page tables do not stand in the way of an access."""
    # Safe because the pipeline placed the page directory there.
    directory = array_at(u64, HostVirtual(PAGE_DIRECTORY), u64(DIRECTORY_ENTRIES))
    directory[ABSENT >> 21] = u64(ABSENT | PRESENT_WRITABLE_LARGE)


@machine
def give_way() -> None:
    """Give up the rest of the time slice."""
    _ = vmcall(Hypercall.YIELD.value, u64(0), u64(0), u64(0), u64(0), u64(0))


@machine
def start() -> None:
    """The box's first instruction: 64-bit mode, flat, interrupts off."""
    _ = serial_start()
    map_absent()
    for row in upto(u64(SNIPPET_COUNT)):
        measure(row)
    serial_write(text("meter done\n"))
    # Let the console show all that before the monitor says that this box has stopped.
    for turn in upto(u64(LAST_TURNS)):  # noqa: B007  (`_` is taken by the statement below)
        give_way()
    stop_here()


@machine(naked=True)
def stop_here() -> None:
    """End the box: halted for ever. Safe because nothing else runs in it: interrupts are off and stay off."""
    asm("""
    cli
again:
    hlt
    jmp again
    """)
