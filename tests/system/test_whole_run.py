"""`build.py run` as a stranger types it, in a fresh copy of the tree with keys of its own: Debian beside the witness and the intruder."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import paths
from tests.system.machine import BOCHS

pytestmark = [pytest.mark.t2, pytest.mark.slow, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
SOURCES = ("boot", "dsl", "guests", "pipeline", "vmm")
PERFORM = "import sys; from pipeline import arguments, cli; sys.exit(cli.perform(arguments.parser().parse_args(sys.argv[1:])))"
# What build.py does once the machine is set up, in this environment: the copy has none of its own.


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy without keys, with the packages that were fetched before."""
    folder = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copytree(paths.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".cache").mkdir()
    paths.PACKAGES.mkdir(parents=True, exist_ok=True)
    (folder / ".cache" / "packages").symlink_to(paths.PACKAGES)
    return folder


def command_for(*words: str, seconds: int) -> list[str]:
    """The verb `run`; the serial output is on standard output."""
    return [sys.executable, "-c", PERFORM, "run", "--timeout", str(seconds - 60), *words]


def environment_of(tree: Path) -> dict[str, str]:
    """Modules come from the copy."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    status: int
    output: str
    errors: str


def run(tree: Path, *words: str, seconds: int = 900) -> Finished:
    """Run to the end without a person."""
    result = subprocess.run(
        command_for(*words, seconds=seconds), cwd=tree, env=environment_of(tree), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
    )  # fmt: skip
    return Finished(result.returncode, result.stdout, result.stderr)


def run_and_type(tree: Path, box: str, line: str, answer: str, seconds: int = 900) -> Finished:
    """Run, type a line on a box's console once it has the focus, and leave when its answer is there."""
    deadline = time.monotonic() + seconds
    with (tree / "output").open("w+b") as output, (tree / "errors").open("w+b") as errors:
        process = subprocess.Popen(
            command_for("--attach", box, seconds=seconds), cwd=tree, env=environment_of(tree), stdin=subprocess.PIPE,
            stdout=output, stderr=errors,
        )  # fmt: skip
        assert process.stdin is not None

        def said(name: str) -> str:
            return (tree / name).read_text("utf-8", "replace").replace("\r", "")

        def wait(name: str, pattern: str) -> None:
            while time.monotonic() < deadline and process.poll() is None:
                if re.search(pattern, said(name), re.MULTILINE):
                    return
                time.sleep(0.2)

        try:
            wait("errors", "Attached to")
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
            wait("output", answer)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(30)
        finally:
            process.kill()
            process.wait()
        return Finished(process.returncode, said("output"), said("errors"))


@pytest.fixture(scope="module")
def whole(tree: Path) -> Finished:
    """The whole run, a command typed on Debian's console at its end."""
    return run_and_type(tree, "debian", "echo $((6*7))", r"^debian[|+] 42$")


def test_the_witness_is_verified(whole: Finished) -> None:
    """Status 0, the chain as a tree, VERIFIED and what that does not prove."""
    assert whole.status == 0, whole.errors[-2000:]
    verdict = [line for line in whole.output.splitlines() if line.startswith("VERIFIED")]
    assert len(verdict) == 1
    assert "development secret proves the flow, not a machine" in verdict[0]
    for layer in ("device", "monitor", "box witness", "endorsed key"):
        assert re.search(rf"{layer} .*hash .*key [0-9a-f]{{16}}.*mode debug .*signed by ", whole.output), layer
    assert "'canaries intact', signed by the endorsed key" in whole.output


def test_the_debian_shell_answers(whole: Finished) -> None:
    """A stock kernel, a shell, and a command's answer."""
    assert re.search(r"^debian[|+] debian: Linux 6\.1\.\S+-cloud-amd64, \d+ KiB", whole.output, re.MULTILINE)
    assert "terrane| focus: debian" in whole.output
    assert re.search(r"^debian[|+] 42\s*$", whole.output, re.MULTILINE), whole.output[-1500:]


def test_the_intruder_found_nothing_beside_debian(whole: Finished) -> None:
    """Its totals."""
    assert re.search(r"^intruder[|+] intruder: canaries found 0\s*$", whole.output, re.MULTILINE)
    assert re.search(r"^intruder[|+] intruder: breaches 0\s*$", whole.output, re.MULTILINE)


def test_every_line_is_led_by_its_box(whole: Finished) -> None:
    """Until the report, each line on the wire begins with a name; nothing was lost; only the intruder may have stopped."""
    lines = whole.output.splitlines()
    console = lines[: lines.index("") if "" in lines else len(lines)]
    strange = [line for line in console if not re.match(r"(terrane|debian|witness|intruder)[|+] ?", line)]
    assert not strange
    assert "bytes of the monitor's output were lost" not in whole.output
    assert "failed check" not in whole.output
    assert not re.search(r"box (debian|witness) stopped", whole.output)


def test_run_with_four_registers(tree: Path) -> None:
    """Loader, monitor and guests compiled with the allocator's pool cut to 4 registers run and are verified all the same."""
    result = run(tree, "--pool", "4", "--boxes", "witness,intruder", "--memory", "64")
    assert result.status == 0, result.errors[-2000:]
    assert re.search(r"^VERIFIED", result.output, re.MULTILINE)
    assert re.search(r"^intruder[|+] intruder: canaries found 0\s*$", result.output, re.MULTILINE)


def test_the_four_register_programs_are_others(tree: Path) -> None:
    """The pool did decide: the monitor of that build is not the usual one's size."""
    four = (tree / "out" / "monitor.map").read_text()
    result = subprocess.run(
        [sys.executable, "-c", PERFORM, "build", "--boxes", "witness"], cwd=tree, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tree)}, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tree / "out" / "monitor.map").read_text() != four
