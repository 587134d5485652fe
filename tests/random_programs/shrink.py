"""Makes a failing source small: parts are taken out of its syntax tree as long as it goes on failing in the same way.

The test runs in a process of its own, since a wrong program may do anything.
"""

from __future__ import annotations

import ast
import copy
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.execution.support import load_source
from tests.random_programs.agreement import Counts, Difference, Options, check_calls
from tests.random_programs.subject import Call, Subject

Change = Callable[[ast.Module], None]
SECONDS: Final = 20  # of processor time for one attempt; SIGPROF ends it
LITERALS: Final = ("True", "u8(1)", "u16(1)", "u32(1)", "u64(1)", "i8(1)", "i16(1)", "i32(1)", "i64(1)")


def failure_of(path: Path, call: Call | None, options: Options) -> Difference | None:
    """Load a source and run one call of it in every world; without a call, compile it."""
    subject = Subject(load_source(path.stem, path.read_text(), path.parent))
    calls = []
    if call is not None:
        names = subject.parameters(call.entry)
        calls = [Call(call.entry, {name: call.arguments.get(name, 0) for name in names}, call.seed)]
    return check_calls(subject, calls, options, Counts(), share=1)


def kind_of(source: str, call: Call | None, options: Options) -> str:
    """How a source fails: "" if it does not, or is no program; tried in a child."""
    with tempfile.TemporaryDirectory() as folder:
        path, told = Path(folder) / "shrunk.py", Path(folder) / "kind"
        path.write_text(source)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the child ends, which is soon
                found = failure_of(path, call, options)
                told.write_text(found.kind if found else "")
                status = 0
            finally:
                os._exit(status)
        _, result = os.waitpid(child, 0)
        if os.WIFSIGNALED(result):
            return f"died by {signal.Signals(os.WTERMSIG(result)).name}"
        return told.read_text() if told.exists() else ""


def shrink(source: str, call: Call | None, options: Options, kind: str, seconds: float = 120) -> str:
    """The smallest source found in this much processor time that fails in this way."""
    end = spent() + seconds
    tree = ast.parse(source)
    changed = True
    while changed and spent() < end:
        changed = False
        for changes in (programs, definitions, statements, flattened, signatures, subexpressions, literals):
            number = 0
            while spent() < end:
                found = list(changes(tree))
                if number >= len(found):
                    break
                smaller = attempt(tree, found[number])
                if smaller is not None and kind_of(smaller, call, options) == kind:
                    tree, changed = ast.parse(smaller), True
                else:
                    number += 1
    return ast.unparse(tree)


def spent() -> float:
    """Processor time of this process and its children, in seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def attempt(tree: ast.Module, change: tuple[int, Change]) -> str | None:
    """The source after a change; None if it is no source any more, or the same."""
    before = ast.unparse(tree)
    changed = copy.deepcopy(tree)
    change[1](changed)
    try:
        text = ast.unparse(ast.fix_missing_locations(changed))
        ast.parse(text)
    except (SyntaxError, ValueError, IndexError):
        return None
    return text if text != before else None


# What can be taken out: the larger parts first. Each change finds its place again in a copy, by its number in the walk.


def nodes(tree: ast.Module) -> list[ast.AST]:
    return list(ast.walk(tree))


def programs(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """The module's last function names each program; one of them may be enough."""
    last = tree.body[-1]
    named = [node for node in ast.walk(last) if isinstance(node, ast.BinOp)]
    for addition in named:
        for side in (addition.left, addition.right):
            if isinstance(last, ast.FunctionDef) and not isinstance(side, ast.BinOp):

                def keep(copied: ast.Module, side: ast.expr = side) -> None:
                    copied.body[-1].body = [ast.Return(side)]  # type: ignore[attr-defined]

                yield 1, keep


