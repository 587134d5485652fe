"""A program's file becomes a module. What goes wrong in it before any function is compiled is an error with its place, like any other."""

from __future__ import annotations

import builtins
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import dsl.lang
from dsl.compiler.diagnostics import CompileError, Diagnostic, suggestion
from dsl.compiler.source import declaration_error, error_in_file
from dsl.lang.failure import DeclarationError

# What runs between a mistake and its being noticed: the language's own code, and Python's.
NOT_ITS_OWN: Final = (str(Path(dsl.lang.__file__).parent), __file__, "<", *{sys.prefix, sys.base_prefix})


def load_file(path: Path, name: str) -> ModuleType:
    """Import a file as a module of this name. Raises CompileError if it is no Python, declares something wrongly, or raises."""
    refuse_unreadable(path, name)
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise FileNotFoundError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with diagnosed(path, name):
            specification.loader.exec_module(module)
    except CompileError:
        del sys.modules[name]
        raise
    return module


def refuse_unreadable(path: Path, name: str) -> None:
    """Sources are UTF-8 without null bytes: Python takes some others, whose lines nobody could show."""
    content = path.read_bytes()
    try:
        place = content.decode().encode().find(b"\0")
    except UnicodeDecodeError as error:
        place = error.start
    if place >= 0:
        text = f"the byte {content[place]:#04x} here is no part of a UTF-8 text"
        raise CompileError(
            [error_in_file("syntax", text, str(path), str(path), name, content.count(b"\n", 0, place) + 1)]
        )


@contextmanager
def diagnosed(path: Path, name: str) -> Iterator[None]:
    """What the import of a module raises becomes a CompileError."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module is any Python, which may raise anything, and exit
        raise CompileError([diagnose(error, str(path), name)]) from None


def diagnose(error: BaseException, path: str, name: str) -> Diagnostic:
    """What an import raised, as an error at the place that it names, else at the last line of the program's own that was running."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno and Path(error.filename).is_file():
        end = (error.end_offset or 0) - 1 if error.end_lineno == error.lineno else -1
        return error_in_file(
            "syntax", error.msg, error.filename, path, name, error.lineno, ((error.offset or 1) - 1, end)
        )
    if isinstance(error, DeclarationError):
        return declaration_error(error)
    text = "".join(traceback.format_exception_only(error)[-1:])
    rows = [row for row in traceback.extract_tb(error.__traceback__) if not row.filename.startswith(NOT_ITS_OWN)]
    if not rows or rows[-1].lineno is None:
        return error_in_file("module-level", text, path, path, name, 1)
    row = rows[-1]
    columns = (row.colno or 0, row.end_colno or 0) if row.end_lineno == row.lineno else (-1, -1)
    text, help_ = text.partition(" (/")[0] if isinstance(error, ImportError) else text, near(error)
    return error_in_file("module-level", text, row.filename, path, name, row.lineno or 1, columns, help_)


def near(error: BaseException) -> str:
    """What may have been meant by a name that is not there."""
    if isinstance(error, NameError):
        return suggestion(error.name or "", vars(builtins))
    if isinstance(error, ImportError) and (
        match := re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    ):
        return suggestion(match[1], dir(sys.modules.get(match[2])))
    return ""
