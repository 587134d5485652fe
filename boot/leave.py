"""The loader's end: what it held is overwritten, the registers too, and the monitor runs."""

from __future__ import annotations

from typing import Final

from boot.handoff import DIRECT_MAP
from dsl.lang import HostVirtual, asm, machine

READ_ONLY_END: Final = 16  # offset of that field in the loader's own prologue (dsl/std/flat.py)


@machine(naked=True)
def leave(handoff: HostVirtual, tables: HostVirtual, entry: HostVirtual, base: HostVirtual, end: HostVirtual) -> None:
    """Enter the monitor's address space, wipe the loader's writable memory (stack included) there, and enter the monitor.

    The monitor gets rdi = handoff, all other registers zero but rsp. These instructions must lie in the pages that build_monitor_space
    mapped where they are; all else is reached through the direct map. What stays readable is the loader's code, and one address: the
    entry, read by `ret`.
    """
    asm(
        """
        cli
        cld
        mov cr3, rsi
        mov r12, rdi
        mov r14, rdx
        movabs r13, {direct_map}
        add rcx, r13
        add r8, r13
        mov edi, dword ptr [rcx + {read_only_end}]
        add rdi, rcx
        mov rcx, r8
        sub rcx, rdi
        xor eax, eax
        rep stosb
        lea rsp, [r8 - 8]
        mov qword ptr [rsp], r14
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
        direct_map=DIRECT_MAP,
        read_only_end=READ_ONLY_END,
    )