def definitions(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """Runs of top-level definitions, from the end."""
    for size in (8, 4, 2, 1):
        for start in range(len(tree.body) - size, -1, -size):

            def remove(copied: ast.Module, start: int = start, size: int = size) -> None:
                del copied.body[start : start + size]

            yield size, remove


def bodies(tree: ast.Module) -> Iterator[tuple[int, str, list[ast.stmt]]]:
    """Every list of statements below the top: (number of its owner, field, statements)."""
    for number, node in enumerate(nodes(tree)):
        for name in ("body", "orelse"):
            statements = getattr(node, name, None)
            if isinstance(statements, list) and statements and not isinstance(node, ast.Module):
                yield number, name, statements


def statements(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """Runs of statements."""
    for size in (8, 4, 2, 1):
        for number, name, found in bodies(tree):
            for start in range(len(found) - size, -1, -size):

                def remove(
                    copied: ast.Module, number: int = number, name: str = name, start: int = start, size: int = size
                ) -> None:
                    owner = nodes(copied)[number]
                    rest = getattr(owner, name)
                    del rest[start : start + size]
                    if not rest and name == "body":
                        rest.append(ast.Pass())

                yield size, remove


def flattened(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """A compound statement becomes what it holds."""
    for number, name, found in bodies(tree):
        for index, statement in enumerate(found):
            for part in ("body", "orelse"):
                if getattr(statement, part, None):

                    def lift(
                        copied: ast.Module, number: int = number, name: str = name, index: int = index, part: str = part
                    ) -> None:
                        outer = getattr(nodes(copied)[number], name)
                        outer[index : index + 1] = getattr(outer[index], part)

                    yield 1, lift


def signatures(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """A parameter goes, with its argument in each call; so do class keywords and annotations."""
    for number, node in enumerate(nodes(tree)):
        if isinstance(node, ast.FunctionDef):
            for index in range(len(node.args.args)):

                def remove(copied: ast.Module, number: int = number, index: int = index) -> None:
                    function: Any = nodes(copied)[number]
                    del function.args.args[index]
                    for call in nodes(copied):
                        if (
                            isinstance(call, ast.Call)
                            and isinstance(call.func, ast.Name)
                            and call.func.id == function.name
                            and index < len(call.args)
                        ):
                            del call.args[index]

                yield 1, remove
        if isinstance(node, ast.ClassDef | ast.Call):
            for index in range(len(node.keywords)):

                def drop(copied: ast.Module, number: int = number, index: int = index) -> None:
                    owner: Any = nodes(copied)[number]
                    del owner.keywords[index]

                yield 1, drop


def expressions(tree: ast.Module) -> Iterator[tuple[int, str, int | None, ast.expr]]:
    """Every expression: (number of its owner, field, index in it, itself)."""
    for number, node in enumerate(nodes(tree)):
        for name, value in ast.iter_fields(node):
            if name in ("func", "annotation", "returns", "decorator_list", "targets", "target", "keywords"):
                continue
            if isinstance(value, ast.expr):
                yield number, name, None, value
            elif isinstance(value, list):
                for index, element in enumerate(value):
                    if isinstance(element, ast.expr):
                        yield number, name, index, element


def put(number: int, name: str, index: int | None, new: ast.expr) -> Change:
    def change(copied: ast.Module) -> None:
        owner = nodes(copied)[number]
        if index is None:
            setattr(owner, name, new)
        else:
            getattr(owner, name)[index] = new

    return change


def subexpressions(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """An expression becomes a part of itself."""
    for number, name, index, expression in expressions(tree):
        parts = [part for part in ast.walk(expression) if isinstance(part, ast.expr) and part is not expression]
        for part in parts:
            if isinstance(getattr(part, "ctx", ast.Load()), ast.Load):
                yield 1, put(number, name, index, part)


def literals(tree: ast.Module) -> Iterator[tuple[int, Change]]:
    """An expression becomes a literal."""
    for number, name, index, expression in expressions(tree):
        if not isinstance(expression, ast.Constant | ast.Name) and ast.unparse(expression) not in LITERALS:
            for text in LITERALS:
                yield 1, put(number, name, index, ast.parse(text, mode="eval").body)


def runnable(source: str, call: Call | None, options: Options, title: str) -> str:
    """A source that shows its failure when it is run from the tree's root: PYTHONPATH=. python FILE."""
    lines = [f"# {line}" for line in title.splitlines()]
    lines += [source, "", 'if __name__ == "__main__":', "    from pathlib import Path"]
    lines += [
        "    from tests.random_programs.subject import Call",
        "    from tests.random_programs.shrink import failure_of",
    ]
    lines += [f"    print(failure_of(Path(__file__), {call!r}, {dict(options)!r}) or 'every world agrees')"]
    return "\n".join(lines) + "\n"
