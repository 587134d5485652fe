"""What nothing can see of a change to emitted code: another register that holds the same, a copy of what is there already, a check's share.

One walk along a function, which knows of each register what was put there since the last place that something jumps to. Where it does not
know an instruction, it knows nothing any more: what it says is certain, and it does not say all that could be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dsl.compiler.machine import NUMBERS

REGISTER: Final = re.compile(rf"\b(?:{'|'.join(sorted(NUMBERS, key=len, reverse=True))})\b")
OPERAND: Final = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
HIGH_BYTE: Final = re.compile(r"\b[acdb]h\b")
NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")
FIELD_WIDTHS: Final = (16, 64, 32, 64)  # of VMCS fields, by bits 14:13 of their encodings (SDM Vol. 3D, appendix B)
PUTS: Final = {
    "mov", "movabs", "movzx", "movsx", "movsxd", "lea", "pop", "vmread", "shlx", "shrx", "sarx", "rorx", "tzcnt", "lzcnt", "popcnt",
}  # fmt: skip
CHANGES: Final = {"add", "sub", "and", "or", "xor", "shl", "shr", "sar", "rol", "ror", "neg", "not", "imul"}
LOOKS: Final = {"cmp", "test", "push", "vmwrite", "nop"}
SETS_FLAGS: Final = {"add", "sub", "and", "or", "xor", "neg", "cmp", "test", "vmread", "vmwrite"}
KEEPS_FLAGS: Final = {"mov", "movabs", "movzx", "movsx", "movsxd", "lea", "pop", "push", "nop", "not", "rep"}
ENDS: Final = {"jmp", "ret", "ud2", "iretq"}
REPEATED: Final = "rep"  # MOVS or STOS: reads its registers and the count, and leaves the flags
CONDITIONAL: Final = re.compile(r"j(?!mp)\w+")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its offset, its text, and for a jump the offset where it goes."""

    offset: int
    text: str
    target: int | None = None

    @property
    def mnemonic(self) -> str:
        """Its name."""
        return self.text.partition(" ")[0]

    @property
    def operands(self) -> list[str]:
        """Its operands, as they are printed."""
        return [operand.strip() for operand in OPERAND.findall(self.text.partition(" ")[2])]

    @property
    def written(self) -> str:
        """The register that it writes; empty for none."""
        first = (self.operands or [""])[0]
        is_written = self.mnemonic in PUTS | CHANGES or self.mnemonic.startswith(("set", "cmov"))
        return first if is_written and first in NUMBERS else ""

    @property
    def is_known(self) -> bool:
        """Whether it does what this module knows of it, and no more."""
        is_listed = (
            self.mnemonic in PUTS | CHANGES | LOOKS or self.mnemonic.startswith(("set", "cmov")) or self.is_branch
        )
        return is_listed and HIGH_BYTE.search(self.text) is None

    @property
    def is_branch(self) -> bool:
        """Whether it is a conditional jump."""
        return CONDITIONAL.fullmatch(self.mnemonic) is not None

    def reads(self, number: int) -> bool:
        """Whether it looks at a register, given by its number; one that it does not know looks at all."""
        if self.mnemonic == REPEATED:
            return number == NUMBERS["rcx"][0] or number in {NUMBERS[name][0] for name in REGISTER.findall(self.text)}
        if not self.is_known:
            return True
        written = self.written
        if self.mnemonic == "xor" and set(self.operands) == {written}:
            return False  # a zero, whatever was there
        is_put = written and self.mnemonic in PUTS and NUMBERS[written][1] >= 32
        sources = self.operands[1:] if is_put else self.operands
        return any(NUMBERS[name][0] == number for operand in sources for name in REGISTER.findall(operand))


class Values:
    """What is known of the registers: equal keys are equal numbers."""

    def __init__(self) -> None:
        self.keys: dict[int, Any] = {}
        self.fresh = 0

    def new(self) -> Any:
        """A number that is like no other."""
        self.fresh += 1
        return ("number", self.fresh)

    def of(self, name: str) -> Any:
        """A register's number, at the register's width."""
        number, width = NUMBERS[name]
        return cut(self.keys.setdefault(number, self.new()), width)

    def take(self, step: Step) -> None:
        """Go past an instruction."""
        if not step.is_known:
            self.keys.clear()
        elif step.written:
            self.keys[NUMBERS[step.written][0]] = self.after(step)

    def after(self, step: Step) -> Any:
        """The number that is in the written register after an instruction."""
        written, sources = step.written, step.operands[1:]
        width = NUMBERS[written][1]
        if width < 32 or not sources:
            return self.new()
        source = sources[-1]
        if step.mnemonic in ("mov", "movzx", "movabs") and source in NUMBERS:
            return cut(self.of(source), NUMBERS[source][1])
        if step.mnemonic == "mov" and NUMBER.fullmatch(source) and int(source, 0) < 1 << 31:
            return ("constant", int(source, 0))
        if step.mnemonic == "movzx":
            return cut(self.new(), 8 if source.startswith("byte") else 16)
        if step.mnemonic == "xor" and source == written:
            return ("constant", 0)
        if step.mnemonic == "and" and NUMBER.fullmatch(source):
            old, mask = self.of(written), int(source, 0)
            return old if old[0] == "masked" and old[2] == mask else ("masked", old, mask)
        if step.mnemonic == "vmread" and self.of(source)[0] == "constant":
            return cut(self.new(), FIELD_WIDTHS[self.of(source)[1] >> 13 & 3])
        return cut(self.new(), width)  # the upper half of a register becomes zero


