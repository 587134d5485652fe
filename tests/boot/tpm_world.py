"""The loader's TPM code as emitted bytes in Unicorn, before a device; time passes with each look at the time-stamp counter."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, field
from typing import Any

import unicorn as uc
from unicorn import x86_const as x86

from boot.approvals import APPROVALS_MAGIC
from boot.handoff import Handoff, TpmState
from boot.parameters import BootParameters
from dsl.compiler.pipeline import Program, compile_program
from dsl.lang import offset_of
from tests.boot.images import MONITOR, Part, header_of
from tests.boot.keys import FONT, PUBLIC_KEY
from tests.boot.tpm_device import BASE, Crb, Fifo
from tests.boot.tpm_program import use_tpm
from tests.execution.emulated import Emulated

HANDOFF, HEADER, PARAMETERS, APPROVALS, ACPI, LOG = (
    0x4000_0000,
    0x4001_0000,
    0x4002_0000,
    0x4003_0000,
    0x4004_0000,
    0x4010_0000,
)
TICKS = 8_000_000  # a millisecond, by the loader's reckoning
LIMIT = 3_000_000  # blocks of instructions: a hang is what takes more
PARTS = [
    Part(MONITOR, b"monitor" * 100, 1),
    Part(2, b"d" * 4096, 1),
    Part(6, bytes(4096), 1),
]
NO_ROWS = struct.pack("<Q", APPROVALS_MAGIC).ljust(4096, b"\0")


@functools.cache
def program() -> Program:
    return compile_program(use_tpm, base=0x1000000, supplied={"boot.header_key": PUBLIC_KEY, "std.font": FONT})


def table(signature: bytes, content: bytes) -> bytes:
    """An ACPI table with its head and sum."""
    data = bytearray(
        struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(content), 4, 0, b"TEST  ", b"TEST    ", 1, b"TEST", 1)
        + content
    )
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def acpi_tables(method: int = 6, area: int = 0, tpm: bool = True) -> bytes:
    """RSDP at ACPI, XSDT at + 256, a table nobody wants at + 512, TPM2 at + 768."""
    rows = [ACPI + 512] + [ACPI + 768] * tpm
    pointer = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"TEST  ", 2, 0, 36, ACPI + 256, 0))
    pointer[8] = -sum(pointer[:20]) & 0xFF
    pointer[32] = -sum(pointer) & 0xFF
    pieces = (
        (0, bytes(pointer)),
        (256, table(b"XSDT", struct.pack(f"<{len(rows)}Q", *rows))),
        (512, table(b"APIC", bytes(20))),
        (768, table(b"TPM2", struct.pack("<HHQI12x", 0, 0, area, method))),
    )
    memory = bytearray(4096)
    for offset, piece in pieces:
        memory[offset : offset + len(piece)] = piece
    return bytes(memory)


@dataclass
class World:
    """One boot's worth of TPM. `device`: None for an empty bus, which reads all ones."""

    device: Fifo | Crb | None
    acpi: bytes = b""
    approvals: bytes = NO_ROWS
    flags: int = 1
    security_version: int = 7
    said: bytearray = field(default_factory=bytearray)
    time: int = 0
    machine: Emulated = field(init=False)
    halted: bool = False
    blocks: int = 0

    def boot(self) -> TpmState:
        """Run it to its end. AssertionError for a crash or a hang; `Refused` for a refusal."""
        area = BASE + 0x40 if isinstance(self.device, Crb) else 0
        acpi = self.acpi or acpi_tables(7 if area else 6, area)
        header, _ = header_of(PARTS, flags=self.flags, security_version=self.security_version)
        self.machine = machine = Emulated(program())
        engine = machine.engine
        engine.mem_map(0x4000_0000, 0x300000)
        engine.mmio_map(BASE, 0x5000, self.read, None, self.write, None)
        engine.hook_add(uc.UC_HOOK_INSN, lambda *_: 0x60, None, 1, 0, x86.UC_X86_INS_IN)
        engine.hook_add(uc.UC_HOOK_INSN, self.on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        for address, line in machine.program.linked.lines:
            if line.text == "rdtsc":
                engine.hook_add(uc.UC_HOOK_CODE, self.on_rdtsc, None, address, address)
            elif line.text == "hlt":
                engine.hook_add(uc.UC_HOOK_CODE, self.on_halt, None, address, address)
        engine.hook_add(uc.UC_HOOK_MEM_READ_UNMAPPED | uc.UC_HOOK_MEM_WRITE_UNMAPPED, self.on_unmapped)
        handoff = bytearray(20480)
        struct.pack_into("<Q", handoff, offset_of(Handoff, "acpi_root"), ACPI)
        parameters = bytearray(3072)
        struct.pack_into("<Q", parameters, offset_of(BootParameters, "event_log"), LOG)
        content = {
            HANDOFF: bytes(handoff),
            HEADER: header,
            PARAMETERS: bytes(parameters),
            APPROVALS: self.approvals,
            ACPI: acpi,
        }
        self.blocks = 0
        engine.hook_add(uc.UC_HOOK_BLOCK, self.on_block)
        try:
            result = machine.call("tests.boot.tpm_program.use_tpm", [HANDOFF, HEADER, PARAMETERS, APPROVALS], content)
        except AssertionError:
            if self.halted:
                raise Refused(self.lines()[-2]) from None
            raise
        assert self.blocks < LIMIT, "it hangs"
        assert not isinstance(result, str), f"failed check at {machine.stopped_at:#x}"
        return TpmState(type(TpmState.ABSENT.value)(result[0] & 0xFFFFFFFF))

    def read(self, _engine: Any, offset: int, width: int, _data: Any) -> int:
        return self.device.read(offset, width) if self.device is not None else (1 << 8 * width) - 1

    def write(self, _engine: Any, offset: int, width: int, value: int, _data: Any) -> None:
        if self.device is not None:
            self.device.write(offset, width, value)

    def on_out(self, _engine: Any, port: int, _width: int, value: int, _data: Any) -> None:
        if port == 0x3F8:
            self.said.append(value & 0xFF)

    def on_rdtsc(self, engine: Any, address: int, _size: int, _data: Any) -> None:
        self.time += TICKS
        engine.reg_write(x86.UC_X86_REG_RAX, self.time & 0xFFFFFFFF)
        engine.reg_write(x86.UC_X86_REG_RDX, self.time >> 32)
        engine.reg_write(x86.UC_X86_REG_RIP, address + 2)

    def on_block(self, engine: Any, *_: Any) -> None:
        self.blocks += 1
        if self.blocks >= LIMIT:
            engine.emu_stop()

    def on_unmapped(self, engine: Any, _access: int, address: int, *_: Any) -> bool:
        """All that lies below 4 GiB is there, and zero; what lies above is not mapped in the loader's world either."""
        if address >= 1 << 32:
            return False
        engine.mem_map(address & ~4095, 4096)
        return True

    def on_halt(self, engine: Any, *_: Any) -> None:
        self.halted = True
        engine.emu_stop()

    def lines(self) -> list[str]:
        return self.said.decode("latin-1").replace("\r", "").splitlines()

    def handoff(self, name: str, size: int) -> bytes:
        return self.machine.read(HANDOFF + offset_of(Handoff, name), size)

    def number(self, name: str, size: int) -> int:
        return int.from_bytes(self.handoff(name, size), "little")

    def object(self, name: str) -> bytes:
        address, size, _ = self.machine.program.symbols[name]
        return self.machine.read(address, size)

    def log(self) -> bytes:
        return self.machine.read(self.number("event_log", 8), self.number("event_log_size", 8))


class Refused(Exception):
    """The loader stopped, with this line."""
