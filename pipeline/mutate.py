"""`mutate`: break emitted code in one place at a time, and see whether the tests notice.

The tests run in `tests/mutation.py`; here is what is broken, what the survivors mean, and the report. A survivor is a gap in the tests
unless `tests/mutants.toml` explains it: an explanation names function, source lines and kinds of mutation, and says why nothing can tell
the mutant from the program (`equivalent`), or why its survival is taken (those count against the score).
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from pipeline import paths
from pipeline.errors import OK, REFUSED, PipelineError, UsageError
from pipeline.progress import say

ENOUGH: Final = 95.0  # percent of the mutants that are not equivalent
EXPLANATIONS: Final = paths.ROOT / "tests" / "mutants.toml"
KEYS: Final = {"kinds", "equivalent", "reason", "lines"}
INSTRUCTIONS: Final = (
    "instructions"  # a key that may be missing: a pattern of the instructions that are meant, else all
)
OF_CHECKS: Final = (
    "of_checks"  # the same: true for those alone that serve a check and nothing else (pipeline/unseen.py)
)
ALL_LINES: Final = ("*",)  # of all functions whose names begin so
KINDS: Final = {"dropped", "condition", "constant", "register"}
MARKS: Final = "not t0 and not t2 and not t3 and not slow"  # t0 runs no emitted code
LEFT_OUT: Final = "not planted and not trace and not exception_is_one"  # tests of tests; traces, which wrong results leave as they are
STEP: Final = 100  # mutants between two lines of progress


@dataclass(frozen=True)
class Subject:
    """What is broken, and by which tests it should be found out. functions, sources: how their names begin."""

    functions: tuple[str, ...]
    sources: tuple[str, ...]
    tests: tuple[str, ...]


SUBJECTS: Final = {
    "std": Subject(("dsl.std.", "tests.std."), ("dsl/std/",), ("tests/std",)),
    "handlers": Subject(
        ("vmm.",),
        (
            "vmm/exits/", "vmm/devices/", "vmm/decoder.py", "vmm/guest_memory.py", "vmm/engine.py",
            *(f"vmm/vmx/{name}.py" for name in ("hot", "events", "guest_state", "information", "entry")),
        ),
        ("tests/model", "tests/devices"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How many mutants (0: all), which, how many processes at a time, and how long one mutant's tests may take, in processor seconds.

    within: a sample of those alone whose source's name begins so. only: in place of a sample, the mutants of these kinds at these places:
    function, offset, kind.
    """

    sample: int
    seed: int
    jobs: int
    budget: int
    only: list[tuple[str, int, str]] | None = None
    within: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why mutants of some kinds, of some instructions on some source lines of a function survive, wherever it was inlined."""

    function: str
    lines: tuple[str, ...]
    kinds: tuple[str, ...]
    is_equivalent: bool
    reason: str
    instructions: str = ".*"
    of_checks: bool = False

    def covers(self, row: dict[str, Any]) -> bool:
        """Whether a mutant is one of them; of a count of mutants, whether some may be."""
        if self.lines == ALL_LINES:
            is_there = row["origin"].startswith(self.function)
        else:
            is_there = row["origin"] == self.function and row["source"] in self.lines
        if not is_there or row["kind"] not in self.kinds or "before" not in row:
            return is_there and row["kind"] in self.kinds
        return re.fullmatch(self.instructions, row["before"]) is not None and row["is_of_check"] >= self.of_checks


@dataclass
class Result:
    """What a run found. rows: one a mutant, as tests/mutation.py writes them."""

    subject: str
    total: int
    rows: list[dict[str, Any]]
    seconds: float
    explanations: list[Explanation]
    population: list[dict[str, Any]]  # kind, origin, source and count of all mutants, run or not

    def explanation(self, row: dict[str, Any]) -> Explanation | None:
        """The explanation of a survivor."""
        return next((found for found in self.explanations if found.covers(row)), None)

    def survivors(self) -> list[dict[str, Any]]:
        """The rows of mutants that no test noticed."""
        return [row for row in self.rows if row["outcome"] != "killed"]

    def equivalent(self) -> list[dict[str, Any]]:
        """Survivors that are explained as equivalent."""
        pairs = ((row, self.explanation(row)) for row in self.survivors())
        return [row for row, found in pairs if found is not None and found.is_equivalent]

    def score(self) -> float:
        """Percent killed of those that are not equivalent."""
        counted = len(self.rows) - len(self.equivalent())
        return 100.0 * (len(self.rows) - len(self.survivors())) / counted if counted else 0.0

    def stale(self) -> list[Explanation]:
        """Explanations of what is no more: a line without such mutants, or mutants that were all run and did not survive."""
        found = []
        for explanation in self.explanations:
            there = [row for row in self.population if explanation.covers(row)]
            rows = [row for row in self.rows if explanation.covers(row)]
            all_run = len(rows) == sum(row["count"] for row in there)
            sources = {row["source"] for row in there}
            is_gone = not sources or (explanation.lines != ALL_LINES and sources != set(explanation.lines))
            if is_gone or (all_run and all(row["outcome"] == "killed" for row in rows)):
                found.append(explanation)
        return found


def read_explanations(path: Path = EXPLANATIONS) -> list[Explanation]:
    """The explained survivors. Raises UsageError for a row that says too little, too much, or nothing that can be meant."""
    found = []
    for number, row in enumerate(tomllib.loads(path.read_text()).get("survivor", []), 1):
        where = f"{path.name}: survivor {number}"
        if set(row) - {INSTRUCTIONS, OF_CHECKS} != KEYS:
            raise UsageError(f"{where}: expected the keys {sorted(KEYS)}, found {sorted(row)}")
        if not row["lines"] or not all(row["lines"].values()):
            raise UsageError(f"{where}: expected source lines by function, found none")
        if not row["kinds"] or not set(row["kinds"]) <= KINDS:
            raise UsageError(f"{where}: expected kinds of {sorted(KINDS)}, found {row['kinds']}")
        if not row["reason"].strip():
            raise UsageError(f"{where}: expected a reason, found none")
        for function, lines in row["lines"].items():
            explained = (tuple(lines), tuple(row["kinds"]), row["equivalent"], row["reason"])
            narrowed = (row.get(INSTRUCTIONS, ".*"), row.get(OF_CHECKS, False))
            found.append(Explanation(function, *explained, *narrowed))
    return found


def read_survivors(path: Path) -> dict[str, list[tuple[str, int, str]]]:
    """What survived in a result of --json, by subject, as Options asks for it. Raises UsageError for another file."""
    try:
        found = {
            result["subject"]: [(row["function"], row["offset"], row["kind"]) for row in result["survivors"]]
            for result in json.loads(path.read_text())
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: expected what mutate --json prints, found {error!r}") from None
    if not any(found.values()):
        raise UsageError(f"{path}: expected survivors, found none")
    return found


def run(name: str, subject: Subject, options: Options) -> Result:
    """Run the mutants. Raises PipelineError if the tests fail without any."""
    started = time.monotonic()
    request = {"functions": subject.functions, "sources": subject.sources, **asdict(options)}
    with tempfile.TemporaryDirectory() as folder:
        asked, outcomes = Path(folder, "request.json"), Path(folder, "outcomes.jsonl")
        asked.write_text(json.dumps(request))
        command = [
            sys.executable, "-m", "pytest", "-p", "tests.mutation", "-p", "no:faulthandler", "-p", "no:cacheprovider",
            "--mutants", str(asked), "--outcomes", str(outcomes), "-m", MARKS, "-k", LEFT_OUT, "-q", "-s",
            *subject.tests,
        ]  # fmt: skip
        say(f"{name}: the tests run once without a mutant")
        process = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        total = 0
        rows: list[dict[str, Any]] = []
        population: list[dict[str, Any]] = []
        for row in follow(outcomes, process):
            if "total" in row:
                total = row["total"]
                population = [kept | {"origin": origin(kept)} for kept in row["population"]]
                say(f"{name}: {row['tests']} tests, {total} mutants, of which {row['chosen']} are run")
                continue
            rows.append(row | {"origin": origin(row)})
            if len(rows) % STEP == 0:
                killed = sum(row["outcome"] == "killed" for row in rows)
                say(f"{name}: {len(rows)} run, {killed} killed")
        said = process.communicate()[0]
        if process.returncode or not total:
            raise PipelineError(f"mutate {name}: expected tests that pass without a mutant, found:\n{said.strip()}")
    if not rows:
        raise UsageError(f"mutate {name}: expected mutants in {options.within or 'the asked places'}, found none")
    about = tuple(source.removesuffix(".py").removesuffix("/").replace("/", ".") for source in subject.sources)
    explanations = [found for found in read_explanations() if found.function.startswith(about)]
    return Result(name, total, rows, time.monotonic() - started, explanations, population)


def origin(row: dict[str, Any]) -> str:
    """The function in whose source a mutant's line stands; without a line, the function whose code it is."""
    for first, last, name in function_lines(row["file"]):
        if first <= row["line"] <= last:
            return f"{row['file'].removesuffix('.py').replace('/', '.')}.{name}"
    return str(row["function"])


