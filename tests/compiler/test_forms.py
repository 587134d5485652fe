"""Every instruction form, with operands of all register classes: PeachPy, Keystone and Capstone agree, and known traps are refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import pytest

from dsl.compiler.capstone import decode, same
from dsl.compiler.encode import encode, shape_of
from dsl.compiler.forms import FORMS, FormError
from dsl.compiler.keystone import AssemblyError, assemble
from dsl.compiler.listing import assemble_template
from dsl.compiler.machine import Instruction, Memory, Operand, Register
from dsl.compiler.spelling import spell

ENCODED: Final = [mnemonic for mnemonic, form in FORMS.items() if form.shapes]
REGISTERS: Final = tuple(range(16))  # spl, bpl, sil and dil among them, which without REX would be ah, ch, dh and bh
# Displacements at the edges of none, one byte and four; the sixteen bases, of which four are encoded in ways of their own.
DISPLACEMENTS: Final = (0, 1, -1, 127, 128, -128, -129, 0x7FFFFFFF, -(1 << 31))
PLAIN: Final = [{"base": base, "displacement": number} for base in REGISTERS for number in DISPLACEMENTS]
INDEXED: Final = [
    {
        "base": base,
        "index": index,
        "scale": (1, 2, 4, 8)[(base + index) % 4],
        "displacement": (0, 8, -128, 0x12345)[turn],
    }
    for turn, (base, index) in ((number // 3 % 4, pair) for number, pair in enumerate(product(REGISTERS, REGISTERS)))
    if index != 4
]
BASELESS: Final = [
    {"index": index, "scale": scale, "displacement": 16 * scale - 8}
    for index in REGISTERS
    if index != 4
    for scale in (2, 4, 8)
]
SYMBOLIC: Final = [{"symbol": "there", "displacement": number} for number in (0, 12, -4)]
MEMORIES: Final[tuple[dict[str, Any], ...]] = (*PLAIN, *INDEXED, *BASELESS, *SYMBOLIC)
IMMEDIATES: Final = {
    8: (0, 1, -1, 127, 128, -128, 255),
    16: (0, 1, -1, 127, 128, -128, -129, 255, 256, 0x7FFF, 0x8000, -0x8000, 0xFFFF),
    32: (0, 1, -1, 127, 128, -128, -129, 255, 256, 0xFFFF, 0x10000, 0x7FFFFFFF, -(1 << 31)),
}
BEYOND: Final = (
    1 << 31,
    0xFFFFFFFF,
    1 << 32,
    0x7FFFFFFFFFFFFFFF,
    1 << 63,
    (1 << 64) - 1,
)  # for mov to a register alone
BATCH: Final = 500  # instructions that Keystone gets at once


def choices(mnemonic: str, letter: str, width: int) -> list[Operand]:
    """The operands tried in one place."""
    if letter == "c":
        return [Register(1, 8)]
    if letter == "i":
        if mnemonic in ("shl", "shr", "sar", "rol", "ror", "rorx"):
            return list(range(width))
        wide = BEYOND if (mnemonic, width) == ("mov", 64) else ()
        return [*IMMEDIATES.get(width, IMMEDIATES[32]), *wide]
    if letter == "m":
        return [Memory(width, **shape) for shape in MEMORIES]
    return [Register(number, width) for number in REGISTERS]


def combinations(columns: list[list[Operand]]) -> Iterator[tuple[Operand, ...]]:
    """Every pair of registers, and of a register and an immediate; with a memory operand, each of its shapes with others turning."""
    if len(columns) == 2 and max(map(len, columns)) <= 64:
        yield from product(*columns)
        return
    for turn in range(max(map(len, columns), default=1)):
        for shift in (0, 1, 5) if len(columns) > 1 else (0,):
            yield tuple(column[(turn + position * shift) % len(column)] for position, column in enumerate(columns))
    if len(columns) == 3 and all(len(column) == len(REGISTERS) for column in columns):
        yield from ((first, second, columns[2][(number * 7) % 16])
                    for number, (first, second) in enumerate(product(columns[0], columns[1])))  # fmt: skip


def instances(mnemonic: str) -> list[Instruction]:
    """One form with all register and immediate classes in each place."""
    form = FORMS[mnemonic]
    found: dict[tuple[Operand, ...], None] = {}
    for shape, width, source_width in product(form.shapes, form.widths, form.source_widths or (0,)):
        columns = [
            choices(mnemonic, letter, source_width if source_width and position == 1 else width)
            for position, letter in enumerate(shape)
        ]
        for operands in combinations(columns):
            if shape == "mi" and width == 64 and operands[1] in BEYOND:
                continue  # only a register takes a 64-bit immediate
            if mnemonic == "xchg" and operands[0] == operands[1]:
                continue  # decodes as nop; parallel moves never ask for it
            found[operands] = None
    return [Instruction(mnemonic, operands) for operands in found]


def spelt(instruction: Instruction) -> str:
    """The text that both assemblers get; a symbol's displacement is a placeholder."""
    operands = (
        Memory(operand.width, symbol="", displacement=0x11223344)
        if isinstance(operand, Memory) and operand.symbol
        else operand
        for operand in instruction.operands
    )
    return spell(instruction.mnemonic, tuple(operands))


