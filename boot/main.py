"""The loader body: from what a firmware left to a running monitor. Read it from top to bottom.

It runs in long mode on the first processor, interrupts off, memory identity-mapped, wherever it lies: on BIOS machines at 0x10000, after
stage 2 (boot/stages), otherwise after boot/uefi.py. `boot.parameters.BootParameters` is what it is given, `boot.handoff.Handoff` what it
gives. Nothing that failed is ever started.
"""

from __future__ import annotations

from typing import Final

from boot.acpi import find_acpi_root
from boot.device import derive_monitor
from boot.entries import SECRET, load_entries
from boot.exceptions import exceptions_start
from boot.handoff import DIRECT_MAP, HANDOFF_MAGIC, HANDOFF_SIZE, HANDOFF_VERSION, MONITOR_BASE, Handoff
from boot.header import ImageHeader, check_header
from boot.image import check_signature
from boot.leave import leave
from boot.memory_map import map_top
from boot.monitor_space import MonitorPlace, TableBlock, build_monitor_space, table_block_size
from boot.output import FONT, FRAMEBUFFER, output_start, require, say
from boot.parameters import FIRMWARE_BIOS, PARAMETERS_BASE, BootParameters, check_parameters
from boot.places import FREE, allocate, find_memory, hand_over_memory
from boot.quiet import park_processors, stop_bus_masters
from boot.refusal import Rule
from boot.secret import choose_secret
from boot.tpm import begin_measuring, end_measuring, measure_header, quote_chain
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import (
    HostPhysical,
    HostVirtual,
    address_of,
    array_at,
    as_secret,
    asm,
    erase,
    function_address,
    image_base,
    image_end,
    machine,
    static,
    static_array,
    supplied,
    text,
    u8,
    u32,
    u64,
)
from dsl.std.flat import FlatPrologue
from dsl.std.sha256_bulk import use_sha_extensions

BOUNCE_BASE: Final = 0x80000  # where stage 2 lets the disk write to (boot/stages)
BOUNCE_SIZE: Final = 0x8000
STACK_SIZE: Final = 65536
HEADER_KEY: Final = supplied(u8, 32, "boot.header_key")  # who may sign an image: never taken from the image
STACK: Final = static_array(u8, STACK_SIZE, align=16)
HEADER: Final = static(ImageHeader)
MONITOR: Final = static(MonitorPlace)


@machine(naked=True)
def start() -> None:
    """Where stage 2 jumps to: set the stack and never come back."""
    asm(
        """
        lea rsp, [rip + {stack}]
        add rsp, {size}
        xor ebp, ebp
        mov edi, {parameters}
        call {main}
        ud2
        """,
        stack=STACK,
        size=STACK_SIZE,
        parameters=PARAMETERS_BASE,
        main=main,
    )


@machine
def main(parameters: BootParameters) -> None:
    """The whole of it."""
    output_start(parameters)
    exceptions_start()
    use_sha_extensions()
    say(text("loader: checking the image"))
    park_processors()
    _ = stop_bus_masters()
    require(check_parameters(parameters))

    # Safe because the partition was read there; check_parameters saw that it is at least a header long.
    staging = HostVirtual(parameters.staging_base)
    HEADER.copy_from(ImageHeader.at(staging))
    require(check_signature(HEADER, HEADER_KEY))
    require(check_header(HEADER, parameters.staging_size))
    find_memory(parameters)

    handoff = new_handoff(HEADER, parameters)
    begin_measuring(handoff, parameters)
    measure_header(handoff, HEADER)
    load_entries(handoff, HEADER, staging, MONITOR)
    choose_secret(handoff, HEADER)
    derive_monitor(handoff, as_secret(SECRET), handoff.entries[0].row, u64(HEADER.entries[0].security_version))
    erase(SECRET)
    end_measuring(handoff)
    quote_chain(handoff)
    tables = build_tables(handoff)
    hand_over_memory(handoff)

    # Safe because the monitor lies there, and its prologue was checked.
    program = FlatPrologue.at(HostVirtual(MONITOR.physical))
    say(text("loader: every entry is what the signed header says; the monitor starts"))
    entry = HostVirtual(MONITOR_BASE) + u64(program.entry)
    handoff.framebuffer_row = FRAMEBUFFER.row
    if parameters.firmware == FIRMWARE_BIOS:
        wipe_low_memory(parameters)
    leave(address_of(handoff) + DIRECT_MAP, tables, entry, image_base(), image_end())


@machine
def wipe_low_memory(parameters: BootParameters) -> None:
    """Wipe what stage 2 used: the parameters, and the buffer that the last disk reads went through."""
    erase(parameters)
    # Safe because nothing lies there any more.
    erase(array_at(u8, HostVirtual(BOUNCE_BASE), u64(BOUNCE_SIZE)))


@machine
def new_handoff(header: ImageHeader, parameters: BootParameters) -> Handoff:
    """An empty handoff in memory of its own."""
    # Safe because the memory was just allocated for it.
    handoff = Handoff.at(allocate(u64(HANDOFF_SIZE), u64(PAGE_SIZE), Rule.MEMORY_HANDOFF, u64(0)))
    handoff.clear()
    handoff.magic = u64(HANDOFF_MAGIC)
    handoff.version = u32(HANDOFF_VERSION)
    handoff.size = u32(HANDOFF_SIZE)
    handoff.signer_key.copy_from(HEADER_KEY)
    handoff.security_version = header.security_version
    if parameters.firmware == FIRMWARE_BIOS:
        handoff.acpi_root = find_acpi_root()
    else:
        handoff.acpi_root = parameters.acpi_root
    handoff.framebuffer = parameters.framebuffer
    handoff.framebuffer_width = parameters.framebuffer_width
    handoff.framebuffer_height = parameters.framebuffer_height
    handoff.framebuffer_pitch = parameters.framebuffer_pitch
    handoff.font = HostPhysical(address_of(FONT).as_u64())
    return handoff


@machine
def build_tables(handoff: Handoff) -> HostVirtual:
    """Build the monitor's address space; the result is its PML4's address."""
    top = map_top(FREE)
    size = table_block_size(top, MONITOR.memory_size)
    base = allocate(size, u64(PAGE_SIZE), Rule.MEMORY_TABLES, u64(0))
    # Safe because the memory was just allocated for the tables.
    array_at(u8, base, size).fill(u8(0))
    block = TableBlock()
    block.next = base
    block.end = base + size
    root = build_monitor_space(block, top, MONITOR, function_address(leave).as_u64())
    handoff.monitor_physical = HostPhysical(MONITOR.physical)
    handoff.monitor_memory = MONITOR.memory_size
    handoff.page_tables = HostPhysical(base.as_u64())
    handoff.page_tables_size = size
    return root
