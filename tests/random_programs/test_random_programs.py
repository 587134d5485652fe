"""Random whole programs mean one thing: under CPython, as IR before and after the passes, as machine code natively and in Unicorn."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from pathlib import Path

import pytest

from dsl.compiler import ir, pipeline
from dsl.compiler.pipeline import OPTIONAL, PASSES
from tests.execution.support import load_source
from tests.random_programs import campaign
from tests.random_programs.agreement import Counts, check_calls
from tests.random_programs.campaign import INPUTS, PROGRAMS
from tests.random_programs.generator import make_module
from tests.random_programs.subject import Subject

pytestmark = pytest.mark.t1
BATCH = 264  # programs


@pytest.mark.parametrize("batch", [0, *(pytest.param(batch, marks=pytest.mark.slow) for batch in range(1, 10))])
def test_random_programs(batch: int, capsys: pytest.CaptureFixture[str]) -> None:
    """No program differs anywhere; what failed is shown small. `build.py test --long` runs a hundred thousand."""
    status = campaign.main([f"--count={BATCH}", f"--seed={batch * BATCH // PROGRAMS}", "--jobs=1"])
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert f"{BATCH} programs, " in shown


def check(seed: int, options: dict[str, object]) -> str:
    """The module of a seed, compiled so, in every world, with its IR checked after every pass; what differs."""
    made = make_module(seed, 8)
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(load_source(f"random_passes_{seed}", made.source, Path(folder)))
        source = random.Random(seed)
        calls = [call for entry in made.entries for call in subject.calls(entry, source, INPUTS)]
        found = check_calls(subject, calls, options, Counts(), share=2)
    return f"{found.kind}: {found.detail}" if found else ""


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONAL)
def test_each_pass_off_alone(name: str) -> None:
    """Results are the same without the pass, with all registers and with four."""
    for seed in range(3):
        assert not check(7000 + seed, {"disable": (name,)})
        assert not check(7100 + seed, {"disable": (name,), "pool": 4})


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONAL)
def test_each_pass_alone(name: str) -> None:
    """Results are the same with no other pass."""
    others = tuple(other for other in OPTIONAL if other != name)
    assert not check(7200 + len(name), {"disable": others})


def test_every_pass_has_a_switch() -> None:
    """The switches are the passes: one that is added is tried by these tests of itself."""
    assert set(OPTIONAL) == {"inline"} | {name.partition(" ")[0] for name in PASSES}


def unsigned_comparisons(function: ir.Function) -> None:
    """A pass that is wrong: signed comparisons become unsigned."""
    for value in function.values():
        if value.operation == "slt":
            value.operation = "ult"


@pytest.mark.slow
def test_planted_defect_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong pass is seen, and shown by a program of fewer than fifteen lines with a file that runs."""
    monkeypatch.setitem(pipeline.PASSES, "planted", unsigned_comparisons)
    monkeypatch.setattr(campaign, "options_of", lambda _seed: {})
    total = campaign.run(0, 20 * PROGRAMS, jobs=1, quiet=True)
    assert total.differences
    seed, difference = next(row for row in total.differences if row[1].kind.startswith("machine code"))
    text = campaign.explain(seed, difference, tmp_path)
    (path,) = tmp_path.iterdir()
    program = [line for line in path.read_text().partition('if __name__ == "__main__"')[0].splitlines() if line.strip()]
    program = [line for line in program if not line.startswith("#")]
    assert len(program) < 15, text
    assert f"Seed {seed}" in text
    assert any(sign in "\n".join(program) for sign in ("<", ">")), text
    compile(path.read_text(), path.name, "exec")


def test_a_program_that_kills_its_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with the next module."""
    unharmed = campaign.check_module

    def killing(seed: int, folder: Path) -> campaign.Found:
        if seed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return unharmed(seed, folder)

    monkeypatch.setattr(campaign, "check_module", killing)
    total = campaign.run(2, 3 * PROGRAMS, jobs=1, quiet=True)
    assert [(seed, difference.kind) for seed, difference in total.differences] == [(3, "died by SIGKILL")]
    assert total.programs == 3 * PROGRAMS


def test_modules_come_from_their_seeds_alone() -> None:
    """A seed that is reported gives the same module again, whatever ran before."""
    first = make_module(5, 4)
    make_module(6, 4)
    assert make_module(5, 4) == first
    assert make_module(6, 4) != first
