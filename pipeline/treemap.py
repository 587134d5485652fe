"""A treemap as SVG: nested rectangles whose areas are sizes (squarified: Bruls, Huizing, van Wijk 2000)."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 1600, 1000
HEAD = 16  # pixels of a box's title
GAP = 1.0
LETTER = 6.2  # pixels of a letter at the font's size
COLOURS = ("#8ecae6", "#ffb703", "#a7c957", "#e29578", "#cdb4db", "#90be6d", "#f4a261", "#bde0fe")


@dataclass
class Node:
    """A rectangle: a leaf with a size, or a box of others, whose size is their sum."""

    name: str
    size: float = 0
    children: list[Node] = field(default_factory=list)

    @property
    def total(self) -> float:
        """The size with all that is inside."""
        return self.size + sum(child.total for child in self.children)


@dataclass(frozen=True)
class Area:
    """Where a rectangle is, in pixels."""

    x: float
    y: float
    width: float
    height: float


def squarify(sizes: list[float], area: Area) -> list[Area]:
    """Areas in proportion to positive sizes, which descend, as near to squares as rows of them get."""
    places: list[Area] = []
    scale = area.width * area.height / sum(sizes) if sizes else 0.0
    rest = [size * scale for size in sizes]
    while rest:
        side = min(area.width, area.height)
        count = 1
        while count < len(rest) and worst(rest[: count + 1], side) <= worst(rest[:count], side):
            count += 1
        row, rest = rest[:count], rest[count:]
        thick = sum(row) / side if side > 0 else 0.0
        along = 0.0
        for piece in row:
            length = piece / thick if thick > 0 else 0.0
            if area.width >= area.height:
                places.append(Area(area.x, area.y + along, thick, length))
            else:
                places.append(Area(area.x + along, area.y, length, thick))
            along += length
        if area.width >= area.height:
            area = Area(area.x + thick, area.y, max(area.width - thick, 0.0), area.height)
        else:
            area = Area(area.x, area.y + thick, area.width, max(area.height - thick, 0.0))
    return places


def worst(row: list[float], side: float) -> float:
    """The worst ratio of sides in a row of areas along a side."""
    total = sum(row)
    if total <= 0 or side <= 0:
        return float("inf")
    return max(max(side * side * piece / total**2, total**2 / (side * side * piece)) for piece in row)


def draw(root: Node) -> str:
    """The SVG of a tree. Each rectangle names itself when the pointer rests on it."""
    frame = f'width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="monospace" font-size="10">',
        f'<rect {frame} fill="#ffffff"/>',
    ]
    folders = sorted({folder.name for program in root.children for folder in program.children})
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(folders)}  # one in all programs
    _draw(root, Area(0, 0, WIDTH, HEIGHT), root.name, colours, "#eeeeee", 0, lines)
    return "\n".join([*lines, "</svg>", ""])


def _draw(
    node: Node, area: Area, path: str, colours: dict[str, str], colour: str, depth: int, lines: list[str]
) -> None:
    if area.width < 1 or area.height < 1:
        return
    title = f"{path}: {node.total:,.0f} bytes"
    lines.append(
        f'<g><title>{escape(title)}</title><rect x="{area.x:.1f}" y="{area.y:.1f}" width="{area.width:.1f}" '
        f'height="{area.height:.1f}" fill={quoteattr(colour)} stroke="#333333" stroke-width="{0.3 if depth > 2 else 1}"/>'
    )
    label = f"{node.name} {node.total:,.0f}"
    room = int((area.width - 4) / LETTER)
    if area.height >= 11 and room >= 4:
        shown = label if len(label) <= room else label[: room - 1] + "…"
        lines.append(f'<text x="{area.x + 2:.1f}" y="{area.y + 11:.1f}">{escape(shown)}</text>')
    lines.append("</g>")
    head = HEAD if node.children and area.height > 2 * HEAD else 0
    inner = Area(area.x + GAP, area.y + head + GAP, area.width - 2 * GAP, area.height - head - 2 * GAP)
    if not node.children or inner.width <= 1 or inner.height <= 1:
        return
    children = sorted(
        (child for child in node.children if child.total > 0), key=lambda child: (-child.total, child.name)
    )
    places = squarify([child.total for child in children], inner)
    for child, place in zip(children, places, strict=True):
        below = colours[child.name] if depth == 1 else colour
        _draw(child, place, f"{path}/{child.name}", colours, below, depth + 1, lines)
