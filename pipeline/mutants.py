"""Mutants of emitted code: one instruction broken in one place, by one bit or by leaving it out.

A mutant is made from the bytes alone. Each bit of an instruction is flipped in turn, the result is decoded, and what the decoder prints
says what the flip means: another condition, another constant, another register. A flip that means anything else is no mutant. So lengths
never change, nothing is linked again, and no table of encodings is needed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final
from zlib import crc32

from dsl.compiler.capstone import EncodingError, decode
from dsl.compiler.forms import CONDITIONS
from dsl.compiler.machine import NUMBERS
from pipeline import paths
from pipeline.unseen import CONDITIONAL, Function, Step, Values, same_value

DROPPED, CONDITION, CONSTANT, REGISTER = "dropped", "condition", "constant", "register"
KINDS: Final = (DROPPED, CONDITION, CONSTANT, REGISTER)
NOP: Final = 0x90
KEPT: Final = ("jmp", "ret", "iretq", "ud2", "nop", "int3")  # without these a function runs into what follows it
# The check behind these is never true: there is a current VMCS, and every field is of the manual's table (SDM Vol. 3C, 31.3).
# To leave it out changes nothing; tests/model refuses any other field, and says so.
CANNOT_FAIL: Final = ("vmread", "vmwrite")
WITHOUT_CONSTANT: Final = ("j", "call")  # their numbers are addresses
# A number, unless it is the linker's: the distance from RIP; or the scale of an index, which is an operation more than a number.
NUMBER: Final = re.compile(r"(?<!rip [+-] )(?<![a-z0-9*])(?:0x[0-9a-f]+|\d+)(?![a-z0-9])")
REGISTERS: Final = {**NUMBERS, **{f"xmm{number}": (number, 128) for number in range(16)}}
REGISTER_NAME: Final = re.compile(rf"\b(?:{'|'.join(sorted(REGISTERS, key=len, reverse=True))})\b")
STEMS: Final = ("j", "set", "cmov")
SHIFT: Final = re.compile(r"(?:sh[lr]|sar|ro[lr]|rorx) (?:(\w+), )+(0x[0-9a-f]+|\d+)")


@dataclass(frozen=True, slots=True)
class Site:
    """One instruction of a function: its offset there, its bytes, its text, and the source line it came from (0: none)."""

    symbol: str
    offset: int
    code: bytes
    text: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to an instruction: bit `bit` of its bytes flipped; None: NOPs instead. text: what it decodes to then."""

    kind: str
    bit: int | None
    text: str

    def applied(self, code: bytes) -> bytes:
        """The instruction's bytes after it."""
        if self.bit is None:
            return bytes([NOP]) * len(code)
        return flipped(code, self.bit)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A site with a change."""

    site: Site
    change: Change
    is_of_check: bool = False  # the instruction serves a check, and nothing else

    @property
    def source(self) -> str:
        """The text of the source line, without its indent; empty for what no line asked for."""
        return source_text(self.site.file, self.site.line)

    def describe(self) -> str:
        """One line for a person."""
        place = f"{self.site.file}:{self.site.line}" if self.site.line else "no source line"
        return f"{place}: {self.change.kind}: {self.site.symbol}+{self.site.offset:#x}: {self.site.text} -> {self.change.text}"


def flipped(code: bytes, bit: int) -> bytes:
    """The bytes with one bit inverted."""
    changed = bytearray(code)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def mutants_of(sites: Iterable[Site]) -> Iterator[Mutant]:
    """All mutants, in the order of the sites: each left out, each condition inverted, of each instruction two constants and a register."""
    for _, group in groupby(sites, lambda site: site.symbol):
        together = list(group)
        function = Function([step_of(site) for site in together])
        checking = function.checking()
        for index, (site, (_, values)) in enumerate(zip(together, function.known(), strict=True)):
            for change in kept_changes(site, function, index, values):
                yield Mutant(site, change, site.offset in checking)


def step_of(site: Site) -> Step:
    """An instruction, for what is known of a function."""
    is_jump = CONDITIONAL.fullmatch(site.text.partition(" ")[0]) or site.text.startswith("jmp 0x")
    target = (site.offset + int(decoded(site.code).split()[1], 0)) % (1 << 64) if is_jump else None
    return Step(site.offset, site.text, target)


def kept_changes(site: Site, function: Function, index: int, values: Values) -> Iterator[Change]:
    """The changes of an instruction that are made: not those of which it is known that they change nothing."""
    mnemonic = site.text.partition(" ")[0]
    before = function.steps[index - 1].mnemonic if index else ""
    is_needless = mnemonic == "jbe" and before in CANNOT_FAIL
    if mnemonic not in KEPT and not is_needless and not function.changes_nothing(index, values):
        yield Change(DROPPED, None, "nop")
    by_kind: dict[str, list[Change]] = {}
    for change in changes(site.code, site.text):
        if change.kind != REGISTER or not same_value(values, function.steps[index], change.text):
            by_kind.setdefault(change.kind, []).append(change)
    for kind, count in ((CONDITION, 1), (CONSTANT, 2), (REGISTER, 1)):
        yield from chosen(by_kind.get(kind, []), count, f"{site.symbol}+{site.offset:x}")


def chosen(found: list[Change], count: int, place: str) -> list[Change]:
    """Some of the changes of one kind, always the same ones for a place. Of two, one is the first: a constant's lowest bit."""
    if len(found) <= count:
        return found
    start = crc32(place.encode())
    first = found[:1] if count > 1 else []
    rest = found[len(first) :]
    return [*first, *(rest[(start + step) % len(rest)] for step in range(count - len(first)))]


