"""A program beside its source, for a terminal and for a notebook: address, bytes, instruction, source line."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from html import escape

from dsl.compiler.frames import steps_by_function
from dsl.compiler.link import Linked

Row = tuple[str, str, str, str]


def source_line(file: str, line: int) -> str:
    """The text of a source line, by the name that spans have; empty if its module is not loaded."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and ("/" + path.replace("\\", "/")).endswith("/" + file):
            return linecache.getline(path, line).rstrip()
    return ""


def rows(linked: Linked) -> Iterator[tuple[str, list[Row]]]:
    """Each function with its rows; the source line stands where it changes."""
    places = dict(linked.places())
    for name, steps in steps_by_function(linked).items():
        found: list[Row] = []
        before = None
        for step in steps:
            place = places.get(step.address)
            shown = ""
            if place and place != before:
                shown = f"{place[0].rpartition('/')[2]}:{place[1]}  {source_line(*place)}"
                before = place
            code = linked.image[step.address - linked.base : step.end - linked.base].hex()
            found.append((f"{step.address:x}", code, step.text, shown))
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
        cells = "".join(
            "<tr>" + "".join(f'<td style="text-align:left"><pre>{escape(cell)}</pre></td>' for cell in row) + "</tr>"
            for row in found
        )
        out.append(f'<details open="open"><summary>{escape(name)}</summary><table>{cells}</table></details>')
    return "".join(out)
