"""References to a function's frame that last longer than what they refer to: returned, stored (by a callee, too), or kept from an earlier
turn of a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsl.compiler import ir
from dsl.compiler.graph import Dominators
from dsl.compiler.lower import Lowering

if TYPE_CHECKING:
    from dsl.compiler.frontend import Unit


def refuse_escapes(unit: Unit) -> None:
    """Report each object of a frame to which a reference outlives it."""
    for lowering in unit.lowerings.values():
        report_outliving(unit, lowering)
    if unit.diagnostics:
        return  # what follows is true of whole functions only
    stored = stored_parameters(unit)
    for symbol, function in unit.module.functions.items():
        if any(value.operation == "frame" for value in function.values()):
            report_kept(unit, function, unit.lowerings[symbol].carried)
            report_stored(unit, function, stored)


def origins(value: ir.Value) -> set[ir.Value]:
    """The frame slots and parameters that a reference may come from; a callee may give back whatever it got."""
    seen, pending = {value}, [value]
    while pending:
        part = pending.pop()
        match part.operation:
            case "phi":
                parts = part.arguments
            case "add":
                parts = part.arguments[:1]
            case "select":
                parts = part.arguments[1:]
            case "extract":
                parts = part.arguments[0].arguments
            case _:
                parts = []
        pending += [other for other in parts if other not in seen]
        seen.update(parts)
    return {part for part in seen if part.operation in ("frame", "parameter")}


def is_of_frame(value: ir.Value) -> bool:
    """Whether a reference may be one to an object of the function's frame."""
    return any(origin.operation == "frame" for origin in origins(value))


def report_outliving(unit: Unit, lowering: Lowering) -> None:
    """The function itself stores or returns a reference."""
    for value, span, place in lowering.stored:
        if is_of_frame(value):
            text = f"a reference to this function's frame is stored in {place}"
            help_ = "the frame is gone when the function returns"
            unit.error("frame-escape", span, text, help_, lowering.chain)
    for value, span, kind in lowering.returned:
        if is_of_frame(value):
            text = f"{kind} refers to this function's frame, which ends here"
            unit.error("frame-escape", span, text, "let the caller pass the memory", lowering.chain)


def report_kept(unit: Unit, function: ir.Function, carried: dict[ir.Value, str]) -> None:
    """A local takes a reference into the next turn of a loop, to an object that this turn made: the next turn makes its own there."""
    dominators = Dominators(function)
    for phi in [value for value in function.values() if value in carried]:
        turns = zip(phi.arguments, phi.block.predecessors, strict=True)
        found = {
            origin for value, source in turns if dominators.dominates(phi.block, source) for origin in origins(value)
        }
        for origin in function.values():
            if origin in found and origin.operation == "frame" and dominators.dominates(phi.block, origin.block):
                text = f"'{carried[phi]}' keeps a reference to this object, which each turn of the loop makes anew"
                unit.error("frame-escape", origin.span, text, "make it before the loop, or copy what has to last")


def stored_parameters(unit: Unit) -> dict[str, dict[int, ir.Span]]:
    """For each function the parameters that it, or what it calls, stores as references, and where."""
    stored: dict[str, dict[int, ir.Span]] = {symbol: {} for symbol in unit.module.functions}
    grown = True
    while grown:
        grown = False
        for symbol, function in unit.module.functions.items():
            stores = [(value, span) for value, span, _ in unit.lowerings[symbol].stored]
            passed = [(call.arguments[number], span) for call, number, span in passed_on(function, stored)]
            for value, span in [*stores, *passed]:
                for origin in origins(value):
                    if origin.operation == "parameter" and origin.data not in stored[symbol]:
                        stored[symbol][origin.integer] = span
                        grown = True
    return stored


def passed_on(function: ir.Function, stored: dict[str, dict[int, ir.Span]]) -> list[tuple[ir.Value, int, ir.Span]]:
    """Calls with the number of an argument that the callee stores, and where it does."""
    return [
        (call, number, span)
        for call in function.values()
        if call.operation == "call"
        for number, span in stored.get(call.callee.symbol, {}).items()
    ]


def report_stored(unit: Unit, function: ir.Function, stored: dict[str, dict[int, ir.Span]]) -> None:
    for call, number, span in passed_on(function, stored):
        if is_of_frame(call.arguments[number]):
            name = call.callee.symbol.rpartition(".")[2]
            text = f"a reference to this function's frame goes to '{name}', which stores it"
            help_ = f"the frame is gone when the function returns, see {span.file}:{span.line}"
            unit.error("frame-escape", call.span, text, help_)
