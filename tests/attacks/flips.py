"""Every byte of the signed header and of the monitor changed, one at a time: the loader body's emitted bytes judge each, in Unicorn.

`python -m tests.attacks.flips` tries them all. Each run goes on from where the loader reads the changed byte for the first time: before it
copies the header, or in the monitor's hash, at the block of 64 bytes. What must come of it is the refusal that names the place.
"""

from __future__ import annotations

import functools
import os
import random
import sys
from dataclasses import dataclass, field

from tests import parallel
from tests.boot.emulated_boot import Body, Stages
from tests.boot.images import DEVELOPMENT_SECRET, MONITOR, Part, disk_of, loader, partition_of
from tests.boot.keys import SECRET
from tests.parallel import Died, Progress, results
from tests.system import made

REQUIRE, HASH, COMPRESS = "boot.output.require", "boot.entries.require_intact", "dsl.std.sha256.compress"
BLOCK = 64
HEADER_SIZE = 8192
SECONDS = 600


@functools.cache
def partition() -> bytes:
    """The monitor of this tree, in a small image."""
    return partition_of([Part(MONITOR, made.monitor()), Part(DEVELOPMENT_SECRET, SECRET)])


@functools.cache
def memory() -> bytes:
    """All memory where stage 2 enters the loader body."""
    return bytes(Stages(disk_of(partition())).run(loader()))


def blocks() -> range:
    """The blocks of header and monitor, by their number in the partition."""
    return range((HEADER_SIZE + len(made.monitor())) // BLOCK)


class Judge:
    """A loader body that was brought to the place where it reads a block."""

    def __init__(self) -> None:
        self.body = Body(loader(), memory())
        for symbol in (REQUIRE, HASH, COMPRESS):
            self.body.watch(symbol)
        assert self.body.run(REQUIRE), "the parameters were checked, the header is not copied yet"
        self.saved, self.block = self.body.save(), 0

    def go_to(self, block: int) -> None:
        """Forward to a block of the header, or of the monitor."""
        self.body.restore(self.saved)
        first = HEADER_SIZE // BLOCK
        if block >= first > self.block:
            assert self.body.run(HASH)
            assert self.body.register("RDI") == self.body.staging.start + HEADER_SIZE, "the monitor, where it was read"
            assert self.body.run(COMPRESS)
            self.block = first
        while first <= self.block < block:
            assert self.body.run(COMPRESS)
            self.block += 1
        self.saved = self.body.save()

    def refuses(self, offset: int, mask: int) -> bool:
        """Whether the loader refuses the image with this byte changed, for the right reason."""
        self.body.restore(self.saved)
        self.body.flip(self.body.staging.start + offset, mask)
        if self.body.run():
            return False
        wanted = "header: signature: " if offset < HEADER_SIZE else "monitor: entry 0, partition bytes "
        return any(f"refused: {wanted}" in line for line in self.body.lines())


@functools.cache
def judge(_process: int) -> Judge:
    """This process's own."""
    return Judge()


def offsets(block: int, stride: int) -> list[int]:
    """The bytes of a block that are changed."""
    return [at for at in range(block * BLOCK, (block + 1) * BLOCK) if at % stride == 0]


def check(block: int, stride: int, seed: int) -> list[int]:
    """Change these bytes, one at a time; those that were not refused. Blocks come in ascending order."""
    if not offsets(block, stride):
        return []
    mine = judge(os.getpid())
    mine.go_to(block)
    return [at for at in offsets(block, stride) if not mine.refuses(at, random.Random(at + seed).randrange(1, 256))]


@dataclass
class Total:
    """What a sweep came to."""

    header: int = 0
    monitor: int = 0
    proceeded: list[int] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.header} bytes of the header and {self.monitor} of the monitor changed, one at a time, in the emitted bytes: "
            f"boots that proceeded {len(self.proceeded)} {[hex(at) for at in self.proceeded[:10]]}"
        )


def sweep(stride: int, jobs: int, seed: int = 0, quiet: bool = False) -> Total:
    """Change every `stride`th byte."""
    total, progress = Total(), Progress("blocks of 64 bytes", quiet)
    memory()  # once, for all processes
    swept = results(blocks(), lambda block, _: check(block, stride, seed), jobs, SECONDS)
    for done, (block, found) in enumerate(swept, 1):
        tried = len(offsets(block, stride))
        if block * BLOCK < HEADER_SIZE:
            total.header += tried
        else:
            total.monitor += tried
        total.proceeded += [block * BLOCK] if isinstance(found, Died) else found
        progress.tick(done, len(total.proceeded))
    return total


def main(argv: list[str] | None = None) -> int:
    options = parallel.options(__doc__, "about how many bytes to change", 0).parse_args(argv)
    stride = max(1, len(blocks()) * BLOCK // options.count) if options.count else 1
    total = sweep(stride, options.jobs, options.seed)
    print(total.line())
    return 1 if total.proceeded else 0


if __name__ == "__main__":
    sys.exit(main())
