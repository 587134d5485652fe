"""Stage 2: the processor and address line 20 checked, the loader body and the partition read, the memory map, long mode."""

from __future__ import annotations

from typing import Final

CHECKS: Final = """
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

READ_BODY: Final = """
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
"""

MEMORY_MAP: Final = """
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

READ_PARTITION: Final = """
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

LONG_MODE: Final = """
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

DATA: Final = """
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