@cache
def function_lines(file: str) -> list[tuple[int, int, str]]:
    """First line, last line and name of each function of a source of this tree."""
    path = paths.ROOT / file
    if not file or not path.is_file():
        return []
    found = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    return [(node.lineno, node.end_lineno or node.lineno, node.name) for node in found]


def follow(path: Path, process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file that a process writes, as they come, until it ends."""
    offset = 0
    while True:
        ended = process.poll() is not None
        if path.exists():
            with path.open() as file:
                file.seek(offset)
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    offset += len(line.encode())
                    yield json.loads(line)
        if ended:
            return
        time.sleep(0.2)


def table(result: Result) -> list[str]:
    """The score by source file."""
    tallies: dict[str, Counter[str]] = defaultdict(Counter)
    for row in result.rows:
        found = result.explanation(row) if row["outcome"] != "killed" else None
        outcome = "equivalent" if found is not None and found.is_equivalent else row["outcome"]
        for key in (row["file"] or row["function"].rpartition(".")[0].replace(".", "/") + ".py", "all"):
            tallies[key][outcome] += 1
    lines = [f"{'source':34}{'run':>6}{'killed':>8}{'survived':>10}{'unreached':>11}{'equivalent':>12}{'score':>9}"]
    for key in sorted(tallies, key=lambda key: (key == "all", key)):
        tally = tallies[key]
        counted = tally.total() - tally["equivalent"]
        score = f"{100 * tally['killed'] / counted:.1f} %" if counted else "-"
        columns = f"{tally['survived']:>10}{tally['unreached']:>11}{tally['equivalent']:>12}{score:>9}"
        lines.append(f"{key:34}{tally.total():>6}{tally['killed']:>8}{columns}")
    return lines


def survivors(result: Result) -> list[str]:
    """The survivors by function and source line, with what was changed and the explanation."""
    groups: dict[tuple[str, str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in result.survivors():
        groups[row["function"], row["file"], row["line"], row["source"]].append(row)
    lines, function = [], ""
    for (symbol, file, number, source), rows in sorted(groups.items()):
        lines += [] if symbol == function else ["", symbol]
        function = symbol
        lines.append(f"  {file}:{number}: {source}" if number else "  (no source line)")
        for row in rows:
            note = "no test reaches it" if row["outcome"] == "unreached" else f"{row['tests']} tests pass"
            found = result.explanation(row)
            if found is not None:
                note = f"{'equivalent' if found.is_equivalent else 'accepted'}: {found.reason}"
            lines.append(f"    {row['kind']:10}+{row['offset']:#x}  {row['before']}  ->  {row['after']}  ({note})")
    return lines


def report(names: list[str], options: Options, as_json: bool, again: Path | None = None) -> int:
    """Run the subjects and print what survives; refused below ENOUGH, or with an explanation that explains nothing.

    again: a result of --json, whose survivors alone are run.
    """
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise UsageError(f"mutate: expected {' or '.join(SUBJECTS)}, found {', '.join(unknown)}")
    survived = read_survivors(again) if again else {}
    results = [
        run(name, SUBJECTS[name], replace(options, only=survived.get(name, []) if again else None))
        for name in names or survived or SUBJECTS
    ]
    if as_json:
        print(json.dumps([as_values(result) for result in results], indent=1))
    for result in [] if as_json else results:
        print("\n".join([*survivors(result), "", f"{result.subject}, seed {options.seed}", *table(result)]))
        print(f"{len(result.rows)} of {result.total} mutants in {result.seconds:.0f} s")
        for explanation in result.stale():
            print(f"{EXPLANATIONS.name}: no mutant survives at {explanation.function}: {explanation.lines}")
    return OK if all(result.score() >= ENOUGH and not result.stale() for result in results) else REFUSED


def as_values(result: Result) -> dict[str, Any]:
    """The result for --json."""
    return {
        "subject": result.subject,
        "mutants": result.total,
        "run": len(result.rows),
        "killed": len(result.rows) - len(result.survivors()),
        "equivalent": len(result.equivalent()),
        "score": round(result.score(), 2),
        "seconds": round(result.seconds, 1),
        "stale": [[found.function, *found.lines] for found in result.stale()],
        "survivors": result.survivors(),
    }
