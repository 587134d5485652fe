"""`explain` names function, source line and neighbours of an address, and says what it expected where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from dsl.compiler.pipeline import Program, compile_function
from dsl.lang import machine, static_array, u64
from pipeline import console, explain
from pipeline.errors import UsageError

pytestmark = pytest.mark.t0
ROOT = Path(__file__).resolve().parents[2]
CELLS: Final = static_array(u64, 4)


@machine
def helper(index: u64) -> u64:
    """Too often called to be inlined everywhere; its element access is checked."""
    return CELLS[index]


@machine
def first(a: u64) -> u64:
    """The entry."""
    return helper(a) + helper(a + 1) + helper(a + 2)


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_function(first, disable=("inline",))


@pytest.fixture
def out(tmp_path: Path, program: Program) -> Path:
    (tmp_path / "loader.lst").write_text(program.listing())
    (tmp_path / "loader.map").write_text(program.map())
    return tmp_path


def test_every_address_of_the_text_is_explained(out: Path, program: Program) -> None:
    """At each instruction and in its middle: the function that holds it, its source line, and itself among the neighbours."""
    listing = explain.read_listing(out / "loader.lst")
    assert len(listing) == len(program.linked.lines)
    places = dict(program.linked.places())
    for row in listing:
        file, line = places[row.address]
        for address in (row.address, row.end - 1):
            found = explain.find(f"{address:#x}", out)
            start, size, kind = program.symbols[found.symbol]
            assert kind == "function"
            assert start <= address < start + size
            assert (found.place, found.offset) == (f"{file}:{line}", address - start)
            assert row in found.instructions


def test_the_text_shows_the_line_and_marks_the_instruction(out: Path, program: Program) -> None:
    offset, trap = program.linked.checks[0]
    shown = explain.render(explain.find(hex(program.base + offset), out))
    assert f"{trap.file}:{trap.line}\n" in shown
    marked = [line for line in shown.splitlines() if line.startswith(">")]
    assert marked[0].endswith("return CELLS[index]")
    assert "ud2" in marked[1]


def test_names_stand_for_addresses(out: Path, program: Program) -> None:
    assert explain.find("helper", out).address == program.symbols[f"{__name__}.helper"][0]
    data = explain.find("CELLS", out)
    assert (data.instructions, data.symbol) == ((), f"{__name__}.CELLS")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("0x1", "expected an address in loader 0x1000000 to "),
        ("nowhere", "expected an address in hexadecimal, or the name of one symbol, found none"),
    ],
)
def test_what_is_nowhere_is_refused(out: Path, asked: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        explain.find(asked, out)


def test_without_a_build_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found none; run: python3 build\.py build"):
        explain.find("0x10000", tmp_path)


def test_a_fatal_stop_gets_its_function(out: Path, program: Program) -> None:
    """From what the monitor prints (an address), and from what the loader prints (a place)."""
    offset, trap = program.linked.checks[0]
    address = hex(program.base + offset)
    transcript = console.Transcript()
    transcript.feed(f"terrane| stopped: a check failed at {trap.file}:{trap.line} rip {address} rsp 0x0\r\n".encode())
    refusal = transcript.refusal()
    assert refusal is not None
    assert explain.where(refusal, out).startswith(f"{address} is {__name__}.helper + ")
    said = f"the machine stopped after: loader: failed check at {trap.file}:{trap.line}"
    assert explain.where(said, out) == f"{trap.file}:{trap.line} is checked in {__name__}.helper"
    assert explain.where("the time is over", out) == ""
    assert explain.where("rip 0x3", out) == ""


def test_the_verb_refuses_nonsense_with_status_2() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "build.py", "explain", "0x3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "build.py explain: " in done.stderr
    assert "Traceback" not in done.stderr


def test_json(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(explain, "find", lambda asked, find=explain.find: find(asked, out))
    assert explain.report("first", as_json=True) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["program"], values["symbol"], values["offset"]) == ("loader", f"{__name__}.first", 0)
    assert values["instructions"][0]["address"] == values["address"]
