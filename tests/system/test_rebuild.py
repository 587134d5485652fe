"""Identities follow content: one changed constant changes the identity of what it is in, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system import made, mutants
from tests.system.made import INTRUDER, WITNESS
from tests.system.mutants import Mutant

pytestmark = [pytest.mark.t1, pytest.mark.slow]
MAKE = """
import sys
from pathlib import Path
from tests.system.made import INTRUDER, WITNESS, make
make(Path(sys.argv[1]), [WITNESS, INTRUDER])
"""
WITNESS_CONSTANT = Mutant("guests/witness/evidence.py", "RANDOM_TRIES: Final = 1000\n", "RANDOM_TRIES: Final = 1001\n")
MONITOR_CONSTANT = Mutant("vmm/scheduler.py", "SLICE_NS: Final = 5_000_000 ", "SLICE_NS: Final = 5_000_001 ")
IDENTITY = {"row", "sha256", "public_key"}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of a JSON tree by its path; boxes by name."""
    if isinstance(value, dict):
        return {place: leaf for key, item in value.items() for place, leaf in leaves(item, f"{path}/{key}").items()}
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return {place: leaf for item in value for place, leaf in leaves(item, f"{path}/{item['name']}").items()}
    return {path: value}


def changed(folder: Path, mutant: Mutant) -> set[str]:
    """Which values of the reference file change with the sources."""
    made.make(folder, [WITNESS, INTRUDER], name="before")
    mutants.run_python(mutants.changed_tree(folder, mutant), MAKE, str(folder))
    before, after = (leaves(json.loads((folder / f"{name}.json").read_text())) for name in ("before", "image"))
    assert before.keys() == after.keys()
    found = {place for place in before if before[place] != after[place]}
    assert "/boot/header_sha256" in found  # what a TPM measures follows from the header, which holds every entry's hash
    return {place for place in found if not place.startswith("/boot/")}


def test_a_constant_of_the_witness(tmp_path: Path) -> None:
    """The witness's identity and only that changes, and so the image's hash."""
    assert changed(tmp_path, WITNESS_CONSTANT) == {"/image_sha256"} | {f"/boxes/witness/{name}" for name in IDENTITY}


def test_a_constant_of_the_monitor(tmp_path: Path) -> None:
    """The monitor's identity changes, and with it the boxes' keys, which come from its secret; their content's hashes do not."""
    expected = {"/image_sha256"} | {f"/monitor/{name}" for name in IDENTITY}
    expected |= {f"/boxes/{box}/{name}" for box in ("witness", "intruder") for name in ("public_key",)}
    assert changed(tmp_path, MONITOR_CONSTANT) == expected
