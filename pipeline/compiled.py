"""Compiled programs as a build needs them, found again by all that they come from: an unchanged tree is not compiled.

A program comes from every source that it may import, the compiler's among them (tests/test_layers.py holds programs to these folders),
from Python and the tools, and from what is asked for. If any of it changed, everything is compiled again; what the compiler generated for
single functions it finds itself (dsl/compiler/cache.py).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.entries import Entries

if TYPE_CHECKING:
    from dsl.compiler.pipeline import Program

FOLDERS = ("boot", "dsl", "guests", "vmm")
TOOLS = ("peachpy", "keystone-engine", "capstone")
DIGEST = 32  # bytes in front of an entry
PE_BASE = 0x10000, 0x1000  # a base of which a PE can be made: remainder of the first, the second
Symbols = dict[str, tuple[int, int, str]]


@dataclass(frozen=True)
class Compiled:
    """A compiled program: what dsl.compiler.pipeline.Program gives, all made already."""

    image: bytes
    memory_size: int
    symbols: Symbols
    files: dict[str, bytes]

    def elf(self) -> bytes:
        return self.files["elf"]

    def pe(self) -> bytes:
        """Only of a program whose base a PE can have; KeyError for others."""
        return self.files["pe"]

    def map(self) -> str:
        return self.files["map"].decode()

    def listing(self) -> str:
        return self.files["listing"].decode()


@cache
def digest_of_sources() -> str:
    """Of all sources that a program may come from, how entries are written, Python's and the tools' versions."""
    state = hashlib.sha256(sys.version.encode())
    for name in TOOLS:
        state.update(f"{name} {version(name)};".encode())
    files = [path for folder in FOLDERS for path in (paths.ROOT / folder).rglob("*.py")]
    for path in sorted([*files, paths.ROOT / "pipeline" / "compiled.py"]):
        content = path.read_bytes()
        state.update(f"{path.relative_to(paths.ROOT)} {len(content)};".encode() + content)
    return state.hexdigest()


def key_of(name: str, base: int, pool: int | None, supplied: Mapping[str, bytes]) -> str | None:
    """The entry of `module:function` compiled so; None for one outside the folders of programs, whose sources nobody knows."""
    if name.partition(".")[0] not in FOLDERS:
        return None
    tables = sorted((table, hashlib.sha256(content).hexdigest()) for table, content in supplied.items())
    return hashlib.sha256(repr((digest_of_sources(), name, base, pool, tables)).encode()).hexdigest()


def load(entries: Entries, key: str | None) -> Compiled | None:
    """The program kept under a key, if its entry is whole."""
    entry = entries.get(key, b"") if key else b""
    if hashlib.sha256(entry[DIGEST:]).digest() != entry[:DIGEST]:
        return None
    head, _, content = entry[DIGEST:].partition(b"\n")
    values: dict[str, Any] = json.loads(head)
    parts: dict[str, bytes] = {}
    for name, size in values["sizes"].items():
        parts[name], content = content[:size], content[size:]
    symbols = {name: (address, size, kind) for name, (address, size, kind) in values["symbols"].items()}
    return Compiled(parts.pop("image"), values["memory_size"], symbols, parts)


def keep(entries: Entries, key: str | None, program: Program) -> Compiled:
    """The program as the build needs it, kept under a key if it has one."""
    files = {"elf": program.elf(), "map": program.map().encode(), "listing": program.listing().encode()}
    if program.base % PE_BASE[0] == PE_BASE[1]:
        files["pe"] = program.pe()
    parts = {"image": program.image, **files}
    sizes = {name: len(part) for name, part in parts.items()}
    head = json.dumps({"memory_size": program.memory_size, "symbols": program.symbols, "sizes": sizes})
    if key:
        content = head.encode() + b"\n" + b"".join(parts.values())
        entries[key] = hashlib.sha256(content).digest() + content
    return Compiled(program.image, program.memory_size, program.symbols, files)
