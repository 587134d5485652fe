"""The examples of docs/language: read from the Markdown, made into modules, and asked for what their comments promise.

A block ```python is a module without its imports. Its comments of the form `# call == value` and `# call stops` are run in three worlds. A
block ```python error is one that the compiler refuses; its comments `# error[code]: text` are all that it says, in order.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import dsl.lang
from pipeline.program_file import load_file

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs" / "language"
BLOCK: Final = re.compile(r"^```python(?P<kind>| error)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISE: Final = re.compile(r"^# (\w+)\((.*)\) (?:== (.+)|(stops))$", re.MULTILINE)
REFUSAL: Final = re.compile(r"^# (error\[[a-z-]+\]: .+)$", re.MULTILINE)
SAID: Final = re.compile(r"^\S+:\d+:\d+: (error\[[a-z-]+\]: .+)$", re.MULTILINE)
NAMES: Final = {  # what dsl.lang imports by name, for programs; the instructions come with a *
    alias.name
    for node in ast.walk(ast.parse(inspect.getsource(dsl.lang)))
    if isinstance(node, ast.ImportFrom) and node.module != "__future__"
    for alias in node.names
} - {"*"}
PRELUDE: Final = (
    "from __future__ import annotations\nfrom enum import Enum\nfrom typing import Final\n"
    f"from dsl.lang import {', '.join(sorted(NAMES))}\n"
    "from dsl.lang.intrinsics import *\n"
)


@dataclass(frozen=True)
class Promise:
    """What one comment says: function, arguments as Python, and the result, or None where it stops."""

    function: str
    arguments: str
    result: str | None


@dataclass(frozen=True)
class Example:
    """One block: where it stands, and what it promises."""

    file: str
    line: int
    source: str
    is_error: bool

    @property
    def name(self) -> str:
        """An id for tests."""
        return f"{self.file}:{self.line}"

    def promises(self) -> list[Promise]:
        """Calls with their results."""
        found = PROMISE.findall(self.source)
        return [Promise(function, arguments, result or None) for function, arguments, result, _ in found]

    def refusals(self) -> list[str]:
        """What the compiler is to say."""
        return REFUSAL.findall(self.source)


def examples() -> list[Example]:
    """All blocks of all files."""
    found = []
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Example(path.name, line, match["source"], match["kind"] == " error"))
    return found


def load(example: Example, folder: Path) -> ModuleType:
    """Make a module of an example and import it. Raises CompileError for what is no module."""
    name = f"example_{example.file.removesuffix('.md')}_{example.line}"
    path = folder / f"{name}.py"
    path.write_text(PRELUDE + "\n\n" + example.source, encoding="utf-8")
    return load_file(path, name)
