"""Assembler listings for the 16 and 32-bit boot stages: text in, bytes out, every byte accounted for.

Keystone encodes the whole listing at once; then the result is walked line by line: each instruction line must decode (Capstone) to
exactly the instruction that it asks for, each directive must take exactly its size. So a truncated immediate, a wrong operand size or a
lost line is an error and never a wrong boot sector. One statement a line, or a label and a statement; `//` begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_DATA_SIZES: Final = {".byte": 1, ".word": 2, ".long": 4, ".quad": 8}
_LABEL: Final = re.compile(r"\s*([A-Za-z_]\w*):\s*(.*)")
_TERM: Final = re.compile(r"\s*([+-]?)\s*([A-Za-z_]\w*|0[xX][0-9a-fA-F]+|\d+)\s*")
_SIZES: Final = ("byte", "word", "dword", "qword", "tbyte", "fword")
_SAME_MNEMONIC: Final = {
    "jz": "je", "jnz": "jne", "jc": "jb", "jnc": "jae", "jna": "jbe", "pushad": "pushal", "popad": "popal",
}  # fmt: skip
_REGISTER_NAMES: Final = (
    "al ah bl bh cl ch dl dh ax bx cx dx si di bp sp eax ebx ecx edx esi edi ebp esp rax rbx rcx rdx rsi rdi rbp rsp "
    "cs ds es fs gs ss cr0 cr2 cr3 cr4"
)
_REGISTERS: Final = frozenset(re.findall(r"\w+", _REGISTER_NAMES))


class ListingError(Exception):
    """A listing that cannot be assembled, or whose bytes are not what it asks for; the text names the line."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One statement: where it stands, in which mode (16, 32 or 64), its label and its text (either may be empty)."""

    number: int
    mode: int
    label: str
    statement: str


@dataclass(frozen=True, slots=True)
class _Operand:
    """An operand in a form that both spellings share."""

    size: str
    memory: bool
    registers: tuple[str, ...]
    constant: int


def assemble(text: str, base: int, symbols: Mapping[str, int] | None = None) -> bytes:
    """Assemble a listing (starting in 16-bit mode) to run at `base`. `{name}` in the text stands for symbols[name].

    Raises ListingError naming the line: text that Keystone refuses, or bytes that do not decode to what was asked for.
    """
    lines = _read(text, symbols or {})
    code = _encode(lines, base)
    _verify(lines, code, base)
    return code


def _read(text: str, symbols: Mapping[str, int]) -> list[_Line]:
    """The statements of a listing, with symbols put in and `.code` directives resolved."""
    lines: list[_Line] = []
    mode = 16
    for number, raw in enumerate(text.splitlines(), 1):
        statement = raw.split("//")[0].strip()
        for name in re.findall(r"\{(\w+)\}", statement):
            if name not in symbols:
                raise ListingError(
                    f"line {number}: no symbol {name!r}; there are {', '.join(sorted(symbols)) or 'none'}"
                )
            statement = statement.replace("{" + name + "}", hex(symbols[name]))
        label = ""
        if match := _LABEL.fullmatch(statement):
            label, statement = match.groups()
        if statement in (".code16", ".code32", ".code64"):
            mode = int(statement[5:])
        if label or statement:
            lines.append(_Line(number, mode, label, statement))
    return lines


def _encode(lines: list[_Line], base: int) -> bytes:
    """Keystone's bytes for the whole listing."""
    import keystone

    source = []
    for index, line in enumerate(lines):
        if line.label:
            source.append(f"{line.label}:")
        target = line.statement.removeprefix("call ").strip()
        if line.mode == 16 and line.statement == "ret":
            source.append(".byte 0xc3")  # Keystone gives 16-bit calls and returns 32-bit operands
        elif line.mode == 16 and line.statement.startswith("call "):
            source += [".byte 0xe8", f".word {target} - after_call_{index}", f"after_call_{index}:"]
        elif line.statement:
            source.append(line.statement)
    engine: Any = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16)
    try:
        encoded, _ = engine.asm("\n".join([".code16", *source]) + "\n", base)
    except keystone.KsError as error:
        raise ListingError(f"{_first_refused(lines)}: {error}") from None
    if not encoded:
        raise ListingError("the assembler returned nothing")
    return bytes(encoded)


def _first_refused(lines: list[_Line]) -> str:
    """Which line Keystone refuses when it stands alone (labels given a place): for the message only."""
    import keystone

    engine: Any = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16)
    labels = "\n".join(f"{line.label}:" for line in lines if line.label)
    for line in lines:
        try:
            engine.asm(f".code{line.mode}\n{labels}\n{line.statement}\n", 0)
        except keystone.KsError:
            return f"line {line.number}: {line.statement!r}"
    return "the listing as a whole (a label that is not defined?)"


def _verify(lines: list[_Line], code: bytes, base: int) -> None:
    """Walk bytes and lines together twice: once for the labels' addresses, once to compare operands."""
    labels: dict[str, int] = {}
    for final in (False, True):
        offset = 0
        for line in lines:
            if line.label:
                labels[line.label] = base + offset
            offset += _check_line(line, code, offset, base, labels if final else None)
        if offset != len(code):
            raise ListingError(f"the listing accounts for {offset} bytes, the assembler made {len(code)}")


