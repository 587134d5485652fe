"""`test` and `check`: the tests by tier, and the static checks."""

from __future__ import annotations

import os
import subprocess
import sys

from pipeline import doctor, paths
from pipeline.errors import OK, REFUSED
from pipeline.progress import say

TIERS = ("t0", "t1", "t2", "t3")
LAYER_TEST = "tests/test_layers.py"
STATIC_CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("format", ("-m", "ruff", "format", "--check", ".")),
    ("lint", ("-m", "ruff", "check", ".")),
    ("types", ("-m", "mypy",)),
    ("layers", ("-m", "pytest", "-q", LAYER_TEST)),
    ("programs", ("-m", "pipeline.audit")),
)  # fmt: skip

LONG: tuple[tuple[str, int], ...] = (  # a campaign, and of how many random programs it has one
    ("tests.random_programs.campaign", 1),
    ("tests.diagnostics.fuzz", 10),
    ("tests.attacks.evidence", 1),
    ("tests.attacks.answers", 10),
    ("tests.attacks.flips", 1),
)


def tiers_missing() -> dict[str, list[str]]:
    """For each tier that this machine cannot run, the reasons."""
    missing: dict[str, list[str]] = {}
    for row in doctor.examine():
        tier = str(row["name"]).split(":", maxsplit=1)[0].lower()
        reasons = row["missing"]
        if tier in TIERS and reasons:
            assert isinstance(reasons, list)
            missing.setdefault(tier, []).extend(reasons)
    return missing


def marker_expression(quick: bool, missing: dict[str, list[str]]) -> str:
    """What pytest selects: quick leaves out the slow ones and whole machines."""
    left_out = set(missing) | ({"slow", "t2", "t3"} if quick else set())
    return " and ".join(f"not {mark}" for mark in sorted(left_out))


def parallel(rest: list[str]) -> list[str]:
    """One worker a processor, unless the caller said otherwise; a file stays together, so that what it builds is built once."""
    processors = os.cpu_count() or 1
    if processors == 1 or any(argument.startswith(("-n", "--dist", "-s", "--pdb")) for argument in rest):
        return []
    return ["-n", str(processors), "--dist", "loadfile"]


def run_tests(quick: bool, rest: list[str]) -> int:
    """Run pytest; 0 if everything passed."""
    missing = tiers_missing()
    for tier, reasons in sorted(missing.items()):
        say(f"{tier.upper()} is skipped: missing {'; '.join(dict.fromkeys(reasons))}")
    expression = marker_expression(quick, missing)
    command = [sys.executable, "-m", "pytest", *(["-m", expression] if expression else []), *parallel(rest), *rest]
    say("Running " + " ".join(command[1:]))
    status = subprocess.run(command, cwd=paths.ROOT, check=False).returncode
    return OK if status == 0 else REFUSED


def run_long(count: int, seed: int) -> int:
    """Run each of the campaigns, `count` of what the first counts; 0 if nothing was wrong with any."""
    status = OK
    for module, part in LONG:
        command = [sys.executable, "-m", module, f"--count={-(-count // part)}", f"--seed={seed}"]
        say("Running " + " ".join(command[1:]))
        if subprocess.run(command, cwd=paths.ROOT, check=False).returncode != 0:
            status = REFUSED
    return status


def run_checks() -> int:
    """Run all static checks, even after one fails; 0 if all passed."""
    failed = []
    for name, arguments in STATIC_CHECKS:
        say(f"{name}: {' '.join(arguments[1:])}")
        if subprocess.run([sys.executable, *arguments], cwd=paths.ROOT, check=False).returncode != 0:
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return REFUSED if failed else OK
