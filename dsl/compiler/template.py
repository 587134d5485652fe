"""Text that Keystone assembles: templates of intrinsics, and naked functions with names for symbols. Capstone must agree, line by line."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from dsl.compiler.encode import EncodingError, decode, spell_operand
from dsl.compiler.ir import Address, Assembly
from dsl.compiler.keystone import AssemblyError, assemble
from dsl.compiler.machine import NUMBERS, Instruction

# Spellings that Capstone prints for what is written on the left.
SPELLINGS: Final = {
    "setc": "setb", "setnc": "setae", "setz": "sete", "setnz": "setne", "jz": "je", "jnz": "jne", "jc": "jb",
    "jnc": "jae", "cmovz": "cmove", "cmovnz": "cmovne", "cmovc": "cmovb", "cmovnc": "cmovae", "retn": "ret", "movabs": "mov",
    "lretq": "retfq",
    "jnae": "jb", "jna": "jbe", "jnbe": "ja", "jnb": "jae", "sal": "shl",
}  # fmt: skip
PREFIXES: Final = ("lock", "rep", "repe", "repne", "repz", "repnz")
WORD: Final = re.compile(r"[a-z][a-z0-9]*")


@cache
def assemble_checked(text: str) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """The bytes of statements without labels, and (offset, decoded text) of each, which must have its mnemonic and registers."""
    statements = [statement for statement in (line.strip() for line in re.split(r"[\n;]", text)) if statement]
    data = assemble(text)
    decoded = decode(data)
    if len(decoded) != len(statements):
        raise EncodingError(f"{text!r}: {len(statements)} statements became {len(decoded)} instructions")
    for statement, (_, _, line) in zip(statements, decoded, strict=True):
        _agree(statement, line)
    return data, tuple((at, line) for at, _, line in decoded)


def expand_template(instruction: Instruction) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """An intrinsic's template with its operands filled in."""
    return assemble_checked(instruction.template.format(*(spell_operand(operand) for operand in instruction.operands)))


def mnemonic_of(statement: str) -> str:
    words = statement.lower().split()
    while words and words[0] in PREFIXES and len(words) > 1:
        words = words[1:]
    return SPELLINGS.get(words[0], words[0])


def _agree(statement: str, decoded: str) -> None:
    """Mnemonic, every register and every number that the statement writes out must be in what was decoded."""
    asked, found = statement.lower(), decoded.lower()
    fine = mnemonic_of(asked) == mnemonic_of(found)
    registers = [word for word in WORD.findall(asked.partition(" ")[2]) if word in NUMBERS]
    fine = fine and all(word in WORD.findall(found) for word in registers)
    numbers = re.findall(r"(?<![a-z0-9])(?:0x[0-9a-f]+|\d+)\b", asked)
    present = {int(number, 0) for number in re.findall(r"(?<![a-z0-9])(?:0x[0-9a-f]+|\d+)\b", found)}
    present |= {(-number) % (1 << bits) for number in present for bits in (8, 16, 32, 64)}
    fine = fine and all(int(number, 0) in present for number in numbers if int(number, 0) not in (0, 1))
    if not fine:
        raise EncodingError(f"{statement!r} was assembled to {decoded!r}")


# naked functions

NAME: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
FAR: Final = 0x7A000000  # stand-ins for symbols: far enough for a 32-bit displacement, and not zero in any byte


def assemble_naked(symbol: str, assembly: Assembly) -> tuple[bytes, list[tuple[int, Address, int]]]:
    """The bytes of a naked function, and its symbol mentions: (offset of four bytes, target, offset of the instruction's end)."""
    names = dict(assembly.names)
    targets: list[Address] = []

    def fill(match: re.Match[str]) -> str:
        value = names.get(match[1])
        if value is None:
            raise AssemblyError(f"{symbol}: {{{match[1]}}} has no value")
        if isinstance(value, int):
            return str(value) if value < 1 << 31 else hex(value)
        targets.append(value)
        return hex(FAR + 0x1010 * len(targets))

    text = NAME.sub(fill, assembly.text)
    data = assemble(text)
    _check_statements(symbol, text, data)
    mentions: list[tuple[int, Address, int]] = []
    for number, target in enumerate(targets, 1):
        mentions.append(_find_mention(symbol, data, FAR + 0x1010 * number, target))
    return data, mentions


def _find_mention(symbol: str, data: bytes, stand_in: int, target: Address) -> tuple[int, Address, int]:
    """Where the instruction that names a stand-in has its 32-bit displacement."""
    for at, size, text in decode(data):
        direct = (f"{stand_in:#x}" in text and text.partition(" ")[0] in ("call", "jmp")) or (
            text.startswith("j") and f"{stand_in:#x}" in text
        )
        relative = f"[rip + {stand_in:#x}]" in text
        if direct and not relative:
            return at + size - 4, target, at + size
        if relative:
            place = data.index(stand_in.to_bytes(4, "little"), at, at + size)
            return place, target, at + size
    raise AssemblyError(f"{symbol}: {target.symbol} may only stand in call, jmp, a conditional jump or [rip + ...]")


def _check_statements(symbol: str, text: str, data: bytes) -> None:
    """The decoded mnemonics must be those of the text, in order; labels, comments and directives aside."""
    wanted = []
    for line in re.split(r"[\n;]", re.sub(r"(#|//).*", "", text)):
        statement = re.sub(r"^\s*[A-Za-z_.$][\w.$]*:", "", line).strip()
        if statement.startswith("."):
            return  # data among the code: decoding stops to mean anything
        if statement:
            wanted.append(mnemonic_of(statement))
    found = [mnemonic_of(line) for _, _, line in decode(data)]
    if wanted != found:
        first = next(
            (pair for pair in zip(wanted, found, strict=False) if pair[0] != pair[1]), (len(wanted), len(found))
        )
        raise EncodingError(f"{symbol}: the text says {first[0]!r} where the bytes say {first[1]!r}")
