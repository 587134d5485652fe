"""Text that Keystone assembles: boot stages, naked functions, templates of intrinsics. Every byte is accounted for.

Keystone encodes the whole text at once; then the result is walked statement by statement: each instruction must decode (Capstone) to
exactly the one that it asks for, each directive must take exactly its size. So a truncated immediate, a wrong operand size or a lost line
is an error and never wrong code. A statement ends with its line or `;`, a label may stand before it, `//` begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from dsl.compiler.capstone import decoder, read_operand, same
from dsl.compiler.ir import Address
from dsl.compiler.keystone import AssemblyError
from dsl.compiler.keystone import assemble as keystone_bytes

DATA_SIZES: Final = {".byte": 1, ".word": 2, ".long": 4, ".quad": 8}
MODES: Final = {".code16": 16, ".code32": 32, ".code64": 64}
LABEL: Final = re.compile(r"\s*([A-Za-z_]\w*):\s*(.*)")
FAR: Final = 0x7A000000  # stand-ins for symbols: far enough for a 32-bit displacement, and not zero in any byte


@dataclass(frozen=True, slots=True)
class Relocation:
    """Four bytes at `offset` that become the target's address minus that of the instruction's end."""

    offset: int
    target: Address
    end: int


@dataclass(frozen=True, slots=True)
class Assembled:
    """Bytes, with the offset and text of each instruction among them, and what the linker must still fill in."""

    data: bytes
    rows: tuple[tuple[int, str], ...]
    relocations: tuple[Relocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its line, in which mode it stands (16, 32 or 64), its label and its text (either may be empty)."""

    number: int
    mode: int
    label: str
    text: str

    def error(self, what: str) -> AssemblyError:
        return AssemblyError(f"line {self.number}: {self.text!r} {what}")


def assemble(text: str, base: int, symbols: Mapping[str, int] | None = None) -> bytes:
    """Assemble a listing that starts in 16-bit mode to run at `base`; see Listing."""
    return Listing(text, base, symbols or {}, 16).data


@cache
def assemble_template(text: str) -> Assembled:
    """An intrinsic's text with its registers filled in."""
    return assemble_naked(text, {})


def assemble_naked(text: str, symbols: Mapping[str, int | Address]) -> Assembled:
    """64-bit text with names for numbers and symbols."""
    made = Listing(text, 0, symbols, 64)
    return Assembled(made.data, tuple(made.rows), tuple(made.relocations))


