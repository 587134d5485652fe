"""The monitor compiled from a copy of the tree in which one line was changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from pipeline import paths

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("boot", "dsl", "guests", "pipeline", "tests", "vmm")
COMPILE = """
import json
import sys
from boot.handoff import MONITOR_BASE
from dsl.compiler.pipeline import compile_program
from vmm.main import start
program = compile_program(start, base=MONITOR_BASE)
open(sys.argv[1], "wb").write(program.image)
json.dump(program.symbols, open(sys.argv[1] + ".json", "w"))
"""


@dataclass(frozen=True)
class Mutant:
    """One textual change. `old` stands in `file` exactly once after the text `behind` (which stands there once itself)."""

    file: str
    old: str
    new: str
    behind: str = ""


def mutate(text: str, mutant: Mutant) -> str:
    """The changed text; fails where the tree has moved on from what the mutant describes."""
    assert mutant.behind == "" or text.count(mutant.behind) == 1, (mutant, text.count(mutant.behind))
    start = text.index(mutant.behind)
    head, rest = text[:start], text[start:]
    assert rest.count(mutant.old) == 1, (mutant, rest.count(mutant.old))
    return head + rest.replace(mutant.old, mutant.new)


def changed_tree(folder: Path, *mutants: Mutant) -> Path:
    """A copy of the sources with these changes."""
    tree = folder / "tree"
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / ".cache").mkdir()
    (tree / ".cache" / "packages").symlink_to(paths.PACKAGES)
    for mutant in mutants:
        path = tree / mutant.file
        path.write_text(mutate(path.read_text(), mutant))
    return tree


def run_python(tree: Path, code: str, *arguments: str) -> str:
    """Run code on the modules of a tree; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def monitor_of(folder: Path, *mutants: Mutant) -> bytes:
    """The changed monitor's image."""
    path = folder / "monitor.bin"
    run_python(changed_tree(folder, *mutants), COMPILE, str(path))
    return path.read_bytes()


def symbols_of(folder: Path) -> SimpleNamespace:
    """The symbols of the monitor that `monitor_of` made in a folder, as a program has them."""
    return SimpleNamespace(symbols=json.loads((folder / "monitor.bin.json").read_text()))
