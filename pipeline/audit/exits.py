"""How long an exit takes at most: each exit handler's longest path, in instructions, against its budget; no loop on it without a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsl.compiler.pipeline import compile_function
from pipeline.audit.code import Code, Finding, code_of
from pipeline.audit.longest import NEVER, Longest


@dataclass(frozen=True)
class Exits:
    """What an exit runs through, each with its budget in instructions: functions (`roots`), and the dispatch's handlers, by their symbols.

    listings: how often the loops of a function written in assembly go round.
    """

    roots: Mapping[str, int]
    handlers: Mapping[str, int]
    listings: Mapping[str, int] = field(default_factory=dict)


def check_exits(code: Code, exits: Exits, handlers: tuple[Callable[..., Any], ...]) -> tuple[list[Finding], list[str]]:
    """Findings, and the table: a row a root and a handler. handlers: those of the dispatch, each of which needs a budget.

    A handler that was inlined where exits are dispatched is measured as it is emitted alone; the roots have it as it is.
    """
    of_handlers = {f"{handler.__module__}.{handler.__name__}": handler for handler in handlers}
    findings = [
        Finding("exit", f"{code.name}: expected {what} {name}, found none")
        for what, names in (
            ("a function", {*exits.roots, *exits.listings} - set(code.functions)),
            ("a handler of the budget's row", set(exits.handlers) - set(of_handlers)),
            ("a budget of", set(of_handlers) - set(exits.handlers)),
        )
        for name in sorted(names)
    ]
    if findings:
        return findings, []
    lines = [f"{code.name}: instructions of the longest path through an exit, by root and handler, and the budget"]
    whole = Longest(code, listings=exits.listings)
    loops: set[tuple[str, int]] = set()
    for name, budget in (*exits.roots.items(), *((name, exits.handlers[name]) for name in of_handlers)):
        longest = whole
        if name not in code.functions:
            longest = Longest(code_of(name, compile_function(of_handlers[name])), listings=exits.listings)
        length = longest.of(name)
        loops |= longest.unbounded[name]
        said = "does not return" if length == NEVER else f"{length:,.0f}"
        lines.append(f"  {name:48} {said:>15} {budget:>15,}")
        if length > budget:
            text = f"{code.name}: {name}: expected at most {budget:,} instructions, found {said}"
            findings.append(Finding("exit", text))
    for file, line in sorted(loops):
        text = "expected a loop with a bound (upto with at_most, or rounds) on the way through an exit, found none"
        findings.append(Finding("loop", f"{code.name}: {file}:{line}: {text}"))
    return findings, lines
