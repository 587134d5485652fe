"""Capstone, wrapped: bytes to text, and whether a decoded instruction is the one that a text asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from dsl.compiler.machine import NUMBERS

SIZES: Final = {"byte": 8, "word": 16, "dword": 32, "fword": 48, "qword": 64, "tbyte": 80, "xmmword": 128}
SYNONYMS: Final = {
    "setc": "setb", "setnc": "setae", "setz": "sete", "setnz": "setne", "jz": "je", "jnz": "jne", "jc": "jb", "jnc": "jae",
    "jnae": "jb", "jna": "jbe", "jnbe": "ja", "jnb": "jae", "cmovz": "cmove", "cmovnz": "cmovne", "cmovc": "cmovb", "cmovnc": "cmovae",
    "retn": "ret", "movabs": "mov", "lretq": "retfq", "sal": "shl", "pushad": "pushal", "popad": "popal", "repz": "repe",
    "repnz": "repne",
}  # fmt: skip
PREFIXES: Final = ("lock", "rep", "repe", "repne")
COMMUTE: Final = ("xchg", "test")
TERM: Final = re.compile(r"([+-]?)\s*([A-Za-z_]\w*(?:\s*\*\s*\d)?|0[xX][0-9a-fA-F]+|\d+)")


class EncodingError(Exception):
    """Bytes that decode to something else than what was asked for, or not at all."""


@cache
def decoder(mode: int = 64) -> Any:
    """Capstone's decoder for code of 16, 32 or 64 bits."""
    import capstone

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    return capstone.Cs(capstone.CS_ARCH_X86, modes[mode])


def decode(code: bytes, address: int = 0) -> list[tuple[int, int, str]]:
    """(address, size, text) of each instruction; EncodingError if a byte does not decode."""
    decoded = decoder().disasm_lite(code, address)
    found = [(at, size, f"{name} {operands}".rstrip()) for at, size, name, operands in decoded]
    end = found[-1][0] + found[-1][1] if found else address
    if end != address + len(code):
        raise EncodingError(f"bytes at {end:#x} do not decode: {code[end - address : end - address + 16].hex()}")
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """An operand read from text: registers with their scales, the sum of its numbers and labels, its size in bits (0: not said)."""

    memory: bool
    registers: tuple[str, ...]
    constant: int
    size: int


def read_operand(text: str, labels: Mapping[str, int]) -> Part:
    """An operand, in whatever order it is written."""
    size = next((SIZES[word] for word in text.split() if word in SIZES), 0)
    body = " ".join(word for word in text.split() if word not in SIZES and word != "ptr")
    registers, constant = re.findall(r"\b(\w+):", body), 0
    for sign, term in TERM.findall(re.sub(r"\b\w+:|[\[\]]", " ", body)):
        value = labels.get(term)
        if value is None and not term[0].isdigit():
            registers.append(re.sub(r"\s|\*1", "", term))
            continue
        value = int(term, 0) if value is None else value
        constant += -value if sign == "-" else value
    if len(registers) == 1 and body in NUMBERS:
        size = NUMBERS[body][1]
    return Part("[" in body, tuple(sorted(registers)), constant, size)


def read_instruction(text: str, labels: Mapping[str, int]) -> tuple[str, list[Part]]:
    """The mnemonic, with its prefix, and the operands."""
    words = text.split()
    count = 2 if SYNONYMS.get(words[0], words[0]) in PREFIXES else 1
    mnemonic = " ".join(SYNONYMS.get(word, word) for word in words[:count])
    operands = [read_operand(part, labels) for part in " ".join(words[count:]).split(",") if part]
    return mnemonic, sorted(operands, key=str) if mnemonic in COMMUTE else operands


def same(asked: str, decoded: str, labels: Mapping[str, int] | None = None, mode: int = 64) -> bool:
    """Whether a decoded instruction is the one asked for. Operands that its mnemonic implies need not be asked for.

    A negative number is equal to another modulo the width of what it goes to, which may print it without its sign.
    """
    if asked == decoded:
        return True
    (mnemonic, wanted), (name, found) = read_instruction(asked, labels or {}), read_instruction(decoded, {})
    if mnemonic != name or (wanted and len(wanted) != len(found)):
        return False
    width = found[0].size or mode if found else mode
    return all(_agree(want, have, mode if want.memory else width) for want, have in zip(wanted, found, strict=False))


def _agree(want: Part, have: Part, width: int) -> bool:
    signed = want.constant < 0 or have.constant < 0
    constants = want.constant == have.constant or (signed and (want.constant - have.constant) % (1 << width) == 0)
    sizes = want.size == have.size or 0 in (want.size, have.size)
    return constants and sizes and (want.memory, want.registers) == (have.memory, have.registers)
