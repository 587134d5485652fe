"""A compiled function shows itself: each instruction once, beside the source line that it came from."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import machine, u64

pytestmark = pytest.mark.t0


@machine
def smaller(a: u64, b: u64) -> u64:
    """The smaller one."""
    return a if a < b else b  # <html> & all


def test_in_a_terminal() -> None:
    program = compile_function(smaller)
    lines = str(program).splitlines()
    assert lines[0] == f"{__name__}.smaller:"
    assert len(lines) == 1 + len(program.linked.lines)
    for line, (address, asked) in zip(lines[1:], program.linked.lines, strict=True):
        left, bar, _ = line.partition("|")
        shown, code, *text = left.split()
        assert (int(shown, 16), " ".join(text), bar) == (address, asked.text, "|")
        offset = address - program.base
        assert bytes.fromhex(code) == program.image[offset : offset + len(code) // 2]
    assert len({line.index("|") for line in lines[1:]}) == 1  # the columns stand below each other
    assert sum("return a if a < b else b" in line for line in lines) >= 1


def test_in_a_notebook() -> None:
    program = compile_function(smaller)
    page = ElementTree.fromstring(f"<body>{program._repr_html_()}</body>")
    table = page.findall(".//tr")
    assert len(table) == len(program.linked.lines)
    cells = ["".join(cell.itertext()) for cell in table[0]]
    assert int(cells[0], 16) == program.linked.lines[0][0]
    assert any("# <html> & all" in "".join(row.itertext()) for row in table)
