"""From instructions to bytes: who encodes what stands in forms.py; Capstone decodes every result and must agree with what was asked for.

Encodings are kept per instruction, so each distinct one is made and checked once in a process.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from dsl.compiler.forms import FORMS, Form, FormError
from dsl.compiler.ir import Address
from dsl.compiler.keystone import assemble
from dsl.compiler.machine import NAMES, RCX, Instruction, Memory, Operand, Register

RIP_PLACEHOLDER: Final = 0x11223344  # the displacement of an operand whose symbol is not placed yet
POINTERS: Final = {8: "byte ptr ", 16: "word ptr ", 32: "dword ptr ", 64: "qword ptr ", 128: "xmmword ptr "}
NUMBER: Final = re.compile(r"(?<![a-z0-9])-?(?:0x[0-9a-f]+|\d+)")


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of one instruction, and where in them the 32-bit displacement of its symbol is (None: it names none)."""

    code: bytes
    symbol_offset: int | None = None


class EncodingError(Exception):
    """An encoder produced bytes that decode to something else than what was asked for."""


def encode(instruction: Instruction) -> Encoded:
    """The bytes of an instruction with processor registers only. A symbol's displacement is a placeholder for the linker."""
    operands = tuple(_without_symbol(operand) for operand in instruction.operands)
    return _encode(instruction.mnemonic, operands)


def _without_symbol(operand: Operand) -> Operand:
    if isinstance(operand, Memory) and operand.symbol is not None:
        return Memory(operand.width, symbol="", displacement=RIP_PLACEHOLDER)
    return operand


@cache
def _encode(mnemonic: str, operands: tuple[Operand, ...]) -> Encoded:
    form = FORMS.get(mnemonic)
    if form is None:
        raise FormError(f"{mnemonic} is not in the table of instruction forms")
    _check_form(mnemonic, form, operands)
    text = spell(mnemonic, operands)
    code = assemble(text) if form.encoder == "keystone" else _peachpy(mnemonic, operands)
    _agree(text, code, operands)
    offset = None
    if any(isinstance(operand, Memory) and operand.symbol is not None for operand in operands):
        offset = code.index(RIP_PLACEHOLDER.to_bytes(4, "little"))
    return Encoded(code, offset)


def shape_of(operands: tuple[Operand, ...]) -> str:
    """The operands' kinds, one letter each, as in forms.py."""
    letters = ""
    for index, operand in enumerate(operands):
        if isinstance(operand, Register):
            by_counter = index == 1 and operand == Register(RCX, 8) and len(operands) == 2
            letters += "c" if by_counter and isinstance(operands[0], Register) and letters == "r" else "r"
        else:
            letters += "m" if isinstance(operand, Memory) else "i"
    return letters


def _check_form(mnemonic: str, form: Form, operands: tuple[Operand, ...]) -> None:
    shape = shape_of(operands)
    if shape not in form.shapes and shape.replace("c", "r") not in form.shapes:
        raise FormError(f"{mnemonic}: operand shape {shape!r}, expected one of {form.shapes}")
    widths = [operand.width for operand in operands if isinstance(operand, Register | Memory)]
    if widths and mnemonic != "lea" and widths[0] not in form.widths:
        raise FormError(f"{mnemonic}: width {widths[0]}, expected one of {form.widths}")
    if len(widths) > 1 and form.source_widths and widths[1] not in form.source_widths:
        raise FormError(f"{mnemonic}: source width {widths[1]}, expected one of {form.source_widths}")
    for operand in operands:
        if isinstance(operand, int):
            _check_immediate(mnemonic, operand, operands[0])
        elif isinstance(operand, Memory) and not -(1 << 31) <= operand.displacement < 1 << 31:
            raise FormError(f"{mnemonic}: displacement {operand.displacement:#x} does not fit 32 bits")


def _check_immediate(mnemonic: str, value: int, target: Operand) -> None:
    """Encoders cut oversized immediates without a word, so they are refused here. Only mov to a register takes 64 bits."""
    assert isinstance(target, Register | Memory)
    width = target.width
    if mnemonic == "mov" and width == 64 and isinstance(target, Register):
        fits = -(1 << 31) <= value < 1 << 64
    else:
        bits = min(width, 32)
        fits = -(1 << bits - 1) <= value < 1 << (bits if width < 64 else 31)
    if not fits:
        raise FormError(f"{mnemonic}: immediate {value:#x} does not fit an operand of {width} bits")


