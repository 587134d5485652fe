"""Calls emitted bytes in Unicorn, and tells what was executed last."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import unicorn as uc
from unicorn import x86_const as x86

from dsl.compiler.pipeline import Program
from dsl.compiler.report import source_text
from tests.execution.native import NOTHING

STACK: Final = 0x7000_0000
STACK_SIZE: Final = 0x40000
RETURN: Final = 0x6000_0000
TOP: Final = STACK + STACK_SIZE - 0x1000 - 8  # where a call's return address lies
SHOWN: Final = 32  # instructions that a failing test shows
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
SCRATCH: Final = (x86.UC_X86_REG_RAX, *ARGUMENTS, x86.UC_X86_REG_R10, x86.UC_X86_REG_R11)
NOISE: Final = 0xA5A5_5A5A_C3C3_3C30
CANARY: Final = (
    0xC0DE_0000_0000_0000  # in a callee-saved register; as a bool False, where those of native calls are none
)


class Emulated:
    """A program in an emulated machine. Callee-saved registers and the stack pointer are checked after each call.

    record: keep account of what was executed, in `instructions` (of the last call) and for `last_instructions`.
    """

    def __init__(self, program: Program, record: bool = False) -> None:
        self.program = program
        self.blocks: deque[tuple[int, int]] = deque(maxlen=SHOWN)  # (address, size) of those entered last
        self.instructions = 0
        self.bias = 0  # the program lies at its own addresses
        self.stopped_at = 0  # where the last failed check stands
        self.engine: Any = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self.engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        self.engine.mem_map(program.base, program.memory_size)
        self.engine.mem_write(program.base, program.image)
        self.engine.mem_protect(program.base, len(program.image), uc.UC_PROT_READ | uc.UC_PROT_EXEC)
        self.engine.mem_map(STACK, STACK_SIZE)
        self.engine.mem_map(RETURN, 0x1000)
        self.traps = {address for address, text in _texts(program) if text == "ud2"}
        self.dirty = program.memory_size - len(program.image)
        if record:
            self.engine.hook_add(uc.UC_HOOK_BLOCK, self._enter_block)

    def read(self, address: int, size: int) -> bytes:
        """Memory at an address."""
        return bytes(self.engine.mem_read(address, size))

    def call(self, symbol: str, arguments: list[int], content: Mapping[int, bytes] = NOTHING) -> tuple[int, ...] | str:
        """Run one function over objects of this content, else zeroed: its eight result registers, or "stopped" for a failed check."""
        engine, top = self.engine, TOP
        self.blocks.clear()
        self.instructions = 0
        if self.dirty:
            engine.mem_write(self.program.base + len(self.program.image), bytes(self.dirty))
        for address, held in content.items():
            engine.mem_write(address, held)
        for number, register in enumerate(SCRATCH):
            engine.reg_write(register, NOISE + number)
        for register, argument in zip(ARGUMENTS, arguments, strict=False):
            engine.reg_write(register, argument)
        stack = [RETURN, *arguments[len(ARGUMENTS) :]]
        engine.mem_write(top, b"".join(word.to_bytes(8, "little") for word in stack))
        engine.reg_write(x86.UC_X86_REG_RSP, top)
        for number, register in enumerate(SAVED):
            engine.reg_write(register, CANARY + (number << 8))
        try:
            engine.emu_start(self.program.symbols[symbol][0], RETURN)
        except uc.UcError as error:
            rip = engine.reg_read(x86.UC_X86_REG_RIP)
            if error.errno != uc.UC_ERR_INSN_INVALID or rip not in self.traps:
                raise AssertionError(f"{symbol}{arguments}: {error} at {rip:#x}") from None
            self.stopped_at = rip
            return "stopped"
        assert engine.reg_read(x86.UC_X86_REG_RSP) == top + 8, f"{symbol}{arguments}: stack pointer"
        for number, register in enumerate(SAVED):
            assert engine.reg_read(register) == CANARY + (number << 8), (
                f"{symbol}{arguments}: callee-saved register {number}"
            )
        return tuple(engine.reg_read(register) for register in RESULTS)

    def stack_below(self) -> bytes:
        """All of the stack below a call's return address."""
        return bytes(self.engine.mem_read(STACK, TOP - STACK))

    def last_instructions(self) -> str:
        """The last instructions of the last call, each with its source line where that changes; needs `record`."""
        rip = self.engine.reg_read(x86.UC_X86_REG_RIP)
        addresses = [address for start, size in self.blocks for address in self._addresses(start, size)]
        last_start, last_size = self.blocks[-1] if self.blocks else (0, 0)
        if last_start <= rip < last_start + last_size:  # stopped inside its last block
            addresses = [address for address in addresses if not rip < address < last_start + last_size]
        return show_instructions(self.program, addresses[-SHOWN:])

    def _enter_block(self, _engine: object, address: int, size: int, _data: object) -> None:
        self.blocks.append((address, size))
        self.instructions += len(self._addresses(address, size))

    def _addresses(self, start: int, size: int) -> list[int]:
        """The instructions of a block."""
        known = self._block_addresses.get((start, size))
        if known is None:
            known = [address for address in self._texts if start <= address < start + size]
            self._block_addresses[start, size] = known
        return known

    @cached_property
    def _block_addresses(self) -> dict[tuple[int, int], list[int]]:
        return {}

    @cached_property
    def _texts(self) -> dict[int, str]:
        return dict(sorted(_texts(self.program)))


def show_instructions(program: Program, addresses: list[int]) -> str:
    """Instructions as text, each with its source line where that changes."""
    texts, places = dict(_texts(program)), dict(program.linked.places())
    lines, before = [], ""
    for address in addresses:
        place = "{}:{}  ".format(*places[address]) + source_text(places[address]) if address in places else ""
        lines += [place] if place and place != before else []
        lines.append(f"    {address:x}  {texts.get(address, '(outside the program)')}")
        before = place or before
    return "\n".join(lines)


def _texts(program: Program) -> list[tuple[int, str]]:
    return [(address, line.text) for address, line in program.linked.lines]
