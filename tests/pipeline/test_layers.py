"""Imports point down (the map is in README.md): what a folder may import, checked on every file's AST."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# For each folder, the packages of this tree that its files may import; a file may always import its own folder.
MAY_IMPORT = {
    "dsl/lang": (),
    "dsl/hw": ("dsl.lang",),
    "dsl/std": ("dsl.lang", "dsl.hw"),
    "dsl/compiler": ("dsl.lang",),
    "boot": ("dsl.lang", "dsl.hw", "dsl.std"),
    "vmm": ("dsl.lang", "dsl.hw", "dsl.std", "boot.handoff"),
    "guests": ("dsl.lang", "dsl.hw", "dsl.std", "vmm.abi"),
    "pipeline": ("dsl", "boot", "vmm", "guests"),
}
# 16 and 32-bit stages are assembler listings, not machine functions: the one place outside the compiler that assembles.
EXCEPTIONS = {("boot/stages.py", "dsl.compiler.listing")}
OURS = ("dsl", "boot", "vmm", "guests", "pipeline", "tests", "build")
ASSEMBLERS = ("peachpy", "keystone", "capstone")


def python_files(folder: str) -> list[Path]:
    """All Python files under a folder of the tree."""
    return sorted((ROOT / folder).rglob("*.py"))


def modules_imported(source: str) -> Iterator[str]:
    """Every module that a file names in an import, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, package: str) -> bool:
    """Whether a module is a package, or in it."""
    return module == package or module.startswith(package + ".")


def violations(path: str, source: str, folder: str) -> list[str]:
    """Imports of a file that its folder may not make."""
    allowed = (folder.replace("/", "."), *MAY_IMPORT[folder])
    return [
        module
        for module in modules_imported(source)
        if module.split(".")[0] in OURS
        and not any(is_within(module, package) for package in allowed)
        and not any(path == file and is_within(module, package) for file, package in EXCEPTIONS)
    ]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_down(folder: str) -> None:
    """No file imports a layer above its own."""
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in python_files(folder)
        if (wrong := violations(str(path.relative_to(ROOT)), path.read_text(), folder))
    }
    assert found == {}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_only_the_encoder_imports_assemblers(folder: str) -> None:
    """PeachPy, Keystone and Capstone are named under dsl/compiler alone."""
    if folder == "dsl/compiler":
        pytest.skip("the encoder's own folder")
    found = [
        (str(path.relative_to(ROOT)), module)
        for path in python_files(folder)
        for module in modules_imported(path.read_text())
        if module.split(".")[0] in ASSEMBLERS
    ]
    assert found == []


def test_a_violation_is_seen() -> None:
    """The check itself notices an upward import, and the exceptions hold for their own file alone."""
    assert violations("dsl/std/x.py", "from boot import header", "dsl/std") == ["boot.header"]
    assert violations("boot/other.py", "import dsl.compiler.listing", "boot") == ["dsl.compiler.listing"]
    assert violations("boot/stages.py", "from dsl.compiler.listing import assemble", "boot") == []
    assert violations("vmm/x.py", "from boot.handoff import Handoff\nfrom boot import header", "vmm") == ["boot.header"]
