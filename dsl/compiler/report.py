"""What people read about a program: its listing, its map, and itself beside its source, for a terminal and for a notebook."""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from dsl.compiler.link import Linked, Place, Step

Row = tuple[str, str, str, str]


@contextmanager
def without_collector() -> Iterator[None]:
    """Run without the cyclic garbage collector, which costs a compilation 40 percent of its time and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def steps_and_places(steps: list[Step]) -> Iterator[tuple[Step, Place | None]]:
    """Each instruction of a function, with its source place where that changes."""
    before: Place | None = None
    for step in steps:
        yield step, None if step.place == before else step.place
        before = step.place or before


def list_program(linked: Linked) -> str:
    """Address, bytes, text, and the source place wherever it changes."""
    lines: list[str] = []
    for name, steps in linked.functions.items():
        lines += ["", f"{name}:"]
        for step, place in steps_and_places(steps):
            shown = "  ; {}:{}".format(*place) if place else ""
            lines.append(f"  {step.address:x}  {linked.code(step).hex():<22} {step.text:<44}{shown}".rstrip())
    return "\n".join(lines).lstrip() + "\n"


def map_program(linked: Linked) -> str:
    """Every symbol: address, size, kind, name; by address."""
    rows = sorted((symbol.address, symbol.size, symbol.kind, name) for name, symbol in linked.symbols.items())
    return "".join(f"{address:016x} {size:8} {kind:9} {name}\n" for address, size, kind, name in rows)


def source_line(file: str, line: int) -> str:
    """The text of a source line, by the name that spans have; empty if its module is not loaded."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and ("/" + path.replace("\\", "/")).endswith("/" + file):
            return linecache.getline(path, line).rstrip()
    return ""


def rows(linked: Linked) -> Iterator[tuple[str, list[Row]]]:
    """Each function with its rows: address, bytes, text, and the source line where it changes."""
    for name, steps in linked.functions.items():
        found: list[Row] = []
        for step, place in steps_and_places(steps):
            shown = f"{place[0].rpartition('/')[2]}:{place[1]}  {source_line(*place)}" if place else ""
            found.append((f"{step.address:x}", linked.code(step).hex(), step.text, shown))
        yield name, found


def as_text(linked: Linked) -> str:
    """Side by side in columns as wide as they need to be."""
    out = []
    for name, found in rows(linked):
        widths = [max((len(row[column]) for row in found), default=0) for column in range(3)]
        out.append(f"{name}:")
        for row in found:
            columns = "  ".join(row[column].ljust(widths[column]) for column in range(3))
            out.append(f"  {columns}  {'| ' + row[3] if row[3] else '|'}")
    return "\n".join(out) + "\n"


def as_html(linked: Linked) -> str:
    """One table a function."""
    out = []
    for name, found in rows(linked):
        lines = (
            "".join(f'<td style="text-align:left"><pre>{escape(cell)}</pre></td>' for cell in row) for row in found
        )
        cells = "".join(f"<tr>{line}</tr>" for line in lines)
        out.append(f'<details open="open"><summary>{escape(name)}</summary><table>{cells}</table></details>')
    return "".join(out)
