"""The language's syntax: who lowers which node. What is not here is not in the language."""

from __future__ import annotations

import ast
from typing import Final

from dsl.compiler import statements
from dsl.compiler.calls import call
from dsl.compiler.conditions import bool_value, conditional
from dsl.compiler.expressions import attribute, constant, named, subscript
from dsl.compiler.lower import Grammar
from dsl.compiler.operators import binary, comparison, unary

GRAMMAR: Final[Grammar] = {
    ast.Constant: constant,
    ast.Name: named,
    ast.Attribute: attribute,
    ast.Subscript: subscript,
    ast.BinOp: binary,
    ast.UnaryOp: unary,
    ast.BoolOp: bool_value,
    ast.Compare: comparison,
    ast.IfExp: conditional,
    ast.Call: call,
    ast.Expr: statements.expression_statement,
    ast.Assign: statements.assign_statement,
    ast.AnnAssign: statements.annotated_assignment,
    ast.AugAssign: statements.augmented_assignment,
    ast.If: statements.if_statement,
    ast.While: statements.while_statement,
    ast.For: statements.for_statement,
    ast.Return: statements.return_statement,
    ast.Break: statements.leave_loop,
    ast.Continue: statements.leave_loop,
    ast.Assert: statements.assert_statement,
    ast.Pass: lambda lowering, node: None,
}
