"""One source, one program: whatever the hash seed, the directory and what was compiled before."""

from __future__ import annotations

import importlib.util
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


# Whole programs, and random ones, which hold every construct.
WHOLE: Final = """
import hashlib, importlib, sys, tempfile
from pathlib import Path
from pipeline.program_file import load_file
from dsl.compiler.pipeline import compile_function, compile_program
from pipeline.symbol_sizes import PROGRAMS
from tests.random_programs.generator import make_module
tables = {"boot.header_key": bytes(32), "std.font": bytes(95 * 16)}
made = []
for name, module, base in PROGRAMS:
    base = base if isinstance(base, int) else getattr(importlib.import_module(base[0]), base[1])
    made.append(compile_program(importlib.import_module(module).start, base=base, supplied=tables))
with tempfile.TemporaryDirectory() as folder:
    for seed in range(4):
        path = Path(folder) / f"determinism_{seed}.py"
        path.write_text(make_module(seed, 8).source)
        made.append(compile_function(load_file(path, path.stem).everything, pool=4 if seed % 2 else None))
for program in made:
    for part in (program.image, program.elf(), program.listing().encode(), program.map().encode()):
        print(hashlib.sha256(part).hexdigest())
"""
VERSIONS: Final = ("3.11", "3.12", "3.13")


def digests(seed: str, root: Path, script: str = SCRIPT, python: str = sys.executable) -> str:
    """What a fresh process makes of some programs. Another Python finds this one's packages."""
    names = ("keystone", "capstone", "peachpy")
    found = (importlib.util.find_spec(name) for name in names)
    packages = dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin)
    places = [str(root)] if python == sys.executable else [str(root), *packages]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": f"UTC{seed[0]}"}
    environment |= {"PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
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


def python_of(version: str) -> str:
    """A Python of this version: on PATH, or where pyenv puts them; empty if none runs."""
    name = f"python{version}"
    places = [shutil.which(name) or "", *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")))]
    for place in filter(None, places):
        if subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
            return place
    return ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the tree, which may be at work, and what this Python makes there of loaders, monitor and random modules."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in ("boot", "dsl", "vmm", "pipeline", "tests/random_programs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    found = digests("0", copy, WHOLE)
    assert found.count("\n") == 4 * 7
    return copy, found


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_compiles_to_the_same_bytes(version: str, whole: tuple[Path, str]) -> None:
    """Image, ELF, listing and map of loaders, monitor and random modules, under each Python that is here, with other hash seeds."""
    python = python_of(version)
    if not python:
        pytest.skip(f"no Python {version} on PATH or in ~/.pyenv")
    tree, found = whole
    assert digests(version.replace(".", ""), tree, WHOLE, python) == found


@pytest.mark.t1
def test_what_came_before_changes_nothing() -> None:
    """A program compiled again after others is the same."""
    first = compile_function(programs.order).image
    compile_function(programs.loops)
    assert compile_function(programs.order).image == first
