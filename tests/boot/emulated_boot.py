"""A whole boot in Unicorn: stages 1 and 2 in real mode over a disk, then the loader body in long mode.

Every byte that runs is one that an image carries; firmware is a handful of hooks. Memory can be changed at any point on the way.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import unicorn as uc
from unicorn import x86_const as x86

from boot.handoff import HANDOFF_SIZE
from boot.main import STACK_SIZE
from boot.parameters import PARAMETERS_BASE, BootParameters
from boot.stages import BOUNCE_BASE, CHUNK_SECTORS, SECTOR_SIZE, STAGE1_BASE
from dsl.compiler.pipeline import Program
from dsl.lang import offset_of

MEBIBYTE = 1 << 20
RAM_SIZE = 32 * MEBIBYTE
RANGES = ((0, 0x9FC00, 1), (0x9FC00, 0x60400, 2), (MEBIBYTE, RAM_SIZE - MEBIBYTE, 1))
BOUNCE_SIZE = CHUNK_SECTORS * SECTOR_SIZE
APIC_BASE = 0xFEE00000
COM1, PCI_DATA = 0x3F8, 0xCFC
START, MAIN, LEAVE, STACK = "boot.main.start", "boot.main.main", "boot.leave.leave", "boot.main.STACK"
CARRY = 1
NOWHERE = 0xFFFF_FFF0
SECONDS = 100  # for one run: a hang is what takes more


def emulator(mode: int) -> Any:
    """A processor with memory, a UART that is always ready, and an empty PCI bus."""
    engine = uc.Uc(uc.UC_ARCH_X86, mode)
    engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    engine.mem_map(0, RAM_SIZE)
    engine.mem_map(APIC_BASE, 4096)
    engine.hook_add(uc.UC_HOOK_INSN, on_in, None, 1, 0, x86.UC_X86_INS_IN)
    return engine


def on_in(_engine: Any, port: int, width: int, _data: Any) -> int:
    """What ports read."""
    if port == COM1 + 5:
        return 0x60
    return (1 << 8 * width) - 1 if PCI_DATA <= port < PCI_DATA + 4 else 0


class Stages:
    """Stages 1 and 2, from power-on to the body's first instruction.

    `disturb` is called when sectors are asked for (False) and when they are there (True).
    """

    def __init__(self, disk: bytes, disturb: Callable[[Stages, bool], None] = lambda *_: None) -> None:
        self.disk, self.disturb = disk, disturb
        self.chunks = 0  # that were read into the bounce buffer
        self.engine = emulator(uc.UC_MODE_16)
        self.engine.mem_write(STAGE1_BASE, disk[:SECTOR_SIZE])
        self.engine.hook_add(uc.UC_HOOK_INTR, self.on_interrupt)

    def run(self, program: Program) -> bytearray:
        """Boot; all of RAM where the body begins. AssertionError if it never does."""
        entry = program.symbols[START][0]
        arrived: list[int] = []

        def on_entry(engine: Any, address: int, *_: Any) -> None:
            arrived.append(address)
            engine.emu_stop()

        self.engine.hook_add(uc.UC_HOOK_CODE, on_entry, None, entry, entry)
        self.engine.emu_start(STAGE1_BASE, NOWHERE, timeout=SECONDS * 1_000_000)
        assert arrived, "the loader body is never entered"
        return self.engine.mem_read(0, RAM_SIZE)  # type: ignore[no-any-return]

    def on_interrupt(self, engine: Any, number: int, _data: Any) -> None:
        """Extended reads and the memory map; every other call fails."""
        service = engine.reg_read(x86.UC_X86_REG_AX)
        good = True
        if number == 0x13 and service >> 8 == 0x42:
            self.disturb(self, False)
            packet = engine.mem_read(engine.reg_read(x86.UC_X86_REG_SI), 16)
            _, count, offset, segment, sector = struct.unpack("<HHHHQ", packet)
            place, size = segment * 16 + offset, count * SECTOR_SIZE
            engine.mem_write(place, self.disk[sector * SECTOR_SIZE :][:size].ljust(size, b"\0"))
            self.chunks += place == BOUNCE_BASE
            self.disturb(self, True)
        elif number == 0x15 and service == 0xE820:
            index = engine.reg_read(x86.UC_X86_REG_EBX)
            engine.mem_write(engine.reg_read(x86.UC_X86_REG_DI), struct.pack("<QQII", *RANGES[index], 1))
            engine.reg_write(x86.UC_X86_REG_EBX, (index + 1) % len(RANGES))
            engine.reg_write(x86.UC_X86_REG_EAX, 0x534D4150)
        else:
            good = False
        flags = engine.reg_read(x86.UC_X86_REG_EFLAGS)
        engine.reg_write(x86.UC_X86_REG_EFLAGS, flags & ~CARRY if good else flags | CARRY)


@dataclass(frozen=True)
class Saved:
    """A body in the middle of its work: what it has written and will read again."""

    context: Any
    address: int
    memory: dict[int, bytes]


class Body:
    """The loader body as `Stages` leaves it, or, for a program of another entry, as `boot/uefi.py` enters it."""

    def __init__(self, program: Program, memory: bytes | bytearray, parameters: int = PARAMETERS_BASE) -> None:
        """`memory`: all of it, the program and the parameters included."""
        symbols = program.symbols
        self.program = program
        self.address = symbols[START if START in symbols else MAIN][0]
        self.said = bytearray()
        self.halted = False
        self.changed: dict[int, bytes] = {}
        self.wanted = self.arrivals = 0
        self.engine = engine = emulator(uc.UC_MODE_64)
        engine.mem_write(0, bytes(memory))
        base, size = struct.unpack_from("<QQ", memory, parameters + offset_of(BootParameters, "staging_base"))
        self.staging = range(base, base + size)
        engine.reg_write(x86.UC_X86_REG_RDI, parameters)
        engine.reg_write(x86.UC_X86_REG_RSP, symbols[STACK][0] + STACK_SIZE - 8)
        engine.hook_add(uc.UC_HOOK_INSN, self.on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        self.traps = {address for address, line in program.linked.lines if line.text == "ud2"}
        for address, line in program.linked.lines:
            if line.text == "hlt":
                engine.hook_add(uc.UC_HOOK_CODE, self.on_halt, None, address, address)

    def watch(self, symbol: str) -> None:
        """Let `run` stop where a function begins. To be called before anything runs."""
        address = self.program.symbols[symbol][0]
        self.engine.hook_add(uc.UC_HOOK_CODE, self.on_watched, None, address, address)

    def run(self, where: str | int = LEAVE) -> bool:
        """Go on to the next entry into a function (watched, or LEAVE), or to an address: True there, False if it stops before.

        A failed check stops it too, without a word here. AssertionError for any other fault, and for a hang.
        """
        wanted = self.program.symbols[where][0] if isinstance(where, str) else where
        end = self.program.symbols[LEAVE][0] if isinstance(where, str) else where
        self.halted, self.wanted, self.arrivals = False, wanted, int(self.address != wanted)
        try:
            self.engine.emu_start(self.address, end, timeout=SECONDS * 1_000_000)
        except uc.UcError as error:
            if error.errno == uc.UC_ERR_INSN_INVALID and self.register("RIP") in self.traps:
                return False
            raise AssertionError(f"{error} at {self.register('RIP'):#x}: {self.lines()[-1:]}") from None
        self.address = self.register("RIP")
        assert self.halted or self.address in (wanted, end), f"it hangs at {self.address:#x}"
        return self.address == wanted and not self.halted

    def on_out(self, _engine: Any, port: int, _width: int, value: int, _data: Any) -> None:
        if port == COM1:
            self.said.append(value & 0xFF)

    def on_halt(self, engine: Any, *_: Any) -> None:
        self.halted = True
        engine.emu_stop()

    def on_watched(self, engine: Any, address: int, *_: Any) -> None:
        if address == self.wanted:
            self.arrivals += 1  # the first is where it began
            if self.arrivals > 1:
                engine.emu_stop()

    def register(self, name: str) -> int:
        return int(self.engine.reg_read(getattr(x86, f"UC_X86_REG_{name}")))

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.engine.mem_read(address, size))

    def flip(self, address: int, mask: int = 0xFF) -> None:
        """Change a byte of memory; `restore` changes it back."""
        content = self.read(address, 1)
        self.changed.setdefault(address, content)
        self.engine.mem_write(address, bytes([content[0] ^ mask]))

    def save(self) -> Saved:
        pieces = {0: MEBIBYTE, self.program.base: self.program.memory_size, self.staging.start: len(self.staging)}
        pieces[RAM_SIZE - HANDOFF_SIZE] = HANDOFF_SIZE  # what is allocated first
        memory = {address: self.read(address, size) for address, size in pieces.items()}
        return Saved(self.engine.context_save(), self.address, memory)

    def restore(self, saved: Saved) -> None:
        self.engine.context_restore(saved.context)
        for address, content in (*self.changed.items(), *saved.memory.items()):
            found = self.read(address, len(content))
            for at in range(0, len(content), 4096):  # what is written is translated anew: so no page that is as it was
                if found[at : at + 4096] != content[at : at + 4096]:
                    self.engine.mem_write(address + at, content[at : at + 4096])
        self.changed.clear()
        self.address = saved.address
        self.said.clear()

    def lines(self) -> list[str]:
        """What was said on the serial line."""
        return self.said.decode("latin-1").replace("\r", "").splitlines()

    def outcome(self, unseen: range) -> bytes:
        """A digest of all that the monitor finds: memory but for `unseen`, and what it is called with."""
        memory = self.engine.mem_read(0, RAM_SIZE)
        memory[unseen.start : unseen.stop] = bytes(len(unseen))
        registers = [self.register(name) for name in ("RDI", "RSI", "RDX", "RCX", "R8")]
        return hashlib.sha256(memory + struct.pack("<5Q", *registers)).digest()
