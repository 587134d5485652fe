"""A program of its own: compile loader and monitor of any checkout and print their symbols' sizes as JSON.

`python symbol_sizes.py FOLDER`. It imports that folder's compiler, not this one's, so that revisions can be compared.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

PROGRAMS = (  # name, module of `start`, where its base is defined: module and name, or the base itself
    ("loader", "boot.main", ("boot.stages", "BODY_BASE")),
    ("UEFI loader", "boot.uefi", 0x401000),
    ("monitor", "vmm.main", ("boot.handoff", "MONITOR_BASE")),
)
KINDS = {"function": "code", "constant": "data", "object": "zeroed", "linker": "data"}


def file_of(symbol: str, folder: Path) -> str:
    """The source file that a symbol comes from; the linker's own come from none."""
    parts = symbol.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = Path(*parts[:length])
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if (folder / candidate).is_file():
                return candidate.as_posix()
    return "linker"


def measure(folder: Path) -> dict[str, Any]:
    """For each program: bytes of image and memory, and a row (file, symbol, kind, bytes) for each symbol and for what fills pages up."""
    compiler = importlib.import_module("dsl.compiler.pipeline")
    found: dict[str, Any] = {}
    for name, module, base in PROGRAMS:
        if not (folder / (module.replace(".", "/") + ".py")).is_file():
            continue  # a revision from before it was written
        program = compiler.compile_program(
            importlib.import_module(module).start,
            base=base if isinstance(base, int) else getattr(importlib.import_module(base[0]), base[1]),
            supplied={"boot.header_key": bytes(32), "std.font": bytes(95 * 16)},
        )
        symbols = sorted(program.symbols.items())
        rows = [
            (file_of(symbol, folder), symbol, KINDS[kind], size)
            for symbol, (_, size, kind) in symbols
            if size and symbol != "linker.image_base"
        ]
        kept = sum(size for _, _, kind, size in rows if kind != "zeroed")
        rows.append(("linker", "linker.padding", "data", len(program.image) - kept))
        found[name] = {"image": len(program.image), "memory": program.memory_size, "rows": rows}
    return found


if __name__ == "__main__":
    tree = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(tree))
    json.dump(measure(tree), sys.stdout)