# spelling, as Capstone prints it


def spell(mnemonic: str, operands: tuple[Operand, ...]) -> str:
    """The instruction's text in the spelling that Capstone uses."""
    if mnemonic == "imul3":
        mnemonic = "imul"
    if mnemonic == "mov" and isinstance(operands[1], int) and operands[1] >= 1 << 31 and operands[0].width == 64:  # type: ignore[union-attr]
        mnemonic = "movabs"
    sized = mnemonic != "lea"
    return f"{mnemonic} {', '.join(spell_operand(operand, sized) for operand in operands)}".rstrip()


def spell_operand(operand: Operand, sized: bool = True) -> str:
    match operand:
        case Register(number, width):
            return NAMES[width][number]
        case Memory():
            return (POINTERS[operand.width] if sized else "") + spell_address(operand)
        case Address(symbol, addend):
            return f"<{symbol}+{addend}>"
        case int():
            return number_text(operand)
    raise FormError(f"{operand} cannot be spelt")


def spell_address(operand: Memory) -> str:
    if operand.symbol:
        return f"[rip <{operand.symbol}+{operand.displacement}>]"
    parts = ["rip"] if operand.symbol is not None else []
    parts += [NAMES[64][operand.base]] if operand.base is not None else []
    if operand.index is not None:
        parts.append(NAMES[64][operand.index] + (f"*{operand.scale}" if operand.scale > 1 else ""))
    text = " + ".join(parts)
    if operand.displacement:
        text += f" {'-' if operand.displacement < 0 else '+'} {number_text(abs(operand.displacement))}"
    return f"[{text}]"


def number_text(value: int) -> str:
    return str(value) if -10 < value < 10 else hex(value)


# Capstone


@cache
def decoder() -> Any:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def decode(code: bytes, address: int = 0) -> list[tuple[int, int, str]]:
    """(address, size, text) of each instruction; EncodingError if a byte does not decode."""
    found = [
        (at, size, f"{name} {operands}".rstrip()) for at, size, name, operands in decoder().disasm_lite(code, address)
    ]
    end = found[-1][0] + found[-1][1] if found else address
    if end != address + len(code):
        raise EncodingError(f"bytes at {end:#x} do not decode: {code[end - address : end - address + 16].hex()}")
    return found


def _agree(text: str, code: bytes, operands: tuple[Operand, ...]) -> None:
    """The bytes must decode to the instruction that was asked for."""
    decoded = decode(code)
    width = next((operand.width for operand in operands if isinstance(operand, Register | Memory)), 64)
    if len(decoded) != 1 or not same_text(text, decoded[0][2], width):
        raise EncodingError(f"asked for {text!r}, got {code.hex()}: {'; '.join(line for _, _, line in decoded)!r}")


def same_text(asked: str, decoded: str, width: int) -> bool:
    """Whether two spellings name one instruction: immediates are equal modulo the operand's width; xchg and test commute."""
    if asked == decoded:
        return True
    first, second = _parts(asked, width), _parts(decoded, width)
    if first == second:
        return True
    return (
        first[0] in ("xchg", "test")
        and first[0] == second[0]
        and sorted(map(str, first[1:])) == sorted(map(str, second[1:]))
    )


def _parts(text: str, width: int) -> list[str | int]:
    mnemonic, _, rest = text.partition(" ")
    parts: list[str | int] = ["mov" if mnemonic == "movabs" else mnemonic]
    for operand in rest.split(", "):
        if NUMBER.fullmatch(operand):
            parts.append(int(operand, 0) % (1 << width))
        else:
            parts.append(operand)
    return parts


# PeachPy


@cache
def _peachpy_module() -> Any:
    """PeachPy, loaded when the first instruction needs it: importing it is slow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in its own source
        import peachpy.x86_64
    return peachpy.x86_64


def _peachpy(mnemonic: str, operands: tuple[Operand, ...]) -> bytes:
    module = _peachpy_module()
    if mnemonic.startswith("imul") and any(isinstance(operand, int) for operand in operands):
        raise FormError("PeachPy encodes imul with immediates 128 to 255 wrongly")
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
