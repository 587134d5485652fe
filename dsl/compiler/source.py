"""The source of machine functions: each file read and parsed once, every node with its span in characters."""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dsl.compiler.diagnostics import Diagnostic
from dsl.compiler.ir import Span
from dsl.lang.failure import DeclarationError


@lru_cache(maxsize=256)
def source_file(display: str, text: tuple[str, ...]) -> SourceFile:
    """The file of these lines; programs that share it parse it once."""
    return SourceFile(display, text)


class SourceFile:
    """One module's text, its lines and its syntax tree."""

    def __init__(self, display: str, text: tuple[str, ...]) -> None:
        self.display = display
        self.lines = [line.rstrip("\r\n") for line in text]
        self.encoded = [line.encode() for line in self.lines]
        self._spans: dict[ast.AST, Span] = {}

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse("\n".join(self.lines) + "\n")

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        """Top-level functions by name; the last definition counts, as it does in Python."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

    def line(self, number: int) -> str:
        """The text of line `number`, which counts from 1; empty outside the file."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def column(self, line: int, byte_offset: int) -> int:
        """The character column of a UTF-8 byte offset, which is what ast gives."""
        encoded = self.encoded[line - 1]
        return byte_offset if len(encoded) == len(self.lines[line - 1]) else len(encoded[:byte_offset].decode())

    def span(self, node: ast.AST) -> Span:
        """The span of a syntax node (its position attributes must be set)."""
        known = self._spans.get(node)
        if known is not None:
            return known
        where: Any = node
        span = self._spans[node] = Span(
            self.display,
            where.lineno,
            self.column(where.lineno, where.col_offset),
            where.end_lineno,
            self.column(where.end_lineno, where.end_col_offset),
        )
        return span


class Sources:
    """All source files read so far, by the name that code objects give."""

    def __init__(self) -> None:
        self._files: dict[str, SourceFile] = {}

    def file_of(self, function: Callable[..., Any]) -> SourceFile:
        """The file that defines a Python function."""
        return self.file(function.__code__.co_filename, function.__module__)

    def file(self, filename: str, module: str) -> SourceFile:
        """A module's file."""
        if filename not in self._files:
            text = tuple(linecache.getlines(filename)) or ("",)  # of exec(...) there is none
            self._files[filename] = source_file(display_name(filename, module), text)
        return self._files[filename]

    def by_display(self, display: str) -> SourceFile:
        """The file that spans call by this name."""
        return next(file for file in self._files.values() if file.display == display)


def display_name(filename: str, module: str) -> str:
    """The file's path from the root its module was imported from: the same in every directory the tree stands in."""
    parts = filename.replace("\\", "/").removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    dotted = module.split(".")
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        dotted = spec.name.split(".") if spec else parts[-1:]
    common = dotted if parts[-len(dotted) :] == dotted else parts[-1:]
    suffix = "/__init__.py" if filename.endswith("__init__.py") and common == dotted else ".py"
    return "/".join(common) + suffix


def declaration_error(error: DeclarationError) -> Diagnostic:
    """What is declared wrongly, at its declaration."""
    return error_in_file("declaration", error.message, error.file, "", "", error.line)


def error_in_file(
    code: str,
    text: str,
    file: str,
    path: str,
    name: str,
    line: int,
    columns: tuple[int, int] = (-1, -1),
    help_: str = "",
) -> Diagnostic:
    """An error on one line of a file; columns that the line does not have stand for all of it."""
    roots = [Path(root) for root in sys.path if Path(file).is_relative_to(Path(root).absolute())]
    known = ".".join(Path(file).relative_to(roots[0].absolute()).with_suffix("").parts) if roots else Path(file).stem
    text_of_file = Path(file).read_bytes().decode("utf-8-sig", "replace")  # all of it may not be readable
    lines = re.split("\r\n|\r|\n", text_of_file)
    line = min(line, len(lines))
    shown = lines[line - 1]
    first, end = (
        columns if 0 <= columns[0] <= columns[1] <= len(shown) else (len(shown) - len(shown.lstrip()), len(shown))
    )
    span = Span(display_name(file, name if file == path else known), line, first, line, end)
    return Diagnostic(code, text.partition("\n")[0], span, shown, help_)


def assigned_names(statements: list[ast.stmt]) -> set[str]:
    """Every local that these statements assign."""
    return {name for statement in statements for name in _assigned_in(statement)}


@lru_cache(maxsize=1 << 13)  # programs share their sources, and a function has a specialisation for each value
def _assigned_in(statement: ast.stmt) -> frozenset[str]:
    names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return frozenset(node.id for node in names if isinstance(node.ctx, ast.Store))