def _check_line(line: _Line, code: bytes, offset: int, base: int, labels: Mapping[str, int] | None) -> int:
    """Check one statement against the bytes at offset; return how many it took. labels None: sizes only."""
    statement = line.statement
    if not statement or statement.startswith(".code"):
        return 0
    word, _, rest = statement.partition(" ")
    if word in _DATA_SIZES:
        items = rest.split(",")
        if labels is not None:
            size = _DATA_SIZES[word]
            for index, item in enumerate(items):
                found = int.from_bytes(code[offset + index * size : offset + (index + 1) * size], "little")
                if _evaluate(item, labels, line) != found:
                    raise ListingError(f"line {line.number}: {statement!r} became {found:#x}")
        return _DATA_SIZES[word] * len(items)
    if word == ".asciz":
        content = rest.strip()[1:-1].encode("ascii") + b"\0"
        if "\\" in rest or code[offset : offset + len(content)] != content:
            raise ListingError(f"line {line.number}: {statement!r} became {code[offset : offset + len(content)]!r}")
        return len(content)
    if word.startswith("."):
        raise ListingError(
            f"line {line.number}: directive {word} is not one of .byte .word .long .quad .asciz .code16 .code32 .code64"
        )
    return _check_instruction(line, code, offset, base, labels)


def _check_instruction(line: _Line, code: bytes, offset: int, base: int, labels: Mapping[str, int] | None) -> int:
    """Decode one instruction and compare it with the line's text; return its length."""
    import capstone

    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[line.mode]
    decoded = next(capstone.Cs(capstone.CS_ARCH_X86, mode).disasm(code[offset : offset + 15], base + offset, 1), None)
    if decoded is None:
        raise ListingError(
            f"line {line.number}: {line.statement!r} became bytes that do not decode: {code[offset : offset + 15].hex()}"
        )
    if line.mode == 16 and decoded.mnemonic in ("call", "ret") and decoded.bytes[0] == 0x66:
        raise ListingError(
            f"line {line.number}: {line.statement!r} got a 32-bit operand"
        )  # it would unbalance the stack
    if labels is not None:
        asked, got = _split(line.statement, labels, line), _split(f"{decoded.mnemonic} {decoded.op_str}", labels, line)
        if not _agree(asked, got, line.mode):
            raise ListingError(f"line {line.number}: {line.statement!r} became {decoded.mnemonic} {decoded.op_str}")
    return int(decoded.size)


def _split(statement: str, labels: Mapping[str, int], line: _Line) -> tuple[str, list[_Operand]]:
    """Mnemonic (with its prefixes) and operands of an instruction's text."""
    words = statement.split()
    count = 2 if words[0] in ("rep", "repe", "repne", "lock") else 1
    mnemonic = " ".join(_SAME_MNEMONIC.get(word, word) for word in words[:count])
    rest = " ".join(words[count:])
    return mnemonic, [_operand(operand, labels, line) for operand in rest.split(",")] if rest else []


def _operand(text: str, labels: Mapping[str, int], line: _Line) -> _Operand:
    """An operand's size word, registers and constant, whatever the order they are written in."""
    size = next((word for word in text.split() if word in _SIZES), "")
    body = " ".join(word for word in text.split() if word not in (*_SIZES, "ptr"))
    memory = "[" in body
    registers = re.findall(r"\b(\w+):", body)
    body = re.sub(r"\b\w+:", "", body).replace("[", " ").replace("]", " ")
    constant = 0
    for sign, term in _TERM.findall(body):
        if term in _REGISTERS:
            registers.append(term)
        else:
            constant += -_evaluate(term, labels, line) if sign == "-" else _evaluate(term, labels, line)
    return _Operand(size, memory, tuple(sorted(registers)), constant)


def _evaluate(text: str, labels: Mapping[str, int], line: _Line) -> int:
    """A sum of numbers and labels."""
    total = 0
    for sign, term in _TERM.findall(text):
        if term[0].isdigit():
            value = int(term, 0)
        elif term in labels:
            value = labels[term]
        else:
            raise ListingError(f"line {line.number}: {term!r} is neither a label nor a register that listings may use")
        total += -value if sign == "-" else value
    return total


def _agree(asked: tuple[str, list[_Operand]], got: tuple[str, list[_Operand]], mode: int) -> bool:
    """Whether a decoded instruction is the one asked for."""
    if asked[0] != got[0]:
        return False
    if not asked[1]:
        return True  # implied operands: lodsb, rep stosd
    if asked[0] == "xchg":
        asked, got = (asked[0], sorted(asked[1], key=str)), (got[0], sorted(got[1], key=str))
    if len(asked[1]) != len(got[1]):
        return False
    for want, have in zip(asked[1], got[1], strict=True):
        negative = want.constant < 0 or have.constant < 0  # printed with or without its sign
        same_constant = want.constant == have.constant or (
            negative and (want.constant - have.constant) % (1 << mode) == 0
        )
        if (want.memory, want.registers) != (have.memory, have.registers) or not same_constant:
            return False
        if want.size and have.size and want.size != have.size:
            return False
    return True
