"""Every instruction form, with operands of all register classes: PeachPy, Keystone and Capstone agree, and known traps are refused."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import pytest

from dsl.compiler.capstone import decode, same
from dsl.compiler.encode import encode
from dsl.compiler.forms import FORMS, FormError
from dsl.compiler.keystone import AssemblyError, assemble
from dsl.compiler.listing import assemble_template
from dsl.compiler.machine import ROLES, Instruction, Memory, Operand, Register
from dsl.compiler.spelling import spell

# Low and high registers, those that need a REX prefix for their low byte, and those that mean something else in an address.
REGISTERS: Final = (0, 3, 4, 5, 6, 7, 8, 12, 13, 15)
GENERAL: Final = tuple(number for number in REGISTERS if number != 4)
MEMORIES: Final[tuple[dict[str, Any], ...]] = (
    {"base": 0},
    {"base": 4, "displacement": 8},
    {"base": 5},
    {"base": 12},
    {"base": 13, "displacement": -128},
    {"base": 3, "displacement": 0x12345},
    {"base": 4, "index": 13, "scale": 8, "displacement": 0x80},
    {"base": 13, "index": 12},
    {"base": 5, "index": 5, "scale": 2},
    {"index": 9, "scale": 4, "displacement": 16},
    {"symbol": "there", "displacement": 12},
)
IMMEDIATES: Final = {
    8: (0, 1, -1, 127, -128, 255),
    16: (0, 1, -1, 127, 128, -129, 0x7FFF, 0xFFFF),
    32: (0, 1, -1, 127, 128, 255, 256, -129, 0x7FFFFFFF, -(1 << 31)),
}
BEYOND: Final = (1 << 32, 0xFFFFFFFF, (1 << 64) - 1)
IMMEDIATES_64: Final = IMMEDIATES[32]


def choices(mnemonic: str, letter: str, position: int, width: int) -> list[Operand]:
    """The operands tried in one place."""
    if letter == "c":
        return [Register(1, 8)]
    if letter == "i":
        if mnemonic in ("shl", "shr", "sar", "rol", "ror", "rorx"):
            return [0, 1, 2, width - 1]
        wide = BEYOND if (mnemonic, width) == ("mov", 64) else ()
        return [*IMMEDIATES.get(width, IMMEDIATES_64), *wide]
    if letter == "m":
        return [Memory(width, **shape) for shape in MEMORIES]
    return [
        Register(number, width) for number in (REGISTERS if position == 0 and mnemonic in ("mov", "add") else GENERAL)
    ]


def instances(mnemonic: str) -> list[Instruction]:
    """One form with a spread of operands: each choice of each place, the others varying along."""
    form = FORMS[mnemonic]
    found: dict[tuple[Operand, ...], None] = {}
    for shape, width, source_width in product(form.shapes, form.widths, form.source_widths or (0,)):
        columns = [
            choices(mnemonic, letter, position, source_width if source_width and position == 1 else width)
            for position, letter in enumerate(shape)
        ]
        for turn in range(max(map(len, columns), default=1)):
            for shift in range(3):
                operands = tuple(
                    column[(turn + position * shift) % len(column)] for position, column in enumerate(columns)
                )
                if shape == "mi" and width == 64 and operands[1] in BEYOND:
                    continue  # only a register takes a 64-bit immediate
                if mnemonic == "xchg" and operands[0] == operands[1]:
                    continue  # decodes as nop; parallel moves never ask for it
                found[operands] = None
    return [Instruction(mnemonic, operands) for operands in found]


@pytest.mark.t1
@pytest.mark.parametrize("mnemonic", sorted(FORMS))
def test_form(mnemonic: str) -> None:
    """Capstone reads in our bytes what was asked for; Keystone, given the same text, makes bytes that decode to that too."""
    count = 0
    for instruction in instances(mnemonic):
        encoded = encode(instruction)
        operands = tuple(
            Memory(operand.width, symbol="", displacement=0x11223344)
            if isinstance(operand, Memory) and operand.symbol
            else operand
            for operand in instruction.operands
        )
        text = spell(mnemonic, operands)
        ((_, size, decoded),) = decode(assemble(text))
        assert same(text, decoded), f"{text}: Keystone says {decoded}"
        assert size == len(assemble(text))
        ((_, _, ours),) = decode(encoded.data)
        assert same(text, ours), f"{text}: PeachPy {ours}, Keystone {decoded}"
        count += 1
    assert count


def test_every_form_has_roles() -> None:
    """The allocator knows what each form does with its operands."""
    assert set(FORMS) <= set(ROLES)
    for mnemonic, form in FORMS.items():
        assert all(len(ROLES[mnemonic]) == len(shape) for shape in form.shapes), mnemonic


@pytest.mark.parametrize(
    ("mnemonic", "operands", "text"),
    [
        ("add", (Register(0, 8), 256), "does not fit"),
        ("and", (Register(0, 64), 0xFFFFFFFF), "does not fit"),
        ("mov", (Register(0, 32), 1 << 32), "does not fit"),
        ("mov", (Memory(64, base=0), 1 << 31), "does not fit"),
        ("mov", (Memory(64, base=0), Memory(64, base=1)), "operand shape"),
        ("movzx", (Register(0, 32), Register(1, 32)), "source width"),
        ("lea", (Register(0, 64), Memory(64, base=1, displacement=1 << 31)), "does not fit 32 bits"),
        ("vmovaps", (), "not in the table"),
        ("bswap", (Register(0, 16),), "width 16"),
    ],
)
def test_what_is_refused(mnemonic: str, operands: tuple[Operand, ...], text: str) -> None:
    """Oversized immediates and forms outside the table never reach an encoder."""
    with pytest.raises(FormError, match=text):
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
