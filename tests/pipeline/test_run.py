"""`run` boots, asks with a fresh nonce, verifies, and says clearly what went wrong; against a stand-in for Bochs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import bochs, disk, reference
from pipeline.bochs import Machine
from pipeline.emulator import EmulatorError
from pipeline.errors import UsageError
from tests.pipeline import forge

pytestmark = pytest.mark.t0
ROOT = Path(__file__).resolve().parents[2]
if shutil.which("bochs-bin") is None:
    pytest.skip("bochs-bin (Debian package bochs) is missing", allow_module_level=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image whose release chain is the one that the stand-in's evidence belongs to, with its reference file."""
    machine = forge.Machine()
    path = tmp_path / "made.img"
    disk.write_sparse(path, disk.build_disk(b"\xfa", b"2" * 1000, machine.partition.data))
    reference.write(tmp_path / "made.json", machine.values)
    return path


def run(image: Path, behaviour: str, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run `build.py run --image` with the stand-in first on the path."""
    folder = image.parent / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "bochs-bin"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.pipeline.fake_machine "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "FAKE": behaviour}
    command = [sys.executable, str(ROOT / "build.py"), "run", "--image", str(image), *words]
    return subprocess.run(
        command, env=environment, input=typed, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_good_machine_is_verified(image: Path) -> None:
    """The consoles stream, the chain is shown, the last line says VERIFIED, status 0."""
    result = run(image, "good")
    assert result.returncode == 0, result.stderr
    assert "witness| witness ready" in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith("VERIFIED")
    assert "box witness" in result.stdout


def test_json_alone_on_standard_output(image: Path) -> None:
    """With --json the consoles go to standard error."""
    result = run(image, "good", "--json")
    assert json.loads(result.stdout)["verified"] is True
    assert "witness| witness ready" in result.stderr


@pytest.mark.slow
def test_attached_input_reaches_the_box(image: Path) -> None:
    """After the verdict what is typed goes to the box in focus, until input ends."""
    result = run(image, "good", "--attach", "debian", typed="hello\n")
    assert result.returncode == 0, result.stderr
    assert "debian| you said hello" in result.stdout


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("old-nonce", "endorsement: nonce: expected"),
        ("garbled", "garbled on the way"),
        ("refuse", "refused: header: signature: expected a good one, found another"),
        (
            "stop",
            "Bochs closed the serial line (status 1)\n  bochs.log: 00000000000p[CPU0  ] >>PANIC<< a made-up panic",
        ),
        ("exit", "Bochs ended with status 7 before its serial port could be reached"),
    ],
)
def test_what_goes_wrong_is_said(image: Path, behaviour: str, message: str) -> None:
    """Status 1, one message, no traceback."""
    result = run(image, behaviour)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "VERIFIED (" not in result.stdout


@pytest.mark.slow
def test_time_is_limited(image: Path) -> None:
    """A machine that says nothing more: what was waited for, and its last line."""
    result = run(image, "silent", "--timeout", "8")
    assert result.returncode == 1
    assert re.search(r"expected 'witness ready' from the box witness within \d s, found none", result.stderr)
    assert "the last line was: terrane| loader: checking the image" in result.stderr


def test_json_tells_layer_and_field(image: Path) -> None:
    """A failure for programs."""
    result = run(image, "old-nonce", "--json")
    values = json.loads(result.stdout)
    assert result.returncode == 1
    assert (values["verified"], values["layer"], values["field"]) == (False, "endorsement", "nonce")


def test_wrong_use(image: Path, tmp_path: Path) -> None:
    """Status 2: no such box, no such image, no reference file."""
    assert "--attach: expected one of debian, witness, found 'other'" in run(image, "good", "--attach", "other").stderr
    missing = run(tmp_path / "absent.img", "good", "--expect", str(tmp_path / "made.json"))
    assert (missing.returncode, "expected a readable disk image" in missing.stderr) == (2, True)
    nothing = run(image, "good", "--expect", str(tmp_path / "absent.json"))
    assert (nothing.returncode, "expected a reference file, cannot read it" in nothing.stderr) == (2, True)


def test_no_bochs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host without Bochs is told which package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"expected the program bochs-bin \(Debian package bochs\), found none"):
        bochs.Bochs(Machine(tmp_path / "x.img"))


def test_a_real_bochs_that_rejects_its_configuration(image: Path) -> None:
    """A CPU model that does not exist is named with those that do; past that check the error carries Bochs' own words."""
    with pytest.raises(UsageError, match=r"--cpu: expected one of .*corei7_skylake_x.*, found 'none'"):
        bochs.check_cpu("none")
    bochs.check_cpu("corei7_skylake_x")
    with (
        pytest.raises(EmulatorError, match=r"(?s)Bochs ended with status .*cpu directive malformed"),
        bochs.Bochs(Machine(image, cpu="none")),
    ):
        pass
