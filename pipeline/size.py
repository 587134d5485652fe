"""`size`: the bytes of loader and monitor by folder, file and function; as text, and as a picture in out/size.svg.

A function's bytes are those of the code that stands under its name, with what was inlined into it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths, treemap
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.progress import say, step

SCRIPT = paths.ROOT / "pipeline" / "symbol_sizes.py"
PICTURE = "size.svg"
LARGEST = 25  # functions in the text
MEASURE_SECONDS = 600


@dataclass(frozen=True)
class Row:
    """A symbol's size. kind: code, data (read-only), or zeroed (BSS, not in the image)."""

    program: str
    file: str
    symbol: str
    kind: str
    size: int


@dataclass(frozen=True)
class Sizes:
    """A checkout's sizes: rows, and the bytes of each program's image."""

    rows: tuple[Row, ...]
    images: dict[str, int]


def measure(folder: Path) -> Sizes:
    """Compile a checkout in a process of its own. Raises PipelineError with what that process said last."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=MEASURE_SECONDS,
    )  # fmt: skip
    if done.returncode != 0:
        said, _, errors = done.stderr.strip().rpartition("CompileError: ")
        last = errors if said else (errors.splitlines() or ["nothing"])[-1]
        raise PipelineError(f"{folder}: expected loader and monitor to compile; the compiler said: {last}")
    return read(json.loads(done.stdout))


def read(values: dict[str, Any]) -> Sizes:
    """What symbol_sizes.py printed."""
    rows = [Row(program, *row) for program, found in values.items() for row in found["rows"]]
    return Sizes(tuple(rows), {program: found["image"] for program, found in values.items()})


def extract(revision: str, folder: Path, root: Path = paths.ROOT) -> None:
    """Put a revision's files into a folder. Raises UsageError for one that git does not know."""
    done = subprocess.run(
        ["git", "archive", "--format=tar", revision, "--", "dsl", "boot", "vmm", "guests"],
        cwd=root, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise UsageError(f"--against: expected a revision of this repository, found {revision!r}: {said}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=done.stdout, check=True)


def measure_revision(revision: str) -> Sizes:
    """The sizes of a revision."""
    with tempfile.TemporaryDirectory() as folder:
        extract(revision, Path(folder))
        return measure(Path(folder))


def totals(rows: tuple[Row, ...], depth: int) -> dict[str, dict[str, int]]:
    """Bytes by kind of each folder (depth 1), file (2) or symbol (3) of each program."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        folder = row.file.rpartition("/")[0] or row.file
        name = " ".join((row.program, (folder, row.file, row.symbol)[depth - 1]))
        kinds = found.setdefault(name, dict.fromkeys(("code", "data", "zeroed"), 0))
        kinds[row.kind] += row.size
    return found


def text(sizes: Sizes) -> str:
    """The tables for a person."""
    lines = [f"{'':48}{'code':>9}{'data':>9}{'zeroed':>9}"]
    for title, depth in (("folders", 1), ("files", 2)):
        lines.append(f"-- {title}")
        rows = sorted(totals(sizes.rows, depth).items(), key=lambda row: (-row[1]["code"] - row[1]["data"], row[0]))
        lines += [f"{name:48}{kinds['code']:>9,}{kinds['data']:>9,}{kinds['zeroed']:>9,}" for name, kinds in rows]
    lines.append(f"-- the {LARGEST} largest functions")
    functions = sorted((row for row in sizes.rows if row.kind == "code"), key=lambda row: (-row.size, row.symbol))
    lines += [f"{f'{row.program} {row.symbol}':72}{row.size:>9,}" for row in functions[:LARGEST]]
    lines.append("-- images")
    lines += [f"{program:48}{size:>9,} bytes" for program, size in sizes.images.items()]
    return "\n".join(lines)


def difference(before: Sizes, after: Sizes) -> list[tuple[str, int, int]]:
    """(program and symbol, bytes before, bytes after) where they differ, the largest change first."""
    old = {name: sum(kinds.values()) for name, kinds in totals(before.rows, 3).items()}
    new = {name: sum(kinds.values()) for name, kinds in totals(after.rows, 3).items()}
    rows = [(name, old.get(name, 0), new.get(name, 0)) for name in {**old, **new}]
    return sorted((row for row in rows if row[1] != row[2]), key=lambda row: (-abs(row[2] - row[1]), row[0]))


def difference_text(revision: str, before: Sizes, after: Sizes) -> str:
    """What a change cost, for a person."""
    lines = [f"-- against {revision}: before, after, change"]
    lines += [
        f"{name:72}{old:>9,}{new:>9,}{new - old:>+9,}{'' if old and new else '  new' if new else '  gone'}"
        for name, old, new in difference(before, after)
    ]
    for program, size in after.images.items():
        old = before.images.get(program, 0)
        lines.append(f"{f'{program} image':72}{old:>9,}{size:>9,}{size - old:>+9,}")
    return "\n".join(lines)


def tree(sizes: Sizes) -> treemap.Node:
    """Program, folder, file, symbol; what is in the images."""
    root = treemap.Node("Terrane")
    nodes: dict[tuple[str, ...], treemap.Node] = {(): root}
    for row in sizes.rows:
        if row.kind == "zeroed":
            continue
        folder = row.file.rpartition("/")[0] or row.file
        path: tuple[str, ...] = ()
        for name in (row.program, folder, row.file.rpartition("/")[2], row.symbol.rpartition(".")[2]):
            parent, path = nodes[path], (*path, name)
            if path not in nodes:
                nodes[path] = treemap.Node(name)
                parent.children.append(nodes[path])
        nodes[path].size += row.size
    return root


def report(against: str | None, as_json: bool) -> int:
    """Measure, draw and print."""
    before = None
    if against is not None:  # first: a revision that does not exist is soon said
        with step(f"Compiling loader and monitor of {against}"):
            before = measure_revision(against)
    with step("Compiling loader and monitor"):
        after = measure(paths.ROOT)
    paths.OUT.mkdir(parents=True, exist_ok=True)
    (paths.OUT / PICTURE).write_text(treemap.draw(tree(after)))
    if as_json:
        values: dict[str, Any] = {"images": after.images, "rows": [vars(row) for row in after.rows]}
        if before is not None:
            values["against"] = {
                "revision": against,
                "images": before.images,
                "changes": [
                    {"symbol": name, "before": old, "after": new} for name, old, new in difference(before, after)
                ],
            }
        print(json.dumps(values, indent=1))
    else:
        print(text(after))
        if before is not None:
            print(difference_text(str(against), before, after))
    say(f"The picture is {(paths.OUT / PICTURE).relative_to(paths.ROOT)}")
    return OK
