"""A measurement as a row, and small images to measure with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import paths

MEBIBYTE = 1 << 20
BENCH_OUT = paths.CACHE / "bench"  # images to measure with: out/ keeps what `build` made


@dataclass(frozen=True)
class Row:
    """One measurement. `anchor`: what it is held against, or None."""

    name: str
    ours: float
    anchor: float | None
    unit: str
    how: str

    def values(self) -> dict[str, object]:
        """As JSON has it."""
        ratio = None if not self.anchor else round(self.ours / self.anchor, 4)
        return {**asdict(self), "ratio": ratio}


def build_image(boxes: str, memory: int) -> tuple[Any, Path]:
    """Build an image of these boxes (names, separated by commas) for a machine of `memory` MiB; what was built, and the image's path."""
    from pipeline import assemble

    built = assemble.build(assemble.Choices(assemble.box_folders(boxes), memory * MEBIBYTE))
    assemble.write(built, BENCH_OUT)
    return built, BENCH_OUT / "terrane.img"