def cut(key: Any, width: int) -> Any:
    """The lower bits of a number."""
    if width == 64 or (key[0] == "cut" and key[2] <= width) or (key[0] == "constant" and key[1] >> width == 0):
        return key
    if key[0] == "masked" and key[2] >> width == 0:
        return key
    return cut(key[1], width) if key[0] == "cut" else ("cut", key, width)


class Function:
    """A function's instructions, and what is known at each."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.traps = {step.offset for step in steps if step.mnemonic == "ud2"}
        self.targets = {step.target for step in steps if step.target is not None}

    def known(self) -> Iterator[tuple[Step, Values]]:
        """Each instruction, with what is known before it; the values are good until the next."""
        values = Values()
        before: Step | None = None
        for step in self.steps:
            if step.offset in self.targets or before is None or before.mnemonic in ENDS:
                values.keys.clear()
            yield step, values
            values.take(step)
            if step.mnemonic == "jne" and before is not None and re.fullmatch(r"test (\w+), \1", before.text):
                name = before.operands[0]
                if NUMBERS[name][1] == 64:
                    values.keys[NUMBERS[name][0]] = ("constant", 0)
            before = step

    def is_check(self, step: Step) -> bool:
        """Whether a jump goes to where a failed check stops."""
        return step.is_branch and step.target in self.traps

    def flags_are_read(self, index: int, *, by_checks: bool) -> bool:
        """Whether anything may look at the flags that an instruction leaves. No function takes or gives any."""
        for step in self.steps[index + 1 :]:
            if step.mnemonic in SETS_FLAGS or step.mnemonic in ("ret", "call"):
                return False
            if not (self.is_check(step) and not by_checks) and step.mnemonic not in KEEPS_FLAGS:
                return True
        return True

    def changes_nothing(self, index: int, values: Values) -> bool:
        """Whether an instruction puts into a register what is known to be there, and nothing looks at its flags."""
        step = self.steps[index]
        if not step.written or not step.is_known:
            return False
        is_there = values.after(step) == values.keys.get(NUMBERS[step.written][0])
        return is_there and (step.mnemonic in KEEPS_FLAGS or not self.flags_are_read(index, by_checks=True))

    def checking(self) -> set[int]:
        """The offsets of the instructions that serve checks alone: their jumps, what compares for them, what computes for that."""
        found = {step.offset for step in self.steps if self.is_check(step)}
        for index in range(len(self.steps) - 2, -1, -1):
            step = self.steps[index]
            if step.mnemonic in ("cmp", "test"):
                is_for_check = self.is_check(self.steps[index + 1]) and not self.flags_are_read(index, by_checks=False)
            else:
                has_flags = step.mnemonic not in KEEPS_FLAGS and self.flags_are_read(index, by_checks=True)
                is_for_check = bool(step.written) and step.is_known and not has_flags and self.is_used_by(index, found)
            found |= {step.offset} if is_for_check else set()
        return found

    def is_used_by(self, index: int, users: set[int]) -> bool:
        """Whether the register that an instruction writes is read by some of these, and then overwritten before anything else reads it."""
        number = NUMBERS[self.steps[index].written][0]
        is_used = False
        for step in self.steps[index + 1 :]:
            is_followed = step.is_known or step.mnemonic == REPEATED
            if not is_followed or (step.is_branch and not self.is_check(step)):
                return False
            if step.reads(number):
                if step.offset not in users:
                    return False
                is_used = True
            elif step.written and NUMBERS[step.written][0] == number and NUMBERS[step.written][1] >= 32:
                return is_used
        return False


def same_value(values: Values, step: Step, changed: str) -> bool:
    """Whether an instruction whose text names another register somewhere reads the same number there: what it writes must be the same."""
    other = Step(step.offset, changed)
    if step.written != other.written or not step.is_known:
        return False
    names, others = (REGISTER.findall(one.text.partition(" ")[2]) for one in (step, other))
    pairs = [pair for pair in zip(names, others, strict=True) if pair[0] != pair[1]]
    return len(pairs) == 1 and values.of(pairs[0][0]) == values.of(pairs[0][1])
