"""Programs found again: the same bytes as compiled, and only while nothing that they come from has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsl.compiler.pipeline import compile_program
from guests.meter.main import start
from pipeline import compiled, paths
from pipeline.entries import Entries

pytestmark = pytest.mark.t1
BASE = 0x101000
NAME = "guests.meter.main:start"


def test_what_is_found_is_what_was_kept(tmp_path: Path) -> None:
    """Image, symbols and every file."""
    entries, key = Entries(tmp_path, 1 << 24), compiled.key_of(NAME, BASE, None, {})
    assert compiled.load(entries, key) is None
    program = compile_program(start, base=BASE)
    kept = compiled.keep(entries, key, program)
    assert compiled.load(entries, key) == kept
    assert (kept.image, kept.memory_size, kept.symbols) == (program.image, program.memory_size, program.symbols)
    assert (kept.elf(), kept.listing(), kept.map()) == (program.elf(), program.listing(), program.map())


def test_a_damaged_entry_is_not_found(tmp_path: Path) -> None:
    """Cut, changed, or empty."""
    entries = Entries(tmp_path, 1 << 24)
    compiled.keep(entries, "name", compile_program(start, base=BASE))
    whole = entries["name"]
    for damaged in (whole[:-1], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], b""):
        entries["name"] = damaged
        assert compiled.load(entries, "name") is None


def test_the_key_is_of_all_that_a_program_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources of programs, language and compiler, added or changed; name, base, pool and tables; nothing else."""
    for name in (
        "vmm/main.py",
        "dsl/compiler/link.py",
        "guests/meter/main.py",
        "pipeline/compiled.py",
        "docs/primes.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("A = 1\n")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "digest_of_sources", compiled.digest_of_sources.__wrapped__)

    def keys() -> list[str | None]:
        asked = [
            (NAME, BASE, None, {}),
            (NAME, BASE + 4096, None, {}),
            (NAME, BASE, 5, {}),
            (NAME, BASE, None, {"t": b"1"}),
        ]
        return [compiled.key_of(*row) for row in asked]

    first = keys()
    assert len(set(first)) == 4
    (tmp_path / "docs/primes.py").write_text("A = 2\n")
    assert keys() == first
    for name in ("vmm/main.py", "dsl/compiler/link.py", "guests/meter/new.py"):
        (tmp_path / name).write_text("A = 2\n")
        assert not set(keys()) & set(first)
        first = keys()
    assert compiled.key_of("docs.primes:start", BASE, None, {}) is None
