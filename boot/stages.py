"""The BIOS stages before long mode: listings for Keystone, the only code of Terrane that is not in the language.

Stage 1 is the boot sector's code (440 bytes): it loads stage 2 to 0x8000 and has the TPM measure it. Stage 2 checks the processor, loads
the loader body and has it measured, opens A20, asks for the memory map, reads the Terrane partition to 16 MiB and enters long mode. Both
print refusals on the screen (INT 10h) and COM1, and stop. The memory map they share with the loader body is in docs/formats.md.

Measuring is the BIOS's pass-through of TPM commands (TCG PC Client BIOS 1.21, INT 1Ah AX=BB02h), into PCR 4. Where that fails, the machine
has no TPM, or no policy over PCR 4 will be met: both go on without it. The TPM's answers are kept for the body, which logs them.
"""

from __future__ import annotations

from typing import Final

from boot.baseline import BASELINE
from dsl.compiler.listing import assemble

SECTOR_SIZE: Final = 512
STAGE1_LIMIT: Final = 440
STAGE1_BASE: Final = 0x7C00
STAGE2_BASE: Final = 0x8000
STAGE2_SIZE: Final = 32768
STAGE2_LOADED: Final = 3072  # of it: what stage 1 loads, and has measured, zeros at its end included
STACK_TOP: Final = 0x7000  # of the 16-bit code; page tables take its place before long mode
BODY_BASE: Final = 0x10000
BODY_LIMIT: Final = 0x80000  # the loader body with BSS and stack ends at or before this
PARAMETERS_BASE: Final = 0x7000  # boot/parameters.py
BOUNCE_BASE: Final = 0x80000
MEASUREMENTS: Final = 0xE000  # boot/parameters.py
MEASUREMENT_SIZE: Final = 256
BODY_MEASUREMENT: Final = 0xEF00
MEASURED_OFFSET: Final = 2964  # of `measured` in BootParameters
TPM_INPUT: Final = 0xF000  # stage 2's commands, up to 0xFFFF
PIECE_SIZE: Final = 1024  # of the body, in one command
CHUNK_SECTORS: Final = 64  # 32 KiB: one bounce buffer, and never across a 64 KiB boundary
STAGING_BASE: Final = 0x1000000
STAGING_LIMIT: Final = 0xFEC00000  # staging lies below 4 GiB, and below the APICs
E820_CAPACITY: Final = 120
READ_ATTEMPTS: Final = 4

# Text on screen and COM1. `print` takes zero-terminated text in si; nothing but si and ax is changed.
_PRINT: Final = """
print:
    lodsb
    test al, al
    jz print_done
    call print_character
    jmp print
print_done:
    ret
print_character:
    pushad
    mov dx, 0x3fd                   // line status: wait for an empty holding register, but not forever
    xor cx, cx
    mov bl, al
wait_empty:
    in al, dx
    test al, 0x20
    loope wait_empty
    mov al, bl
    mov dx, 0x3f8
    out dx, al
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    popad
    ret
refuse:                             // si: layer, what, expected and found; never returns
    push si
    mov si, refused_text
    call print
    pop si
    call print
stop:
    mov si, stopped_text
    call print
halt:
    cli
    hlt
    jmp halt
refused_text: .asciz "terrane| refused: "
stopped_text: .byte 13, 10
    .asciz "terrane| stopped"
"""

# INT 13h reads with retries: reads [packet_asked] sectors as the packet says; carry clear on success. Clobbers ax, dl, si, bp.
_READ: Final = """
read:
    mov bp, {attempts}
read_attempt:
    mov ax, word ptr [packet_asked] // firmware may have changed the count to what it managed
    mov word ptr [packet_count], ax
    mov si, packet
    mov ah, 0x42
    mov dl, byte ptr [drive]
    int 0x13
    jnc read_done
    xor ax, ax                      // reset the drive and try again
    mov dl, byte ptr [drive]
    int 0x13
    dec bp
    jnz read_attempt
    stc
read_done:
    ret
packet: .byte 16, 0
packet_count: .word 0
    .word 0
packet_segment: .word {segment}
packet_lba: .long {lba_low}
    .long {lba_high}
packet_asked: .word {asked}
drive: .byte 0
"""

