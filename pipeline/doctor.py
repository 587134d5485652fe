"""Say what this machine can run, and why not. Standard library only, Python 3.9: it runs before anything is set up."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys

from pipeline import kvm, paths, setup


def capability(name: str, missing: list[str]) -> dict[str, object]:
    """One row of the report: a name, whether it works, and what is missing."""
    return {"name": name, "ok": not missing, "missing": missing}


def missing_pip(groups: tuple[str, ...]) -> list[str]:
    """Reasons why the environment does not serve these groups."""
    if not setup.VENV_PYTHON.exists():
        return ["the environment .venv (run: python3 build.py setup)"]
    stamp = setup.read_stamp()
    stale = [group for group in groups if stamp.get(group) != setup.group_key(group)]
    return [f"Python packages of the group '{group}' (run: python3 build.py setup)" for group in stale]


def missing_processor() -> list[str]:
    """Reasons why emitted code cannot run natively here."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return [f"an x86-64 processor (found {platform.machine()})"]
    try:
        flags = kvm.processor_flags(kvm.HOST)
    except (OSError, ValueError):
        return ["/proc/cpuinfo with a flags line"]
    return [f"the processor feature {name}" for name in ("bmi1", "bmi2", "adx", "aes") if name not in flags]


def packages_of(groups: tuple[str, ...]) -> list[str]:
    """Missing Debian packages, each as a reason."""
    return [f"Debian package {name}" for name in setup.missing_apt(groups)]


def program(name: str, package: str) -> list[str]:
    """A reason if a program is not on the path."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return [] if found else [f"{name} (Debian package {package})"]


def keys_state() -> list[str]:
    """A reason if there are no keys yet; they are made by the first build."""
    return [] if paths.KEYS.is_dir() else ["keys/ (made by the first build, or by: python3 build.py keys)"]


def examine() -> list[dict[str, object]]:
    """All rows, in the order a newcomer meets them."""
    build = packages_of(("build",)) + missing_pip(("build",))
    bochs = build + packages_of(("run",))
    tests = build + packages_of(("test",)) + missing_pip(("test",))
    return [
        capability("build: compile, sign and pack the image", build),
        capability("keys: this checkout's keys exist", keys_state()),
        capability("run: boot in Bochs, under its VT-x", bochs),
        capability("T0: tests under CPython", tests),
        capability("T1: emitted bytes, natively", tests + missing_processor()),
        capability("T1: emitted bytes, in Unicorn", tests),
        capability("T2: whole machines in Bochs", tests + packages_of(("run",))),
        capability("T3: QEMU, from BIOS and UEFI", tests + packages_of(("qemu",))),
        capability("T4: QEMU under KVM with VT-x (run --engine kvm)", packages_of(("qemu",)) + kvm.lacking(kvm.HOST)),
        capability("bench code quality against gcc", program("gcc", "gcc")),
    ]


def report(as_json: bool) -> int:
    """Print the report. Status 0 if `run` can work here, otherwise 2."""
    rows = examine()
    works = all(row["ok"] for row in rows if str(row["name"]).startswith(("build", "run")))
    if as_json:
        facts = {"python": sys.version.split()[0], "machine": platform.machine(), "cpus": os.cpu_count()}
        print(json.dumps({"works": works, "host": facts, "rows": rows}, indent=1))
        return 0 if works else 2
    for row in rows:
        print(f"{'yes' if row['ok'] else 'no ':3}  {row['name']}")
        for reason in row["missing"]:  # type: ignore[attr-defined]
            print(f"       missing: {reason}")
    if not works and os.geteuid() != 0 and setup.missing_apt(("build", "run")):
        print(
            "\nAs root: apt-get update && apt-get install -y --no-install-recommends "
            + " ".join(setup.missing_apt(("build", "run")))
        )
    return 0 if works else 2