class Listing:
    """A text while it is assembled. `{name}` in it stands for symbols[name], which may be an address that the linker will know.

    Raises AssemblyError naming the line: text that Keystone refuses, or bytes that do not decode to what was asked for.
    """

    def __init__(self, text: str, base: int, symbols: Mapping[str, int | Address], mode: int) -> None:
        self.base, self.mode = base, mode
        self.targets: dict[str, Address] = {}  # stand-in, as text, of each mention
        self.statements = self._read(text, symbols)
        self.data = self._encode()
        labels: dict[str, int] = {}
        for final in (False, True):  # first for the labels' addresses, then to compare operands
            self.rows: list[tuple[int, str]] = []
            self.relocations: list[Relocation] = []
            offset = 0
            for statement in self.statements:
                if statement.label:
                    labels[statement.label] = base + offset
                offset += self._check(statement, offset, labels, final)
            if offset != len(self.data):
                raise AssemblyError(f"the text accounts for {offset} bytes, the assembler made {len(self.data)}")

    def _read(self, text: str, symbols: Mapping[str, int | Address]) -> list[Statement]:
        """The statements, with symbols put in."""
        found: list[Statement] = []
        mode = self.mode

        def fill(match: re.Match[str]) -> str:
            value = symbols.get(match[1])
            if value is None:
                known = ", ".join(sorted(symbols)) or "none"
                raise AssemblyError(f"line {number}: no symbol {match[1]!r}; there are {known}")
            if isinstance(value, int):
                return hex(value)
            stand_in = hex(FAR + 0x1010 * (len(self.targets) + 1))
            self.targets[stand_in] = value
            return stand_in

        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.partition("//")[0]
            for part in [line] if '"' in line else line.split(";"):
                label, body = "", re.sub(r"\{(\w+)\}", fill, part).strip()
                if match := LABEL.fullmatch(body):
                    label, body = match.groups()
                mode = MODES.get(body, mode)
                if label or body:
                    found.append(Statement(number, mode, label, body))
        return found

    def _encode(self) -> bytes:
        """Keystone's bytes for the whole text."""
        source = []
        for index, statement in enumerate(self.statements):
            if statement.label:
                source.append(f"{statement.label}:")
            target = statement.text.removeprefix("call ").strip()
            if statement.mode == 16 and statement.text == "ret":
                source.append(".byte 0xc3")  # Keystone gives 16-bit calls and returns 32-bit operands
            elif statement.mode == 16 and statement.text.startswith("call "):
                source += [".byte 0xe8", f".word {target} - after_call_{index}", f"after_call_{index}:"]
            elif statement.text:
                source.append(statement.text)
        try:
            return keystone_bytes("\n".join(source) + "\n", self.base, self.mode)
        except AssemblyError as error:
            raise AssemblyError(f"{self._first_refused()}: {error}") from None

    def _first_refused(self) -> str:
        """Which line Keystone refuses when it stands alone (labels given a place): for the message only."""
        labels = "\n".join(f"{statement.label}:" for statement in self.statements if statement.label)
        for statement in self.statements:
            try:
                keystone_bytes(f"nop\n{labels}\n{statement.text}\n", 0, statement.mode)
            except AssemblyError:
                return f"line {statement.number}: {statement.text!r}"
        return "the text as a whole (a label that is not defined?)"

    def _check(self, statement: Statement, offset: int, labels: Mapping[str, int], final: bool) -> int:
        """Check one statement against the bytes at offset; return how many it took."""
        word, _, rest = statement.text.partition(" ")
        if word in MODES or not word:
            return 0
        if word in DATA_SIZES:
            size, items = DATA_SIZES[word], rest.split(",")
            found = [self.data[at : at + size] for at in range(offset, offset + size * len(items), size)]
            for item, data in zip(items, found, strict=True):
                if final and read_operand(item, labels).constant != int.from_bytes(data, "little"):
                    raise statement.error(f"became {data.hex()}")
            return size * len(items)
        if word == ".asciz":
            content = rest.strip()[1:-1].encode("ascii") + b"\0"
            if "\\" in rest or not self.data.startswith(content, offset):
                raise statement.error(f"became {self.data[offset : offset + len(content)]!r}")
            return len(content)
        if word.startswith("."):
            raise AssemblyError(
                f"line {statement.number}: directive {word} is not one of {[*DATA_SIZES, '.asciz', *MODES]}"
            )
        return self._check_instruction(statement, offset, labels if final else None)

    def _check_instruction(self, statement: Statement, offset: int, labels: Mapping[str, int] | None) -> int:
        """Decode one instruction and compare it with the statement; return its length. labels None: the length alone."""
        code = self.data[offset : offset + 15]
        decoded = next(decoder(statement.mode).disasm_lite(code, self.base + offset, 1), None)
        if decoded is None:
            raise statement.error(f"became bytes that do not decode: {code.hex()}")
        _, size, mnemonic, operands = decoded
        if statement.mode == 16 and mnemonic in ("call", "ret") and code[0] == 0x66:
            raise statement.error("got a 32-bit operand")  # it would unbalance the stack
        if labels is not None:
            text = f"{mnemonic} {operands}".rstrip()
            if not same(statement.text, text, labels, statement.mode):
                raise statement.error(f"became {text!r}")
            self.rows.append((offset, text))
            for stand_in, target in self.targets.items():
                if stand_in in text:
                    at = self._place(statement, text, stand_in, offset, offset + size)
                    self.relocations.append(Relocation(at, target, offset + size))
        return int(size)

    def _place(self, statement: Statement, text: str, stand_in: str, offset: int, end: int) -> int:
        """Where an instruction that names a stand-in has its 32-bit displacement."""
        if text.startswith(("call", "j")) and text.endswith(f" {stand_in}"):
            return end - 4
        if f"[rip + {stand_in}]" not in text:
            raise statement.error(
                f"names {self.targets[stand_in].symbol}, which may only stand in call, a jump or [rip + ...]"
            )
        return self.data.index(int(stand_in, 0).to_bytes(4, "little"), offset, end)
