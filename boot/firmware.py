"""Asking UEFI while it lives: each function is one or two calls, and whoever asks gets a value or a refusal."""

from __future__ import annotations

from typing import Final

from boot.output import begin_line
from boot.refusal import Refusal, Rule, append_refusal
from dsl.hw.uefi import (
    ACPI_1_TABLE,
    ACPI_2_TABLE,
    ALLOCATE_MAX_ADDRESS,
    BLOCK_IO_PROTOCOL,
    DEVICE_PATH_PROTOCOL,
    GRAPHICS_OUTPUT_PROTOCOL,
    LOADED_IMAGE_PROTOCOL,
    LOADER_DATA,
    SUCCESS,
    BootServices,
    MemoryMapAnswer,
    SystemTable,
    TextOutput,
)
from dsl.hw.x86 import PAGE_SHIFT, PAGE_SIZE
from dsl.lang import (
    Array,
    HostVirtual,
    address_of,
    efi_call,
    frame_array,
    machine,
    static_array,
    table,
    text,
    u8,
    u16,
    u64,
    upto,
)
from dsl.lang.intrinsics import hlt
from dsl.std.print import append_text, line_bytes

BELOW_FOUR_GIGABYTES: Final = (1 << 32) - 1
WIDE_CAPACITY: Final = 256  # a Line, and what ends it
MAP_SIZE: Final = 65536  # more than a thousand rows: firmware's map, and those that asking for it adds
EXIT_ATTEMPTS: Final = 8
LOADED_IMAGE: Final = table(u8, LOADED_IMAGE_PROTOCOL)
DEVICE_PATH: Final = table(u8, DEVICE_PATH_PROTOCOL)
BLOCK_IO: Final = table(u8, BLOCK_IO_PROTOCOL)
GRAPHICS_OUTPUT: Final = table(u8, GRAPHICS_OUTPUT_PROTOCOL)
ACPI_2: Final = table(u8, ACPI_2_TABLE)
ACPI_1: Final = table(u8, ACPI_1_TABLE)
WIDE: Final = static_array(u16, WIDE_CAPACITY)
MAP: Final = static_array(u8, MAP_SIZE, align=8)


@machine
def write_console(system: SystemTable, data: Array[u8]) -> None:
    """Write at most a Line's bytes, and a line end, on firmware's console."""
    if system.console_out == HostVirtual(0):
        return
    for index in upto(data.length):
        WIDE[index] = u16(data[index])
    WIDE[data.length] = u16(ord("\r"))
    WIDE[data.length + 1] = u16(ord("\n"))
    WIDE[data.length + 2] = u16(0)
    write_wide(system, address_of(WIDE))


@machine
def write_wide(system: SystemTable, characters: HostVirtual) -> None:
    """Write zero-ended UTF-16 on firmware's console. Also runs on a processor that lacks what compiled code is used to."""
    if system.console_out == HostVirtual(0):
        return
    # Safe because firmware says that its console is there.
    console = TextOutput.at(system.console_out)
    _ = efi_call(console.output_string, system.console_out.as_u64(), characters.as_u64(), u64(0), u64(0), u64(0))


@machine
def tell(system: SystemTable, words: Array[u8]) -> None:
    """One whole line on firmware's console."""
    line = begin_line()
    append_text(line, words)
    write_console(system, line_bytes(line))


@machine
def require_with_firmware(system: SystemTable, refusal: Refusal) -> None:
    """Return if nothing is wrong; otherwise say on firmware's console what is, and stop."""
    if refusal.rule == Rule.GOOD:
        return
    line = begin_line()
    append_text(line, text("refused: "))
    append_refusal(line, refusal)
    write_console(system, line_bytes(line))
    tell(system, text("stopped"))
    while True:
        hlt()  # firmware's interrupts go on, which its console may need


@machine
def stop_watchdog(boot: BootServices) -> None:
    """Keep firmware from resetting the machine after five minutes: a refusal stays on the screen."""
    _ = efi_call(boot.set_watchdog_timer, u64(0), u64(0), u64(0), u64(0), u64(0))


@machine
def protocol_of(boot: BootServices, handle: u64, guid: Array[u8]) -> HostVirtual:
    """A handle's interface of that protocol, or 0."""
    found = frame_array(u64, 1)
    status = efi_call(
        boot.handle_protocol, handle, address_of(guid).as_u64(), address_of(found).as_u64(), u64(0), u64(0)
    )
    return HostVirtual(found[0]) if status == SUCCESS else HostVirtual(0)


@machine
def only_protocol(boot: BootServices, guid: Array[u8]) -> HostVirtual:
    """The first interface of that protocol in the machine, or 0."""
    found = frame_array(u64, 1)
    status = efi_call(
        boot.locate_protocol, address_of(guid).as_u64(), u64(0), address_of(found).as_u64(), u64(0), u64(0)
    )
    return HostVirtual(found[0]) if status == SUCCESS else HostVirtual(0)


@machine
def allocate_low(system: SystemTable, size: u64, rule: Rule) -> u64:
    """Pages below 4 GiB for `size` bytes; refuses by the rule if there are none."""
    # Safe because the system table is firmware's.
    boot = BootServices.at(system.boot_services)
    place = frame_array(u64, 1)
    place[0] = u64(BELOW_FOUR_GIGABYTES)
    pages = (size + (PAGE_SIZE - 1)) >> PAGE_SHIFT
    status = efi_call(
        boot.allocate_pages, u64(ALLOCATE_MAX_ADDRESS), u64(LOADER_DATA), pages, address_of(place).as_u64(), u64(0)
    )
    if status != SUCCESS:
        require_with_firmware(system, Refusal(rule, u64(0), size, status))
    return place[0]


@machine
def read_memory_map(boot: BootServices) -> MemoryMapAnswer:
    """Firmware's map, into MAP."""
    words = frame_array(u64, 4)
    words[0] = u64(MAP_SIZE)
    place = address_of(words).as_u64()
    status = efi_call(boot.get_memory_map, place, address_of(MAP).as_u64(), place + 8, place + 16, place + 24)
    return MemoryMapAnswer(status, words[0], words[1], words[2])


@machine
def exit_boot_services(boot: BootServices, image: u64) -> MemoryMapAnswer:
    """End firmware's part, with the map as it then is; a status that is not SUCCESS if it will not end. No console after that."""
    status = u64(SUCCESS)
    for _ in upto(EXIT_ATTEMPTS):  # firmware's own events may change the map between the two calls (UEFI 2.10, 7.4.6)
        answer = read_memory_map(boot)
        if answer.status != SUCCESS:
            return answer
        status = efi_call(boot.exit_boot_services, image, answer.key, u64(0), u64(0), u64(0))
        if status == SUCCESS:
            return answer
    return MemoryMapAnswer(status, u64(0), u64(0), u64(0))