_STAGE1: Final = """
    .byte 0xea                      // ljmp 0:entry, whatever cs:ip the firmware chose for 0x7c00
    .word entry
    .word 0
entry:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, {stack}
    sti
    mov byte ptr [drive], dl
    mov si, uart
set_up_uart:                        // COM1: 115200 8N1, FIFOs on, no interrupts
    lodsb
    xchg dx, ax
    lodsb
    mov dh, 3
    out dx, al
    cmp si, uart_end
    jb set_up_uart
    call read
    mov si, read_text
    jc refuse
    mov si, {stage2}
    mov bp, {measurements}
measure:
    mov di, piece                   // behind the command: over the partition table, and beyond
    mov cx, 256
    rep movsw
    push si
    mov di, command                 // es:di: the command; ds:si: place for its answer
    mov si, bp
    mov ax, 0xbb02
    mov ebx, 0x41504354             // TCPA
    xor ecx, ecx
    xor edx, edx
    int 0x1a
    pop si
    test eax, eax
    jnz start_stage2
    add bp, {measurement}
    cmp si, {stage2_end}
    jb measure
start_stage2:                       // bp: behind the last answer
    mov dl, byte ptr [drive]
    .byte 0xea                      // ljmp 0:stage 2
    .word {stage2}
    .word 0
uart: .byte 0xfb, 0x80, 0xf8, 1, 0xf9, 0, 0xfb, 3, 0xfa, 7, 0xf9, 0, 0xfc, 3
uart_end:
read_text: .asciz "stage 1: stage 2: expected it read by INT 13h extensions, found a disk error"
"""

# TPM2_PCR_Event (part 3, 22.3) of PCR 4, with an empty password, as INT 1Ah wants it; what it measures follows in memory.
_STAGE1_COMMAND: Final = """
command: .word 549, 0, {measurement}, 0
    .byte 0x80, 2, 0, 0, 2, 0x1d, 0, 0, 1, 0x3c, 0, 0, 0, 4
    .byte 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 2, 0
piece:
"""

_STAGE2_CHECKS: Final = """
entry:
    mov byte ptr [drive], dl
    mov di, {parameters}
    mov cx, {parameters_words}
    xor ax, ax
    rep stosw
    mov dword ptr [{parameters}], 0x424e5254        // TRNB, OOT1
    mov dword ptr [{parameters} + 4], 0x31544f4f
    mov dword ptr [{parameters} + 8], 1
    movzx eax, dl
    mov dword ptr [{parameters} + 12], eax
    mov dword ptr [{parameters} + 16], {staging}
    mov dword ptr [{parameters} + 24], {staging_size}
    sub bp, {measurements}
    shr bp, 8
    mov word ptr [{parameters} + {measured}], bp

    pushfd                          // CPUID is there if EFLAGS.ID can be changed
    pop eax
    mov ecx, eax
    xor eax, 0x200000
    push eax
    popfd
    pushfd
    pop eax
    xor eax, ecx
    mov si, cpuid_text
    jz refuse
    mov di, features
next_feature:
    mov ebp, dword ptr [di]
    test ebp, ebp
    jz features_good
    mov eax, ebp
    and eax, 0x80000000
    cpuid                           // the highest leaf of this range
    cmp eax, ebp
    jb feature_missing
    mov eax, ebp
    xor ecx, ecx
    cpuid
    mov dword ptr [answers], eax
    mov dword ptr [answers + 4], ebx
    mov dword ptr [answers + 8], ecx
    mov dword ptr [answers + 12], edx
    movzx bx, byte ptr [di + 4]
    mov eax, dword ptr [bx + answers]
    movzx ecx, byte ptr [di + 5]
    bt eax, ecx
    jnc feature_missing
    add di, 8
    jmp next_feature
feature_missing:
    mov si, refused_text
    call print
    mov si, feature_text
    call print
    mov si, word ptr [di + 6]
    call print
    mov si, found_none_text
    call print
    jmp stop
features_good:

    call test_a20
    jnz a20_open
    mov ax, 0x2401                  // ask the firmware
    int 0x15
    call test_a20
    jnz a20_open
    in al, 0x92                     // then the fast gate
    or al, 2
    and al, 0xfe
    out 0x92, al
    call test_a20
    jnz a20_open
    mov si, a20_text
    jmp refuse
test_a20:                           // zero flag set: addresses still wrap at 1 MiB
    mov ax, 0xffff
    mov fs, ax
    mov ax, word ptr [0x500]
    push ax
    mov word ptr [0x500], 0x1234
    mov word ptr fs:[0x510], 0x4321
    cmp word ptr [0x500], 0x4321
    pop ax
    mov word ptr [0x500], ax
    ret
a20_open:
"""

