"""`size` accounts for every byte of the images, compares revisions, and draws areas in proportion."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import size, treemap
from pipeline.errors import PipelineError, UsageError
from pipeline.size import Row, Sizes

pytestmark = pytest.mark.t0
ROOT = Path(__file__).resolve().parents[2]
BEFORE = Sizes(
    (
        Row("loader", "boot/main.py", "boot.main.start", "code", 100),
        Row("loader", "boot/main.py", "boot.main.gone", "code", 50),
        Row("loader", "dsl/std/sha256.py", "dsl.std.sha256.K", "data", 256),
        Row("loader", "boot/main.py", "boot.main.STACK", "zeroed", 65536),
    ),
    {"loader": 4096},
)
AFTER = Sizes(
    (
        Row("loader", "boot/main.py", "boot.main.start", "code", 130),
        Row("loader", "boot/main.py", "boot.main.fresh", "code", 7),
        Row("loader", "dsl/std/sha256.py", "dsl.std.sha256.K", "data", 256),
    ),
    {"loader": 8192},
)


@pytest.fixture(scope="module")
def now() -> Sizes:
    return size.measure(ROOT)


@pytest.mark.slow
def test_every_byte_of_the_images_has_a_row(now: Sizes) -> None:
    for program, image in now.images.items():
        assert sum(row.size for row in now.rows if row.program == program and row.kind != "zeroed") == image
        assert all(row.size >= 0 for row in now.rows)


def test_symbols_belong_to_their_files(now: Sizes) -> None:
    files = {row.file for row in now.rows} - {"linker"}
    assert {"boot/main.py", "vmm/main.py"} <= files
    assert all((ROOT / file).is_file() for file in files)
    for row in now.rows:
        if row.file != "linker":
            assert row.symbol.startswith(row.file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))


def test_the_difference_names_what_came_went_and_grew() -> None:
    assert size.difference(BEFORE, AFTER) == [
        ("loader boot.main.STACK", 65536, 0),
        ("loader boot.main.gone", 50, 0),
        ("loader boot.main.start", 100, 130),
        ("loader boot.main.fresh", 0, 7),
    ]
    shown = size.difference_text("HEAD~1", BEFORE, AFTER).splitlines()
    assert shown[3].split() == ["loader", "boot.main.start", "100", "130", "+30"]
    assert shown[2].endswith("-50  gone")
    assert shown[4].endswith("+7  new")
    assert shown[-1].split() == ["loader", "image", "4,096", "8,192", "+4,096"]


def test_the_tables_add_up() -> None:
    assert size.totals(BEFORE.rows, 1) == {
        "loader boot": {"code": 150, "data": 0, "zeroed": 65536},
        "loader dsl/std": {"code": 0, "data": 256, "zeroed": 0},
    }
    assert "loader dsl/std/sha256.py" in size.text(BEFORE)


def test_an_unknown_revision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--against: expected a revision of this repository, found 'no-such'"):
        size.extract("no-such", tmp_path)


def test_a_tree_that_does_not_compile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="expected loader and monitor to compile"):
        size.measure(tmp_path)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40), st.integers(20, 800), st.integers(20, 800))
def test_areas_are_in_proportion_and_do_not_overlap(sizes: list[int], width: int, height: int) -> None:
    sizes.sort(reverse=True)
    areas = treemap.squarify([float(each) for each in sizes], treemap.Area(0, 0, width, height))
    assert len(areas) == len(sizes)
    scale = width * height / sum(sizes)
    for each, area in zip(sizes, areas, strict=True):
        assert area.width * area.height == pytest.approx(each * scale, rel=1e-6)
        assert -1e-6 <= area.x <= area.x + area.width <= width + 1e-6
        assert -1e-6 <= area.y <= area.y + area.height <= height + 1e-6
    for index, one in enumerate(areas):
        for other in areas[index + 1 :]:
            across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert across < 1e-6 or down < 1e-6


def test_a_folder_has_one_colour_in_all_programs() -> None:
    """Whatever its rank by size."""
    sizes = {("loader", "boot"): 9, ("loader", "dsl"): 5, ("monitor", "vmm"): 9, ("monitor", "dsl"): 20}
    rows = [size.Row(program, f"{folder}/a.py", "f", "code", count) for (program, folder), count in sizes.items()]
    picture = ElementTree.fromstring(treemap.draw(size.tree(size.Sizes(tuple(rows), {}))))
    name = "{http://www.w3.org/2000/svg}"
    colours: dict[str, set[str | None]] = {}
    for group in picture.iter(f"{name}g"):
        title, rectangle = group.find(f"{name}title"), group.find(f"{name}rect")
        assert title is not None
        assert rectangle is not None
        parts = str(title.text).partition(":")[0].split("/")
        if len(parts) == 3:
            colours.setdefault(parts[2], set()).add(rectangle.get("fill"))
    assert {folder: len(found) for folder, found in colours.items()} == {"boot": 1, "dsl": 1, "vmm": 1}
    assert len(set().union(*colours.values())) == 3


def test_the_picture_shows_every_large_symbol() -> None:
    picture = ElementTree.fromstring(treemap.draw(size.tree(BEFORE)))
    titles = {title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")}
    assert "Terrane/loader/boot/main.py/start: 100 bytes" in titles
    assert "Terrane/loader/dsl/std/sha256.py/K: 256 bytes" in titles
    assert not any("STACK" in str(title) for title in titles)  # not in the image
