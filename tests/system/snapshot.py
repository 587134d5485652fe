"""All of a machine's memory at one moment, and what the monitor's own tables in it say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boot.handoff import DIRECT_MAP, MONITOR_BASE
from pipeline import layouts
from tests.boot.tables import walk
from tests.system.machine import Stop, dump
from tests.system.made import MACHINE_MIB, MEBIBYTE, Made
from vmm.box import Box

LARGE_PAGE = 2 << 20
ADDRESS = 0x000F_FFFF_FFFF_F000
MONITOR_PLACE = (MACHINE_MIB << 20) - 2 * LARGE_PAGE  # the highest whole large page below what the firmware keeps


@dataclass(frozen=True)
class Snapshot:
    """Physical memory, the monitor's page tables, and what was said on the serial line until then."""

    made: Made
    memory: bytes
    root: int  # CR3
    serial: str

    def load(self, physical: int, size: int = 8) -> int:
        """A little-endian number in memory."""
        return int.from_bytes(self.memory[physical : physical + size], "little")

    def physical(self, monitor_address: int) -> int:
        """Where an address of the monitor's lies."""
        if monitor_address >= MONITOR_BASE:
            return monitor_address - MONITOR_BASE + MONITOR_PLACE
        return monitor_address - DIRECT_MAP

    def boxes(self) -> list[dict[str, Any]]:
        """The monitor's boxes, as its own structures describe them."""
        place = self.physical(self.made.symbol("vmm.box.BOXES"))
        first, count = self.load(place), self.load(place + 8)
        size = layouts.layout_of(Box).size
        start = self.physical(first)
        return [layouts.unpack(Box, self.memory[start + size * i : start + size * (i + 1)]) for i in range(count)]


def regular_place(made: Made) -> int:
    """A function of the monitor's that runs every few milliseconds: the one of the two that the compiler did not inline."""
    symbols = made.programs["monitor"].symbols
    found = [name for name in symbols if name.rpartition(".")[2] in ("poll_console", "console_poll")]
    assert found, "neither poll_console nor console_poll is a function of its own"
    return made.symbol(found[0])


def take(folder: Path, made: Made, *, after: int) -> Snapshot:
    """The memory of a machine of the usual size, in the monitor, soon after so many instructions."""
    top = MONITOR_PLACE + LARGE_PAGE
    pieces = {
        "low": (DIRECT_MAP, MONITOR_PLACE),
        "monitor": (MONITOR_BASE, LARGE_PAGE),
        "top": (DIRECT_MAP + top, MACHINE_MIB * MEBIBYTE - top),
    }
    found, serial = dump(folder, made, Stop(regular_place(made), after), pieces)
    for name, (_, size) in pieces.items():
        assert len(found[name]) == size, (name, len(found[name]), size)
    said = (folder / "stdout").read_text("latin-1")
    root = re.findall(r"CR3=0x([0-9a-f]+)", said)
    assert root, said[-500:]
    snapshot = Snapshot(made, found["low"] + found["monitor"] + found["top"], int(root[-1], 16) & ADDRESS, serial)
    mapped = dict(walk(snapshot.load, snapshot.root))
    assert mapped[MONITOR_BASE][0] == MONITOR_PLACE  # so that the pieces are where we put them
    assert DIRECT_MAP + MONITOR_PLACE not in mapped
    return snapshot


def walk_ept(snapshot: Snapshot, pointer: int) -> tuple[dict[int, tuple[int, int]], set[int]]:
    """What an EPT maps (SDM Vol. 3C, 29.3.2): guest-physical -> (host-physical, size) of each leaf; and the tables' own pages."""
    assert pointer & 0x3F == 0x1E, hex(pointer)  # write-back, four levels
    leaves: dict[int, tuple[int, int]] = {}
    tables: set[int] = set()

    def descend(table: int, level: int, guest: int) -> None:
        tables.add(table)
        for index in range(512):
            entry = snapshot.load(table + 8 * index)
            shift = 12 + 9 * level
            address = guest + (index << shift)
            if entry & 7 == 0:
                assert entry == 0, hex(entry)
            elif level == 0 or entry & 0x80:
                leaves[address] = (entry & ADDRESS & ~((1 << shift) - 1), 1 << shift)
            else:
                descend(entry & ADDRESS, level - 1, address)

    descend(pointer & ADDRESS, 3, 0)
    return leaves, tables


def pages_of(leaves: dict[int, tuple[int, int]]) -> set[int]:
    """The 4-KiB pages of host memory that leaves reach."""
    return {page for start, size in leaves.values() for page in range(start >> 12, (start + size) >> 12)}
