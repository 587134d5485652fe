"""Set-up says what is missing and what to do; doctor and --help work on a machine that has nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import arguments, doctor, setup
from pipeline.errors import UsageError

pytestmark = pytest.mark.t0
ROOT = Path(__file__).resolve().parents[2]
VERBS = (
    "setup",
    "build",
    "run",
    "test",
    "check",
    "verify",
    "doctor",
    "keys",
    "bench",
    "explain",
    "size",
    "boot",
    "burn",
    "provision",
    "mutate",
)


def build_py(*words: str) -> subprocess.CompletedProcess[str]:
    """Run build.py with Debian's own Python, outside the environment."""
    return subprocess.run(["/usr/bin/python3", ROOT / "build.py", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    """--help needs no set-up and ends with status 0."""
    result = build_py(verb, "--help")
    assert result.returncode == 0
    assert "Exit status" in result.stdout


def test_every_verb_knows_what_it_needs() -> None:
    """The table covers all verbs and names groups that exist."""
    assert set(arguments.SETUP_GROUPS) == set(VERBS)
    assert {group for groups in arguments.SETUP_GROUPS.values() for group in groups} <= set(setup.PIP_PACKAGES)
    assert {group for groups in arguments.SETUP_GROUPS.values() for group in groups} <= set(setup.APT_PACKAGES)


@pytest.mark.parametrize("words", [(), ("nonsense",), ("run", "--memory", "0"), ("bench", "nothing"), ("verify", "x")])
def test_wrong_use_is_status_2(words: tuple[str, ...]) -> None:
    """With a usage line, and no traceback."""
    result = build_py(*words)
    assert result.returncode == 2
    assert "usage:" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_reports() -> None:
    """As JSON: one row a capability, with reasons where it does not work."""
    result = build_py("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == (0 if report["works"] else 2)
    assert all(row["ok"] == (not row["missing"]) for row in report["rows"])


def test_missing_packages_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one command that root has to run, with every package in it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup, "is_present", lambda pattern: False)
    with pytest.raises(UsageError, match="apt-get update && apt-get install -y --no-install-recommends") as caught:
        setup.ensure(("build", "run"))
    assert all(name in str(caught.value) for name in setup.apt_wanted(("build", "run")))
    assert caught.value.status == 2


def test_a_machine_without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install by hand."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"expected a Debian machine with apt-get, found none.*bochs"):
        setup.install_apt(["bochs"])


def test_a_command_that_fails_shows_its_end() -> None:
    """Label, status and output; a program that is not there, too."""
    with pytest.raises(UsageError, match=r"trying failed with status 3:\nboom"):
        setup.run_quietly("trying", [sys.executable, "-c", "print('boom'); raise SystemExit(3)"])
    with pytest.raises(UsageError, match="trying: cannot start /nowhere"):
        setup.run_quietly("trying", ["/nowhere"])


def test_the_stamp_makes_it_quick() -> None:
    """Nothing to do takes well under 0.3 s of this process's time."""
    if any(setup.missing_apt(groups) for groups in [("build", "run", "test")]):
        pytest.skip("this machine lacks a package")
    began = time.process_time()
    stamp = setup.read_stamp()
    if all(stamp.get(group) == setup.group_key(group) for group in ("build", "run")):
        setup.ensure(("build", "run"))
        assert time.process_time() - began < 0.1


def test_a_damaged_stamp_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then everything is looked at again."""
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    assert setup.read_stamp() == {}
    (tmp_path / "stamp").write_text("{")
    assert setup.read_stamp() == {}


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Bochs cannot run, but can build."""
    monkeypatch.setattr(setup, "is_present", lambda pattern: "bochs" not in pattern and "vgabios" not in pattern)
    monkeypatch.setattr(doctor, "missing_pip", lambda groups: [])
    rows = {str(row["name"]).split(":")[0]: row for row in doctor.examine()}
    assert rows["build"]["ok"]
    assert not rows["run"]["ok"]
    assert "Debian package bochs" in str(rows["run"]["missing"])
