"""What both stages do through the BIOS: print on screen and COM1, refuse, read sectors."""

from __future__ import annotations

from typing import Final

# Text on screen and COM1. `print` takes zero-terminated text in si; nothing but si and ax is changed.
PRINT: Final = """
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
READ: Final = """
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
