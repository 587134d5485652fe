"""The closed decoder: right about every plain MOV that Capstone knows, and it refuses the rest."""

from __future__ import annotations

import capstone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import Array, Failure, Machine, array_at, u8, u64
from dsl.lang.addresses import HostVirtual
from tests.vmm.images import assemble
from vmm.decoder import BUFFER_SIZE, CodeSize, Move, decode_move, merge_absent

pytestmark = pytest.mark.t0
PLACE = 0x1000
MODES = {64: capstone.CS_MODE_64, 32: capstone.CS_MODE_32, 16: capstone.CS_MODE_16}


def code_size(bits: int) -> CodeSize:
    return CodeSize(bits == 64, bits == 32)


def as_array(machine: Machine, code: bytes) -> Array[u8]:
    machine.memory.write(PLACE, code.ljust(BUFFER_SIZE, b"\0"))
    return array_at(u8, HostVirtual(PLACE), u64(BUFFER_SIZE))


def decode(code: bytes, bits: int) -> Move | Failure:
    with Machine() as machine:
        machine.memory.map(PLACE, 4096)
        move = Move()
        failed = decode_move(as_array(machine, code), u64(len(code)), code_size(bits), move)
        return move if failed is None else failed


KNOWN = [
    # text, bits, is a write, register, source width, target width, signed, high byte
    ("mov al, byte ptr [rbx]", 64, False, 0, 1, 1, False, False),
    ("mov eax, dword ptr [0x12345678]", 64, False, 0, 4, 4, False, False),
    ("mov rax, qword ptr [rbx + rcx*8 + 0x1000]", 64, False, 0, 8, 8, False, False),
    ("mov r15, qword ptr [r12]", 64, False, 15, 8, 8, False, False),
    ("mov r9d, dword ptr [rip + 4]", 64, False, 9, 4, 4, False, False),
    ("mov cx, word ptr [rbp - 1]", 64, False, 1, 2, 2, False, False),
    ("mov ah, byte ptr [rbx]", 64, False, 0, 1, 1, False, True),
    ("mov bh, byte ptr [ebx]", 32, False, 3, 1, 1, False, True),
    ("mov sil, byte ptr [rbx]", 64, False, 6, 1, 1, False, False),
    ("movzx eax, byte ptr [rdi]", 64, False, 0, 1, 4, False, False),
    ("movzx r8, word ptr [rdi]", 64, False, 8, 2, 8, False, False),
    ("movsx ecx, byte ptr [rdi]", 64, False, 1, 1, 4, True, False),
    ("movsx rdx, word ptr [rdi]", 64, False, 2, 2, 8, True, False),
    ("mov eax, dword ptr fs:[ebx]", 32, False, 0, 4, 4, False, False),
    ("mov ax, word ptr [bx + si]", 16, False, 0, 2, 2, False, False),
    ("mov eax, dword ptr [bp + 4]", 16, False, 0, 4, 4, False, False),
    ("mov dword ptr [rbx], eax", 64, True, 0, 0, 0, False, False),
    ("mov qword ptr [rbx + 8], -1", 64, True, 0, 0, 0, False, False),
    ("mov byte ptr [ebx], 5", 32, True, 0, 0, 0, False, False),
    ("mov word ptr [bx + di + 0x100], 5", 16, True, 0, 0, 0, False, False),
    ("movabs al, byte ptr [0x1122334455667788]", 64, False, 0, 1, 1, False, False),
    ("movabs qword ptr [0x1122334455667788], rax", 64, True, 0, 0, 0, False, False),
]


@pytest.mark.parametrize("row", KNOWN, ids=[row[0] for row in KNOWN])
def test_known_forms(row: tuple[str, int, bool, int, int, int, bool, bool]) -> None:
    """Length, direction, register and widths are those of the assembled instruction; every truncation of it is refused."""
    listing, bits, is_write, register, source, target, signed, high = row
    code = assemble(listing, bits)
    move = decode(code + b"\x90" * (15 - len(code)), bits)
    assert not isinstance(move, Failure)
    assert int(move.length) == len(code)
    assert move.is_write == is_write
    if not is_write:
        found = (int(move.register), int(move.source_width), int(move.target_width), move.is_signed, move.is_high_byte)
        assert found == (register, source, target, signed, high)
    for length in range(len(code)):
        assert isinstance(decode(code[:length], bits), Failure)


