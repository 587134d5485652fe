"""The IR that the front end makes of a few functions, word for word: a change here is meant, or is a defect.

`python -m tests.golden.test_golden` writes the files anew; read the difference before you commit it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dsl.compiler import ir
from dsl.compiler.frontend import build_module
from tests.compiler import programs

FOLDER = Path(__file__).parent
FUNCTIONS: list[Callable[..., object]] = [
    programs.while_true,
    programs.swap,
    programs.references,
    programs.bit_fields,
    programs.secrets,
]


def render(function: Callable[..., object]) -> str:
    """The IR of a function and of all that it reaches."""
    return "\n".join(ir.render(compiled) for compiled in build_module(function).functions.values())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_ir_is_as_recorded(function: Callable[..., object]) -> None:
    """The rendered IR equals the file."""
    assert render(function) == (FOLDER / f"{function.__name__}.ir").read_text(encoding="utf-8")


if __name__ == "__main__":
    for each in FUNCTIONS:
        (FOLDER / f"{each.__name__}.ir").write_text(render(each), encoding="utf-8")
