"""Images for the system tests, made by the pipeline itself, with fixed keys and any boxes; every program is compiled once a run."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boot import header as layout
from boot.handoff import MONITOR_BASE
from boot.stages import BODY_BASE
from pipeline import assemble, disk, image, keys, layouts, reference
from pipeline.boxes import CompiledProgram, lower_boxes
from pipeline.keys import Keys
from tests.pipeline import forge

MEBIBYTE = 1 << 20
GUESTS = Path(__file__).resolve().parents[2] / "guests"
WITNESS, INTRUDER, DEBIAN = (GUESTS / name for name in ("witness", "intruder", "debian"))
MACHINE_MIB = 64  # enough for a machine without Debian
ANY_KEYS = forge.all_keys()


@dataclass(frozen=True)
class Made:
    """An image on disk, what is expected of it, and the programs in it with their symbols."""

    path: Path
    expected: reference.Reference
    programs: dict[str, Any] = field(repr=False)
    monitor: bytes = field(repr=False)

    def symbol(self, name: str) -> int:
        """The address of one of the monitor's functions or objects."""
        return int(self.programs["monitor"].symbols[name][0])


@functools.cache
def compiler() -> assemble.Compiler:
    """The compiler that builds the loader, which trusts the fixed key."""
    return assemble.Compiler(keys.public_bytes(ANY_KEYS.header), None)


@functools.cache
def loader() -> bytes:
    """The loader body."""
    return bytes(compiler().compile("loader", assemble.LOADER, BODY_BASE, supplied=True).image)


@functools.cache
def monitor() -> bytes:
    """The monitor."""
    return bytes(compiler().compile("monitor", assemble.MONITOR, MONITOR_BASE).image)


@functools.cache
def guest_program(name: str, base: int) -> CompiledProgram:
    """A guest's program."""
    return compiler().for_box(name, base)


def make(
    folder: Path,
    boxes: list[Path],
    *,
    signed_by: Keys = ANY_KEYS,
    other_monitor: bytes | None = None,
    machine_mib: int = MACHINE_MIB,
    name: str = "image",
) -> Made:
    """Build an image of these boxes' folders. `other_monitor`: instead of the tree's."""
    lowered = lower_boxes(boxes, machine_mib * MEBIBYTE, 10 * MEBIBYTE, guest_program)
    chosen = monitor() if other_monitor is None else other_monitor
    built = assemble.pack_image(signed_by, loader(), chosen, lowered, compiler().programs)
    path = folder / f"{name}.img"
    path.write_bytes(built.disk)
    reference.write(path.with_suffix(".json"), built.reference | {"authority": ""})  # nobody's: Bochs has no TPM
    return Made(path, reference.load(path.with_suffix(".json")), dict(built.programs), chosen)


def flat_box(folder: Path, name: str, code: bytes, start: str = "real", order: int = 50, memory_mib: int = 2) -> Path:
    """A box of a few instructions at 1000h: its folder, as a person would write it."""
    place = folder / name
    place.mkdir()
    (place / "code.bin").write_bytes(code)
    (place / "box.toml").write_text(
        f'name = "{name}"\norder = {order}\nmemory_mib = {memory_mib}\ndevices = ["uart", "pic-pit"]\n'
        f'[kernel]\nformat = "flat"\nfile = "code.bin"\nstart = "{start}"\nbase = 0x1000\n'
    )
    return place


def program_box(folder: Path, name: str, program: str, order: int = 50, memory_mib: int = 4) -> Path:
    """A box with a program in the language."""
    place = folder / name
    place.mkdir()
    (place / "box.toml").write_text(
        f'name = "{name}"\norder = {order}\nmemory_mib = {memory_mib}\ndevices = ["uart"]\n'
        f'[kernel]\nformat = "program"\nprogram = "{program}"\n'
    )
    return place


def entry_places(made: Made) -> dict[str, list[tuple[int, int]]]:
    """For each kind of entry, (offset, size) in the partition of each."""
    header = layouts.unpack(layout.ImageHeader, disk.read_terrane_partition(made.path))
    names = {image.kind_number(kind): kind.name for kind in layout.EntryKind}
    places: dict[str, list[tuple[int, int]]] = {}
    for row in header["entries"][: header["entry_count"]]:
        places.setdefault(names[row["kind"]], []).append((row["offset"], row["size"]))
    return places


def release_links(made: Made, box: str) -> list[bytes]:
    """The release chain of an image as evidence of a box carries it: root, boot, monitor, and the box's own link."""
    links = image.read_release_chain(disk.read_terrane_partition(made.path))
    index = [known.name for known in made.expected.boxes].index(box)
    return [*links[:3], links[3 + index]]
