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
from collections.abc import Callable, MutableMapping
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


def describe(function: ir.Function) -> tuple[str, list[ir.Span]]:
    """A function's IR as text, with its places by number, and these in the order of their first mention."""
    spans: dict[ir.Span, int] = {}
    lines: dict[tuple[str, int], int] = {}
    names = []
    for span in (function.span, *(value.span for value in function.values())):
        if span is not None:
            line = lines.setdefault((span.file, span.line), len(lines))
            names.append(f"{spans.setdefault(span, len(spans))}@{line}")
        else:
            names.append("-")
    return f"{ir.render(function)}{names}", list(spans)


def remembering(
    make: Callable[[ir.Function], Code], entries: Entries, settings: object
) -> Callable[[ir.Function], Code]:
    """`make`, but for functions whose code is in a mapping; what it makes goes there. settings: all else that decides what it makes."""
    before = f"{compiler_digest()} {settings!r}\n"

    def find(function: ir.Function) -> Code:
        text, spans = describe(function)
        key = hashlib.sha256((before + text).encode()).hexdigest()
        code = read(entries.get(key, b""), spans)
        if code is None:
            code = make(function)
            entry = json.dumps(save(code, spans), separators=(",", ":")).encode()
            entries[key] = hashlib.sha256(entry).hexdigest().encode() + entry
        return code

    return find


def read(entry: bytes, spans: list[ir.Span]) -> Code | None:
    """The code in an entry; None if it is not whole, or does not read."""
    if hashlib.sha256(entry[DIGEST:]).hexdigest().encode() != entry[:DIGEST]:
        return None
    try:
        return load(json.loads(entry[DIGEST:]), spans)
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def save(code: Code, spans: list[ir.Span]) -> dict[str, Any]:
    """A function's code as JSON has it; load() undoes this. Raises KeyError for a place that the function's IR does not mention."""
    starts = {(span.file, span.line): number for number, span in enumerate(spans)}
    numbers: dict[ir.Span | None, int] = {span: number for number, span in enumerate(spans)} | {None: -1}
    return {
        "symbol": code.symbol,
        "data": code.data.hex(),
        "relocations": [[row.offset, row.target.symbol, row.target.addend, row.end] for row in code.relocations],
        "checks": [[offset, starts[trap.file, trap.line]] for offset, trap in code.checks],
        "lines": [[row.offset, row.text, numbers[row.span]] for row in code.lines],
        "loops": code.loops,
    }


def load(values: Any, spans: list[ir.Span]) -> Code:
    """The code that save() was given, with its spans where they are now."""
    places = [*spans, None]
    return Code(
        values["symbol"],
        bytearray.fromhex(values["data"]),
        [Relocation(at, ir.Address(*target), end) for at, *target, end in values["relocations"]],
        [(offset, Trap(spans[number].file, spans[number].line)) for offset, number in values["checks"]],
        [Line(offset, text, places[number]) for offset, text, number in values["lines"]],
        [(start, end) for start, end in values["loops"]],
    )