@cache
def changes(code: bytes, text: str) -> tuple[Change, ...]:
    """Every flip of one bit that is a mutant."""
    base = decoded(code)
    found = []
    for bit in range(len(code) * 8):
        after = decoded(flipped(code, bit))
        kind = kind_of(base, after) if base and after else ""
        if kind:
            found.append(Change(kind, bit, after))
    return tuple(found)


@cache
def decoded(code: bytes) -> str:
    """The text of bytes that are one instruction, else nothing. Jumps print where they go from address 0."""
    try:
        rows = decode(code)
    except EncodingError:
        return ""
    return rows[0][2] if len(rows) == 1 else ""


def kind_of(before: str, after: str) -> str:
    """What turns one text into another: one condition, one constant or one register; empty for anything else."""
    mnemonic, _, operands = before.partition(" ")
    other, _, other_operands = after.partition(" ")
    if mnemonic != other:
        inverted = any(
            mnemonic == stem + condition and other == stem + CONDITIONS[index ^ 1]
            for stem in STEMS
            for index, condition in enumerate(CONDITIONS)
        )
        return CONDITION if inverted and operands == other_operands else ""
    if operands == other_operands:
        return ""
    if unnumbered(operands) == unnumbered(other_operands):
        same = (
            mnemonic.startswith(WITHOUT_CONSTANT)
            or is_same_shift(before, after)
            or not is_near(operands, other_operands)
        )
        return "" if same else CONSTANT
    if REGISTER_NAME.sub("r", operands) == REGISTER_NAME.sub("r", other_operands):
        pairs = zip(REGISTER_NAME.findall(operands), REGISTER_NAME.findall(other_operands), strict=True)
        different = [pair for pair in pairs if pair[0] != pair[1]]
        old, new = different[0]
        number, width = REGISTERS[old]
        other_number, other_width = REGISTERS[new]
        stack = NUMBERS["rsp"][0]
        if len(different) == 1 and width == other_width and stack not in (number, other_number):
            return REGISTER
    return ""


def is_same_shift(before: str, after: str) -> bool:
    """Whether both shift a register by one count: modulo 64, or 32 for narrower ones; a rotation by its width comes to nothing."""
    first, second = SHIFT.fullmatch(before), SHIFT.fullmatch(after)
    if first is None or second is None:
        return False
    width = REGISTERS[first[1]][1]
    modulus = width if before.startswith(("rol", "ror")) else max(width, 32)
    return int(first[2], 0) % modulus == int(second[2], 0) % modulus


def is_near(operands: str, others: str) -> bool:
    """Whether the number that changed did so in the bits that it has, or the next one: what is far above them often counts for nothing."""
    pairs = zip(NUMBER.findall(operands), NUMBER.findall(others), strict=True)
    numbers = [(int(old, 0), int(new, 0)) for old, new in pairs if old != new]
    return all(old ^ new < 1 << max(2, old.bit_length() + 1) for old, new in numbers)


def unnumbered(operands: str) -> str:
    """Operands with N for each number; a displacement's sign belongs to the number."""
    return NUMBER.sub("N", operands).replace("- N", "+ N").replace("-N", "N")


def sample(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """That many of them, the same for the same seed, in no order: what was run of it at any time is a sample, too. All: as they are."""
    return mutants if count >= len(mutants) else random.Random(seed).sample(mutants, count)


@cache
def source_lines(file: str) -> list[str]:
    """The lines of a source of this tree; none for anything else."""
    path = Path(paths.ROOT, file)
    return path.read_text().splitlines() if file and path.is_file() else []


def source_text(file: str, line: int) -> str:
    """One line of a source, without its indent; empty where there is none."""
    lines = source_lines(file)
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""
