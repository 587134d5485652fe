"""When evidence is not of the reference's build, the verifier says which input file accounts for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import history
from tests.pipeline.forge import Machine

pytestmark = pytest.mark.t0


def build(folder: Path, machine: Machine, image_sha256: str, **files: str) -> None:
    """Record a build of a small checkout with these files in vmm/."""
    root = folder / "checkout"
    for name, text in files.items():
        (root / "vmm").mkdir(parents=True, exist_ok=True)
        (root / "vmm" / f"{name}.py").write_text(text)
    history.record(machine.values | {"image_sha256": image_sha256}, folder / "history", root)


def test_the_file_that_changed_is_named(tmp_path: Path) -> None:
    """Two builds; evidence of the one against the reference of the other."""
    old, new = Machine(), Machine(monitor=b"another monitor" * 200)
    build(tmp_path, old, "0" * 64, scheduler="SLICE = 1", console="same")
    build(tmp_path, new, "1" * 64, scheduler="SLICE = 2", console="same")
    lines = history.differences(old.bundle(), "1" * 64, tmp_path / "history")
    assert lines == [
        f"The evidence is of another build of this checkout ({'0' * 16}..); other there: monitor.",
        "  vmm/scheduler.py: changed between that build and the reference's",
    ]
    assert history.differences(new.bundle(), "1" * 64, tmp_path / "history")[0].startswith("Every layer's code is that")


def test_a_stranger_is_said(tmp_path: Path) -> None:
    """Evidence of a build that this checkout never made, or of one that no record is left of."""
    build(tmp_path, Machine(), "0" * 64, scheduler="SLICE = 1")
    other = Machine(monitor=b"a stranger's" * 100, descriptor=b"s" * 4096)
    assert history.differences(other.bundle(), "0" * 64, tmp_path / "history") == [
        "No build of this checkout that out/history still knows has this monitor and this box."
    ]
    assert history.differences(other.bundle(), "9" * 64, tmp_path / "history") == []
    (tmp_path / "history" / f"{'0' * 64}.json").write_text("{")
    assert history.differences(other.bundle(), "0" * 64, tmp_path / "history") == []


def test_only_the_last_builds_are_kept(tmp_path: Path) -> None:
    """The folder does not grow for ever."""
    for number in range(history.KEPT + 3):
        build(tmp_path, Machine(), f"{number:064x}", scheduler="x")
    assert len(list((tmp_path / "history").iterdir())) == history.KEPT
    assert not (tmp_path / "history" / f"{0:064x}.json").exists()


def test_the_inputs_of_this_checkout_are_found() -> None:
    """Sources, boxes' files and the lock; no bytecode."""
    found = history.inputs()
    assert {"vmm/main.py", "boot/packages.lock", "guests/witness/box.toml", "dsl/compiler/pipeline.py"} <= found.keys()
    assert not any("__pycache__" in name for name in found)