_STAGE2_MEMORY: Final = """
    xor ebx, ebx
    mov di, {parameters} + 64
next_range:
    mov dword ptr [di + 20], 1      // a firmware that gives 20 bytes means: valid
    mov eax, 0xe820
    mov edx, 0x534d4150             // SMAP
    mov ecx, 24
    push di
    int 0x15
    pop di
    jc map_complete
    cmp eax, 0x534d4150
    jne map_complete
    cmp word ptr [{parameters} + 32], {capacity}
    mov si, capacity_text
    jae refuse
    inc word ptr [{parameters} + 32]
    add di, 24
    test ebx, ebx
    jnz next_range
map_complete:
    mov cx, word ptr [{parameters} + 32]
    mov si, no_map_text
    test cx, cx
    jz refuse

    mov di, {parameters} + 64       // find the usable range that holds all of the staging area
    xor ebp, ebp                    // usable bytes found at its start
examine_range:
    cmp dword ptr [di + 16], 1
    jne not_usable
    mov al, byte ptr [di + 20]
    and al, 3
    cmp al, 1
    jne not_usable
    cmp dword ptr [di + 4], 0
    jne not_usable
    mov eax, dword ptr [di]
    cmp eax, {staging}
    ja not_usable
    xor edx, edx
    add eax, dword ptr [di + 8]
    adc edx, dword ptr [di + 12]
    jnz staging_good                // it ends above 4 GiB
    sub eax, {staging}
    jbe not_usable
    cmp eax, {staging_size}
    jae staging_good
    cmp eax, ebp
    jbe not_usable
    mov ebp, eax
not_usable:
    add di, 24
    dec cx
    jnz examine_range
    mov si, refused_text
    call print
    mov si, staging_text
    call print
    mov edx, {staging_size}
    call print_hexadecimal
    mov si, found_text
    call print
    mov edx, ebp
    call print_hexadecimal
    jmp stop
print_hexadecimal:                  // edx: eight digits
    mov cx, 8
next_digit:
    rol edx, 4
    mov al, dl
    and al, 15
    add al, 0x30
    cmp al, 0x3a
    jb digit_known
    add al, 39
digit_known:
    call print_character
    dec cx
    jnz next_digit
    ret
staging_good:
"""

