"""Where things are in a checkout. Nothing here touches the disk."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out"
KEYS = ROOT / "keys"
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
PACKAGES = CACHE / "packages"  # Debian packages as downloaded
COMPILED = CACHE / "compiled"  # programs and functions by what they came from (compiled.py, dsl/compiler/cache.py)
GUESTS = ROOT / "guests"
IMAGE = OUT / "terrane.img"
REFERENCE = OUT / "terrane.json"
