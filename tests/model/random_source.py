"""What boxes do at random, from a seed. They look at nothing that the monitor answers, so that they do the same in every world, and they
break no rule of the manual's for a guest. Devices are in `random_devices`, instructions and memory in `random_exits`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dsl.hw import vmx
from tests.model.processor import TSC_HZ
from tests.model.vmx_operation import GENERAL, Exit, Guest, Script

REASON: Final = vmx.ExitReason
COM1, PIC1, PIC2, PIT, SPEAKER, KEYBOARD, CLOCK, PCI = 0x3F8, 0x20, 0xA0, 0x40, 0x61, 0x60, 0x70, 0xCF8
MICROSECOND: Final = TSC_HZ // 1_000_000
IF, TF, SINGLE_STEP, NMI_BLOCKED = 1 << 9, 1 << 8, 1 << 14, 1 << 3
ARITHMETIC: Final = 0xCD5  # CF, PF, AF, ZF, SF, DF, OF
VALID, HAS_ERROR = 1 << 31, 1 << 11
FRAME: Final = 2 << 20
MEMORY: Final = 3 * FRAME  # of each box that does what it likes
LOG, RANDOM, GET_ID, ENDORSE, EVIDENCE = 4, 3, 1, 2, 6


class Source(random.Random):
    """Random numbers of the kinds that boxes use."""

    def word(self) -> int:
        """Any 64 bits, often near a power of two."""
        return (
            self.getrandbits(64) if self.randrange(3) else (1 << self.randrange(65)) + self.randint(-2, 2)
        ) & 2**64 - 1

    def byte(self) -> int:
        """Any byte, often with few bits."""
        return self.choice((self.getrandbits(8), 1 << self.randrange(8), 0, 0xFF))

    def ticks(self) -> int:
        """How long the guest runs: mostly some instructions, seldom milliseconds."""
        return self.choice((40, 400, 4000, 400, 40_000, 400_000, 1_200_000))

    def state(self) -> dict[object, int]:
        """Flags and interrupt shadow, as a processor may have them."""
        flags = 2 | self.choice((0, IF)) | self.choice((0, 0, 0, TF)) | self.getrandbits(12) & ARITHMETIC
        shadow = self.choice((0, 0, 0, 2, 1 if flags & IF else 0))
        pending = SINGLE_STEP if shadow and flags & TF else 0
        shadow |= self.choice((0, 0, NMI_BLOCKED))
        return {
            vmx.GUEST_RFLAGS: flags,
            vmx.GUEST_INTERRUPTIBILITY: shadow,
            vmx.GUEST_PENDING_DEBUG_EXCEPTIONS: pending,
        }

    def registers(self, **known: int) -> dict[str, int]:
        """All general registers."""
        return {name: self.getrandbits(64) for name in GENERAL} | known

    def io(self, port: int, is_in: bool, value: int = 0, width: int = 1) -> Exit:
        """IN or OUT. Not during an interrupt shadow alone: anything goes on around it."""
        qualification = width - 1 | is_in << 3 | (port & 0xFFFF) << 16
        registers = {"rax": self.getrandbits(32) << 32 | value}
        return Exit(
            REASON.IO_INSTRUCTION, qualification, 2, registers=registers, fields=self.state(), ticks=self.ticks()
        )

    def some_io(self, ports: list[int]) -> Exit:
        """An access to one of these ports, of any width."""
        width = self.choice((1, 1, 1, 1, 2, 4))
        value = self.byte() if width == 1 else self.getrandbits(32)
        return self.io(self.choice(ports), bool(self.randrange(2)), value, width)

    def pause(self, microseconds: int) -> Exit:
        """The guest does nothing that counts."""
        return Exit(REASON.WBINVD_OR_WBNOINVD, length=2, fields=self.state(), ticks=microseconds * MICROSECOND)

    def window(self) -> Exit:
        """The guest can take an interrupt: an exit for the window, or another exit."""
        reason = self.choice((REASON.INTERRUPT_WINDOW, REASON.PREEMPTION_TIMER, REASON.INVD))
        return Exit(reason, length=2, fields={vmx.GUEST_RFLAGS: IF | 2, vmx.GUEST_INTERRUPTIBILITY: 0}, ticks=4000)

    def halt(self) -> Script:
        """HLT with interrupts on, and none in service that would keep the timer's away for ever."""
        for _ in range(3):
            yield replace(self.io(PIC1, False, 0x20), fields={vmx.GUEST_RFLAGS: 2, vmx.GUEST_INTERRUPTIBILITY: 0})
        yield Exit(REASON.HLT, length=1, fields={vmx.GUEST_RFLAGS: IF | 2, vmx.GUEST_INTERRUPTIBILITY: 0})


BoxScript = Callable[[Guest, Source], Script]


def outs(source: Source, *rows: tuple[int, int]) -> Script:
    """Bytes written to ports."""
    for port, value in rows:
        yield source.io(port, False, value)


def ins(source: Source, *ports: int) -> Script:
    """Bytes read from ports."""
    for port in ports:
        yield source.io(port, True)


def hypercall(source: Source, number: int, **arguments: int) -> Exit:
    """VMCALL from ring 0."""
    registers = source.registers(rax=number, **arguments)
    return Exit(REASON.VMCALL, length=3, registers=registers, fields=source.state(), ticks=400)


def far_ahead(guest: Guest, source: Source) -> None:
    """Time passes that nobody saw pass: the TSC was written, or the machine slept."""
    guest.machine.clock.pass_ticks(source.choice((1 << 30, 1 << 33, 3 << 40, 5 << 50)) + source.getrandbits(20))


def quickly(steps: Script) -> Script:
    """The same, in so little time that nothing else becomes due."""
    for step in steps:
        yield replace(step, ticks=40)


def pics_ready(source: Source, last_word: int = 1) -> Script:
    """Both interrupt controllers initialized as a PC's, all lines open. last_word: ICW4."""
    for chip, vectors, wiring in ((PIC1, 0x30, 4), (PIC2, 0x38, 2)):
        words = ((chip + 1, word) for word in (vectors, wiring, last_word, 0))
        yield from outs(source, (chip, 0x11), *words)


def rings(ring: int) -> dict[object, int]:
    """The access rights of 64-bit code and its stack in a ring."""
    return {vmx.GUEST_SS_ACCESS_RIGHTS: 0xC093 | ring << 5, vmx.GUEST_CS_ACCESS_RIGHTS: 0xA09B | ring << 5}
