"""The compile cache: a warm compilation is the cold one byte for byte, and takes from the cache exactly what is still true."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from dsl.compiler.cache import DIGEST
from dsl.compiler.pipeline import Program, compile_function
from tests.compiler import programs

pytestmark = pytest.mark.t1
SOURCE: Final = '''
from __future__ import annotations
from dsl.lang import Struct, machine, static, static_array, u64

class Row(Struct):
    """Two fields."""
    first: u64
    second: u64

ROW = static(Row)
CELLS = static_array(u64, 8)

@machine
def step() -> u64:
    """Inlined wherever it is called."""
    return u64(40)

@machine(depth=4)
def fill(count: u64) -> u64:
    """Calls itself, so it stays a function; uses the inlined one, a check and no struct."""
    if count == 0:
        return step()
    CELLS[count] = step()
    return fill(count - 1) + 1

@machine(depth=4)
def read(count: u64) -> u64:
    """Stays a function; uses the struct's second field."""
    return ROW.second + CELLS[count] if count == 0 else read(count - 1) + 1

@machine
def entry(count: u64) -> u64:
    """Where the program starts."""
    ROW.second = count
    return fill(count) + read(count)
'''
FUNCTIONS: Final = {"sample.entry", "sample.fill", "sample.read"}


class Recorded(dict[str, bytes]):
    """A cache that tells which functions were generated."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[str] = set()

    def __setitem__(self, key: str, entry: bytes) -> None:
        super().__setitem__(key, entry)
        self.made.add(json.loads(entry[DIGEST:])["symbol"])

    def news(self) -> set[str]:
        """The functions that were written since the last call."""
        made, self.made = self.made, set()
        return made


class Samples:
    """Versions of SOURCE as modules of one name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch, self.count = folder, monkeypatch, 0

    def load(self, source: str) -> ModuleType:
        """A module with this text, in a folder of its own."""
        self.count += 1
        path = self.folder / str(self.count) / "sample.py"
        path.parent.mkdir()
        path.write_text(source)
        specification = importlib.util.spec_from_file_location("sample", path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        self.monkeypatch.setitem(sys.modules, "sample", module)
        specification.loader.exec_module(module)
        return module


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    """Removed from sys.modules at the end."""
    return Samples(tmp_path, monkeypatch)


def parts(program: Program) -> tuple[Any, ...]:
    """All that a program can be read as, source text left out."""
    return program.image, program.elf(), program.listing(), program.map(), program.linked.checks, program.linked.lines


CHANGES: Final[tuple[tuple[str, str, str, set[str]], ...]] = (
    # what changes, the text before and after, functions generated anew
    ("nothing", "", "", set()),
    ("an inlined callee's constant", "u64(40)", "u64(41)", {"sample.fill"}),
    ("a struct's offset", "    second: u64", "    between: u64\n    second: u64", {"sample.entry", "sample.read"}),
    ("a comment above an inlined function", "@machine\ndef step", "# why\n@machine\ndef step", set()),
    ("a comment in a function", "    if count == 0:\n", "    # why\n    if count == 0:\n", set()),
    ("two lines joined", ":\n        return step()", ": return step()", {"sample.fill"}),
    ("a constant that only one function holds", "fill(count - 1) + 1", "fill(count - 1) + 2", {"sample.fill"}),
)


@pytest.mark.parametrize(("_", "old", "new", "functions"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_warm_compilation_equals_the_cold_one(
    samples: Samples, _: str, old: str, new: str, functions: set[str]
) -> None:
    """Only what depends on the change is generated anew, and the result is what a compilation without a cache gives."""
    recorded = Recorded()
    before = parts(compile_function(samples.load(SOURCE).entry, cache=recorded))
    assert recorded.news() == FUNCTIONS
    assert old in SOURCE
    changed = samples.load(SOURCE.replace(old, new, 1) if old else SOURCE)
    warm = parts(compile_function(changed.entry, cache=recorded))
    assert recorded.news() == functions
    assert warm == parts(compile_function(changed.entry))
    assert (warm == before) == (not old)


def test_settings_are_part_of_the_key(samples: Samples) -> None:
    """Another pool or another set of passes takes nothing; the same takes all."""
    entry, recorded = samples.load(SOURCE).entry, Recorded()
    for options in ({}, {"pool": 4}, {"disable": ["fold"]}, {"pool": 4, "disable": ["fold"]}):
        first = parts(compile_function(entry, cache=recorded, **options))
        assert recorded.news() == FUNCTIONS
        assert first == parts(compile_function(entry, **options))
        assert parts(compile_function(entry, cache=recorded, **options)) == first
        assert recorded.news() == set()


def sealed(content: bytes) -> bytes:
    """Content behind its digest, as the cache keeps it."""
    return hashlib.sha256(content).hexdigest().encode() + content


DAMAGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "no JSON": lambda content: sealed(b"{"),
    "not UTF-8": lambda content: sealed(b"\xff"),
    "a list": lambda content: sealed(b"[1]"),
    "no values": lambda content: sealed(b"{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_a_miss_and_written_again(samples: Samples, damage: str) -> None:
    """Whatever stands in an entry, the program is the same, and the entry is whole afterwards."""
    entry, recorded = samples.load(SOURCE).entry, Recorded()
    whole = parts(compile_function(entry, cache=recorded))
    kept = dict(recorded)
    for key, content in kept.items():
        recorded.news()
        dict.__setitem__(recorded, key, DAMAGES[damage](content))
        assert parts(compile_function(entry, cache=recorded)) == whole
        assert recorded == kept
        assert len(recorded.news()) == 1


@pytest.mark.parametrize("function", [programs.order, programs.frame_objects, programs.dispatched, programs.loops])
def test_programs_of_all_kinds_come_back_whole(function: Any) -> None:
    """Slots, dispatch, intrinsics, checks and loops: a second compilation generates nothing and is the first."""
    recorded = Recorded()
    first = parts(compile_function(function, cache=recorded))
    assert recorded.news()
    assert parts(compile_function(function, cache=recorded)) == first
    assert recorded.news() == set()
    assert first == parts(compile_function(function))
