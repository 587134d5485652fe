"""What the compiler says about a program: an error at an exact place, several in one run, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dsl import lang
from dsl.compiler.ir import Span
from dsl.lang import intrinsics


@dataclass(frozen=True, slots=True)
class Note:
    """A place that led to an error: one link of the call chain."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error: a stable code, what is wrong, where, one line of help, and the chain of calls that led there."""

    code: str
    text: str
    span: Span
    source_line: str
    help: str = ""
    chain: tuple[Note, ...] = ()

    def render(self) -> str:
        """The error as a terminal shows it: columns are 1-based characters."""
        span = self.span
        width = span.end_column - span.column if span.end_line == span.line else len(self.source_line) - span.column
        margin = " " * len(str(span.line))
        lines = [
            f"{span.file}:{span.line}:{span.column + 1}: error[{self.code}]: {self.text}",
            f" {span.line} | {self.source_line}",
            f" {margin} | {caret_indent(self.source_line, span.column)}{'^' * max(width, 1)}",
        ]
        if self.help:
            lines.append(f" {margin} = help: {self.help}")
        lines += [f" {margin} = in {note.text}, called at {note.span.file}:{note.span.line}" for note in self.chain]
        return "\n".join(lines)


def caret_indent(line: str, column: int) -> str:
    """Blanks as wide as the first `column` characters of the line: its tabs stay tabs, wide characters count two."""
    import unicodedata

    widths = {character: 2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line}
    return "".join("\t" if character == "\t" else " " * widths[character] for character in line[:column])


class CompileError(Exception):
    """The program is not valid; `diagnostics` says why, in source order of discovery."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(diagnostic.render() for diagnostic in self.diagnostics))


class MissingPackage(CompileError):
    """A package that makes or reads machine code cannot be imported."""

    def __init__(self, problem: ImportError) -> None:
        super().__init__(())
        self.args = (
            f"{problem.name or 'an assembler'}: expected to import it, found: {problem}; python3 build.py setup installs it",
        )


class Reported(Exception):
    """Unwinds to the statement being compiled, after its error was recorded."""


INSTEAD: Final = {  # what the language has in place of what Python has: nodes of the syntax, builtins
    "ListComp SetComp DictComp GeneratorExp": "fill an Array in a for loop",
    "List Set Dict": "a table(T, [...]) at module level is an Array",
    "Tuple tuple": "a Record holds several values",
    "JoinedStr print str format repr": "dsl.std.print makes lines of texts and numbers, dsl.std.serial sends them",
    "NamedExpr": "assign in a statement of its own",
    "Lambda FunctionDef ClassDef Import ImportFrom": "it stands at the top level of a module",
    "Match": "use if and elif, or a dispatch(...)",
    "Try TryStar Raise With": "failure is a value: return Failure(code)",
    "Global Nonlocal": "what outlives a call is declared with static(T) or static_array(T, n)",
    "len": "a.length is an Array's length",
    "min max": "minimum(a, b) and maximum(a, b) of dsl.lang",
    "range enumerate": "for i in upto(n)",
    "int": "a word, such as u64",
    "list bytes bytearray": "an Array, such as Array[u8]",
    "asm": "it is the whole body of a function with @machine(naked=True)",
    "static static_array table supplied dispatch per_cpu": "declare it at module level",
}


def instead(name: str, otherwise: str = "") -> str:
    """What the language has in place of this."""
    return next((help_ for names, help_ in INSTEAD.items() if name in names.split()), otherwise)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A help line that says where a name of the language is, or names the nearest known name, or nothing."""
    for module in (lang, intrinsics):
        if name in vars(module):
            return f"from {module.__name__} import {name}"
    near = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.6)
    near.sort(key=lambda other: sorted(other) != sorted(name))  # swapped letters are the likeliest slip
    return f"did you mean '{near[0]}'?" if near else ""
