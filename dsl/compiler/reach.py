"""What a program reaches: the symbols that each function names, from the entry on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dsl.compiler.ir import Address, Assembly, Callee, Function, Module


def mentions_of(function: Function) -> list[tuple[str, int]]:
    """The symbols that a function's code names: 1 for a call, 2 for an address."""
    if isinstance(function.assembly, Assembly):
        return [(value.symbol, 2) for _, value in function.assembly.names if isinstance(value, Address)]
    named = [value.data for value in function.values() if isinstance(value.data, Callee | Address)]
    return [(data.symbol, 1 if isinstance(data, Callee) else 2) for data in named]


def reached(symbols: Iterable[str], named_by: Callable[[str], Iterable[str]]) -> dict[str, None]:
    """These symbols and all that they lead to, each once, nearest first."""
    found: dict[str, None] = {}
    pending = list(symbols)
    while pending:
        symbol = pending.pop(0)
        if symbol not in found:
            pending += named_by(symbol)
        found[symbol] = None
    return found


def drop_unreached(module: Module, reorder: bool = False) -> None:
    """Remove functions and objects that the entry, the first function, does not reach. reorder: each function behind who names it."""
    functions = module.functions
    kept = reached(
        [next(iter(functions))],
        lambda name: [named for named, _ in mentions_of(functions[name])] if name in functions else [],
    )
    module.functions = {
        name: functions[name] for name in (kept if reorder else functions) if name in kept and name in functions
    }
    module.objects = {symbol: item for symbol, item in module.objects.items() if symbol in kept}
    module.supplied = {symbol: name for symbol, name in module.supplied.items() if symbol in kept}
