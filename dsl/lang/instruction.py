"""What the compiler knows about a special instruction: one row of facts each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from dsl.lang.words import Word, u16, u32, u64

F = TypeVar("F", bound=Callable[..., Any])
W = TypeVar("W", bound=Word)

GENERAL_REGISTERS: Final = (
    *("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi"),
    *(f"r{number}" for number in range(8, 16)),
)
_SPECIFICATION: Final = re.compile(r"(?P<name>\w+):(?P<width>1|8|16|32|64)(@(?P<where>\w+))?")
PLACEHOLDER: Final = re.compile(r"\{(\w+)(?::(8|16|32|64))?\}")


@dataclass(frozen=True, slots=True)
class Operand:
    """A value that goes in or comes out, in a general register.

    where is the name of a fixed 64-bit register, or "any". The register's bits above width are undefined, in both directions;
    width 1 is a byte of 0 or 1. An "any" operand shares its register with no other operand and with no clobber. An input and an
    output may name one fixed register.
    """

    name: str
    width: int
    where: str = "any"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One row. text is Keystone's Intel syntax, instructions separated by ';', position independent.

    In text {name} is an operand's 64-bit register, {name:32} {name:16} {name:8} its lower parts; fixed registers are written out.
    clobbers: fixed registers whose content is lost, also those of inputs, and "flags". No row is ever removed, repeated or moved
    across another; reads_memory and writes_memory say what it does to memory that ordinary loads and stores see.
    stops_if: a condition of the flags after the text, such as "be", that is a failed check: the compiler adds the jump to its ud2.
    """

    name: str
    text: str
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    clobbers: tuple[str, ...] = ()
    reads_memory: bool = False
    writes_memory: bool = False
    stops_if: str | None = None

    def __post_init__(self) -> None:
        """Refuse rows that contradict themselves."""
        for group in (self.inputs, self.outputs):
            fixed = [operand.where for operand in group if operand.where != "any"]
            if len(set(fixed)) != len(fixed) or not set(fixed) <= set(GENERAL_REGISTERS):
                raise ValueError(f"{self.name}: operands in {fixed}")
        wanted = {operand.name for operand in self.inputs + self.outputs if operand.where == "any"}
        written = {match[1] for match in PLACEHOLDER.finditer(self.text)}
        if wanted != written:
            raise ValueError(f"{self.name}: operands {sorted(wanted)}, in the text {sorted(written)}")
        lost = [register for register in self.clobbers if register != "flags"]
        if not set(lost) <= set(GENERAL_REGISTERS) or set(lost) & {operand.where for operand in self.outputs}:
            raise ValueError(f"{self.name}: clobbers {lost}")


def operands(text: str) -> tuple[Operand, ...]:
    """Operands spelt "name:width@register name:width", separated by spaces; no register: any."""
    found = []
    for word in text.split():
        match = _SPECIFICATION.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is no operand: name:width or name:width@register")
        found.append(Operand(match["name"], int(match["width"]), match["where"] or "any"))
    return tuple(found)


def lowers_to(
    text: str, form: str = "", *, loses: str = "", memory: str = "", stops_if: str | None = None
) -> Callable[[F], F]:
    """Make a function the typed face of an instruction; its body is the model under CPython.

    form: "inputs -> outputs", the operands in the order of the parameters, and of the result (one, or the fields of a Record).
    memory: "r" if it reads memory that ordinary loads and stores see, "w" if it writes it, "rw" if both.
    """
    takes, _, gives = form.partition("->")
    lost = tuple(loses.split())

    def link(function: F) -> F:
        linked: Any = function
        linked.__instruction__ = Instruction(
            function.__name__, text, operands(takes), operands(gives), lost, "r" in memory, "w" in memory, stops_if
        )
        return function

    return link


# Fields of a VMCS (SDM Vol. 3D, appendix B): the encoding holds the width in bits 14:13 and bit 12 is zero.

_WIDTH_CODES: Final = {"16-bit": 0, "64-bit": 1, "32-bit": 2, "natural-width": 3}


class Field(Generic[W]):
    """A VMCS field: its encoding and the word that VMREAD gives and VMWRITE takes."""

    __slots__ = ("encoding", "word")

    def __init__(self, encoding: int, word: type[W]) -> None:
        self.encoding = encoding
        self.word = word

    def __repr__(self) -> str:
        return f"Field({self.encoding:#06x}, {self.word.__name__})"


def _field(encoding: int, word: type[W], kind: str) -> Field[W]:
    if not 0 <= encoding < 1 << 15 or encoding & 0x1000 or encoding >> 13 != _WIDTH_CODES[kind]:
        raise ValueError(f"{encoding:#06x} is no {kind} VMCS field")
    if encoding & 1:
        raise ValueError(f"{encoding:#06x} is the high half of a field: name the field")
    return Field(encoding, word)


def field16(encoding: int) -> Field[u16]:
    """A 16-bit field."""
    return _field(encoding, u16, "16-bit")


def field32(encoding: int) -> Field[u32]:
    """A 32-bit field."""
    return _field(encoding, u32, "32-bit")


def field64(encoding: int) -> Field[u64]:
    """A 64-bit field, accessed whole."""
    return _field(encoding, u64, "64-bit")


def natural(encoding: int) -> Field[u64]:
    """A natural-width field: 64 bits on the processors we run on."""
    return _field(encoding, u64, "natural-width")
