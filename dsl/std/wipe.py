"""Wiping the stack below a function that worked on secrets: what its callees and the register allocator left there."""

from __future__ import annotations

from typing import Final

from dsl.lang import asm, machine

WIPED_SIZE: Final = (
    3072  # bytes: more than any routine of dsl/std that is called on secrets goes down (tests/std measures it)
)


def nothing_to_wipe() -> None:
    """Under CPython frames are not on a stack."""


@machine(naked=True, model=nothing_to_wipe)
def wipe_frames_below() -> None:
    """Zero WIPED_SIZE bytes below the stack pointer, and the registers that a call may change.

    Safe because nothing lives there: there is no red zone, and interrupts taken in between have finished. A caller needs that
    much room on its stack.
    """
    asm(
        """
        lea rdi, [rsp - {size}]
        mov ecx, {words}
        xor eax, eax
        rep stosq
        xor edx, edx
        xor esi, esi
        xor edi, edi
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d
        ret
        """,
        size=WIPED_SIZE,
        words=WIPED_SIZE // 8,
    )
