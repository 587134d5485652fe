"""Code that was generated before, found by what it came from: the IR after inlining, the compiler's own source, its tools, its settings.

Keys do not hold spans, only which of them are equal, and which begin on one line: code names them by number, in the order in which the
IR mentions them, so a comment costs no miss.
Entries are a digest and JSON; one that is not whole, or does not read, is a miss. What is read goes through the linker's check like any
other code: every instruction is decoded and compared with its text.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, MutableMapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from dsl.compiler import ir
from dsl.compiler.code import Code, Line
from dsl.compiler.listing import Relocation
from dsl.compiler.machine import Trap

TOOLS: Final = ("peachpy", "keystone-engine", "capstone")
DIGEST: Final = 64  # characters in front of an entry's JSON
Entries = MutableMapping[str, bytes]
Row = tuple[str, int, int, int, int]  # a span's fields


@cache
def compiler_digest() -> str:
    """Of everything that turns IR into code: this package and the language's, the tools' versions, Python's."""
    state = hashlib.sha256(sys.version.encode())
    for name in TOOLS:
        try:
            state.update(f"{name} {version(name)};".encode())
        except PackageNotFoundError:
            state.update(f"{name} has no version;".encode())
    for folder in (Path(__file__).parent, Path(__file__).parents[1] / "lang"):
        for path in sorted(folder.rglob("*.py")):
            state.update(f"{path.name} {path.stat().st_size};".encode() + path.read_bytes())
    return state.hexdigest()


class Description:
    """A function's IR as text without places, and its spans in the order of their first mention."""

    def __init__(self, function: ir.Function) -> None:
        self.spans: dict[ir.Span, int] = {}
        self._lines: dict[tuple[str, int], int] = {}
        self._names: dict[int, str] = {}
        self._slots: dict[ir.Slot, int] = {}
        self.text = "\n".join(self._rows(function))
        self.rows: list[Row] = [(at.file, at.line, at.column, at.end_line, at.end_column) for at in self.spans]

    def _rows(self, function: ir.Function) -> Iterator[str]:
        yield f"{function.symbol} {function.parameters} {function.results} {self._span(function.span)} {function.assembly!r}"
        blocks = {block: number for number, block in enumerate(function.blocks)}
        values = {value: number for number, value in enumerate(function.values())}
        for block in function.blocks:
            edges = [[blocks[other] for other in others] for others in (block.predecessors, block.successors)]
            yield f"{block.label} {block.cold} {edges}"
            for value in block.values:
                arguments = [values[argument] for argument in value.arguments]
                data = "" if value.data is None else self._data(value.data)
                yield f"{value.operation} {value.width} {arguments} {value.secret:d} {self._span(value.span)} {data}"

    def _span(self, span: ir.Span | None) -> str:
        if span is None:
            return "-"
        name = self._names.get(id(span))  # the IR keeps them alive, and most values share theirs with others
        if name is None:
            number = self.spans.setdefault(span, len(self.spans))
            name = f"{number}@{self._lines.setdefault((span.file, span.line), len(self._lines))}"
            self._names[id(span)] = name
        return name

    def _data(self, data: object) -> str:
        if isinstance(data, ir.Slot):
            return f"slot {self._slots.setdefault(data, len(self._slots))} {data.size} {data.align}"
        return repr(data)


def remembering(
    make: Callable[[ir.Function], Code], entries: Entries, settings: object
) -> Callable[[ir.Function], Code]:
    """`make`, but for functions whose code is in a mapping; what it makes goes there. settings: all else that decides what it makes."""
    before = f"{compiler_digest()} {settings!r}\n"

    def find(function: ir.Function) -> Code:
        description = Description(function)
        key = hashlib.sha256((before + description.text).encode()).hexdigest()
        code = read(entries.get(key, b""), description.rows)
        if code is None:
            code = make(function)
            text = json.dumps(save(code, description.spans), separators=(",", ":")).encode()
            entries[key] = hashlib.sha256(text).hexdigest().encode() + text
        return code

    return find


def read(entry: bytes, rows: list[Row]) -> Code | None:
    """The code in an entry; None if it is not whole, or does not read."""
    if hashlib.sha256(entry[DIGEST:]).hexdigest().encode() != entry[:DIGEST]:
        return None
    try:
        return load(json.loads(entry[DIGEST:]), rows)
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def save(code: Code, spans: dict[ir.Span, int]) -> dict[str, Any]:
    """A function's code as JSON has it; load() undoes this. Raises KeyError for a place that the function's IR does not mention."""
    starts = {(span.file, span.line): number for span, number in spans.items()}
    return {
        "symbol": code.symbol,
        "data": code.data.hex(),
        "relocations": [[row.offset, row.target.symbol, row.target.addend, row.end] for row in code.relocations],
        "checks": [[offset, starts[trap.file, trap.line]] for offset, trap in code.checks],
        "lines": [[row.offset, row.text, -1 if row.span is None else spans[row.span]] for row in code.lines],
        "loops": code.loops,
    }


def load(values: Any, rows: list[Row]) -> Code:
    """The code that save() was given, with its spans where they are now."""
    spans = [*(ir.Span(*row) for row in rows), None]
    return Code(
        values["symbol"],
        bytearray.fromhex(values["data"]),
        [Relocation(at, ir.Address(*target), end) for at, *target, end in values["relocations"]],
        [(offset, Trap(rows[number][0], rows[number][1])) for offset, number in values["checks"]],
        [Line(offset, text, spans[number]) for offset, text, number in values["lines"]],
        [(start, end) for start, end in values["loops"]],
    )
