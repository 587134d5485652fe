"""The model beside Bochs: a guest's instructions end alike in both, so the exits that the scripts make are those that a processor makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dsl.hw import vmx
from tests.boot.machine import BOCHS
from tests.model.start import play
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import Segment, TestBox, assemble
from tests.vmm.test_machine import HLT_FOREVER, print_hex_16, run, text_of

pytestmark = [pytest.mark.t2, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
REASON = vmx.ExitReason
HANDLERS = 0x3000  # one each 16 bytes: note the vector, go on after the instruction, whose length is in DI


@dataclass(frozen=True)
class Case:
    """An instruction after its set-up, and the exit that it makes."""

    code: str
    exit: Exit


def msr(instruction: str, number: int, eax: int = 0, edx: int = 0) -> Case:
    """RDMSR or WRMSR."""
    registers = {"rcx": number, "rax": eax, "rdx": edx}
    reason = REASON.RDMSR if instruction == "rdmsr" else REASON.WRMSR
    return Case(
        f"mov ecx, {number}; mov eax, {eax}; mov edx, {edx}; {instruction}", Exit(reason, length=2, registers=registers)
    )


def plain(code: str, reason: vmx.ExitReason, length: int, qualification: int = 0, **registers: int) -> Case:
    """Any other instruction; the set-up loads the registers."""
    loads = "".join(f"mov e{name[1:]}, {value}; " for name, value in registers.items())
    return Case(loads + code, Exit(reason, qualification, length, registers=registers))


CASES = [
    msr("rdmsr", 0x17),
    msr("rdmsr", 0x1B),
    msr("rdmsr", 0x1A0),
    msr("rdmsr", 0x3A),
    msr("rdmsr", 0x480),
    msr("rdmsr", 0xC001_0015),
    msr("wrmsr", 0x8B, 5),
    msr("wrmsr", 0x1B, 0xFEE0_0800),
    msr("wrmsr", 0x3A, 5),
    msr("wrmsr", 0xC000_0080, 0x801),
    msr("wrmsr", 0xC000_0080, 0x2000),
    plain("cpuid", REASON.CPUID, 2, rax=0x4000_0000, rcx=0, rdx=0),
    plain("in al, 0x80", REASON.IO_INSTRUCTION, 2, 0x80 << 16 | 8 | 1 << 6, rax=0x1234_5678, rdx=0),
    plain("in ax, dx", REASON.IO_INSTRUCTION, 1, 0x1234 << 16 | 8 | 1, rax=0x1234_5678, rdx=0x1234),
    plain("in eax, dx", REASON.IO_INSTRUCTION, 2, 0x1234 << 16 | 8 | 3, rax=0, rdx=0x1234),
    plain("insb", REASON.IO_INSTRUCTION, 1, 0x1234 << 16 | 8 | 16, rax=7, rdx=0x1234),
    plain("invd", REASON.INVD, 2, rax=1, rdx=2),
    plain("wbinvd", REASON.WBINVD_OR_WBNOINVD, 2, rax=1, rdx=2),
    plain("mov cr4, eax", REASON.CONTROL_REGISTER_ACCESS, 3, 4, rax=0x2000, rdx=0),
    plain("mov cr0, eax", REASON.CONTROL_REGISTER_ACCESS, 3, 0, rax=0x2000_0010, rdx=0),
    plain("xsetbv", REASON.XSETBV, 3, rcx=0, rax=0, rdx=0),
    plain("xsetbv", REASON.XSETBV, 3, rcx=0, rax=5, rdx=0),
    plain("xsetbv", REASON.XSETBV, 3, rcx=0, rax=3, rdx=0),
    plain("xsetbv", REASON.XSETBV, 3, rcx=1, rax=1, rdx=0),
    plain("rdpmc", REASON.RDPMC, 2, rcx=0, rax=1, rdx=2),
    plain("monitor", REASON.MONITOR, 3, rcx=0, rax=1, rdx=0),
]


def guest_code() -> bytes:
    """Real-mode code that runs each case and prints the vector of its fault (0: none), EAX and EDX."""
    parts = ["xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov eax, cr4; or eax, 0x40000; mov cr4, eax"]
    for vector in (6, 13):
        parts.append(f"mov word ptr [{vector * 4}], {HANDLERS + vector * 16}; mov word ptr [{vector * 4 + 2}], 0")
    for case in CASES:
        parts.append(f"mov di, {case.exit.length}; mov bp, 0; {case.code}; call report")
    parts.append(HLT_FOREVER)
    parts.append("report: push edx; push eax; movzx ebx, bp; call hex; pop ebx; call hex; pop ebx; call hex; ret")
    return assemble("\n".join(parts) + print_hex_16(), 16)


def handler(vector: int) -> bytes:
    """A real-mode handler: the vector into BP, and on at the next case."""
    address = HANDLERS + vector * 16
    return assemble(f"mov bp, sp; add [bp], di; mov bp, {vector}; iret", 16, address)


def outcomes_in_bochs(folder: Path) -> list[tuple[int, int, int]]:
    """Vector, EAX, EDX of each case."""
    segments = tuple(Segment(HANDLERS + vector * 16, handler(vector)) for vector in (6, 13))
    outcome = run(folder, TestBox("a", guest_code(), segments=segments))
    words = [int(word, 16) for word in text_of(outcome, "a").split()]
    assert len(words) == 3 * len(CASES), outcome.serial
    return [(words[index], words[index + 1], words[index + 2]) for index in range(0, len(words), 3)]


def outcomes_in_the_model() -> list[tuple[int, int, int]]:
    """The same by scripted exits."""
    outcomes: list[tuple[int, int, int]] = []

    def script(guest: Guest) -> Script:
        for case in CASES:
            yield case.exit
            outcomes.append((guest.event & 0xFF, guest["rax"] & 0xFFFF_FFFF, guest["rdx"] & 0xFFFF_FFFF))

    play(script)
    return outcomes


def test_the_same_instructions_end_alike(tmp_path: Path) -> None:
    """Fault or answer: the same in both."""
    assert outcomes_in_bochs(tmp_path) == outcomes_in_the_model()
