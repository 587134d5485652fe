"""Regions in which the XMM registers may be used: `@machine(simd=True)`.

The function's code goes under `symbol.body`; under its own symbol stands what saves XMM0 to XMM15, calls it, and restores them. Legacy SSE
moves: what lies above bit 127 is not touched. pipeline/audit checks that a program reaches vector instructions through regions alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dsl.compiler import ir
from dsl.compiler.machine import ARGUMENTS

if TYPE_CHECKING:
    from dsl.compiler.frontend import Unit

COUNT: Final = 16  # registers, of 16 bytes each
ROOM: Final = COUNT * 16 + 8  # what a call pushed leaves the stack 8 bytes off
SAVE: Final = "; ".join(f"movaps xmmword ptr [rsp + {number * 16}], xmm{number}" for number in range(COUNT))
RESTORE: Final = "; ".join(f"movaps xmm{number}, xmmword ptr [rsp + {number * 16}]" for number in range(COUNT))
REGION: Final = f"sub rsp, {ROOM}; {SAVE}; call {{body}}; {RESTORE}; add rsp, {ROOM}; ret"


def enclose(unit: Unit) -> None:
    """Put each function that asks for a region into one."""
    for symbol, function in list(unit.module.functions.items()):
        if not unit.options[symbol].simd:
            continue
        if len(function.parameters) > len(ARGUMENTS):
            text = f"expected at most {len(ARGUMENTS)} words of arguments in a simd region, found {len(function.parameters)}"
            unit.error("signature", function.span, text, "an Array is two words")
        body = f"{symbol}.body"
        assembly = ir.Assembly(REGION, (("body", ir.Address(body)),))
        unit.module.functions[symbol] = ir.Function(
            symbol, function.parameters, function.results, function.span, assembly=assembly
        )
        function.symbol = body
        unit.module.functions[body] = function
