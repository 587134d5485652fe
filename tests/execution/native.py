"""Calls emitted bytes on this processor: up to ten arguments, eight results, and a failed check comes back as one.

A ud2 raises SIGILL; the handler, machine code too, goes back to where the call was made.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from functools import cache
from typing import Final

from dsl.compiler.capstone import decode
from dsl.compiler.keystone import assemble
from dsl.compiler.pipeline import Program

SIGILL, SIGFPE, SIGSEGV = 4, 8, 11
SIGINFO_NODEFER: Final = 0x40000004
NOTHING: Final[Mapping[int, bytes]] = {}
PLACES: Final = 10  # arguments
# cell layout: 10 arguments, 8 results, saved rsp, fault flag, place of the fault, what callee-saved registers changed by
RESULTS, SAVED, FAULT, PLACE, CHANGED = 80, 144, 152, 160, 168
UNUSED: Final = (
    8192  # bytes below the call's frame that hold POISON, so that what is read there before it is written shows
)
POISON: Final = 0xA5A5_5A5A_C3C3_3C3D
STUB: Final = """
    jmp entry
handler:
    mov r11, qword ptr [rip + cell_address]
    mov qword ptr [r11 + 152], rdi
    mov rax, qword ptr [rdx + 168]
    mov qword ptr [r11 + 160], rax
    mov rax, qword ptr [r11 + 144]
    mov qword ptr [rdx + 160], rax
    lea rax, [rip + landing]
    mov qword ptr [rdx + 168], rax
    ret
entry:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov r11, qword ptr [rip + cell_address]
    mov qword ptr [r11 + 152], 0
    mov r10, rdi
    sub rsp, 8
    push qword ptr [r11 + 72]
    push qword ptr [r11 + 64]
    push qword ptr [r11 + 56]
    push qword ptr [r11 + 48]
    mov qword ptr [r11 + 144], rsp
    lea rdi, [rsp - {unused}]
    mov ecx, {words}
    mov rax, {poison}
    rep stosq
    mov rbx, rax
    lea rbp, [rax + 1]
    lea r12, [rax + 2]
    lea r13, [rax + 3]
    lea r14, [rax + 4]
    lea r15, [rax + 5]
    mov rdi, qword ptr [r11]
    mov rsi, qword ptr [r11 + 8]
    mov rdx, qword ptr [r11 + 16]
    mov rcx, qword ptr [r11 + 24]
    mov r8, qword ptr [r11 + 32]
    mov r9, qword ptr [r11 + 40]
    call r10
    mov r11, qword ptr [rip + cell_address]
    mov qword ptr [r11 + 80], rax
    mov qword ptr [r11 + 88], rdx
    mov qword ptr [r11 + 96], rcx
    mov qword ptr [r11 + 104], rsi
    mov qword ptr [r11 + 112], rdi
    mov qword ptr [r11 + 120], r8
    mov qword ptr [r11 + 128], r9
    mov qword ptr [r11 + 136], r10
    mov rax, {poison}
    sub rbx, rax
    inc rax
    sub rbp, rax
    inc rax
    sub r12, rax
    inc rax
    sub r13, rax
    inc rax
    sub r14, rax
    inc rax
    sub r15, rax
    or rbx, rbp
    or rbx, r12
    or rbx, r13
    or rbx, r14
    or rbx, r15
    mov qword ptr [r11 + 168], rbx
landing:
    add rsp, 40
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
cell_address:
"""


class _SigAction(ctypes.Structure):
    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint8 * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


class _Caller:
    """The stub in executable memory, and its cell of arguments and results."""

    def __init__(self) -> None:
        self.memory = executable(4096)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        code = assemble(STUB.format(unused=UNUSED, words=UNUSED // 8, poison=POISON), address)
        self.cell = (ctypes.c_uint64 * 22)()
        self.memory.write(code + ctypes.addressof(self.cell).to_bytes(8, "little"))
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(address)
        handler = address + decode(code, address)[0][1]  # behind the jump to the entry
        self.action = _SigAction(handler, flags=SIGINFO_NODEFER)
        self.libc = ctypes.CDLL(None)

    def install(self) -> None:
        """Take SIGILL, whoever had it before."""
        for number in (SIGILL, SIGFPE):
            assert self.libc.sigaction(number, ctypes.byref(self.action), None) == 0


@cache
def _caller() -> _Caller:
    return _Caller()


def executable(size: int) -> mmap.mmap:
    """Anonymous memory that can be run."""
    return mmap.mmap(-1, size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


class Native:
    """A program in executable memory of this process. stopped_at: where its last failed check stands, by the program's own addresses."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.memory = executable(program.memory_size)
        self.memory.write(program.image)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.dirty = program.memory_size - len(program.image)
        self.bias = self.address - program.base  # from the program's own addresses to where it lies
        self.stopped_at = 0

    def read(self, address: int, size: int) -> bytes:
        """Memory at an address of the program's own."""
        return self.memory[address - self.program.base : address - self.program.base + size]

    def call(self, symbol: str, arguments: list[int], content: Mapping[int, bytes] = NOTHING) -> tuple[int, ...] | str:
        """Run one function over objects of this content, else zeroed: its eight result registers, or "stopped" for a failed check."""
        if self.dirty:
            self.memory[len(self.program.image) :] = bytes(self.dirty)
        for address, held in content.items():
            self.memory[address - self.program.base : address - self.program.base + len(held)] = held
        caller = _caller()
        caller.install()
        cell = caller.cell
        for index in range(PLACES):
            cell[index] = arguments[index] if index < len(arguments) else 0x5555_AAAA_5555_AAAA
        caller.call(self.address + self.program.symbols[symbol][0] - self.program.base)
        fault = cell[FAULT // 8]
        assert fault in (0, SIGILL), f"{symbol}{arguments}: signal {fault}"
        self.stopped_at = cell[PLACE // 8] - self.bias
        assert fault or not cell[CHANGED // 8], f"{symbol}{arguments}: callee-saved registers"
        return "stopped" if fault else tuple(cell[RESULTS // 8 : RESULTS // 8 + 8])
