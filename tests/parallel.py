"""Work by seeds in processes of its own, so that what dies or never ends costs one seed."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

CHUNK: Final = 400  # seeds that one process takes, so that memory stays bounded
SECONDS: Final = 120  # of processor time for one seed: more is something that never ends
Check = Callable[[int, Path], Any]  # a seed and a folder for its files


@dataclass(frozen=True)
class Died:
    """What took the place of a seed's result: the signal or status that ended its process, SIGPROF after too long."""

    how: str


@dataclass
class Worker:
    """A process, what it tells, what is still to be done of its seeds, and the one it is at."""

    process: Any
    told: Connection
    seeds: list[int]
    at: int | None = None


def results(seeds: range, check: Check, jobs: int, seconds: int = SECONDS) -> Iterator[tuple[int, Any]]:
    """(seed, what check says of it, or Died) for each seed, as they come."""
    waiting = list(seeds)
    chunk = max(1, min(CHUNK, -(-len(waiting) // jobs)))
    workers: list[Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(start(waiting[:chunk], check, seconds))
                del waiting[:chunk]
            for told in wait([worker.told for worker in workers]):
                worker = next(worker for worker in workers if worker.told is told)
                try:
                    message = worker.told.recv()
                except EOFError:
                    workers.remove(worker)
                    waiting[:0] = worker.seeds
                    worker.process.join()
                    if worker.at is not None:
                        yield worker.at, Died(name_of(worker.process.exitcode))
                    continue
                if worker.at is None:
                    worker.at = message
                    worker.seeds.remove(message)
                else:
                    seed, worker.at = worker.at, None
                    yield seed, message
    finally:
        for worker in workers:
            worker.process.terminate()


def start(seeds: list[int], check: Check, seconds: int) -> Worker:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(seeds, check, seconds, sender), daemon=True)
    process.start()
    sender.close()
    return Worker(process, receiver, list(seeds))


def work(seeds: list[int], check: Check, seconds: int, told: Connection) -> None:
    """Check seeds, telling of each before and after it. Dies if one takes too long, or nobody listens any more."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    gc.disable()  # it costs a fifth of the time
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            if number % 8 == 0:
                gc.collect()
            told.send(seed)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            found = check(seed, Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            told.send(found)


def name_of(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def options(description: str | None, what: str, count: int = 10_000) -> argparse.ArgumentParser:
    """The command line that long runs share: how much, from which seed, in how many processes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count, help=f"{what} (default {count or 'all'})")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a processor)")
    return parser


class Progress:
    """Says how far a run is, every ten seconds."""

    def __init__(self, what: str, quiet: bool = False) -> None:
        self.what, self.quiet, self.began = what, quiet, time.monotonic()
        self.shown = self.began

    def line(self, count: int, wrong: int) -> str:
        rate = count / max(time.monotonic() - self.began, 1e-9)
        return f"{count:,} {self.what}, {rate:.1f} {self.what}/s, {wrong} wrong"

    def tick(self, count: int, wrong: int) -> None:
        if not self.quiet and time.monotonic() - self.shown > 10:
            self.shown = time.monotonic()
            print(self.line(count, wrong), flush=True)
