"""Runs the tests of a folder on mutants of the code that they load: a pytest plugin, for `build.py mutate` alone.

    python -m pytest -p tests.mutation --mutants REQUEST.json --outcomes OUTCOMES.jsonl tests/std

First every test runs once, with each program compiled once and with account of which test executes which instruction. Then each mutant gets
a process of its own, forked from this one, where the programs that contain the broken function are changed in place, and the tests that
execute the broken instruction run, the likeliest killer first, until one fails, crashes or takes far too long.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from pipeline.mutants import Mutant, Site, mutants_of, sample
from pipeline.mutate import origin
from tests.coverage import Coverage, Programs

PATIENCE: Final = 5  # times the processor time that a test took in the beginning, and SLACK seconds
SLACK: Final = 0.5
LONG: Final = 0.5  # seconds; such a test is timed again, without the account and with what it keeps from the first time
SURVIVED, KILLED, UNREACHED = "survived", "killed", "unreached"


class Session:
    """The run of one request."""

    def __init__(self, config: pytest.Config) -> None:
        self.request = json.loads(Path(config.getoption("mutants")).read_text())
        self.outcomes = Path(config.getoption("outcomes"))
        self.programs = Programs()
        self.programs.install()
        self.coverage = Coverage(self.programs)
        self.coverage.install()
        self.seconds: list[float] = []  # processor time of each test
        self.reached: dict[tuple[int, int], list[int]] = defaultdict(list)  # by which tests
        self.breadths: dict[str, Counter[int]] = {}
        self.kills: dict[str, Counter[int]] = defaultdict(Counter)  # by function: what killed mutants of it before

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        self.items = [item for item in session.items if isinstance(item, pytest.Function)]
        for item in self.items:
            self.run_once(item)
        mutants = self.mutants()
        chosen = self.chosen(mutants)
        self.say(total=len(mutants), tests=len(self.items), chosen=len(chosen), population=population(mutants))
        gc.disable()  # the processes live shortly, and what they share with this one stays shared
        self.run_all(chosen)
        return True

    def chosen(self, mutants: list[Mutant]) -> list[Mutant]:
        """Those that are asked for by their places, else a sample."""
        if self.request["only"] is None:
            inside = [mutant for mutant in mutants if source_of(mutant.site).startswith(self.request["within"])]
            return sample(inside, self.request["sample"] or len(inside), self.request["seed"])
        places = {tuple(place) for place in self.request["only"]}
        return [m for m in mutants if (m.site.symbol, m.site.offset, m.change.kind) in places]

    def say(self, **row: Any) -> None:
        """Write a row for the one who asked."""
        with self.outcomes.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def run_once(self, item: pytest.Function) -> None:
        """Run a test on good code. It must pass."""
        self.coverage.is_on = True
        clear_caches()
        failed, seconds = timed(item)
        if failed is not None:
            pytest.exit(f"{item.nodeid} fails without a mutant:\n{failed}", returncode=1)
        for place in self.coverage.instructions():
            self.reached[place].append(len(self.seconds))
        self.coverage.is_on = False
        self.seconds.append(min(seconds, timed(item)[1]) if seconds > LONG else seconds)

    def mutants(self) -> list[Mutant]:
        """All mutants that were asked for: of each function the code that most tests run."""
        best: dict[str, tuple[int, int]] = {}
        for number, loaded in enumerate(self.programs.loaded):
            runs: dict[str, int] = {}
            for symbol in loaded.variants:
                runs[symbol] = len(self.tests_at(symbol, number, 0))
                best[symbol] = max(best.get(symbol, (-1, 0)), (runs[symbol], -number))
        found: list[Site] = []
        for number, loaded in enumerate(self.programs.loaded):
            chosen = {symbol for symbol in loaded.variants if best[symbol][1] == -number and self.is_asked(symbol)}
            if chosen:
                found += [site for site in loaded.sites() if site.symbol in chosen and self.is_in_sources(site)]
        return list(mutants_of(found))

    def is_asked(self, symbol: str) -> bool:
        """Whether a function belongs to the programs that are to be broken."""
        return symbol.startswith(tuple(self.request["functions"]))

    def is_in_sources(self, site: Site) -> bool:
        """Whether an instruction comes from the sources asked for."""
        return source_of(site).startswith(tuple(self.request["sources"]))

    def copies(self, symbol: str, number: int) -> list[int]:
        """The programs that contain the same code for a function."""
        code = self.programs.loaded[number].variants[symbol]
        return [other for other, loaded in enumerate(self.programs.loaded) if loaded.variants.get(symbol) == code]

    def tests_at(self, symbol: str, number: int, offset: int) -> list[int]:
        """The tests that execute one instruction of a function, in whatever program."""
        found: set[int] = set()
        for other in self.copies(symbol, number):
            found.update(
                self.reached.get((other, self.programs.loaded[other].linked.symbols[symbol].address + offset), ())
            )
        return sorted(found)

    def program_of(self, mutant: Mutant) -> int:
        """A program that contains the site."""
        site = mutant.site
        for number, loaded in enumerate(self.programs.loaded):
            place = loaded.linked.symbols.get(site.symbol)
            if place is None or site.symbol not in loaded.variants:
                continue
            at = place.address - loaded.linked.base + site.offset
            if loaded.linked.image[at : at + len(site.code)] == site.code:
                return number
        raise AssertionError(mutant.describe())

    def run_all(self, mutants: Iterable[Mutant]) -> None:
        """Run the mutants, `jobs` at a time."""
        running: dict[int, tuple[Mutant, list[int], int]] = {}
        for mutant in mutants:
            site = mutant.site
            number = self.program_of(mutant)
            tests = self.tests_at(site.symbol, number, site.offset)
            tests = self.within_budget(site, number, tests)
            if not tests:
                self.tell(mutant, UNREACHED, "", 0)
                continue
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                self.be_mutant(mutant, number, tests, writer)
            os.close(writer)
            running[child] = mutant, tests, reader
            if len(running) >= self.request["jobs"]:
                self.collect(running)
        while running:
            self.collect(running)

    def within_budget(self, site: Site, number: int, tests: list[int]) -> list[int]:
        """The tests to run, the likeliest to notice first. What the budget leaves out can only make a survivor of a mutant."""
        asked = origin(
            {"file": site.file, "line": site.line, "function": site.symbol}
        )  # another function may be inlined here
        near, breadth = self.kills[site.symbol], self.breadth_of(site.symbol, number)
        words = set(re.findall(r"[a-z0-9]{3,}", f"{site.symbol} {site.file} {asked}")) - {"vmm", "dsl", "std", "exits"}

        def worth(test: int) -> float:
            """What to expect of a test: how much of the function it runs, what it killed there, and whether its name speaks of it."""
            spoken = sum(word in self.items[test].nodeid for word in words)
            return (1 + near[test]) * (1 + spoken) ** 2 * breadth[test] / (0.1 + self.seconds[test])

        tests.sort(key=lambda test: (-worth(test), test))
        left: float = self.request["budget"]
        chosen: list[int] = []
        for test in tests:
            if chosen and self.seconds[test] > left:
                continue
            left -= self.seconds[test]
            chosen.append(test)
        return chosen

    def breadth_of(self, symbol: str, number: int) -> Counter[int]:
        """How many instructions of a function each test runs."""
        if symbol not in self.breadths:
            breadth: Counter[int] = Counter()
            for other in self.copies(symbol, number):
                loaded = self.programs.loaded[other]
                place = loaded.linked.symbols[symbol]
                for address in loaded.inside(place.address, place.size):
                    breadth.update(self.reached.get((other, address), ()))
            self.breadths[symbol] = breadth
        return self.breadths[symbol]

    def collect(self, running: dict[int, tuple[Mutant, list[int], int]]) -> None:
        """Wait for one of the processes."""
        child, status = os.wait()
        mutant, tests, reader = running.pop(child)
        with os.fdopen(reader, "rb") as pipe:
            begun = len(pipe.read())
        if status == 0:
            self.tell(mutant, SURVIVED, "", len(tests))
            return
        killer = tests[max(begun - 1, 0)]
        self.kills[mutant.site.symbol][killer] += 1
        how = f" (signal {signal.Signals(os.WTERMSIG(status)).name})" if os.WIFSIGNALED(status) else ""
        self.tell(mutant, KILLED, self.items[killer].nodeid + how, len(tests))

    def tell(self, mutant: Mutant, outcome: str, killer: str, tests: int) -> None:
        """One mutant's row."""
        site, change = mutant.site, mutant.change
        self.say(
            function=site.symbol, offset=site.offset, file=site.file, line=site.line, source=mutant.source, kind=change.kind,
            before=site.text, after=change.text, is_of_check=mutant.is_of_check, outcome=outcome, killer=killer, tests=tests,
        )  # fmt: skip

    def be_mutant(self, mutant: Mutant, number: int, tests: list[int], writer: int) -> None:
        """In a process of its own: 0 if no test notices. A byte goes to the pipe before each test."""
        status = 1
        try:
            silence()
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            clear_caches()
            for copy in self.copies(mutant.site.symbol, number):
                self.programs.change(self.programs.loaded[copy], mutant)
            for test in tests:
                os.write(writer, b".")
                signal.setitimer(signal.ITIMER_PROF, self.seconds[test] * PATIENCE + SLACK)
                if failure_of(self.items[test]) is not None:
                    break
            else:
                status = 0
        finally:
            os._exit(status)


