"""A machine in Unicorn for the emitted monitor: memory, exceptions through the IDT, and the instructions that Unicorn has not or has wrong.

VMX is in `vmx_operation`; what runs in the guests is a test's script.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
from collections.abc import Callable
from typing import Any

import unicorn as uc
from unicorn import x86_const as x86

from boot.handoff import DIRECT_MAP
from dsl.hw import vmx
from dsl.hw import x86 as manual
from tests.model.board import Apic, Clock, IoApic, Ports
from tests.model.image import HANDOFF, RAM_SIZE, STACK, TABLES
from tests.model.processor import IA32_FEATURE_CONTROL, TSC_HZ, Processor
from tests.model.sites import VMX, Memory, Site

REGISTERS = {
    name: getattr(x86, f"UC_X86_REG_{name.upper()}")
    for name in (
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
        "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "mxcsr",
    )
}  # fmt: skip
XMM = [getattr(x86, f"UC_X86_REG_XMM{number}") for number in range(16)]
RFLAGS_IF, RFLAGS_ARITHMETIC, RFLAGS_CARRY, RFLAGS_ZERO = 1 << 9, 0x8D5, 1 << 0, 1 << 6
VECTOR_INVALID_OPCODE, VECTOR_GENERAL_PROTECTION = 6, 13
ADDRESS_BITS = 0x000F_FFFF_FFFF_F000
INTERRUPTS_OFF = "halted with interrupts off"
TIME_OVER = "time is over"
REACHED = "reached"
ENABLED = 1 << 11
MSR_MIRRORS = {
    manual.IA32_FS_BASE: x86.UC_X86_REG_FS_BASE,
    manual.IA32_GS_BASE: x86.UC_X86_REG_GS_BASE,
}


class ModelFailure(AssertionError):
    """The monitor did what no processor allows, or what our own rules forbid."""


class Machine:
    """The machine at the monitor's entry. `run` goes until it halts for good, or somebody calls `stop`."""

    def __init__(self, memory: mmap.mmap, processor: Processor, sites: dict[int, Site], entry: int) -> None:
        self.processor = processor
        self.sites = sites
        self.clock = Clock()
        self.ports = Ports(self.clock)
        self.apic = Apic(self.clock)
        self.io_apic = IoApic()
        self.msrs = dict(processor.msrs)
        self.xcr0 = 1
        self.ymm_high = [0] * 16
        self.random: Callable[[], int | None] = RandomWords(1)
        self.exceptions: list[tuple[int, int]] = []  # vector, RIP: what the monitor itself raised
        self.special_count: dict[str, int] = {}
        self.ending: str | None = None
        self.time_limit = self.clock.ticks + 2 * TSC_HZ
        self.failure: BaseException | None = None
        self.rip = entry
        self.engine: Any = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self.engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        self.memory = memory  # RAM itself, for as long as the engine
        place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.engine.mem_map_ptr(0, RAM_SIZE, uc.UC_PROT_ALL, place)
        self.engine.mmio_map(
            0xFEC0_0000, 4096,
            lambda uc, offset, size, data: self.io_apic.read(offset), None,
            lambda uc, offset, size, value, data: self.io_apic.write(offset, value), None,
        )  # fmt: skip
        self.engine.mmio_map(0xFEE0_0000, 4096, self._apic_read, None, self._apic_write, None)
        self._enter_long_mode()
        self._add_hooks()

    def _enter_long_mode(self) -> None:
        engine = self.engine
        engine.reg_write(x86.UC_X86_REG_CR4, 1 << 5 | 3 << 9)
        engine.reg_write(x86.UC_X86_REG_CR3, TABLES)
        engine.reg_write(x86.UC_X86_REG_MSR, (manual.IA32_EFER, 0xD00))
        engine.reg_write(x86.UC_X86_REG_CR0, 0x8001_0033)
        for name, number in REGISTERS.items():
            if name[0] == "r" and name not in ("rip", "rflags"):
                engine.reg_write(number, 0)
        self["rdi"] = HANDOFF + DIRECT_MAP
        self["rsp"] = STACK
        self["rflags"] = 2

    def _add_hooks(self) -> None:
        engine = self.engine
        engine.hook_add(uc.UC_HOOK_INSN_INVALID, self._on_invalid)
        engine.hook_add(uc.UC_HOOK_INTR, self._on_interrupt)
        engine.hook_add(uc.UC_HOOK_INSN, self._on_in, None, 1, 0, x86.UC_X86_INS_IN)
        engine.hook_add(uc.UC_HOOK_INSN, self._on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        for address, site in self.sites.items():
            if site.mnemonic not in VMX:
                engine.hook_add(uc.UC_HOOK_CODE, self._on_special, None, address, address)

    # Registers and memory

    def __getitem__(self, name: str) -> int:
        return int(self.engine.reg_read(REGISTERS[name]))

    def __setitem__(self, name: str, value: int) -> None:
        self.engine.reg_write(REGISTERS[name], value & 0xFFFF_FFFF_FFFF_FFFF)

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes of RAM."""
        return bytes(self.engine.mem_read(address, size))

    def write_physical(self, address: int, data: bytes) -> None:
        """Change RAM."""
        self.engine.mem_write(address, data)

    def translate(self, address: int) -> int:
        """The monitor's own page tables, walked."""
        table = self["cr3"] & ADDRESS_BITS
        for shift in (39, 30, 21, 12):
            (entry,) = struct.unpack("<Q", self.read_physical(table + (address >> shift & 511) * 8, 8))
            if not entry & 1:
                raise ModelFailure(f"the monitor's address {address:#x} is not mapped")
            if shift == 12 or entry >> 7 & 1:
                offset = (1 << shift) - 1
                return int(entry & ADDRESS_BITS & ~offset | address & offset)
            table = entry & ADDRESS_BITS
        raise AssertionError

    def read_virtual(self, address: int, size: int) -> bytes:
        """Bytes at an address of the monitor; they must not cross a page."""
        return self.read_physical(self.translate(address), size)

    def read_word(self, address: int, size: int = 8) -> int:
        """A little-endian word at an address of the monitor."""
        return int.from_bytes(self.read_virtual(address, size), "little")

    def effective_address(self, operand: Memory) -> int:
        """The address of a memory operand."""
        base = self[operand.base] if operand.base else 0
        index = self[operand.index] * operand.scale if operand.index else 0
        return base + index + operand.displacement & 0xFFFF_FFFF_FFFF_FFFF

    # Running

    def run(self, until: int = 0) -> str:
        """Run until an end, and return it; or, as REACHED, to an instruction. A broken rule is raised."""
        while self.ending is None:
            self.engine.emu_start(self.rip, until)
            if self.failure is not None:
                raise self.failure
            self.rip = self["rip"]
            if self.rip == until:
                return REACHED
        return self.ending

    def stop(self, ending: str) -> None:
        """End the run."""
        self.ending = ending
        self.engine.emu_stop()

    def guarded(self, action: Callable[[], None]) -> None:
        """Run a part of the model inside a hook: an exception ends the run and is raised by `run`."""
        try:
            action()
        except BaseException as error:
            if self.failure is None:
                self.failure = error
            self.engine.emu_stop()

    def serial_text(self) -> str:
        """What the monitor sent."""
        return self.ports.serial.decode("latin-1").replace("\r", "")

    # Exceptions and interrupts

    def deliver(self, vector: int, error_code: int | None = None, return_to: int | None = None) -> None:
        """Enter the monitor's handler through its IDT (SDM Vol. 3A, 6.14)."""
        _, base, limit, _ = self.engine.reg_read(x86.UC_X86_REG_IDTR)
        if vector * 16 + 15 > limit:
            raise ModelFailure(f"vector {vector} came, and the IDT ends at {limit:#x}: a triple fault")
        low, high = struct.unpack("<QQ", self.read_virtual(base + vector * 16, 16))
        if not low >> 47 & 1 or low >> 40 & 15 != 14:
            raise ModelFailure(f"vector {vector} has no interrupt gate")
        handler = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
        stack, flags, return_to = self["rsp"], self["rflags"], self["rip"] if return_to is None else return_to
        top = self._interrupt_stack(low >> 32 & 7) or stack
        frame = [] if error_code is None else [error_code]
        frame += [
            return_to,
            self.engine.reg_read(x86.UC_X86_REG_CS),
            flags,
            stack,
            self.engine.reg_read(x86.UC_X86_REG_SS),
        ]
        top = (top & ~15) - 8 * len(frame)
        self.write_physical(self.translate(top), struct.pack(f"<{len(frame)}Q", *frame))
        self["rsp"] = top
        self["rflags"] = flags & ~(RFLAGS_IF | 1 << 8)
        self["rip"] = handler

    def _interrupt_stack(self, index: int) -> int:
        if index == 0:
            return 0
        _, base, _, _ = self.engine.reg_read(x86.UC_X86_REG_TR)
        return self.read_word(base + 28 + index * 8)

    def interrupt_at(self, address: int, vector: int) -> None:
        """Let an interrupt come once, at the boundary before the instruction at an address of the monitor."""
        handles: list[Any] = []

        def arrive(_: Any, __: int, ___: int, ____: Any) -> None:
            if handles:
                self.engine.hook_del(handles.pop())
                self.guarded(lambda: self.deliver(vector, return_to=address))

        handles.append(self.engine.hook_add(uc.UC_HOOK_CODE, arrive, None, address, address))
        self.engine.ctl_flush_tb()

    def fault(self, vector: int, error_code: int | None) -> None:
        """The monitor's own instruction faults."""
        self.exceptions.append((vector, self["rip"]))
        self.deliver(vector, error_code)

    def _on_interrupt(self, _: Any, vector: int, __: Any) -> None:
        def act() -> None:
            if vector == 2:  # INT 2: RIP is past it
                self.deliver(vector)
            else:
                has_code = vector in (8, 10, 11, 12, 13, 14, 17)
                self.fault(vector, 0 if has_code else None)

        self.guarded(act)

    def _on_invalid(self, _: Any, __: Any) -> bool:
        def act() -> None:
            site = self.sites.get(self["rip"])
            if site is None:
                self.fault(VECTOR_INVALID_OPCODE, None)
            else:
                self.on_vmx(site)

        self.guarded(act)
        return True

    def on_vmx(self, site: Site) -> None:
        """A VMX instruction; without VMX operation it is #UD."""
        self.fault(VECTOR_INVALID_OPCODE, None)

    # Special instructions

    def _on_special(self, _: Any, address: int, __: int, ___: Any) -> None:
        site = self.sites[address]

        def act() -> None:
            self.special_count[site.mnemonic] = self.special_count.get(site.mnemonic, 0) + 1
            if SPECIALS[site.mnemonic](self, site):
                self["rip"] = address + site.size

        self.guarded(act)

    def set_pair(self, value: int) -> None:
        """EDX:EAX."""
        self["rax"], self["rdx"] = value & 0xFFFF_FFFF, value >> 32

    def pair(self) -> int:
        """EDX:EAX."""
        return (self["rdx"] & 0xFFFF_FFFF) << 32 | self["rax"] & 0xFFFF_FFFF

    def _general_protection(self) -> bool:
        self.fault(VECTOR_GENERAL_PROTECTION, 0)
        return False

    def _rdtsc(self, _: Site) -> bool:
        self.clock.pass_ticks(100)
        self.set_pair(self.clock.ticks)
        return True

    def _rdmsr(self, _: Site) -> bool:
        number = self["rcx"] & 0xFFFF_FFFF
        if number not in self.msrs:
            return self._general_protection()
        self.set_pair(int(self.engine.reg_read(MSR_MIRRORS[number])) if number in MSR_MIRRORS else self.msrs[number])
        return True

    def _wrmsr(self, _: Site) -> bool:
        number, value = self["rcx"] & 0xFFFF_FFFF, self.pair()
        if number not in self.msrs or number in range(vmx.IA32_VMX_BASIC, vmx.IA32_VMX_EXIT_CTLS2 + 1):
            return self._general_protection()
        if number == IA32_FEATURE_CONTROL and self.msrs[number] & 1:
            return self._general_protection()
        self.msrs[number] = value
        if number in MSR_MIRRORS:
            self.engine.reg_write(MSR_MIRRORS[number], value)
        return True

    def _cpuid(self, _: Site) -> bool:
        answer = self.processor.answer(self["rax"] & 0xFFFF_FFFF, self["rcx"] & 0xFFFF_FFFF, self.xcr0)
        for name, value in zip(("rax", "rbx", "rcx", "rdx"), answer, strict=True):
            self[name] = value
        return True

    def xcr0_allowed(self) -> int:
        """The bits that XCR0 may have here."""
        eax, _, _, edx = self.processor.answer(0xD, 0)
        return edx << 32 | eax

    def _xsetbv(self, _: Site) -> bool:
        value = self.pair()
        has_x87, sse_without, allowed = value & 1, value & 6 == 4, not value & ~self.xcr0_allowed()
        if self["rcx"] & 0xFFFF_FFFF or not has_x87 or sse_without or not allowed:
            return self._general_protection()
        self.xcr0 = value
        return True

    def _area(self, site: Site) -> int:
        assert isinstance(site.operands[0], Memory)
        address = self.effective_address(site.operands[0])
        if address % 64:
            raise ModelFailure(f"{site.mnemonic} of an area at {address:#x}, which is not aligned to 64")
        return self.translate(address)

    def _xsave(self, site: Site) -> bool:
        area, mask = self._area(site), self.pair() & self.xcr0
        (old,) = struct.unpack("<Q", self.read_physical(area + 512, 8))
        if mask & 2:
            self.write_physical(area + 24, struct.pack("<I", self["mxcsr"]))
            registers = b"".join(self.engine.reg_read(number).to_bytes(16, "little") for number in XMM)
            self.write_physical(area + 160, registers)
        if mask & 4:
            self.write_physical(area + 576, b"".join(half.to_bytes(16, "little") for half in self.ymm_high))
        self.write_physical(area + 512, struct.pack("<Q", old & ~self.pair() | mask))
        return True

    def _xrstor(self, site: Site) -> bool:
        area, mask = self._area(site), self.pair() & self.xcr0
        state, compaction = struct.unpack("<QQ", self.read_physical(area + 512, 16))
        if state & ~self.xcr0 or compaction or any(self.read_physical(area + 528, 48)):
            return self._general_protection()
        if mask & 2:
            registers = self.read_physical(area + 160, 256) if state & 2 else bytes(256)
            for number, register in enumerate(XMM):
                self.engine.reg_write(register, int.from_bytes(registers[number * 16 : number * 16 + 16], "little"))
            self["mxcsr"] = struct.unpack("<I", self.read_physical(area + 24, 4))[0]
        if mask & 4:
            halves = self.read_physical(area + 576, 256) if state & 4 else bytes(256)
            self.ymm_high = [int.from_bytes(halves[start : start + 16], "little") for start in range(0, 256, 16)]
        return True

    def _random(self, site: Site) -> bool:
        word = self.random()
        assert isinstance(site.operands[0], str)
        self[site.operands[0]] = word or 0
        self["rflags"] = self["rflags"] & ~RFLAGS_ARITHMETIC | (RFLAGS_CARRY if word is not None else 0)
        return True

    def _verw(self, _: Site) -> bool:
        self["rflags"] = self["rflags"] | RFLAGS_ZERO
        return True

    def _hlt(self, site: Site) -> bool:
        """Wait for the timer; with interrupts off, for ever."""
        if not self["rflags"] & RFLAGS_IF:
            self.stop(INTERRUPTS_OFF)
            return False
        end = self.apic.timer_end()
        if end is None:
            raise ModelFailure("HLT with no timer armed: the machine would sleep for ever")
        self.clock.ticks = max(self.clock.ticks, end)
        if self.clock.ticks > self.time_limit:
            self.stop(TIME_OVER)
        self.deliver(self.apic.timer_vector(), return_to=site.address + site.size)
        return False

    # Devices

    def _on_in(self, _: Any, port: int, size: int, __: Any) -> int:
        values: list[int] = []
        self.guarded(lambda: values.append(self.ports.read(port)))
        return values[0] if values else 0

    def _on_out(self, _: Any, port: int, size: int, value: int, __: Any) -> None:
        self.guarded(lambda: self.ports.write(port, value & 0xFF))

    def _apic_read(self, _: Any, offset: int, size: int, __: Any) -> int:
        return self.apic.read(offset) if self.msrs[manual.IA32_APIC_BASE] & ENABLED else 0xFFFF_FFFF

    def _apic_write(self, _: Any, offset: int, size: int, value: int, __: Any) -> None:
        self.apic.write(offset, value)


class RandomWords:
    """RDRAND and RDSEED: words from a seed."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)

    def __call__(self) -> int | None:
        return self.source.getrandbits(64)


SPECIALS: dict[str, Callable[[Machine, Site], bool]] = {
    "rdtsc": Machine._rdtsc,
    "rdmsr": Machine._rdmsr,
    "wrmsr": Machine._wrmsr,
    "cpuid": Machine._cpuid,
    "xsetbv": Machine._xsetbv,
    "xsave64": Machine._xsave,
    "xrstor64": Machine._xrstor,
    "rdrand": Machine._random,
    "rdseed": Machine._random,
    "verw": Machine._verw,
    "hlt": Machine._hlt,
}
