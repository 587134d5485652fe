"""What a program reaches: the symbols that each function names, from the entry on."""

from __future__ import annotations

from dsl.compiler.ir import Address, Assembly, Callee, Function, Module


def mentions_of(function: Function) -> list[tuple[str, int]]:
    """The symbols that a function's code names: 1 for a call, 2 for an address."""
    if isinstance(function.assembly, Assembly):
        return [(value.symbol, 2) for _, value in function.assembly.names if isinstance(value, Address)]
    named = [value.data for value in function.values() if isinstance(value.data, Callee | Address)]
    return [(data.symbol, 1 if isinstance(data, Callee) else 2) for data in named]


def drop_unreached(module: Module, reorder: bool = False) -> None:
    """Remove functions and objects that the entry, the first function, does not reach. reorder: each function behind who names it."""
    pending = [next(iter(module.functions))]
    reached: dict[str, None] = {}
    while pending:
        symbol = pending.pop(0)
        if symbol not in reached and symbol in module.functions:
            pending += [named for named, _ in mentions_of(module.functions[symbol])]
        reached[symbol] = None
    kept = [symbol for symbol in (reached if reorder else module.functions) if symbol in reached]
    module.functions = {symbol: module.functions[symbol] for symbol in kept if symbol in module.functions}
    module.objects = {symbol: item for symbol, item in module.objects.items() if symbol in reached}
    module.supplied = {symbol: name for symbol, name in module.supplied.items() if symbol in reached}
