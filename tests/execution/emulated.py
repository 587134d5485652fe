"""Calls emitted bytes in Unicorn."""

from __future__ import annotations

from typing import Any, Final

import unicorn as uc
from unicorn import x86_const as x86

from dsl.compiler.pipeline import Program

STACK: Final = 0x7000_0000
STACK_SIZE: Final = 0x40000
RETURN: Final = 0x6000_0000
ARGUMENTS: Final = (
    x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RDX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_R8, x86.UC_X86_REG_R9,
)  # fmt: skip
RESULTS: Final = (
    x86.UC_X86_REG_RAX, x86.UC_X86_REG_RDX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RDI, x86.UC_X86_REG_R8,
    x86.UC_X86_REG_R9, x86.UC_X86_REG_R10,
)  # fmt: skip
SAVED: Final = (
    x86.UC_X86_REG_RBX, x86.UC_X86_REG_RBP, x86.UC_X86_REG_R12, x86.UC_X86_REG_R13, x86.UC_X86_REG_R14, x86.UC_X86_REG_R15,
)  # fmt: skip
CANARY: Final = 0xC0DE_0000_0000_0000


class Emulated:
    """A program in an emulated machine. Callee-saved registers and the stack pointer are checked after each call."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.engine: Any = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self.engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        self.engine.mem_map(program.base, program.memory_size)
        self.engine.mem_write(program.base, program.image)
        self.engine.mem_map(STACK, STACK_SIZE)
        self.engine.mem_map(RETURN, 0x1000)
        self.traps = {address for address, text in _texts(program) if text == "ud2"}
        self.dirty = program.memory_size - len(program.image)

    def call(self, symbol: str, arguments: list[int]) -> tuple[int, ...] | str:
        """Run one function over zeroed objects: its eight result registers, or "stopped" for a failed check."""
        engine, top = self.engine, STACK + STACK_SIZE - 0x1000 - 8
        if self.dirty:
            engine.mem_write(self.program.base + len(self.program.image), bytes(self.dirty))
        for register, argument in zip(ARGUMENTS, arguments, strict=False):
            engine.reg_write(register, argument)
        stack = [RETURN, *arguments[len(ARGUMENTS) :]]
        engine.mem_write(top, b"".join(word.to_bytes(8, "little") for word in stack))
        engine.reg_write(x86.UC_X86_REG_RSP, top)
        for number, register in enumerate(SAVED):
            engine.reg_write(register, CANARY + number)
        try:
            engine.emu_start(self.program.symbols[symbol][0], RETURN)
        except uc.UcError as error:
            rip = engine.reg_read(x86.UC_X86_REG_RIP)
            if error.errno != uc.UC_ERR_INSN_INVALID or rip not in self.traps:
                raise AssertionError(f"{symbol}{arguments}: {error} at {rip:#x}") from None
            return "stopped"
        assert engine.reg_read(x86.UC_X86_REG_RSP) == top + 8, f"{symbol}{arguments}: stack pointer"
        for number, register in enumerate(SAVED):
            assert engine.reg_read(register) == CANARY + number, f"{symbol}{arguments}: callee-saved register {number}"
        return tuple(engine.reg_read(register) for register in RESULTS)


def _texts(program: Program) -> list[tuple[int, str]]:
    return [(address, line.text) for address, line in program.linked.lines]
