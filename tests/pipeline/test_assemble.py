"""Which boxes are built, and what a wrong choice says."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dsl.compiler.diagnostics import CompileError
from pipeline import assemble, cli, paths
from pipeline.errors import PipelineError, UsageError

pytestmark = pytest.mark.t0


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two boxes, one of which is built only when it is named."""
    for name, text in (("one", ""), ("two", "default = false\n"), ("three", "default = true\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "box.toml").write_text(text)
    (tmp_path / "no-box").mkdir()
    monkeypatch.setattr(paths, "GUESTS", tmp_path)
    return tmp_path


def names(choice: str | None) -> list[str]:
    """The folders that a --boxes chooses."""
    return [folder.name for folder in assemble.box_folders(choice)]


def test_the_boxes_of_an_image(guests: Path) -> None:
    """All that do not say otherwise, or those that are named."""
    assert names(None) == ["one", "three"]
    assert names("two, one") == ["two", "one"]
    with pytest.raises(
        UsageError, match=r"expected folders under guests/ with a box.toml \(one, three, two\), found 'no-box'"
    ):
        names("no-box")
    with pytest.raises(UsageError, match="--boxes: expected at least one name, found none"):
        names(" , ")


def test_a_program_that_is_not_there() -> None:
    """Module or function missing: a message with its name, no traceback."""
    for name in ("guests.absent.main:start", "guests.witness.main:absent"):
        with pytest.raises(UsageError, match=f"{name}: expected a machine function of that name"):
            assemble.machine_function(name)


def test_a_mistake_in_a_programs_module_is_an_error_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the build asks for the module, or imports it for its own use."""
    (tmp_path / "mistaken.py").write_text("x = = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CompileError, match=r"mistaken\.py:1:5: error\[syntax\]: invalid syntax"):
        assemble.machine_function("mistaken:start")
    monkeypatch.setattr(cli, "build", lambda _options: __import__("mistaken"))
    with pytest.raises(PipelineError, match=r"mistaken\.py:1:5: error\[syntax\]: invalid syntax"):
        cli.perform(argparse.Namespace(verb="build"))


def test_a_loader_beyond_its_section_is_refused() -> None:
    with pytest.raises(PipelineError, match="loader body: expected 1024 to 458752 bytes, in 1024s, found 1048576"):
        assemble.loader_stages(bytes(1 << 20), 1 << 20)


def test_an_entry_is_read_from_a_flat_programs_head() -> None:
    """Offset from the base; another magic is refused."""
    assert assemble.entry_of(b"TRNFLAT1" + (0x140).to_bytes(4, "little"), 0x200000) == 0x200140
    with pytest.raises(PipelineError, match="expected the magic b'TRNFLAT1'"):
        assemble.entry_of(bytes(64), 0)
