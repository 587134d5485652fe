"""The loader's end: what it held is overwritten, the registers too, and the monitor runs."""

from __future__ import annotations

from typing import Final

from boot.parameters import PARAMETERS_BASE
from dsl.lang import HostVirtual, asm, machine

PARAMETERS_SIZE: Final = 3072
BOUNCE_BASE: Final = 0x80000  # where the last disk reads went through
BOUNCE_SIZE: Final = 0x8000
READ_ONLY_END: Final = 16  # offset of that field in the loader's own prologue (dsl/std/flat.py)


@machine(naked=True)
def leave(handoff: HostVirtual, tables: HostVirtual, entry: HostVirtual, base: HostVirtual, end: HostVirtual) -> None:
    """Wipe the loader's writable memory (stack included), the boot parameters and the bounce buffer; enter the monitor.

    The monitor gets rdi = handoff, all other registers zero but rsp. These instructions must lie in the pages that
    build_monitor_space made executable. What stays readable in low memory is the loader's code, and one address: the entry, read by `ret`.
    """
    asm(
        """
        cli
        cld
        mov r12, rdi
        mov r13, rsi
        mov r14, rdx
        mov edi, dword ptr [rcx + {read_only_end}]
        add rdi, rcx
        mov rcx, r8
        sub rcx, rdi
        xor eax, eax
        rep stosb
        mov edi, {bounce}
        mov ecx, {bounce_size}
        rep stosb
        mov edi, {parameters}
        mov ecx, {parameters_size}
        rep stosb
        mov esp, {parameters}
        mov qword ptr [rsp], r14
        mov cr3, r13
        mov rdi, r12
        xor ebx, ebx
        xor ecx, ecx
        xor edx, edx
        xor esi, esi
        xor ebp, ebp
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d
        xor r12d, r12d
        xor r13d, r13d
        xor r14d, r14d
        xor r15d, r15d
        ret
        """,
        read_only_end=READ_ONLY_END,
        bounce=BOUNCE_BASE,
        bounce_size=BOUNCE_SIZE,
        parameters=PARAMETERS_BASE,
        parameters_size=PARAMETERS_SIZE,
    )