_STAGE2_BODY: Final = """
read_body:                          // straight to its place, up to 64 sectors at a time
    mov eax, dword ptr [body_left]
    test eax, eax
    jz body_read
    cmp eax, {chunk}
    jbe body_count
    mov eax, {chunk}
body_count:
    mov word ptr [packet_asked], ax
    sub dword ptr [body_left], eax
    call read
    mov si, body_read_text
    jc refuse
    movzx eax, word ptr [packet_asked]
    add dword ptr [packet_lba], eax
    adc dword ptr [packet_lba + 4], 0
    shl ax, 5                       // sectors to paragraphs
    add word ptr [packet_segment], ax
    jmp read_body
body_read:
    mov word ptr [packet_segment], {bounce_segment}
    mov dword ptr [packet_lba], {partition_low}
    mov dword ptr [packet_lba + 4], {partition_high}

    mov ax, {body_segment}          // is the loader body whole, and does it fit?
    mov fs, ax
    mov si, body_text
    cmp dword ptr fs:[0], 0x464e5254 // TRNF, LAT1
    jne refuse
    cmp dword ptr fs:[4], 0x3154414c
    jne refuse
    cmp dword ptr fs:[20], {body_size}
    jne refuse
    cmp dword ptr fs:[24], {body_memory}
    ja refuse

    cmp word ptr [{parameters} + {measured}], 0
    je body_measured
    mov bx, {body_segment}          // a sequence of hashes in the TPM, of all banks (TPM 2.0 Library, part 3, 17)
    mov si, sequence_start
    mov cx, 22
    call copy_command
    call tpm
    jnz body_measured
    mov eax, dword ptr [{answer} + 14]
    mov dword ptr [sequence_update + 18], eax
    mov dword ptr [sequence_end + 22], eax
next_piece:
    mov si, sequence_update
    mov cx, 37
    call copy_command
    push ds
    mov ds, bx
    xor si, si
    mov cx, {piece_words}
    rep movsw
    pop ds
    call tpm
    jnz body_measured
    add bx, {piece_paragraphs}
    cmp bx, {body_end}
    jb next_piece
    mov si, sequence_end
    mov cx, 50
    call copy_command
    call tpm
    jnz body_measured
    mov byte ptr [{parameters} + {measured} + 1], 1
    jmp body_measured

copy_command:                       // si, cx: the command, to es:di, which is left behind its end
    mov di, {input}
    rep movsb
    ret
tpm:                                // the command at input to the TPM; zero flag: it succeeded. bx is kept
    push bx
    mov di, {input}
    mov si, {answer}
    mov ax, 0xbb02
    mov ebx, 0x41504354             // TCPA
    xor ecx, ecx
    xor edx, edx
    int 0x1a
    pop bx
    or eax, dword ptr [{answer} + 10]       // the TPM's response code
    ret
sequence_start: .word 22, 0, {measurement}, 0
    .byte 0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x86, 0, 0, 0, 0x10
sequence_update: .word {update_size}, 0, {measurement}, 0
    .byte 0x80, 2, 0, 0, 4, 29, 0, 0, 1, 0x5c, 0, 0, 0, 0
    .byte 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 4, 0
sequence_end: .word 50, 0, {measurement}, 0
    .byte 0x80, 2, 0, 0, 0, 42, 0, 0, 1, 0x85, 0, 0, 0, 4, 0, 0, 0, 0
    .byte 0, 0, 0, 18, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0
body_left: .long {body_sectors}
body_measured:
"""

_STAGE2_READ: Final = """
read_chunk:
    mov eax, dword ptr [remaining]
    test eax, eax
    jz partition_read
    cmp eax, {chunk}
    jbe chunk_known
    mov eax, {chunk}
chunk_known:
    mov word ptr [packet_asked], ax
    call read
    mov si, read_text
    jc refuse
    cli                             // big segments for this copy: firmware may undo them at its next call
    push ds
    push es
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp protected_for_copy
protected_for_copy:
    mov bx, 8
    mov ds, bx
    mov es, bx
    and al, 0xfe
    mov cr0, eax
    pop es
    pop ds
    movzx ecx, word ptr [packet_asked]
    sub dword ptr [remaining], ecx
    add dword ptr [packet_lba], ecx
    adc dword ptr [packet_lba + 4], 0
    shl ecx, 7                      // sectors to doublewords
    mov esi, {bounce}
    mov edi, dword ptr [destination]
    rep movsd dword ptr es:[edi], dword ptr [esi]
    mov dword ptr [destination], edi
    sti
    jmp read_chunk
partition_read:
"""

