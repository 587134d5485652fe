"""Thousands of random programs in every world, in parallel: python -m tests.random_programs.campaign --count 100000

Says how fast it goes, what it ran, and each difference as a small runnable source. Exit status: 0 if all worlds agree, 1 if not.
"""

from __future__ import annotations

import ast
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import parallel
from tests.execution.support import load_source
from tests.parallel import Died, Progress, results
from tests.random_programs.agreement import Counts, Difference, check_calls, options_of
from tests.random_programs.generator import make_module
from tests.random_programs.shrink import kind_of, runnable, shrink
from tests.random_programs.subject import Call, Subject

PROGRAMS: Final = 24  # in a module, compiled together
INPUTS: Final = 4  # calls of each program
SAMPLE: Final = (
    4  # of so many modules one has its IR checked after every pass, not only after the last, and its constructs counted
)
FAILURES: Final = 5  # that are made small and shown


@dataclass
class Found:
    """What a module showed."""

    seed: int
    counts: Counts = field(default_factory=Counts)
    constructs: Counter[str] = field(default_factory=Counter)
    difference: Difference | None = None


@dataclass
class Total:
    """What the run showed so far."""

    programs: int = 0
    counts: Counts = field(default_factory=Counts)
    constructs: Counter[str] = field(default_factory=Counter)
    differences: list[tuple[int, Difference]] = field(default_factory=list)

    def add(self, found: Found) -> None:
        self.programs += PROGRAMS
        for name in ("calls", "stopped", "emulated", "interpreted"):
            setattr(self.counts, name, getattr(self.counts, name) + getattr(found.counts, name))
        self.counts.options += found.counts.options
        self.constructs += found.constructs
        if found.difference:
            self.differences.append((found.seed, found.difference))


def check_module(seed: int, folder: Path) -> Found:
    """Make the module of a seed and run its programs."""
    found = Found(seed)
    made = make_module(seed, PROGRAMS)
    name = f"random_module_{seed}"
    subject = Subject(load_source(name, made.source, folder))
    source = random.Random(seed)
    calls = [call for entry in made.entries for call in subject.calls(entry, source, INPUTS)]
    verify = seed % SAMPLE == 0
    found.difference = check_calls(subject, calls, options_of(seed), found.counts, verify=verify)
    if verify:
        found.constructs = constructs(made.source)
    del sys.modules[name]
    return found


def constructs(source: str) -> Counter[str]:
    """How often a source uses each statement, operator, function, method and type."""
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
                found["call of a helper" if name.startswith(("help", "handler")) else f"{name}()"] += 1
            case (
                ast.If()
                | ast.For()
                | ast.While()
                | ast.Break()
                | ast.Continue()
                | ast.Return()
                | ast.Assert()
                | ast.AugAssign()
            ):
                found[type(node).__name__.lower()] += 1
            case ast.Subscript(ctx=ast.Store()):
                found["element stored"] += 1
            case ast.Subscript(value=ast.Name() | ast.Attribute()):
                found["element"] += 1
            case ast.Attribute(ctx=ast.Store()):
                found["field stored"] += 1
            case ast.IfExp() | ast.BoolOp():
                found[type(node).__name__.lower()] += 1
            case ast.BinOp(op=operator) | ast.UnaryOp(op=operator):
                found[type(operator).__name__.lower()] += 1
            case ast.Compare(ops=[operator]):
                found[type(operator).__name__.lower()] += 1
            case ast.arg(annotation=ast.expr() as annotation):
                found[f"parameter {ast.unparse(annotation)}"] += 1
    return found


def guarded(seed: int, folder: Path) -> Found:
    """check_module; a mistake of the generator is a difference too."""
    try:
        return check_module(seed, folder)
    except Exception as error:
        return Found(seed, difference=Difference(f"generator: {type(error).__name__}", str(error)))


def run(first: int, count: int, jobs: int, quiet: bool = False) -> Total:
    """Check the modules from a seed on that hold `count` programs."""
    total, progress = Total(), Progress("programs", quiet)
    for seed, found in results(range(first, first + -(-count // PROGRAMS)), guarded, jobs):
        if isinstance(found, Died):
            found = Found(seed, difference=Difference(f"died by {found.how}", "the process that ran it died"))
        total.add(found)
        if found.difference:
            print(f"seed {seed}: {found.difference.kind}", flush=True)
        progress.tick(total.programs, len(total.differences))
    print(progress.line(total.programs, len(total.differences)), flush=True)
    return total


def explain(seed: int, difference: Difference, folder: Path) -> str:
    """The failure of a module as a small runnable file; its text."""
    made, options = make_module(seed, PROGRAMS), options_of(seed)
    call = difference.call or guilty(seed, made.source, made.entries, difference.kind)
    kind = kind_of(made.source, call, options)
    small = shrink(made.source, call, options, kind) if kind else made.source
    title = f"Seed {seed}, compiled with {options or 'every pass'}: {kind or difference.kind + ' (not seen again)'}\n{difference.detail}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed_{seed}.py"
    path.write_text(runnable(small, call, options, title))
    return f"--- {path}\n{path.read_text()}"


def guilty(seed: int, source: str, entries: tuple[str, ...], kind: str) -> Call | None:
    """Of a module that killed its process: the call that did."""
    if not kind.startswith("died"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(load_source(f"random_module_{seed}", source, Path(folder)))
        random_source = random.Random(seed)
        calls = [call for entry in entries for call in subject.calls(entry, random_source, INPUTS)]
    return next((call for call in calls if kind_of(source, call, options_of(seed)).startswith("died")), None)


def report(total: Total) -> str:
    """What ran: calls by world, options, constructs."""
    counts = total.counts
    lines = [
        f"{counts.calls:,} calls natively and under CPython, {counts.stopped:,} of which stopped at a check",
        f"{counts.emulated:,} of the calls in Unicorn too; {counts.interpreted:,} runs of the IR",
        "modules by options: " + "; ".join(f"{name} {number}" for name, number in counts.options.most_common()),
        f"constructs in one module of {SAMPLE}: "
        + ", ".join(f"{name} {number:,}" for name, number in total.constructs.most_common()),
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = parallel.options(__doc__, "programs to run, 24 to a seed", 100_000)
    parser.add_argument(
        "--failures", type=Path, default=Path("out/random"), help="folder for what failed (default out/random)"
    )
    options = parser.parse_args(argv)
    total = run(options.seed, options.count, options.jobs)
    print(report(total))
    for seed, difference in total.differences[:FAILURES]:
        print(explain(seed, difference, options.failures), flush=True)
    for seed, difference in total.differences:
        print(f"seed {seed}: {difference.kind}")
    last = options.seed + -(-options.count // PROGRAMS)
    print(f"seeds {options.seed} to {last - 1} done; --seed {last} goes on from here")
    return 1 if total.differences else 0


if __name__ == "__main__":
    sys.exit(main())
