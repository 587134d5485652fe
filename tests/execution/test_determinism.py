"""One source, one program: whatever the hash seed, the directory and what was compiled before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from dsl.compiler.pipeline import compile_function
from tests.compiler import programs

ROOT: Final = Path(__file__).parents[2]
SCRIPT: Final = """
import hashlib
from dsl.compiler.pipeline import compile_function
from tests.compiler import programs
for function in (programs.order, programs.frame_objects, programs.dispatched, programs.loops):
    for pool in (None, 4):
        program = compile_function(function, pool=pool)
        for part in (program.image, program.elf(), program.listing().encode(), program.map().encode()):
            print(hashlib.sha256(part).hexdigest())
"""


def digests(seed: str, root: Path) -> str:
    """What a fresh process makes of some programs."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "LC_ALL": "C", "TZ": f"UTC{seed[0]}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.t1
def test_hash_seed_and_directory_change_nothing(tmp_path: Path) -> None:
    """Two hash seeds here, a third in a copy of the tree elsewhere."""
    copy = tmp_path / "elsewhere"
    for folder in ("dsl", "tests/compiler"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "ir_interpreter.py", copy / "tests")
    first = digests("0", ROOT)
    assert first.count("\n") == 32
    assert digests("1", ROOT) == first
    assert digests("2", copy) == first


@pytest.mark.t1
def test_what_came_before_changes_nothing() -> None:
    """A program compiled again after others is the same."""
    first = compile_function(programs.order).image
    compile_function(programs.loops)
    assert compile_function(programs.order).image == first
