"""The UEFI application: from firmware's entry to the common loader body (UEFI 2.10). Start reading at `prepare`.

Firmware loads it anywhere. While firmware lives it reads the Terrane partition and notes what the body wants to know; then firmware is
left, and the program moves to a place of its own below 4 GiB, with page tables of its own, where the body runs as it does after a BIOS.
"""

from __future__ import annotations

from typing import Final

from boot.baseline import BASELINE
from boot.firmware import (
    ACPI_1,
    ACPI_2,
    GRAPHICS_OUTPUT,
    MAP,
    allocate_low,
    exit_boot_services,
    only_protocol,
    require_with_firmware,
    stop_watchdog,
    tell,
    write_wide,
)
from boot.main import STACK, STACK_SIZE, main
from boot.monitor_space import LARGE_PAGE_SIZE, PageEntry, PageTable, TableBlock, child_table, take_table
from boot.output import output_start, require
from boot.parameters import (
    FIRMWARE_RANGES,
    FIRMWARE_UEFI,
    PARAMETERS_MAGIC,
    PARAMETERS_VERSION,
    RAM,
    RANGE_VALID,
    BootParameters,
)
from boot.refusal import Refusal, Rule
from boot.uefi_disk import read_partition
from boot.uefi_log import FINAL_EVENTS, copy_log, note_log
from dsl.hw.uefi import (
    LINEAR_32_BIT,
    RAM_TYPES,
    SUCCESS,
    WRITE_BACK,
    BootServices,
    ConfigurationTable,
    GraphicsInformation,
    GraphicsMode,
    GraphicsOutput,
    MemoryDescriptor,
    MemoryMapAnswer,
    SystemTable,
)
from dsl.hw.x86 import CR4_LA57, HUGE_PAGE_SHIFT, LARGE_PAGE_SHIFT, PAGE_SHIFT, PAGE_SIZE
from dsl.lang import (
    Array,
    HostPhysical,
    HostVirtual,
    address_of,
    array_at,
    asm,
    image_base,
    image_end,
    machine,
    static,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import cli, out8, read_cr4
from dsl.std.event_log import LOG_CAPACITY

TABLE_ENTRIES: Final = 512
FOUR_GIGABYTES: Final = 4  # GiB that are always mapped
TABLES_SIZE: Final = (
    16 * PAGE_SIZE
)  # root, pointers, four directories; three each for loader and framebuffer above 4 GiB, and spare
PIC_MASK: Final = u16(0x21)
SECOND_PIC_MASK: Final = u16(0xA1)
PIXEL_SIZE: Final = 4

MISSING_SIZE: Final = 192  # characters of a row of MISSING
MISSING: Final = table(
    u8,
    b"".join(
        (
            f"terrane| refused: loader: processor: expected {name}, found a processor without it\r\nterrane| stopped\r\n\0"
        )
        .encode("utf-16-le")
        .ljust(2 * MISSING_SIZE, b"\0")
        for name, _, _, _ in BASELINE
    ),
)
FEATURES: Final = table(u32, [word for _, *row in BASELINE for word in row] + [0])
GDT: Final = table(  # the same selectors as after a BIOS: 0x08 data, 0x18 code of 64 bits
    u64, [0, 0x00CF92000000FFFF, 0x00CF9A000000FFFF, 0x00AF9A000000FFFF]
)
PARAMETERS: Final = static(BootParameters)


@machine(naked=True)
def body() -> None:
    """The processor as the body wants it, as after stage 2; then the body. Nothing of firmware's is used any more."""
    asm(
        """
        mov rax, cr4
        and eax, 0x40
        or eax, 0x620
        mov cr4, rax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x900
        wrmsr
        mov eax, 0x80010033
        mov cr0, rax
        lea rdi, [rip + {parameters}]
        xor ebp, ebp
        call {main}
        ud2
        """,
        parameters=PARAMETERS,
        main=main,
    )


@machine(naked=True)
def landed() -> None:
    """In the new place, on the loader's own stack: descriptor table and segments."""
    asm(
        """
        sub rsp, 16
        mov word ptr [rsp], 31
        lea rax, [rip + {gdt}]
        mov qword ptr [rsp + 2], rax
        lgdt [rsp]
        add rsp, 16
        mov eax, 8
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        push 0x18
        lea rax, [rip + {body}]
        push rax
        retfq
        """,
        gdt=GDT,
        body=body,
    )


@machine(naked=True)
def move(tables: HostVirtual, place: HostVirtual, base: HostVirtual, size: u64) -> None:
    """Take the loader's page tables, copy the whole program, and go on in the copy. Interrupts are off."""
    asm(
        """
        cld
        mov cr3, rdi
        mov r8, rsi
        mov rdi, rsi
        mov rsi, rdx
        rep movsb
        sub r8, rdx
        lea rsp, [rip + {stack}]
        add rsp, {stack_size}
        add rsp, r8
        lea rax, [rip + {landed}]
        add rax, r8
        push rax
        ret
        """,
        stack=STACK,
        stack_size=STACK_SIZE,
        landed=landed,
    )


@machine
def map_gigabyte(root: PageTable, block: TableBlock, gigabyte: u64) -> None:
    """Map a GiB at its own addresses, in 2 MiB pages, unless it is mapped."""
    index = gigabyte >> 9
    if not root.entries[index].present:
        _ = child_table(root, index, block)
    # Safe because the entry refers to a table of the block.
    pointers = PageTable.at(HostVirtual(root.entries[index].frame << PAGE_SHIFT))
    if pointers.entries[gigabyte & (TABLE_ENTRIES - 1)].present:
        return
    directory = child_table(pointers, gigabyte & (TABLE_ENTRIES - 1), block)
    for page in upto(TABLE_ENTRIES):
        frame = (gigabyte << (HUGE_PAGE_SHIFT - PAGE_SHIFT)) + (page << (LARGE_PAGE_SHIFT - PAGE_SHIFT))
        directory.entries[page] = PageEntry(present=True, writable=True, large=True, frame=frame, no_execute=False)


@machine
def map_bytes(root: PageTable, block: TableBlock, base: u64, size: u64) -> None:
    """Map all GiB that hold one of these bytes."""
    gigabyte = base >> HUGE_PAGE_SHIFT
    while gigabyte << HUGE_PAGE_SHIFT < base + size:
        map_gigabyte(root, block, gigabyte)
        gigabyte += 1


@machine
def build_identity(place: HostVirtual) -> HostVirtual:
    """Page tables at `place`: the lowest 4 GiB, where the program is, and the framebuffer; the root's address."""
    # Safe because the memory was allocated for them.
    array_at(u8, place, u64(TABLES_SIZE)).fill(u8(0))
    block = TableBlock()
    block.next = place
    block.end = place + TABLES_SIZE
    root = take_table(block)
    for gigabyte in upto(FOUR_GIGABYTES):
        map_gigabyte(root, block, gigabyte)
    map_bytes(root, block, image_base().as_u64(), image_end() - image_base())
    size = u64(PARAMETERS.framebuffer_pitch) * u64(PARAMETERS.framebuffer_height)
    map_bytes(root, block, PARAMETERS.framebuffer.as_u64(), size)
    return address_of(root)


@machine
def is_ram(row: MemoryDescriptor) -> bool:
    """Whether a row of firmware's map is ordinary memory once firmware's boot services are gone."""
    return row.type < 8 and (u64(RAM_TYPES) >> u64(row.type)) & 1 != 0 and row.attributes & WRITE_BACK != 0


@machine
def note_range(base: u64, size: u64) -> None:
    """Add RAM to the parameters, to the last range if it goes on there. One range too many is counted, and refused later."""
    count = u64(PARAMETERS.range_count)
    if count != 0 and count <= FIRMWARE_RANGES:
        last = PARAMETERS.ranges[count - 1]
        if last.base + last.size == base:
            last.size += size
            return
    if count < FIRMWARE_RANGES:
        item = PARAMETERS.ranges[count]
        item.base = base
        item.size = size
        item.kind = u32(RAM)
        item.attributes = u32(RANGE_VALID)
    if count <= FIRMWARE_RANGES:
        PARAMETERS.range_count += 1


@machine
def note_memory(answer: MemoryMapAnswer) -> None:
    """Put the RAM of firmware's last map into the parameters."""
    offset = u64(0)
    while offset + 40 <= answer.size and answer.stride >= 40:
        # Safe because the row lies in what firmware wrote.
        row = MemoryDescriptor.at(address_of(MAP) + offset)
        if is_ram(row):
            note_range(row.physical, row.pages << PAGE_SHIFT)
        offset += answer.stride


@machine
def note_screen(boot: BootServices) -> None:
    """Note the framebuffer of the current mode, if there is one with 32-bit pixels."""
    output = only_protocol(boot, GRAPHICS_OUTPUT)
    if output == HostVirtual(0):
        return
    # Safe because firmware's interface says where its mode is described.
    mode = GraphicsMode.at(GraphicsOutput.at(output).mode)
    information = GraphicsInformation.at(mode.information)
    if information.pixel_format > LINEAR_32_BIT or information.pixels_per_line < information.width:
        return
    pitch = u64(information.pixels_per_line) * PIXEL_SIZE
    if mode.framebuffer == 0 or pitch * u64(information.height) > mode.framebuffer_size:
        return
    PARAMETERS.framebuffer = HostPhysical(mode.framebuffer)
    PARAMETERS.framebuffer_width = information.width
    PARAMETERS.framebuffer_height = information.height
    PARAMETERS.framebuffer_pitch = pitch.truncate(u32)


@machine
def find_table(system: SystemTable, guid: Array[u8]) -> u64:
    """The address of firmware's table with this GUID, or 0."""
    # Safe because firmware gave a list of as many.
    tables = array_at(u8, system.tables, system.table_count * 24)
    for index in upto(system.table_count):
        if tables.slice(index * 24, u64(16)).equals(guid):
            return ConfigurationTable.at(system.tables + index * 24).address
    return u64(0)


@machine
def note_acpi(system: SystemTable) -> None:
    """Note the ACPI root pointer: that of ACPI 2.0 or later, or else of 1.0."""
    address = find_table(system, ACPI_2)
    if address == 0:
        address = find_table(system, ACPI_1)
    PARAMETERS.acpi_root = HostPhysical(address)


@machine
def check_paging() -> Refusal:
    """Check that firmware runs with 4-level paging: the monitor does, and the number of levels cannot be changed in long mode."""
    if read_cr4() & CR4_LA57 != 0:
        return Refusal(Rule.UEFI_PAGING, u64(0), u64(4), u64(5))
    return Refusal(Rule.GOOD, u64(0), u64(0), u64(0))


@machine
def leave_firmware(boot: BootServices, image: u64) -> None:
    """End firmware's part and note the memory that it leaves. A refusal goes to the serial line and the framebuffer."""
    answer = exit_boot_services(boot, image)
    cli()
    if answer.status != SUCCESS:
        output_start(PARAMETERS)
        require(Refusal(Rule.UEFI_EXIT, u64(0), u64(SUCCESS), answer.status))
    out8(PIC_MASK, u8(0xFF))
    out8(SECOND_PIC_MASK, u8(0xFF))
    note_memory(answer)


@machine
def prepare(image: u64, table: HostVirtual) -> None:
    """All that is done with firmware's help, in order; then on to the body."""
    # Safe because firmware gives its table's address.
    system = SystemTable.at(table)
    boot = BootServices.at(system.boot_services)
    stop_watchdog(boot)
    require_with_firmware(system, check_paging())
    tell(system, text("loader: reading the image"))
    PARAMETERS.magic = u64(PARAMETERS_MAGIC)
    PARAMETERS.version = u32(PARAMETERS_VERSION)
    PARAMETERS.firmware = u32(FIRMWARE_UEFI)
    read_partition(system, image, PARAMETERS)
    note_screen(boot)
    note_acpi(system)

    size = image_end() - image_base()
    assert size <= LARGE_PAGE_SIZE, "the loader is larger than 2 MiB"
    room = allocate_low(system, size + (LARGE_PAGE_SIZE + TABLES_SIZE + LOG_CAPACITY), Rule.UEFI_LOADER)
    place = HostVirtual(room).align_up(LARGE_PAGE_SIZE)
    PARAMETERS.loader_base = place.as_u64()
    PARAMETERS.loader_size = size + (TABLES_SIZE + LOG_CAPACITY)
    note_log(boot, find_table(system, FINAL_EVENTS))
    leave_firmware(boot, image)
    copy_log(PARAMETERS, place + (size + TABLES_SIZE))
    move(build_identity(place + size), place, image_base(), size)


@machine(naked=True)
def start() -> None:
    """Firmware's entry: rcx is the image's handle, rdx the system table; firmware's stack, which is large enough for its services.

    The processor is checked first, by instructions that every x86-64 has.
    """
    asm(
        """
        cld
        and rsp, -16
        sub rsp, 32
        mov r12, rcx
        mov r13, rdx
        lea r14, [rip + {features}]
        lea r15, [rip + {missing}]
    next_feature:
        mov ebp, dword ptr [r14]
        test ebp, ebp
        jz features_good
        mov eax, ebp
        and eax, 0x80000000
        cpuid
        cmp eax, ebp
        jb feature_missing
        mov eax, ebp
        xor ecx, ecx
        cpuid
        mov dword ptr [rsp], eax
        mov dword ptr [rsp + 4], ebx
        mov dword ptr [rsp + 8], ecx
        mov dword ptr [rsp + 12], edx
        mov eax, dword ptr [r14 + 4]
        mov eax, dword ptr [rsp + rax * 4]
        mov ecx, dword ptr [r14 + 8]
        bt eax, ecx
        jae feature_missing
        add r14, 12
        add r15, {row}
        jmp next_feature
    feature_missing:
        mov rdi, r13
        mov rsi, r15
        call {write}
    halted:
        hlt
        jmp halted
    features_good:
        mov rdi, r12
        mov rsi, r13
        call {prepare}
        ud2
        """,
        features=FEATURES,
        missing=MISSING,
        row=2 * MISSING_SIZE,
        write=write_wide,
        prepare=prepare,
    )
