"""Functions that are assembly: naked ones, and regions.

A naked function is one asm(...) with names, taken as it stands. A region's code goes under `symbol.body`; under its own symbol stands what
calls it, with something before and after. `@machine(simd=True)`: XMM0 to XMM15 are saved and restored, so that they may be used. Legacy SSE
moves: what lies above bit 127 is not touched. pipeline/audit checks that a program reaches vector instructions through regions alone.
`@machine(wipes=SIZE)`: nothing of what the function worked on is left on the stack or in a register that is the callee's to change.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from dsl.compiler import ir
from dsl.compiler.lower import Lowering
from dsl.compiler.machine import ARGUMENTS
from dsl.compiler.operands import Integer, Named, Typed

if TYPE_CHECKING:
    from dsl.compiler.frontend import Unit

COUNT: Final = 16  # registers, of 16 bytes each
ROOM: Final = COUNT * 16 + 8  # what a call pushed leaves the stack 8 bytes off
SAVE: Final = "; ".join(f"movaps xmmword ptr [rsp + {number * 16}], xmm{number}" for number in range(COUNT))
RESTORE: Final = "; ".join(f"movaps xmm{number}, xmmword ptr [rsp + {number * 16}]" for number in range(COUNT))
REGION: Final = f"sub rsp, {ROOM}; {SAVE}; call {{body}}; {RESTORE}; add rsp, {ROOM}; ret"
WIPED: Final = ("esi", "edi", "r8d", "r9d", "r10d", "r11d")  # besides eax, ecx and edx
KEPT: Final = 2  # words of results that a wiping region hands on, in rax and rdx


def read_assembly(lowering: Lowering, node: ast.FunctionDef) -> ir.Assembly:
    """The body of a naked function: its text and what its names stand for."""
    statements = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    match statements:
        case [ast.Expr(value=ast.Call(func=ast.Name(id="asm"), args=[argument], keywords=keywords) as call)]:
            pass
        case _:
            where, text = statements[0] if statements else node, 'a naked function is one asm("...", name=value)'
            raise lowering.error("naked-body", where, text)
    content = lowering.evaluate(argument)
    if not isinstance(content, Named) or not isinstance(content.python, str):
        raise lowering.error("naked-body", argument, f"the assembly is a text, found {content}")
    names = tuple((keyword.arg or "", assembly_value(lowering, keyword)) for keyword in keywords)
    used = set(re.findall(r"\{(\w+)\}", content.python))
    for keyword in keywords:
        if keyword.arg not in used:
            raise lowering.error("naked-body", keyword, f"the assembly does not use {{{keyword.arg}}}")
    for missing in sorted(used - {name for name, _ in names}):
        text = f"the assembly names {{{missing}}}, which is not given"
        raise lowering.error("naked-body", call, text, f"{missing}=value")
    place = lowering.source.span(argument), lowering.source.line(argument.lineno)
    return ir.Assembly(content.python, names, place)


def assembly_value(lowering: Lowering, keyword: ast.keyword) -> int | ir.Address:
    """An int constant, or the address of a machine function or memory object."""
    operand = lowering.evaluate(keyword.value)
    if isinstance(operand, Integer):
        return operand.value
    if isinstance(operand, Named) and getattr(operand.python, "__machine__", None) is not None:
        return ir.Address(lowering.unit.request(operand.python))
    data = operand.values[0].data if isinstance(operand, Typed) else None
    if isinstance(data, int | ir.Address):
        return data
    text = f"expected an int constant, a machine function or a memory object, found {operand}"
    raise lowering.error("naked-body", keyword.value, text)


def enclose(unit: Unit) -> None:
    """Put each function that asks for a region into one."""
    for symbol, function in list(unit.module.functions.items()):
        options = unit.options[symbol]
        if not options.simd and options.wipes is None:
            continue
        given, returned = len(function.parameters), len(function.results)
        if options.simd and given > len(ARGUMENTS):
            text = f"expected at most {len(ARGUMENTS)} words of arguments in a simd region, found {given}"
            unit.error("signature", function.span, text, "an Array is two words")
        if options.wipes is not None and returned > KEPT:
            text = f"expected at most {KEPT} words of results in a wiping region, found {returned}"
            unit.error("signature", function.span, text)
        body = f"{symbol}.body"
        text = REGION if options.wipes is None else wiping(given - len(ARGUMENTS), returned, options.wipes)
        assembly = ir.Assembly(text, (("body", ir.Address(body)),))
        unit.module.functions[symbol] = ir.Function(
            symbol, function.parameters, function.results, function.span, assembly=assembly
        )
        function.symbol = body
        unit.module.functions[body] = function


def wiping(stacked: int, results: int, size: int) -> str:
    """Call the body with the caller's `stacked` words on the stack again; then zero `size` bytes below the caller's stack pointer.

    Safe because nothing lives there: there is no red zone, and interrupts taken in between have finished.
    """
    stacked = max(stacked, 0)
    room = 8 * (stacked | 1)  # with the return address, a multiple of 16
    steps = [f"sub rsp, {room - 8 * stacked}"] if room > 8 * stacked else []
    steps += [f"push qword ptr [rsp + {room}]"] * stacked
    steps += ["call {body}", f"add rsp, {room}", *(["mov r8, rax"] if results else [])]
    steps += [f"lea rdi, [rsp - {size}]", f"mov ecx, {size // 8}", "xor eax, eax", "rep stosq"]
    steps += ["mov rax, r8"] if results else []
    zeroed = (("edx",) if results < KEPT else ()) + WIPED
    return "; ".join([*steps, *(f"xor {name}, {name}" for name in zeroed), "ret"])