@pytest.mark.t1
@pytest.mark.parametrize("mnemonic", sorted(ENCODED))
@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_form(mnemonic: str, stride: int) -> None:
    """encode() checks Capstone; Keystone, given the same texts, makes bytes that decode to the same instructions."""
    found = instances(mnemonic)[::stride]
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        texts = [spelt(instruction) for instruction in batch]
        theirs = decode(assemble("\n".join(texts)))
        assert len(theirs) == len(batch)
        for instruction, text, (_, _, decoded) in zip(batch, texts, theirs, strict=True):
            assert same(text, decoded), f"{text}: Keystone says {decoded}"
            ((_, _, ours),) = decode(encode(instruction).data)
            assert same(text, ours), f"{text}: PeachPy {ours}, Keystone {decoded}"
    assert found


def test_forms_are_tried_with_every_register_and_edge() -> None:
    """What the instances hold: sixteen registers in each place, every width, the edges of immediates and displacements."""
    tried = instances("add")
    for width in FORMS["add"].widths:
        pairs = [instruction.operands for instruction in tried if shape_of(instruction.operands) in ("rr", "rc")]
        assert {(first, second) for first, second in pairs} >= set(
            product([Register(number, width) for number in REGISTERS], repeat=2)
        )
        memories = {operand for instruction in tried for operand in instruction.operands if isinstance(operand, Memory)}
        assert memories >= {Memory(width, **shape) for shape in MEMORIES}
    assert (1 << 64) - 1 in {instruction.operands[-1] for instruction in instances("mov")}
    assert sum(len(instances(mnemonic)) for mnemonic in ENCODED) > 50_000


def test_every_form_has_roles() -> None:
    """The allocator knows what each form does with its operands."""
    for mnemonic, form in FORMS.items():
        assert all(len(form.roles) == len(shape) for shape in form.shapes), mnemonic


@pytest.mark.parametrize(
    ("mnemonic", "operands", "text"),
    [
        ("add", (Register(0, 8), 256), "can not be encoded as imm8"),
        ("and", (Register(0, 64), 0xFFFFFFFF), "can not be encoded as imm32"),
        ("mov", (Register(0, 32), 1 << 32), "can not be encoded as imm32"),
        ("mov", (Memory(64, base=0), 1 << 31), "can not be encoded as imm32"),
        ("imul3", (Register(0, 64), Register(0, 64), 1 << 31), "Invalid operand"),
        ("mov", (Memory(64, base=0), Memory(64, base=1)), "operand shape"),
        ("movzx", (Register(0, 32), Register(1, 32)), "source width"),
        ("lea", (Register(0, 64), Memory(64, base=1, displacement=1 << 31)), "not representable as a signed 32-bit"),
        ("vmovaps", (), "not in the table"),
        ("bswap", (Register(0, 16),), "width 16"),
    ],
)
def test_what_is_refused(mnemonic: str, operands: tuple[Operand, ...], text: str) -> None:
    """Forms outside the table never reach an encoder; the encoders refuse numbers that do not fit (and the linker would see one cut)."""
    with pytest.raises((FormError, ValueError, AssemblyError), match=text):
        encode(Instruction(mnemonic, operands))


def test_imul_with_large_bytes() -> None:
    """The immediates that PeachPy gets wrong are encoded rightly."""
    for number in range(120, 260):
        ((_, _, text),) = decode(encode(Instruction("imul3", (Register(0, 32), Register(3, 32), number))).data)
        assert int(text.rpartition(" ")[2], 0) == number


@pytest.mark.parametrize("text", ["push 0xffffffff", "mov ah, r8b", ".section .text", "iret", "frobnicate rax"])
def test_keystone_traps_are_refused(text: str) -> None:
    """Each with a reason, none with wrong bytes or a dead process."""
    with pytest.raises(AssemblyError):
        assemble(text)


def test_templates_must_decode_to_themselves() -> None:
    """A statement that Keystone turns into something else is caught."""
    assert assemble_template("rep movsb").rows == ((0, "rep movsb byte ptr [rdi], byte ptr [rsi]"),)
    with pytest.raises(AssemblyError):
        assemble_template("mov eax, 0x123456789")
