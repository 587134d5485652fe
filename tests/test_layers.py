"""Imports point down: guests, boot and vmm to dsl.std, dsl.hw, dsl.lang; the compiler to dsl.lang; programs never to each other."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
ASSEMBLERS: Final = {"peachpy", "keystone", "capstone"}
ENCODERS: Final = {
    "dsl.compiler.capstone",
    "dsl.compiler.encode",
    "dsl.compiler.kernels",
    "dsl.compiler.keystone",
    "dsl.std.kernels.field25519",
    "dsl.std.kernels.sha2",
    "dsl.std.kernels.sha256",
    "dsl.std.kernels.target",
}

# What the modules of a layer may import of this tree, besides their own layer; first match decides.
LAYERS: Final = (
    ("dsl.lang", ()),
    ("dsl.hw", ("dsl.lang",)),
    ("dsl.std.kernels", ()),  # the cache knows a kernel by the files of this folder alone
    ("dsl.std", ("dsl.lang", "dsl.hw")),
    ("dsl.compiler", ("dsl.lang",)),
    ("boot.stages", ("dsl.compiler.listing",)),  # the stages before long mode are listings for the assembler
    ("boot", ("dsl.lang", "dsl.hw", "dsl.std")),
    ("vmm", ("dsl.lang", "dsl.hw", "dsl.std", "boot.handoff")),
    # guests.canaries and guests.tables are no programs
    ("guests", ("dsl.lang", "dsl.hw", "dsl.std", "vmm.abi", "guests.canaries", "guests.tables")),
    ("pipeline", ("dsl", "boot", "vmm", "guests")),
    ("build", ("pipeline",)),
    ("tests", ("dsl", "boot", "vmm", "guests", "pipeline", "build")),
)
OURS: Final = {"dsl", "boot", "vmm", "guests", "pipeline", "build", "tests"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every Python file of the tree, by its dotted name."""
    for top in sorted(OURS - {"build"}):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path
    yield "build", ROOT / "build.py"


def imports(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a source imports, inside functions too; a from-import gives both module and name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") if is_package else module.split(".")[:-1]
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def problem(module: str, imported: str) -> str | None:
    """Why a module may not import this name, or None."""
    top = imported.split(".", maxsplit=1)[0]
    if top in ASSEMBLERS and module not in ENCODERS and not within(module, "tests"):
        return f"{imported}: only {', '.join(sorted(ENCODERS))} may import assemblers"
    if top not in OURS:
        foreign = top not in sys.stdlib_module_names and top not in ASSEMBLERS
        bare = within(module, "dsl") or module.split(".", maxsplit=1)[0] in ("boot", "vmm", "guests", "build")
        return f"{imported}: nothing but the standard library here" if foreign and bare else None
    layer, allowed = next((layer, allowed) for layer, allowed in LAYERS if within(module, layer))
    mine = layer.split(".")[0]
    if layer.startswith("dsl."):
        mine = layer
    if layer == "guests":
        mine = ".".join(module.split(".")[:2])  # one guest does not import another
    if within(imported, mine) or any(within(imported, prefix) for prefix in allowed):
        return None
    return f"{layer} may import {', '.join(allowed) or 'nothing else of this tree'}, not {imported}"


@pytest.mark.t0
def test_layers() -> None:
    """No file of the tree imports what its layer may not."""
    found = []
    for module, path in modules():
        for line, imported in imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"):
            wrong = problem(module, imported)
            if wrong:
                found.append(f"{path.relative_to(ROOT)}:{line}: {wrong}")
    assert found == []


@pytest.mark.t0
@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dsl.lang.words", "import dsl.compiler.ir"),
        ("dsl.lang.words", "from ..hw import x86"),
        ("dsl.hw.x86", "from dsl.std.serial import serial_write"),
        ("dsl.std.serial", "from dsl.compiler import pipeline"),
        ("dsl.std.kernels.sha2", "from dsl.std.sha_blocks import PAD"),
        ("dsl.compiler.lower", "from dsl.hw import vmx"),
        ("dsl.compiler.lower", "def f():\n    import keystone"),
        ("boot.body", "from vmm.abi import VERSION"),
        ("boot.body", "from dsl.compiler.listing import assemble"),
        ("vmm.run", "from boot import header"),
        ("vmm.run", "import pipeline.image"),
        ("vmm.run", "import cryptography"),
        ("guests.witness.main", "from vmm import memory"),
        ("guests.witness.main", "from guests.intruder import main"),
        ("pipeline.image", "import tests.conftest"),
        ("pipeline.image", "import capstone"),
        ("build", "from dsl.lang import u8"),
        ("build", "import rich"),
    ],
)
def test_the_check_finds(module: str, source: str) -> None:
    """A planted import against the rules is found."""
    assert any(problem(module, imported) for _, imported in imports(source, module, is_package=False))


@pytest.mark.t0
@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vmm.run", "from boot.handoff import Handoff"),
        ("guests.witness.main", "from vmm.abi import VERSION\nfrom guests.witness.console import say"),
        ("boot.body", "from dsl.std import serial\nimport ast"),
        ("pipeline.image", "from dsl.compiler.pipeline import compile_program\nimport cryptography"),
        ("dsl.compiler.encode", "import peachpy"),
        ("tests.lang.test_x", "import capstone"),
    ],
)
def test_the_check_accepts(module: str, source: str) -> None:
    """What DESIGN allows passes."""
    assert not any(problem(module, imported) for _, imported in imports(source, module, is_package=False))
