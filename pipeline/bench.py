"""Measurements as rows: ours, an anchor, their ratio, the unit, and how it was counted. Counted instructions before wall time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import paths
from pipeline.bench_rows import Row
from pipeline.errors import OK
from pipeline.progress import say

TRUSTED_FOLDERS = ("boot", "vmm")
IMAGE_LIMIT = 64 << 10  # bytes of loader and monitor: the number to reach
TEXT_LIMIT = 48 << 10
LINES_LIMIT = 8000
BUILD_LIMIT, WARM_LIMIT = 10.0, 2.0  # seconds


def code_lines(path: Path) -> int:
    """Lines of a Python file that hold code: no blank lines, comments or docstrings."""
    import ast

    source = path.read_text()
    lines: set[int] = set()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and node.body and ast.get_docstring(node) is not None:
            first = node.body[0]
            skipped |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        if isinstance(node, (ast.stmt, ast.expr)):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    text = source.splitlines()
    return sum(
        1 for number in lines - skipped if text[number - 1].strip() and not text[number - 1].lstrip().startswith("#")
    )


def trusted_files() -> list[Path]:
    """The files of boot and vmm, and those of dsl/std and dsl/hw that they import, directly or not."""
    import ast

    files: dict[Path, None] = dict.fromkeys(
        path for folder in TRUSTED_FOLDERS for path in sorted((paths.ROOT / folder).rglob("*.py"))
    )
    waiting = list(files)
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            path = paths.ROOT / (node.module.replace(".", "/") + ".py")
            if node.module.startswith(("dsl.std", "dsl.hw")) and path.exists() and path not in files:
                files[path] = None
                waiting.append(path)
    return list(files)


def size() -> list[Row]:
    """Image and text sizes, and lines of trusted source."""
    from pipeline import assemble

    built = assemble.build(assemble.Choices(assemble.box_folders(None), 1 << 30))
    rows = []
    both = text = 0
    for name in ("loader", "monitor"):
        program = built.programs[name]
        code = sum(size for _, size, kind in program.symbols.values() if kind == "function")
        both, text = both + len(program.image), text + code
        rows.append(Row(f"{name}: flat image", len(program.image), None, "bytes", "the flat program as linked"))
        rows.append(Row(f"{name}: text", code, None, "bytes", "all functions, without the space between them"))
    target = "sum; the anchor is the number to reach"
    rows.append(Row("loader + monitor: flat images", both, IMAGE_LIMIT, "bytes", target))
    rows.append(Row("loader + monitor: text", text, TEXT_LIMIT, "bytes", target))
    rows.append(Row("disk image", len(built.disk), None, "bytes", "whole raw image, sparse"))
    lines = {path: code_lines(path) for path in trusted_files()}
    how = "without blank lines, comments and docstrings"
    for folder in ("boot", "vmm", "dsl/std", "dsl/hw"):
        part = sum(count for path, count in lines.items() if path.is_relative_to(paths.ROOT / folder))
        rows.append(Row(f"trusted source: {folder}", part, None, "lines", how))
    whole = f"boot, vmm and what they import of dsl.std and dsl.hw, {how}; the anchor is the number to reach"
    rows.append(Row("trusted source", sum(lines.values()), LINES_LIMIT, "lines", whole))
    return rows


def build() -> list[Row]:
    """Wall and processor time of a build in a fresh process: first with no code of before, Python's or ours, then with that."""
    command = [sys.executable, str(paths.ROOT / "build.py"), "build"]
    rows = []
    shutil.rmtree(paths.COMPILED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        for name, limit in (("cold", BUILD_LIMIT), ("warm", WARM_LIMIT)):
            began, used = time.monotonic(), child_seconds()
            subprocess.run(command, cwd=paths.ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
            wall, busy = time.monotonic() - began, child_seconds() - used
            how = "`build.py build` in a fresh process; the anchor is the number to reach"
            rows.append(Row(f"build, {name}", round(wall, 2), limit, "s", f"wall time of {how}"))
            rows.append(
                Row(f"build, {name}, processor time", round(busy, 2), limit, "s", f"user and system time of {how}")
            )
    return rows


def child_seconds() -> float:
    """Processor time of the processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def exits() -> list[Row]:
    """Monitor instructions for each kind of exit."""
    from pipeline import bench_exits

    return bench_exits.rows()


def boot() -> list[Row]:
    """Instructions from the loader's start to the first guest's, and of a Linux boot."""
    from pipeline import bench_boot

    return bench_boot.rows()


def handover() -> list[Row]:
    """Instructions from firmware's hand-over to the monitor, on both firmwares."""
    from pipeline import bench_handover

    return bench_handover.rows()


BENCHES: dict[str, Callable[[], list[Row]]] = {
    "exits": exits,
    "boot": boot,
    "handover": handover,
    "size": size,
    "build": build,
}


def report(name: str, as_json: bool) -> int:
    """Run one bench and print its rows."""
    say(f"bench {name}")
    if name == "language":
        from pipeline import bench_language

        return bench_language.report(as_json)
    if name == "crypto":
        from pipeline import bench_crypto

        return bench_crypto.report(as_json)
    rows = BENCHES[name]()
    if as_json:
        print(json.dumps({"rows": [row.values() for row in rows]}, indent=1))
        return OK
    for row in rows:
        values = row.values()
        held = "" if row.anchor is None else f"  anchor {row.anchor:,}  ratio {values['ratio']}"
        print(f"{row.name:34} {row.ours:>14,} {row.unit}{held}")
    return OK
