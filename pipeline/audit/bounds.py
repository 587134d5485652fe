"""How often a loop of the source goes round at most: read from its `for` line, by the constants of its module."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import paths


@dataclass(frozen=True)
class Loop:
    """A loop statement: its place, and its bound; None if it has none that can be read."""

    file: str
    line: int
    bound: int | None


@cache
def loops_of(file: str, root: Path = paths.ROOT) -> dict[int, Loop]:
    """The loops of a source file, by the line on which each begins."""
    path = root / file
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    found = {}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        local = {argument.arg for argument in function.args.args}
        local |= {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.For):
                found[node.lineno] = Loop(file, node.lineno, bound_of(node.iter, vars(module), local))
            elif isinstance(node, ast.While):
                found[node.lineno] = Loop(file, node.lineno, None)
    return found


def bound_of(iterated: ast.expr, names: dict[str, Any], local: set[str]) -> int | None:
    """Rounds of `upto(...)`, `rounds(...)` or `between(...)`; None if they depend on a local."""
    if not isinstance(iterated, ast.Call) or not isinstance(iterated.func, ast.Name):
        return None
    for keyword in iterated.keywords:
        if keyword.arg == "at_most":
            return constant(keyword.value, names, local)
    ends = [constant(argument, names, local) for argument in iterated.args]
    if iterated.func.id in ("upto", "rounds") and len(ends) == 1:
        return ends[0]
    if iterated.func.id == "between" and len(ends) == 2 and ends[0] is not None and ends[1] is not None:
        return max(ends[1] - ends[0], 0)
    return None


def constant(node: ast.expr, names: dict[str, Any], local: set[str]) -> int | None:
    """The value of an expression over a module's constants; None for any other."""
    if any(isinstance(part, ast.Name) and part.id in local for part in ast.walk(node)):
        return None
    try:
        return int(eval(compile(ast.Expression(node), "<bound>", "eval"), dict(names)))
    except Exception:  # anything that is no constant of the module
        return None