_STAGE2_LONG_MODE: Final = """
    cli                             // no firmware from here on
    mov al, 0xff                    // both interrupt controllers masked
    out 0x21, al
    out 0xa1, al
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                // ljmp 0x10:protected
    .long protected
    .word 0x10
.code32
protected:
    mov ax, 8
    mov ds, ax
    mov es, ax
    mov ss, ax
    cld
    xor eax, eax
    mov edi, 0x1000                 // page tables: PML4, directory pointers, four directories of 2 MiB pages
    mov ecx, 0x1800
    rep stosd
    mov dword ptr [0x1000], 0x2003
    mov dword ptr [0x2000], 0x3003
    mov dword ptr [0x2008], 0x4003
    mov dword ptr [0x2010], 0x5003
    mov dword ptr [0x2018], 0x6003
    mov edi, 0x3000
    mov eax, 0x83
    mov ecx, 2048
next_page:
    mov dword ptr [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz next_page
    xor eax, eax
    mov edi, dword ptr [{body} + 20] // zero the body's BSS
    mov ecx, dword ptr [{body} + 24]
    sub ecx, edi
    add ecx, 3
    shr ecx, 2
    add edi, {body}
    rep stosd
    mov eax, cr4
    and eax, 0x40
    or eax, 0x620                   // PAE, OSFXSR, OSXMMEXCPT; machine check as it was
    mov cr4, eax
    mov eax, 0x1000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900                   // EFER: LME, NXE
    wrmsr
    mov ecx, dword ptr [{body} + 8] // the body's entry
    add ecx, {body}
    mov eax, 0x80010033             // CR0: PG, WP, NE, ET, MP, PE; caches on
    mov cr0, eax
    .byte 0xea                      // ljmp 0x18:long_mode
    .long long_mode
    .word 0x18
.code64
long_mode:
    mov ecx, ecx                    // its upper half is not ours until now
    jmp rcx
"""

_STAGE2_DATA: Final = """
.code16
gdt: .quad 0
    .quad 0x00cf92000000ffff        // 0x08 data, flat
    .quad 0x00cf9a000000ffff        // 0x10 code, 32 bits
    .quad 0x00af9a000000ffff        // 0x18 code, 64 bits
gdt_pointer: .word 31
    .long gdt
answers: .long 0, 0, 0, 0
remaining: .long {sectors}
destination: .long {staging}
cpuid_text: .asciz "stage 2: processor: expected CPUID, found none"
feature_text: .asciz "stage 2: processor: expected "
found_none_text: .asciz ", found a processor without it"
a20_text: .asciz "stage 2: address line 20: expected open, found closed"
no_map_text: .asciz "stage 2: memory map: expected INT 15h E820 ranges, found none"
capacity_text: .asciz "stage 2: memory map: expected at most {capacity_decimal} ranges, found more"
staging_text: .asciz "stage 2: memory for the image at 0x01000000: expected usable bytes 0x"
found_text: .asciz ", found 0x"
body_read_text: .asciz "stage 2: loader body: expected it read, found a disk error"
read_text: .asciz "stage 2: Terrane partition: expected it read, found a disk error"
body_text: .asciz "stage 2: loader body: expected a whole flat program, found another"
"""


def emit_stage1(stage2_lba: int) -> bytes:
    """The boot sector's code: loads stage 2 from stage2_lba to 0x8000, has it measured, and jumps there.

    Raises ValueError for a place where it cannot lie.
    """
    sectors = STAGE2_LOADED // SECTOR_SIZE
    _check_range("stage 2", stage2_lba, sectors)
    code = assemble(
        _STAGE1 + _READ + _PRINT + _STAGE1_COMMAND,
        STAGE1_BASE,
        {
            "stack": STACK_TOP,
            "attempts": READ_ATTEMPTS,
            "stage2": STAGE2_BASE,
            "stage2_end": STAGE2_BASE + STAGE2_LOADED,
            "measurements": MEASUREMENTS,
            "measurement": MEASUREMENT_SIZE,
            "segment": STAGE2_BASE >> 4,
            "asked": sectors,
            "lba_low": stage2_lba & 0xFFFFFFFF,
            "lba_high": stage2_lba >> 32,
        },
    )
    if len(code) > STAGE1_LIMIT:
        raise ValueError(f"stage 1: expected at most {STAGE1_LIMIT} bytes, found {len(code)}")
    return code


