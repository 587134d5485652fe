"""What people read about a program: its listing, its map, and itself beside its source, for a terminal and for a notebook."""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from dsl.compiler.link import Linked, Place
from dsl.compiler.source import display_name

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


def rows(linked: Linked, show: Callable[[Place], str]) -> Iterator[tuple[str, list[Row]]]:
    """Each function with its rows: address, bytes, text, and what is shown of the source place where that changes."""
    for name, steps in linked.functions.items():
        before: Place | None = None
        found: list[Row] = []
        for step in steps:
            shown = show(step.place) if step.place and step.place != before else ""
            found.append((f"{step.address:x}", linked.code(step).hex(), step.text, shown))
            before = step.place or before
        yield name, found


def list_program(linked: Linked) -> str:
    """Address, bytes, text, and the source place wherever it changes."""
    parts = []
    for name, found in rows(linked, lambda place: "  ; {}:{}".format(*place)):
        lines = [f"  {address}  {code:<22} {text:<44}{shown}".rstrip() for address, code, text, shown in found]
        parts.append("\n".join([f"{name}:", *lines]))
    return "\n\n".join(parts) + "\n"


def map_program(linked: Linked) -> str:
    """Every symbol: address, size, kind, name; by address."""
    rows = sorted((symbol.address, symbol.size, symbol.kind, name) for name, symbol in linked.symbols.items())
    return "".join(f"{address:016x} {size:8} {kind:9} {name}\n" for address, size, kind, name in rows)


def source_line(place: Place) -> str:
    """A place with the text of its line."""
    return f"{place[0].rpartition('/')[2]}:{place[1]}  {source_text(place)}"


def source_text(place: Place) -> str:
    """The line at a place; empty if its module is not loaded."""
    file, line = place
    paths = {name: str(getattr(module, "__file__", None)) for name, module in list(sys.modules.items())}
    path = next((path for name, path in paths.items() if display_name(path, name) == file), "")
    return linecache.getline(path, line).rstrip()


def as_text(linked: Linked) -> str:
    """Side by side in columns as wide as they need to be."""
    out = []
    for name, found in rows(linked, source_line):
        widths = [max((len(row[column]) for row in found), default=0) for column in range(3)]
        out.append(f"{name}:")
        for row in found:
            columns = "  ".join(row[column].ljust(widths[column]) for column in range(3))
            out.append(f"  {columns}  {'| ' + row[3] if row[3] else '|'}")
    return "\n".join(out) + "\n"


def as_html(linked: Linked) -> str:
    """One table a function."""
    out = []
    for name, found in rows(linked, source_line):
        lines = (
            "".join(f'<td style="text-align:left"><pre>{escape(cell)}</pre></td>' for cell in row) for row in found
        )
        cells = "".join(f"<tr>{line}</tr>" for line in lines)
        out.append(f'<details open="open"><summary>{escape(name)}</summary><table>{cells}</table></details>')
    return "".join(out)
