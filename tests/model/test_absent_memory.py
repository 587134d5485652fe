"""EPT violations on absent memory, in the emitted monitor: each form of the closed decoder beside the same instruction run by Unicorn."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import unicorn as uc
from unicorn import x86_const as x86

from boot.handoff import MONITOR_BASE
from dsl.compiler.pipeline import compile_program
from dsl.hw import vmx
from dsl.lang import Array, machine, u8, u64
from tests.model.machine import REGISTERS, ModelFailure
from tests.model.start import machine_for, play
from tests.model.vmx_operation import GENERAL, Exit, Guest, Script
from tests.vmm.images import CODE, TestBox, assemble
from vmm.descriptor import StartMode
from vmm.guest_memory import GuestMemory, Paging, fetch_code
from vmm.main import start as monitor_start

pytestmark = pytest.mark.t1
ABSENT = 0x40_0000  # beyond the box's 2 MiB
ABSENT_16 = 0x9000  # what real-mode code can name; the model says that it is absent
READ, WRITE, FETCH, PLAIN = 1, 2, 4, 0x180
GENERAL_PROTECTION = 13
CANARIES = {name: 0x8877_6655_4433_2211 + number for number, name in enumerate(GENERAL)}
MODES = {
    16: (StartMode.REAL, uc.UC_MODE_16),
    32: (StartMode.PROTECTED, uc.UC_MODE_32),
    64: (StartMode.LONG, uc.UC_MODE_64),
}

READS_64 = [
    "mov al, [rsi]", "mov ah, [rsi]", "mov bh, [rsi]", "mov sil, [rdi]", "mov r9b, [rdi]", "mov cx, [rsi + 8]", "mov edx, [rsi + rbx]",
    "mov r8d, [rsi]", "mov rax, [rsi + 0x12345]", "mov r15, [rsi]", "mov rsp, [rsi]", "mov rbp, [r12]", "mov rbx, [r13]",
    "mov eax, [rip + 0x300000]", "movzx eax, byte ptr [rsi]", "movzx r10, byte ptr [rsi]", "movzx cx, byte ptr [rsi]",
    "movzx edx, word ptr [rsi]", "movzx r11, word ptr [rsi]", "movsx eax, byte ptr [rsi]", "movsx r9, byte ptr [rsi]",
    "movsx bx, byte ptr [rsi]", "movsx eax, word ptr [rsi]", "movsx rax, word ptr [rsi]", "mov eax, [esi]", "mov rax, fs:[rsi]",
    "movabs al, [0x400000]", "movabs rax, [0x400000]", "movabs ax, [0x400000]",
]  # fmt: skip
WRITES_64 = [
    "mov [rsi], al", "mov [rsi], ch", "mov [rdi], r14", "mov [rsi + 4], edx", "mov [rsi], cx", "mov byte ptr [rsi], 7",
    "mov word ptr [rsi], 0x1234", "mov dword ptr [rsi + rbx], 0x12345678", "mov qword ptr [rsi], -1", "movabs [0x400000], eax",
    "mov dword ptr gs:[rsi + 0x1000], 3",
]  # fmt: skip
READS_32 = ["mov al, [esi]", "mov dh, [esi]", "mov ax, [esi + 2]", "mov eax, [esi + ebx]", "mov esp, [esi]", "movzx eax, byte ptr [esi]",
            "movsx ecx, word ptr [esi]", "mov eax, [0x400000]", "mov al, [0x400000]", "mov ax, es:[0x400000]"]  # fmt: skip
WRITES_32 = [
    "mov [esi], al",
    "mov [esi + 0x10], edi",
    "mov word ptr [esi], 5",
    "mov dword ptr [0x400000], 9",
    "mov [0x400000], eax",
]
READS_16 = ["mov al, [si]", "mov ax, [bx + si]", "mov cx, [0x9000]", "mov eax, [si + 4]", "mov dl, [di + 0x100]", "mov ax, [0x9000]",
            "movzx eax, word ptr [si]", "mov ebp, [esi]"]  # fmt: skip
WRITES_16 = ["mov [si], al", "mov [0x9000], ax", "mov word ptr [bx + si], 0x1234", "mov dword ptr [si], 0x12345678"]
FORMS = [
    *((64, text, False) for text in READS_64), *((64, text, True) for text in WRITES_64),
    *((32, text, False) for text in READS_32), *((32, text, True) for text in WRITES_32),
    *((16, text, False) for text in READS_16), *((16, text, True) for text in WRITES_16),
]  # fmt: skip
REFUSED_64 = [
    "add eax, [rsi]", "add [rsi], eax", "xchg eax, [rsi]", "push qword ptr [rsi]", "pop qword ptr [rsi]", "cmp byte ptr [rsi], 1",
    "rep movsb", "stosd", "lodsb", "movups xmm0, [rsi]", "lock inc dword ptr [rsi]", "jmp [rsi]", "call [rsi]", "bt [rsi], eax",
    "movsxd rax, dword ptr [rsi]", "cmpxchg [rsi], ecx", "mov ds, [rsi]", "movbe eax, [rsi]", "inc byte ptr [rsi]", "fld dword ptr [rsi]",
]  # fmt: skip


@dataclass(frozen=True)
class After:
    """What an instruction did: the registers and where it went on."""

    registers: dict[str, int]
    rip: int


def start_registers(bits: int) -> dict[str, int]:
    """Registers that make each form's address one of absent memory."""
    absent = ABSENT_16 if bits == 16 else ABSENT
    return CANARIES | {"rsi": absent, "rdi": absent, "rbx": 0x40, "r12": absent, "r13": absent}