@pytest.mark.parametrize(
    ("listing", "bits"),
    [
        ("add eax, dword ptr [rbx]", 64), ("xchg dword ptr [rbx], eax", 64), ("push qword ptr [rbx]", 64),
        ("lock add dword ptr [rbx], 1", 64), ("rep movsb", 64), ("stosd", 64), ("mov eax, ebx", 64), ("movaps xmm0, xmmword ptr [rbx]", 64),
        ("cmp byte ptr [rbx], 0", 64), ("call qword ptr [rbx]", 64), ("mov ds, word ptr [rbx]", 64), ("movsxd rax, dword ptr [rbx]", 64),
        ("inc dword ptr [ebx]", 32), ("lea eax, [ebx]", 32), ("movbe eax, dword ptr [rbx]", 64),
    ],
)  # fmt: skip
def test_other_instructions_are_refused(listing: str, bits: int) -> None:
    """Nothing but the closed list is carried out."""
    assert isinstance(decode(assemble(listing, bits).ljust(15, b"\x90"), bits), Failure)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(
    st.sampled_from([16, 32, 64]),
    st.lists(st.sampled_from([0x66, 0x67, 0x2E, 0x3E, 0x26, 0x64, 0x65, 0x36]), max_size=2),
    st.sampled_from([b"", b"\x40", b"\x44", b"\x48", b"\x4f", b"\x41"]),
    st.sampled_from(
        [b"\x88", b"\x89", b"\x8a", b"\x8b", b"\xa0", b"\xa1", b"\xa2", b"\xa3", b"\xc6", b"\xc7",
         b"\x0f\xb6", b"\x0f\xb7", b"\x0f\xbe", b"\x0f\xbf", b"\x8c", b"\x03", b"\x0f\x6f"]
    ),
    st.binary(min_size=12, max_size=12),
)  # fmt: skip
def test_lengths_agree_with_capstone(bits: int, prefixes: list[int], rex: bytes, opcode: bytes, rest: bytes) -> None:
    """Where the decoder takes an instruction, it is a MOV, MOVZX or MOVSX of that length with a memory operand."""
    code = (bytes(prefixes) + (rex if bits == 64 else b"") + opcode + rest)[:15]
    move = decode(code, bits)
    if isinstance(move, Failure):
        return
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    instruction = next(disassembler.disasm(code, 0), None)
    assert instruction is not None
    assert instruction.mnemonic in ("mov", "movzx", "movsx", "movabs")
    assert "[" in instruction.op_str
    assert instruction.size == int(move.length), instruction.op_str


@pytest.mark.parametrize(
    ("source", "target", "signed", "high", "expected"),
    [
        (8, 8, False, False, 2**64 - 1),
        (4, 4, False, False, 0x0000_0000_FFFF_FFFF),
        (2, 2, False, False, 0x1122_3344_5566_FFFF),
        (1, 1, False, False, 0x1122_3344_5566_77FF),
        (1, 1, False, True, 0x1122_3344_5566_FF88),
        (1, 4, False, False, 0xFF),
        (1, 8, False, False, 0xFF),
        (2, 4, False, False, 0xFFFF),
        (1, 4, True, False, 0xFFFF_FFFF),
        (2, 8, True, False, 2**64 - 1),
        (1, 2, True, False, 0x1122_3344_5566_FFFF),
        (1, 2, False, False, 0x1122_3344_5566_00FF),
    ],
)
def test_merging_of_all_ones(source: int, target: int, signed: bool, high: bool, expected: int) -> None:
    """A read of absent memory leaves the register as the real instruction would with all ones."""
    with Machine():
        move = Move()
        move.source_width, move.target_width, move.is_signed, move.is_high_byte = u8(source), u8(target), signed, high
        assert int(merge_absent(move, u64(0x1122_3344_5566_7788))) == expected
