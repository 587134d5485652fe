"""The same source and keys give the same image: in any folder, under any hash seed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import paths

pytestmark = [pytest.mark.t1, pytest.mark.slow]
SOURCES = ("build.py", "boot", "dsl", "guests", "pipeline", "vmm")
BUILD = """
import hashlib
from pipeline import assemble
built = assemble.build(assemble.Choices(assemble.box_folders(None), 256 << 20))
programs = {name: hashlib.sha256(program.elf() + program.listing().encode()).hexdigest() for name, program in built.programs.items()}
print(hashlib.sha256(built.disk).hexdigest(), sorted(programs.items()))
"""


def copy_tree(origin: Path, folder: Path) -> Path:
    """The sources in another folder, with keys of its own, and the packages that are fetched already."""
    folder.mkdir(exist_ok=True)
    for name in SOURCES:
        source = origin / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "packages").symlink_to(paths.PACKAGES)
    return folder


def built_digest(folder: Path, seed: str) -> str:
    """What a build in this folder gives."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["LANG"] = environment["LC_ALL"] = "C" if seed == "0" else "C.UTF-8"
    result = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_image_elf_and_listing_are_bit_identical(tmp_path: Path) -> None:
    """Two folders of different length, two hash seeds, two locales; with nothing compiled before, and with everything."""
    first = copy_tree(paths.ROOT, tmp_path / "a")
    second = copy_tree(first, tmp_path / "a" / "folder of another name")  # from the copy: the tree may be at work
    one = built_digest(first, "0")
    shutil.copytree(first / "keys", second / "keys")
    other = built_digest(second, "4711")
    assert one == other
    compiled = {path.name: path.stat().st_mtime_ns for path in (first / ".cache" / "compiled").iterdir()}
    assert len(compiled) > 100
    assert built_digest(first, "8") == one
    assert {path.name: path.stat().st_mtime_ns for path in (first / ".cache" / "compiled").iterdir()} == compiled
