"""TPM commands through the BIOS (INT 1Ah, BB02h): stage 1 has stage 2 measured, stage 2 the loader body."""

from __future__ import annotations

from typing import Final

# TPM2_PCR_Event (part 3, 22.3) of PCR 4, with an empty password, as INT 1Ah wants it; what it measures follows in memory.
EVENT: Final = """
command: .word 549, 0, {measurement}, 0
    .byte 0x80, 2, 0, 0, 2, 0x1d, 0, 0, 1, 0x3c, 0, 0, 0, 4
    .byte 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 2, 0
piece:
"""

MEASURE_BODY: Final = """
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
