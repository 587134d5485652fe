"""Naked functions: one asm(...) with names, taken as it stands."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from dsl.compiler import ir
from dsl.compiler.operands import Integer, Named, Typed

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


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
    return ir.Assembly(content.python, names)


def assembly_value(lowering: Lowering, keyword: ast.keyword) -> int | ir.Address:
    """An int constant, or the address of a machine function or memory object."""
    operand = lowering.evaluate(keyword.value)
    if isinstance(operand, Integer):
        return operand.value
    if isinstance(operand, Named) and getattr(operand.python, "__machine__", None) is not None:
        return ir.Address(lowering.unit.request(operand.python, (), lowering, keyword.value))  # type: ignore[arg-type]
    data = operand.values[0].data if isinstance(operand, Typed) else None
    if isinstance(data, int | ir.Address):
        return data
    text = f"expected an int constant, a machine function or a memory object, found {operand}"
    raise lowering.error("naked-body", keyword.value, text)