@functools.cache
def oracle(bits: int, text: str) -> After:
    """The instruction run by Unicorn on memory of all ones."""
    engine: Any = uc.Uc(uc.UC_ARCH_X86, MODES[bits][1])
    engine.mem_map(0, 0x80_0000)
    engine.mem_write(0, b"\xff" * 0x80_0000)
    code = assemble(text, bits)
    engine.mem_write(CODE, code)
    names = [name for name in GENERAL if bits == 64 or not name[1:].isdigit()]
    mask = 2**64 - 1 if bits == 64 else 2**32 - 1
    prefix = "" if bits == 64 else "e"
    numbers = {
        name: REGISTERS[name] if bits == 64 else getattr(x86, f"UC_X86_REG_{prefix.upper()}{name[1:].upper()}")
        for name in names
    }
    stack = REGISTERS["rsp"] if bits == 64 else x86.UC_X86_REG_ESP
    for name, number in numbers.items():
        engine.reg_write(number, start_registers(bits)[name] & mask)
    engine.reg_write(stack, 0x8000)
    engine.emu_start(CODE, CODE + len(code), count=1)
    registers = {name: engine.reg_read(number) & mask for name, number in numbers.items()}
    return After(registers | {"rsp": engine.reg_read(stack) & mask}, CODE + len(code))


def violation(guest: Guest, code: bytes, bits: int, access: int) -> Exit:
    """The exit that the instruction makes, with its bytes in the guest's memory."""
    guest.write(CODE, code.ljust(16, b"\xf4"))
    fields = {vmx.GUEST_RIP: CODE, vmx.GUEST_RSP: 0x8000, vmx.GUEST_RFLAGS: 2}
    address = ABSENT_16 if bits == 16 else ABSENT
    return Exit(
        vmx.ExitReason.EPT_VIOLATION, access, registers=start_registers(bits), fields=fields, guest_physical=address
    )


@pytest.mark.parametrize("bits", MODES)
def test_each_form_does_what_the_processor_does_on_all_ones(bits: int) -> None:
    """The register that is read into, all others, and RIP are as Unicorn leaves them over memory of all ones."""

    def script(guest: Guest) -> Script:
        for form_bits, text, is_write in FORMS:
            if form_bits == bits:
                yield violation(guest, assemble(text, bits), bits, PLAIN | (WRITE if is_write else READ))
                expected = oracle(bits, text)
                mask = 2**64 - 1 if bits == 64 else 2**32 - 1
                found = {name: guest[name] & mask for name in expected.registers if name != "rsp"}
                found["rsp"] = guest[vmx.GUEST_RSP] & mask
                assert guest.event == 0, text
                assert guest.rip == expected.rip, text
                assert found == expected.registers, text

    play(script, TestBox("a", b"\xf4", MODES[bits][0]))


def test_everything_else_is_a_general_protection_fault() -> None:
    """Other instructions, a fetch, a walk of the page tables, a direction that does not fit: #GP(0), nothing changed."""

    def script(guest: Guest) -> Script:
        mov = assemble("mov eax, [rsi]", 64)
        cases = [(assemble(text, 64), PLAIN | access) for text in REFUSED_64 for access in (READ, WRITE)]
        cases += [
            (mov, PLAIN | FETCH),
            (mov, READ | 0x80),
            (mov, READ),
            (mov, PLAIN | WRITE),
            (b"\x66" * 15, PLAIN | READ),
        ]
        cases += [(b"\x0f\xff", PLAIN | READ), (b"\x8b\xc0", PLAIN | READ), (b"\xc7\x0e\0\0\0\0", PLAIN | WRITE)]
        for code, access in cases:
            yield violation(guest, code, 64, access)
            assert guest.event == 0x8000_0B00 | GENERAL_PROTECTION, code.hex()
            assert guest.rip == CODE
            assert {name: guest[name] for name in GENERAL} == start_registers(64)

    play(script, TestBox("a", b"\xf4", StartMode.LONG))


def test_an_instruction_at_the_end_of_memory() -> None:
    """Code whose last bytes would lie beyond the box's memory is #GP, and the same instruction one byte lower is carried out."""

    def script(guest: Guest) -> Script:
        code = assemble("mov eax, [rsi + 0x12345678]", 64)
        for missing in (0, 1, 3):
            start = 0x20_0000 - len(code) + missing
            guest.write(start, code[: len(code) - missing])
            fields = {vmx.GUEST_RIP: start}
            yield Exit(
                vmx.ExitReason.EPT_VIOLATION,
                PLAIN | READ,
                registers=start_registers(64),
                fields=fields,
                guest_physical=ABSENT,
            )
            assert guest.event & 0xFF == (GENERAL_PROTECTION if missing else 0)

    play(script, TestBox("a", b"\xf4", StartMode.LONG))


@machine
def fetch_code_twice(memory: GuestMemory, paging: Paging, linear: u64, destination: Array[u8]) -> u64:
    """A planted fault: the instruction is fetched a second time."""
    _ = fetch_code(memory, paging, linear, destination)
    return fetch_code(memory, paging, linear, destination)


def test_a_planted_double_fetch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that is looked at twice breaks the model's rule."""
    monkeypatch.setattr("vmm.exits.absent_memory.fetch_code", fetch_code_twice)
    program = compile_program(monitor_start, base=MONITOR_BASE)

    def script(guest: Guest) -> Script:
        yield violation(guest, assemble("mov eax, [rsi]", 64), 64, PLAIN | READ)

    played = machine_for([TestBox("a", b"\xf4", StartMode.LONG)], [script], program=program)
    with pytest.raises(ModelFailure, match="a guest byte was read twice"):
        played.run()
