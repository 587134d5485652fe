"""Our own rule: between an exit and the next entry the monitor reads each byte of a guest's memory at most once.

What is read twice may change in between, under the monitor's hands: a check of the first reading says nothing about the second. The
entries of its page tables that lead to both pages of an instruction are read once for each: nothing of one walk is used in the other.
"""

from __future__ import annotations

from typing import Any, Final

import unicorn as uc

from boot.handoff import DIRECT_MAP

FRAME: Final = 2 << 20  # guests have their memory in frames of this size


class GuestReads:
    """The monitor's reads of the frames of all guests since the last `clear`."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.frames: set[int] = set()
        self.seen: set[int] = set()
        self.twice: set[int] = set()  # physical addresses of bytes

    def watch(self, frames: set[int]) -> None:
        """Follow the reads of these frames too, by their physical addresses; the engine reports an address as used, or the physical one."""
        for frame in frames - self.frames:
            for base in (0, DIRECT_MAP):
                self.engine.hook_add(uc.UC_HOOK_MEM_READ, self._read, None, base + frame, base + frame + FRAME - 1)
        if not frames <= self.frames:
            self.engine.ctl_flush_tb()
        self.frames |= frames

    def clear(self) -> None:
        """Forget."""
        self.seen.clear()
        self.twice.clear()

    def _read(self, _: Any, __: int, address: int, size: int, ___: int, ____: Any) -> None:
        start = address & (1 << 47) - 1
        touched = set(range(start, start + size))
        self.twice |= self.seen & touched
        self.seen |= touched
