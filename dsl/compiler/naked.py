"""Naked functions: one asm(...) with names, taken as it stands."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from dsl.compiler import ir
from dsl.compiler.expressions import evaluate
from dsl.compiler.operands import Integer, Named, Typed

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering


def read_assembly(lowering: Lowering, node: ast.FunctionDef) -> ir.Assembly:
    """The body of a naked function: its text and what its names stand for."""
    statements = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    call = statements[0].value if len(statements) == 1 and isinstance(statements[0], ast.Expr) else None
    if (
        not isinstance(call, ast.Call)
        or not isinstance(call.func, ast.Name)
        or call.func.id != "asm"
        or len(call.args) != 1
    ):
        raise lowering.error(
            "naked-body", statements[0] if statements else node, 'a naked function is one asm("...", name=value)'
        )
    text = evaluate(lowering, call.args[0])
    if not isinstance(text, Named) or not isinstance(text.python, str):
        raise lowering.error("naked-body", call.args[0], f"the assembly is a text, found {lowering.spell(text)}")
    names = tuple((keyword.arg or "", assembly_value(lowering, keyword)) for keyword in call.keywords)
    used = set(re.findall(r"\{(\w+)\}", text.python))
    for keyword in call.keywords:
        if keyword.arg not in used:
            raise lowering.error("naked-body", keyword, f"the assembly does not use {{{keyword.arg}}}")
    missing = sorted(used - {name for name, _ in names})
    if missing:
        raise lowering.error(
            "naked-body", call, f"the assembly names {{{missing[0]}}}, which is not given", f"{missing[0]}=value"
        )
    return ir.Assembly(text.python, names)


def assembly_value(lowering: Lowering, keyword: ast.keyword) -> int | ir.Address:
    """An int constant, or the address of a machine function or memory object."""
    operand = evaluate(lowering, keyword.value)
    if isinstance(operand, Integer):
        return operand.value
    if isinstance(operand, Named) and getattr(operand.python, "__machine__", None) is not None:
        return ir.Address(lowering.unit.request(operand.python, (), lowering, keyword.value))  # type: ignore[arg-type]
    data = operand.values[0].data if isinstance(operand, Typed) else None
    if isinstance(data, int | ir.Address):
        return data
    text = f"expected an int constant, a machine function or a memory object, found {lowering.spell(operand)}"
    raise lowering.error("naked-body", keyword.value, text)
