"""What the compiler says: each bad program in cases/ has exactly the text beside it, and no error code is without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dsl.compiler.diagnostics import CompileError
from dsl.compiler.frontend import build_module
from pipeline.program_file import load_file
from tests.diagnostics.fuzz import codes

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name.removesuffix(".py.txt") for path in CASES.glob("*.py.txt"))


def compile_text(name: str, source: str, folder: Path) -> str:
    """The compiler's answer to a program whose entry is called `entry`; empty if it is valid."""
    module_name = f"case_{name.replace('-', '_')}"
    path = folder / f"{module_name}.py"
    path.write_text(source, encoding="utf-8")
    try:
        build_module(load_file(path, module_name).entry)
    except CompileError as error:
        return f"{error}\n"
    finally:
        sys.modules.pop(module_name, None)
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_bad_program_gets_exactly_this_text(name: str, tmp_path: Path) -> None:
    """Every error of the program, with place, line, caret, help and chain."""
    found = compile_text(name, (CASES / f"{name}.py.txt").read_text(encoding="utf-8"), tmp_path)
    assert found == (CASES / f"{name}.expected").read_text(encoding="utf-8")
    assert f"error[{name}]" in found


def test_every_error_code_has_a_case() -> None:
    """The codes in the compiler's source, and where a program's file is read, and the cases are the same set."""
    assert codes() == set(NAMES)


def test_column_counts_characters(tmp_path: Path) -> None:
    """A caret after text that is not ASCII, and after a tab, stands under its character."""
    source = (
        "from dsl.lang import machine, u64\n\n\n@machine\ndef entry(größe: u64) -> u64:\n"
        "\tif größe > 1: größe = grösse  # ä\n\treturn größe\n"
    )
    found = compile_text("columns", source, tmp_path)
    lines = found.splitlines()
    assert lines[0].startswith("case_columns.py:6:24: error[unknown-name]")
    shown, caret = lines[1].partition("| ")[2], lines[2].partition("| ")[2]
    assert shown[caret.index("^") :].startswith("grösse")
    assert caret.startswith("\t")
    assert caret.count("^") == len("grösse")
