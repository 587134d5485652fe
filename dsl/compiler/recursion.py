"""Recursion: refused, unless a function of the cycle says how deep it may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dsl.compiler import ir

if TYPE_CHECKING:
    from dsl.compiler.frontend import Unit

DEEPEST: Final = 400  # functions, of which each calls the next


def refuse_recursion(unit: Unit) -> None:
    """Report each call that closes a cycle in which no function has a depth."""
    done: set[str] = set()
    for symbol in unit.module.functions:
        search(unit, symbol, [], done)


def search(unit: Unit, symbol: str, path: list[str], done: set[str]) -> None:
    """Depth-first over the calls of functions without a depth; `path` is the chain of callers."""
    function = unit.module.functions.get(symbol)
    if symbol in done or function is None or unit.options[symbol].depth is not None:
        return
    path.append(symbol)
    for value in function.values():
        if value.operation != "call":
            continue
        callee = value.callee.symbol
        if callee in path:
            report_cycle(unit, value, path[path.index(callee) :])
        elif len(path) == DEEPEST:
            unit.error(
                "recursion", value.span, f"calls go more than {DEEPEST} functions deep", "call some of them from a loop"
            )
        else:
            search(unit, callee, path, done)
    path.pop()
    done.add(symbol)


def report_cycle(unit: Unit, call: ir.Value, cycle: list[str]) -> None:
    names = " -> ".join(symbol.rpartition(".")[2] for symbol in [*cycle, cycle[0]])
    unit.error("recursion", call.span, f"recursion: {names}", "use a loop, or say how deep: @machine(depth=N)")
