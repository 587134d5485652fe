"""`boot` runs the tutorial's program on the bare machine, and says what is wrong with what cannot run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import boot_program
from pipeline.errors import PipelineError, UsageError
from tests.boot.machine import BOCHS

ROOT = Path(__file__).resolve().parents[2]
PRIMES = ROOT / "docs" / "language" / "primes.py"
needs_bochs = pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")
ENDLESS = """
from dsl.lang import asm, machine


@machine(naked=True)
def start() -> None:
    asm("again: jmp again")


@machine
def wrong() -> None:
    x = 5
"""


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    path = tmp_path / "endless.py"
    path.write_text(ENDLESS)
    return path


@pytest.mark.t2
@needs_bochs
def test_the_tutorials_program_runs_by_one_command() -> None:
    """Its whole output is the line that it prints; it turns the machine off and the status is 0."""
    done = subprocess.run(
        [sys.executable, ROOT / "build.py", "boot", PRIMES], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    expected = sum(all(number % other for other in range(2, number)) for number in range(2, 1000))
    assert done.stdout == f"{expected} primes below 1000\n"
    assert "turned the machine off" in done.stderr


@pytest.mark.t0
def test_the_tutorials_program_is_short() -> None:
    assert len([line for line in PRIMES.read_text().splitlines() if line.strip()]) < 30


@pytest.mark.t2
@needs_bochs
def test_a_program_that_does_not_end_is_ended(endless: Path) -> None:
    with pytest.raises(PipelineError, match="expected the program to turn the machine off within 3 s"):
        boot_program.boot(str(endless), 32, "corei7_skylake_x", 3)


@pytest.mark.t2
@needs_bochs
def test_a_failed_check_is_told_with_its_line(tmp_path: Path) -> None:
    """The program has no exception handlers: its ud2 ends the machine."""
    path = tmp_path / "failing.py"
    path.write_text(
        "from dsl.lang import asm, machine, static_array, u8, u64\n\nSTACK = static_array(u8, 4096)\n\n\n"
        "@machine\ndef main(n: u64) -> None:\n    STACK[n | 8192] = u8(1)\n\n\n"
        '@machine(naked=True)\ndef start() -> None:\n    asm("lea rsp, [rip + {end} + 4096]; call {main}", end=STACK, main=main)\n'
    )
    with pytest.raises(PipelineError, match=r"^a check failed at failing\.py:8\n"):
        boot_program.boot(str(path), 32, "corei7_skylake_x", 30)


@pytest.mark.t0
def test_what_cannot_run_is_refused(endless: Path) -> None:
    with pytest.raises(UsageError, match="expected a Python file, found none"):
        boot_program.compile_entry("nowhere.py")
    with pytest.raises(UsageError, match="expected a Python file or a module, found none"):
        boot_program.compile_entry("no.such.module")
    with pytest.raises(UsageError, match="expected a machine function 'begin', found none"):
        boot_program.compile_entry(f"{endless}:begin")
    with pytest.raises(PipelineError, match=r"error\[bare-int\]"):
        boot_program.compile_entry(f"{endless}:wrong")
    with pytest.raises(UsageError, match="does not fit where the loader would be: loader body: expected 1024 to"):
        boot_program.program_disk(bytes(1 << 20))