def source_of(site: Site) -> str:
    """The source of an instruction; one without a line goes with its function."""
    return site.file or site.symbol.rpartition(".")[0].replace(".", "/") + ".py"


def population(mutants: list[Mutant]) -> list[dict[str, Any]]:
    """How many mutants of each kind there are on each source line of each function."""
    counts = Counter(
        (mutant.site.symbol, mutant.site.file, mutant.site.line, mutant.source, mutant.change.kind)
        for mutant in mutants
    )
    names = ("function", "file", "line", "source", "kind", "count")
    return [dict(zip(names, (*key, count), strict=True)) for key, count in counts.items()]


def silence() -> None:
    """Nothing that a mutant prints is of interest."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def timed(item: pytest.Function) -> tuple[str | None, float]:
    """Run one test: its failure, and the processor time that it took."""
    started = time.process_time()
    return failure_of(item), time.process_time() - started


def failure_of(item: pytest.Function) -> str | None:
    """Run one test with its fixtures: None if it passes."""
    item._initrequest()  # it may have run before
    for report in runtestprotocol(item, log=False, nextitem=None):
        if report.failed:
            return str(report.longrepr)
    return None


def clear_caches() -> None:
    """Forget what tests keep from one to the next: it may come from other code."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tests."):
            for value in list(vars(module).values()):
                if isinstance(value, _lru_cache_wrapper):
                    value.cache_clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the request and the place for the outcomes."""
    parser.addoption("--mutants", required=True, help="the request, as JSON")
    parser.addoption("--outcomes", required=True, help="where the outcomes go, a JSON object a line")


def pytest_configure(config: pytest.Config) -> None:
    """Begin before any test module is imported."""
    settings.register_profile(
        "mutation",
        derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False,
    )  # fmt: skip
    settings.load_profile("mutation")
    config.pluginmanager.register(Session(config), "mutation-session")