def emit_stage2(partition_lba: int, partition_sectors: int, body_lba: int, body_size: int) -> bytes:
    """Stage 2: loads the body of body_size bytes from body_lba, has it measured, reads partition_sectors from partition_lba to 16 MiB,
    enters long mode and starts the body.

    Loaded at 0x8000. Raises ValueError for what cannot be loaded.
    """
    staging_size = partition_sectors * SECTOR_SIZE
    if STAGING_BASE + staging_size > STAGING_LIMIT:
        raise ValueError(f"partition: expected at most {STAGING_LIMIT - STAGING_BASE} bytes, found {staging_size}")
    if not PIECE_SIZE <= body_size <= BODY_LIMIT - BODY_BASE or body_size % PIECE_SIZE:
        raise ValueError(
            f"loader body: expected {PIECE_SIZE} to {BODY_LIMIT - BODY_BASE} bytes, in {PIECE_SIZE}s, found {body_size}"
        )
    _check_range("partition", partition_lba, partition_sectors)
    _check_range("loader body", body_lba, body_size // SECTOR_SIZE)
    text = (
        _STAGE2_CHECKS
        + _STAGE2_BODY
        + _STAGE2_MEMORY
        + _STAGE2_READ
        + _STAGE2_LONG_MODE
        + _STAGE2_DATA
        + _features()
        + _READ
        + _PRINT
    )
    code = assemble(
        text.replace("{capacity_decimal}", str(E820_CAPACITY)),
        STAGE2_BASE,
        {
            "parameters": PARAMETERS_BASE,
            "parameters_words": (STAGE1_BASE - PARAMETERS_BASE) // 2,
            "measured": MEASURED_OFFSET,
            "measurements": MEASUREMENTS,
            "measurement": MEASUREMENT_SIZE,
            "answer": BODY_MEASUREMENT,
            "input": TPM_INPUT,
            "piece_words": PIECE_SIZE // 2,
            "piece_paragraphs": PIECE_SIZE // 16,
            "update_size": PIECE_SIZE + 37,
            "staging": STAGING_BASE,
            "staging_size": staging_size,
            "capacity": E820_CAPACITY,
            "chunk": CHUNK_SECTORS,
            "attempts": READ_ATTEMPTS,
            "bounce": BOUNCE_BASE,
            "bounce_segment": BOUNCE_BASE >> 4,
            "segment": BODY_BASE >> 4,
            "asked": 0,
            "sectors": partition_sectors,
            "lba_low": body_lba & 0xFFFFFFFF,
            "lba_high": body_lba >> 32,
            "partition_low": partition_lba & 0xFFFFFFFF,
            "partition_high": partition_lba >> 32,
            "body": BODY_BASE,
            "body_segment": BODY_BASE >> 4,
            "body_end": (BODY_BASE + body_size) >> 4,
            "body_sectors": body_size // SECTOR_SIZE,
            "body_size": body_size,
            "body_memory": BODY_LIMIT - BODY_BASE,
        },
    )
    if len(code) > STAGE2_LOADED:
        raise ValueError(f"stage 2: expected at most {STAGE2_LOADED} bytes, found {len(code)}")
    return code


def _features() -> str:
    """The table that stage 2 walks: leaf, offset of the register in `answers`, bit, name; a zero leaf ends it."""
    rows = [
        f".long {leaf:#x}\n.byte {register * 4}, {bit}\n.word feature_{index}"
        for index, (_, leaf, register, bit) in enumerate(BASELINE)
    ]
    names = [f'feature_{index}: .asciz "{name}"' for index, (name, _, _, _) in enumerate(BASELINE)]
    return "\n".join(["", "features:", *rows, ".long 0", *names, ""])


def _check_range(name: str, lba: int, sectors: int) -> None:
    """Raise ValueError unless a range of sectors is one that a 48-bit disk can have."""
    if sectors <= 0 or lba <= 0 or lba + sectors > 1 << 48:
        raise ValueError(f"{name}: expected sectors between LBA 1 and 2**48, found {sectors} at {lba}")
