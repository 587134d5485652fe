"""Emitted code that talks to ports and other hardware, in Unicorn: what it reads comes from a test, what it writes is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import unicorn as uc
from unicorn import x86_const as x86

from dsl.compiler.capstone import decode
from dsl.lang import size_of
from tests.execution.emulated import Emulated
from tests.worlds import program_of

MEMORY = 0x3000_0000  # what a test gives the code to work on
MEMORY_SIZE = 0x40000


class Ported:
    """One function as emitted bytes. read: gives what a port answers, by its number. accesses: ("in" or "out", port, value), in order.

    holder: whose program it is taken from, in place of its own.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        read: Callable[[int], int] = lambda port: 0xFF,
        holder: Callable[..., Any] | None = None,
    ) -> None:
        self.read = read
        self.symbol = f"{function.__module__}.{function.__name__}"
        self.accesses: list[tuple[str, int, int]] = []
        self.emulated = Emulated(program_of(holder or function))
        self.engine = self.emulated.engine
        self.engine.mem_map(MEMORY, MEMORY_SIZE)
        self.engine.hook_add(uc.UC_HOOK_INSN, self.on_in, None, 1, 0, x86.UC_X86_INS_IN)
        self.engine.hook_add(uc.UC_HOOK_INSN, self.on_out, None, 1, 0, x86.UC_X86_INS_OUT)

    def on_in(self, _engine: object, port: int, size: int, _data: object) -> int:
        """Answer an IN."""
        value = self.read(port)
        self.accesses.append(("in", port, value))
        return value

    def on_out(self, _engine: object, port: int, size: int, value: int, _data: object) -> None:
        """Keep an OUT."""
        self.accesses.append(("out", port, value))

    def replace(self, mnemonic: str, do: Callable[[str], None]) -> None:
        """Do something else in place of an instruction, wherever it stands; `do` is given its text."""
        linked = self.emulated.program.linked
        ends = [address for address, _ in linked.lines[1:]]
        for (address, line), end in zip(linked.lines, ends, strict=False):
            if not line.text.startswith(mnemonic):
                continue
            text = decode(linked.image[address - linked.base : end - linked.base])[0][2]
            if text.split()[0] == mnemonic:

                def skip(_engine: object, _at: int, _size: int, data: tuple[str, int]) -> None:
                    do(data[0])
                    self.engine.reg_write(x86.UC_X86_REG_RIP, data[1])

                self.engine.hook_add(uc.UC_HOOK_CODE, skip, (text, end), begin=address, end=address)

    def set_time(self, ticks: int) -> None:
        """What RDTSC leaves."""
        self.engine.reg_write(x86.UC_X86_REG_RAX, ticks & 0xFFFFFFFF)
        self.engine.reg_write(x86.UC_X86_REG_RDX, ticks >> 32)

    def call(self, *arguments: int) -> int:
        """Run it; what it leaves in RAX."""
        results = self.emulated.call(self.symbol, list(arguments))
        assert not isinstance(results, str), "a check failed"
        return results[0]

    def write(self, offset: int, data: bytes) -> int:
        """Put bytes into the memory that the code works on; their address."""
        self.engine.mem_write(MEMORY + offset, data)
        return MEMORY + offset

    def get(self, offset: int, size: int) -> bytes:
        """Bytes of that memory."""
        return bytes(self.engine.mem_read(MEMORY + offset, size))

    def struct(self, offset: int, kind: Any) -> bytes:
        """The bytes of a Struct there."""
        return self.get(offset, size_of(kind))
