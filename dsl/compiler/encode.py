"""From instructions to bytes: who encodes what stands in forms.py. The linker decodes the result and compares it with what was asked for.

Encodings are kept per instruction, so each distinct one is made once in a process.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Final

from dsl.compiler.forms import FORMS, Form, FormError
from dsl.compiler.ir import Address
from dsl.compiler.keystone import assemble
from dsl.compiler.listing import Assembled, Relocation, assemble_template
from dsl.compiler.machine import NAMES, RCX, Instruction, Memory, Operand, Register, Trap
from dsl.compiler.spelling import spell, spell_operand
from dsl.lang.instruction import PLACEHOLDER

UNPLACED: Final = 0x11223344  # the displacement of an operand whose symbol is not placed yet


def encode(instruction: Instruction) -> Assembled:
    """The bytes of an instruction with processor registers only, its text, and the symbol that it mentions."""
    mnemonic = instruction.mnemonic
    operands = tuple(operand for operand in instruction.operands if not isinstance(operand, Trap))
    if instruction.template:
        spelt = map(spell_operand, operands)
        return assemble_template(PLACEHOLDER.sub(lambda _: next(spelt), instruction.template))
    match operands:
        case (Address() as target,):
            jumps = mnemonic == "tail"
            text = spell("jmp" if jumps else mnemonic, operands)
            return Assembled(b"\xe9\0\0\0\0" if jumps else b"\xe8\0\0\0\0", ((0, text),), (Relocation(1, target, 5),))
    relocations: tuple[Relocation, ...] = ()
    data = _encode(mnemonic, tuple(_without_symbol(operand) for operand in operands))
    for operand in operands:
        if isinstance(operand, Memory) and operand.symbol is not None:
            at = data.index(UNPLACED.to_bytes(4, "little"))
            relocations = (Relocation(at, Address(operand.symbol, operand.displacement), len(data)),)
    return Assembled(data, ((0, spell(mnemonic, operands)),), relocations)


def _without_symbol(operand: Operand) -> Operand:
    if isinstance(operand, Memory) and operand.symbol is not None:
        return Memory(operand.width, symbol="", displacement=UNPLACED)
    return operand


@cache
def _encode(mnemonic: str, operands: tuple[Operand, ...]) -> bytes:
    form = FORMS.get(mnemonic)
    if form is None:
        raise FormError(f"{mnemonic} is not in the table of instruction forms")
    _check_form(mnemonic, form, operands)
    return assemble(spell(mnemonic, operands)) if form.encoder == "keystone" else _peachpy(mnemonic, operands)


def shape_of(operands: tuple[Operand, ...]) -> str:
    """The operands' kinds, one letter each, as in forms.py."""

    def letter(index: int, operand: Operand) -> str:
        if isinstance(operand, Register):
            return "c" if index == 1 and operand == Register(RCX, 8) else "r"
        return "m" if isinstance(operand, Memory) else "i"

    return "".join(letter(index, operand) for index, operand in enumerate(operands))


def _check_form(mnemonic: str, form: Form, operands: tuple[Operand, ...]) -> None:
    shape = shape_of(operands)
    if shape not in form.shapes and shape.replace("c", "r") not in form.shapes:
        raise FormError(f"{mnemonic}: operand shape {shape!r}, expected one of {form.shapes}")
    widths = [operand.width for operand in operands if isinstance(operand, Register | Memory)]
    if widths and mnemonic != "lea" and widths[0] not in form.widths:
        raise FormError(f"{mnemonic}: width {widths[0]}, expected one of {form.widths}")
    if len(widths) > 1 and form.source_widths and widths[1] not in form.source_widths:
        raise FormError(f"{mnemonic}: source width {widths[1]}, expected one of {form.source_widths}")


@cache
def _peachpy_module() -> Any:
    """PeachPy, loaded when the first instruction needs it: importing it is slow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in its own source
        import peachpy.x86_64
    return peachpy.x86_64


def _peachpy(mnemonic: str, operands: tuple[Operand, ...]) -> bytes:
    module = _peachpy_module()
    instruction = getattr(module, mnemonic.upper())(*(_peachpy_operand(operand) for operand in operands))
    return bytes(instruction.encode())


@cache
def _peachpy_register(number: int, width: int) -> Any:
    from peachpy.x86_64 import registers

    return getattr(registers, NAMES[width][number])


def _peachpy_operand(operand: Operand) -> Any:
    from peachpy.x86_64.operand import MemoryAddress, MemoryOperand, RIPRelativeOffset

    match operand:
        case Register(number, width):
            return _peachpy_register(number, width)
        case Memory():
            if operand.symbol is not None:
                return MemoryOperand(RIPRelativeOffset(operand.displacement), operand.width // 8)
            base = None if operand.base is None else _peachpy_register(operand.base, 64)
            index = None if operand.index is None else _peachpy_register(operand.index, 64)
            address = MemoryAddress(base, index, operand.scale if index is not None else None, operand.displacement)
            return MemoryOperand(address, operand.width // 8)
        case _:
            return operand
