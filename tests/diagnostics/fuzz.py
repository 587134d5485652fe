"""The front end with thousands of wrong sources: python -m tests.diagnostics.fuzz --count 10000

Each is a valid program of the tree, of the documentation or of the random generator, changed in a few places. It compiles to legal IR, or
gets errors whose code, place and caret are right; never a Python exception, an endless loop or a full memory. Exit status: 0 if so, else 1.
"""

from __future__ import annotations

import ast
import random
import re
import resource
import sys
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import dsl.compiler
from dsl.compiler import ir
from dsl.compiler.diagnostics import CompileError, Diagnostic
from dsl.compiler.frontend import build_module
from pipeline import program_file
from pipeline.program_file import load_file
from tests import parallel
from tests.diagnostics.mutations import mutate
from tests.language.examples import PRELUDE, examples
from tests.parallel import Died, Progress, results
from tests.random_programs.generator import make_module

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("boot", "vmm", "dsl/std", "guests")
SECONDS: Final = 30  # of processor time for one source
MEMORY: Final = 3 << 30  # bytes of address space, beyond what the process has
CODE: Final = re.compile(r"(?:error|require|Diagnostic|error_in_file)\(\s*\"([a-z-]+)\"")


@dataclass
class Found:
    """What became of one source: outcome is compiled, refused, or what is wrong with how it was refused."""

    outcome: str
    codes: Counter[str] = field(default_factory=Counter)
    wrong: str = ""
    text: bytes = b""


@cache
def originals() -> tuple[list[str], ...]:
    """The valid sources by sort: one is taken of each in turn."""
    own = [path.read_text() for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return (
        [PRELUDE + example.source for example in examples() if not example.is_error],
        [(ROOT / "tests" / "compiler" / "programs.py").read_text()],
        [make_module(seed, 2).source for seed in range(20)],
        sorted((text for text in own if "@machine" in text and len(text) < 9000), key=len),
    )


@cache
def codes() -> set[str]:
    """Every error code in the compiler's source, and where a program's file is read."""
    (folder,) = dsl.compiler.__path__
    files = [*Path(folder).glob("*.py"), Path(program_file.__file__)]
    return {code for path in files for code in CODE.findall(path.read_text(encoding="utf-8"))}


def check(seed: int, folder: Path) -> Found:
    """Change a source and compile what can be reached from some of its functions."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, most))
    source = random.Random(seed)
    original = source.choice(originals()[seed % 4])
    text = mutate(original, source)
    name = f"fuzzed_{seed}"
    path = folder / f"{name}.py"
    path.write_bytes(text)
    warnings.simplefilter("ignore")
    found = Found("compiled", text=text)
    try:
        module = load_file(path, name)
        for function in chosen(module, original, text, source):
            for compiled in build_module(function).functions.values():
                ir.verify(compiled)
    except CompileError as error:
        found.outcome = "refused"
        found.codes = Counter(diagnostic.code for diagnostic in error.diagnostics)
        found.wrong = "; ".join(filter(None, (fault(diagnostic, name, path) for diagnostic in error.diagnostics)))
    except BaseException as error:  # whatever it is, it is no diagnostic
        last = traceback.extract_tb(error.__traceback__)[-1]
        found.wrong = (
            f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} in {last.name}: {str(error)[:200]}"
        )
    finally:
        sys.modules.pop(name, None)
    return found


def chosen(module: ModuleType, original: str, text: bytes, source: random.Random) -> list[Any]:
    """The machine functions whose text was changed, as far as it can be told, and one more."""
    functions = [
        value
        for value in vars(module).values()
        if hasattr(value, "__machine__") and value.__module__ == module.__name__
    ]
    if not functions:
        return []
    before = set(functions_of(original))
    changed = {name for name, body in functions_of(text.decode("utf-8", "replace")) if (name, body) not in before}
    named = [function for function in functions if function.__name__ in changed]
    return [*named[:3], source.choice(functions)]


def functions_of(text: str) -> list[tuple[str, str]]:
    try:
        return [(node.name, ast.dump(node)) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def fault(diagnostic: Diagnostic, name: str, path: Path) -> str:
    """What is wrong with an error: an unknown code, a place outside its file, a caret that does not point at it; empty if nothing."""
    span = diagnostic.span
    if diagnostic.code not in codes():
        return f"code {diagnostic.code}"
    file = path if span.file == f"{name}.py" else ROOT / span.file
    if not file.is_file():
        return f"error[{diagnostic.code}] names the file {span.file}"
    lines = re.split("\r\n|\r|\n", file.read_bytes().decode("utf-8-sig", "replace"))
    if not 1 <= span.line <= len(lines) or span.end_line < span.line:
        return f"error[{diagnostic.code}] at line {span.line} to {span.end_line} of {len(lines)}"
    line = lines[span.line - 1]
    if not 0 <= span.column <= len(line) or (
        span.end_line == span.line and not span.column <= span.end_column <= len(line)
    ):
        return f"error[{diagnostic.code}] at columns {span.column} to {span.end_column} of {line!r}"
    _, shown, carets, *_ = diagnostic.render().split("\n")
    if "\ufffd" not in line and shown.partition(" | ")[2] != line:
        return f"error[{diagnostic.code}] shows {shown!r} for {line!r}"
    if carets.partition(" | ")[2].strip().strip("^"):
        return f"error[{diagnostic.code}] has carets {carets!r}"
    return ""


@dataclass
class Total:
    """What the run showed."""

    count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)


def run(first: int, count: int, jobs: int, folder: Path | None = None, quiet: bool = False) -> Total:
    """Check the sources of these seeds; those that show something wrong are kept in the folder."""
    originals()  # once, for all processes
    total, progress = Total(), Progress("sources", quiet)
    for seed, found in results(range(first, first + count), check, jobs, SECONDS):
        if isinstance(found, Died):
            found = Found(f"died by {found.how}", wrong=f"died by {found.how}")
        total.count += 1
        total.outcomes[found.outcome] += 1
        total.codes += found.codes
        if found.wrong:
            total.wrong[seed] = found.wrong
            print(f"seed {seed}: {found.wrong}", flush=True)
            if folder is not None and found.text:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"fuzzed_{seed}.py").write_bytes(found.text)
        progress.tick(total.count, len(total.wrong))
    print(progress.line(total.count, len(total.wrong)), flush=True)
    return total


def main(argv: list[str] | None = None) -> int:
    parser = parallel.options(__doc__, "sources to try")
    parser.add_argument(
        "--failures", type=Path, default=Path("out/fuzz"), help="folder for what failed (default out/fuzz)"
    )
    options = parser.parse_args(argv)
    total = run(options.seed, options.count, options.jobs, options.failures)
    print(", ".join(f"{name} {number:,}" for name, number in total.outcomes.most_common()))
    print("errors: " + ", ".join(f"{code} {number:,}" for code, number in total.codes.most_common()))
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
