"""Stage 1, the boot sector's code: sets up COM1, loads stage 2, has the TPM measure it, and goes there."""

from __future__ import annotations

from typing import Final

LOAD: Final = """
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
