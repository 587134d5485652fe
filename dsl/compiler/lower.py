"""One machine function from syntax tree to IR, checked and lowered in one typed walk: its state, and who lowers which node.

Statements, expressions, conditions, calls and memory are in modules beside this one; each takes the Lowering as its first argument.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from dsl.compiler import ir, statements
from dsl.compiler.builder import Builder, Loop, Position
from dsl.compiler.calls import call
from dsl.compiler.conditions import bool_value, conditional
from dsl.compiler.diagnostics import Note, Reported, instead
from dsl.compiler.expressions import attribute, constant, named, subscript
from dsl.compiler.fitting import coerce
from dsl.compiler.operands import Integer, Operand, Typed
from dsl.compiler.operators import binary, comparison, unary
from dsl.compiler.signatures import Signature
from dsl.compiler.source import SourceFile, assigned_names, declaration_error
from dsl.lang import types as t
from dsl.lang.failure import DeclarationError
from dsl.lang.types import NONE

if TYPE_CHECKING:
    from dsl.compiler.frontend import Unit


class Lowering:
    """The state of compiling one function: its locals' types, open loops and the block being filled."""

    def __init__(
        self,
        unit: Unit,
        python: Callable[..., Any],
        signature: Signature,
        ir_function: ir.Function,
        chain: tuple[Note, ...],
    ) -> None:
        self.unit = unit
        self.source: SourceFile = unit.sources.file_of(python)
        self.namespace: dict[str, Any] = python.__globals__
        self.signature = signature
        self.builder = Builder(ir_function)
        self.chain = chain
        self.declared = self.builder.declared  # the one type of each local
        self.failed: set[str] = set()  # locals whose assignment had an error: silence about them
        self.locals: set[str] = set()
        self.statics: dict[str, object] = {}
        self.loops: list[Loop] = []
        self.loop_variables: set[str] = set()
        self.counting: set[str] = set()  # those of open loops, which are read-only
        self.carried: dict[ir.Value, str] = {}  # at a loop's head: locals that bring references from its earlier turns
        self.stored: list[tuple[ir.Value, ir.Span]] = []  # references that were stored in memory, and where
        self.depth_counter = ""  # the symbol of a recursive function's count of activations

    # entry

    def bind_parameters(self, node: ast.FunctionDef, statics: tuple[object, ...]) -> None:
        """Give the parameters their places: values of the entry block, or constants of this specialisation."""
        self.builder.span = self.source.span(node)
        remaining = iter(statics)
        numbers = count()
        for name, kind in self.signature.parameters.items():
            if isinstance(kind, t.StaticType):
                self.statics[name] = next(remaining, None)
                if self.statics[name] is None:
                    text = f"nothing gives '{name}', a Static parameter, its value"
                    raise self.error(
                        "static-argument", node, text, "call the function: an entry has no Static parameters"
                    )
                continue
            values = tuple(self.builder.append("parameter", width, [], next(numbers)) for width in kind.widths)
            mark_secrets(values, kind)
            self.locals.add(name)
            self.declared[name] = kind.general
            self.builder.environment[name] = Typed(kind.general, values)

    def enter(self, symbol: str, depth: int | None) -> None:
        """Count an activation of a function that may call itself; one too many stops."""
        if depth is None:
            return
        self.depth_counter = f"{symbol}.depth"
        self.unit.module.objects[self.depth_counter] = ir.DataObject(self.depth_counter, 8, 8)
        live = self.count_activation(1)
        self.builder.check(self.builder.emit("ule", live, depth), f"recursion deeper than {depth}")

    def count_activation(self, change: int) -> ir.Value:
        address = self.builder.symbol(self.depth_counter)
        live = self.builder.add_constant(self.builder.load(address, 64), change)
        self.builder.store(address, live)
        return live

    def leave(self, values: tuple[ir.Value, ...]) -> None:
        """Return these components."""
        if self.depth_counter:
            self.count_activation(-1)
        self.builder.finish("return", list(values))

    # calls

    def call(
        self, python: Callable[..., Any], statics: tuple[object, ...], passed: list[Typed], node: ast.AST
    ) -> Typed:
        """Call a machine function with arguments of its parameters' types."""
        signature = self.unit.signature(python)
        symbol = self.unit.request(python, statics, self.source.span(node), self.chain)
        builder = self.at(node)
        values = [value for argument in passed for value in argument.values]
        called = builder.append("call", 0, values, ir.Callee(symbol, signature.result.widths))
        extracted = builder.results(called, signature.result.widths)
        mark_secrets(extracted, signature.result)
        if not signature.returns:
            builder.finish("stop", [], "a function that never returns did")
        in_frame = any(argument.in_frame for argument in passed) and has_reference(signature.result)
        return Typed(signature.result, extracted, in_frame)

    def instruction(self, python: Any, *inputs: ir.Value) -> ir.Value:
        """Emit an intrinsic; its results are extracted from the value."""
        return self.builder.append("intrinsic", 0, list(inputs), python.__instruction__)

    # errors

    def error(self, code: str, node: ast.AST, text: str, help: str = "") -> Reported:
        """Record an error at a node; raise the result to go on with the next statement."""
        return self.unit.error(code, self.source.span(node), text, help, self.chain)

    def at(self, node: ast.AST) -> Builder:
        """The builder, set to give new values this node's span."""
        self.builder.span = self.source.span(node)
        return self.builder

    @property
    def dead(self) -> bool:
        return self.builder.position.dead

    # locals

    def read(self, name: str, node: ast.AST) -> Typed:
        """The value of a local, at the type that it is known to have here."""
        if name in self.failed:
            raise Reported()
        binding = self.builder.environment.get(name)
        if binding is None:
            text, help_ = f"'{name}' is not assigned on every path to here", "assign it before the branch or loop"
            if name in self.loop_variables:
                text = f"the loop variable '{name}' has no value after its loop"
                help_ = "copy it to a local inside the loop"
            raise self.error("unassigned", node, text, help_)
        values = binding.values
        if isinstance(self.declared[name], t.FallibleType) and not isinstance(binding.type, t.FallibleType):
            values = values[:1] if binding.type == t.FAILURE else values[1:]  # narrowed: the code, or what follows it
        return Typed(binding.type, values, binding.in_frame)

    def assign(self, name: str, operand: Operand, node: ast.AST, value: ast.AST) -> None:
        """Give a local the value of an expression; the first assignment decides its type."""
        previous = self.builder.environment.get(name)
        if previous is not None and name in self.counting:
            raise self.error("loop-variable", node, f"the loop variable '{name}' is read-only", "use another local")
        if isinstance(operand, Integer):
            help_ = f"give the literal a type: {self.declared.get(name, 'u64')}({operand.value})"
            raise self.error("bare-int", value, f"'{name}' would be a bare int", help_)
        if name == "_":
            return
        if operand.plain == NONE:
            text = f"'{name}' is assigned None, which the call returns"
            raise self.error("type-mismatch", value, text, "call it as a statement")
        if name not in self.declared:
            if not isinstance(operand, Typed):
                raise self.error("type-mismatch", value, f"'{name}' has no type yet, and {operand} gives it none")
            self.declared[name] = operand.type.general
        declared = self.declared[name]
        stored = coerce(self, operand, declared, value)
        narrowed = operand.type.general if isinstance(operand, Typed) else declared
        if stored.in_frame and self.loops and previous is not None and not previous.in_frame:
            text = f"'{name}' referred to other memory, and would refer to this function's frame"
            raise self.error("frame-escape", node, text, "use another local")
        self.builder.environment[name] = Typed(narrowed, stored.values, stored.in_frame)

    # expressions and statements

    def evaluate(self, node: ast.expr) -> Operand:
        """Lower an expression here; its value."""
        lower = EXPRESSIONS.get(type(node))
        if lower is None:
            name = type(node).__name__
            help_ = instead(name, "see dsl/README.md, Functions")
            raise self.error("unsupported", node, f"the expression '{name}' is not in the language", help_)
        return lower(self, node)

    def body(self, nodes: list[ast.stmt]) -> None:
        """Lower statements; an error in one does not hide those in the next."""
        for statement in nodes:
            try:
                self.statement(statement)
            except (Reported, DeclarationError, RecursionError) as problem:
                if isinstance(problem, DeclarationError):
                    self.unit.report(declaration_error(problem))
                elif isinstance(problem, RecursionError):
                    self.error("unsupported", statement, "this is nested too deeply", "give parts names")
                self.failed |= assigned_names([statement]) - self.builder.environment.keys()
                self.failed |= {name for name in assigned_names([statement]) if name not in self.declared}
                if isinstance(statement, ast.Return | ast.Raise | ast.Try | ast.With | ast.Match):
                    self.leave_block()

    def statement(self, node: ast.stmt) -> None:
        self.at(node)
        lower = STATEMENTS.get(type(node))
        if lower is None:
            name = type(node).__name__
            help_ = instead(name, "see dsl/README.md, Functions")
            raise self.error("unsupported", node, f"the statement '{name.lower()}' is not in the language", help_)
        lower(self, node)

    def open_loop(self, assigned: set[str]) -> Loop:
        """Start a loop that assigns these locals; note which of them refer to memory."""
        loop = self.builder.open_loop(assigned)
        for name, phis in loop.phis.items():
            if has_reference(self.builder.environment[name].type):
                self.carried |= dict.fromkeys(phis, name)
        return loop

    def leave_block(self) -> None:
        """What follows here is not reached."""
        self.builder.position = Position(self.builder.new_block(), dict(self.builder.environment), dead=True)


EXPRESSIONS: Final[dict[type[ast.expr], Callable[[Lowering, Any], Operand]]] = {
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
}
STATEMENTS: Final[dict[type[ast.stmt], Callable[[Lowering, Any], None]]] = {
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


def mark_secrets(values: tuple[ir.Value, ...], kind: t.Type) -> None:
    """Say of components that come from elsewhere which are secret."""
    for value, (_, is_secret) in zip(values, kind.parts, strict=True):
        value.secret = is_secret


def has_reference(kind: t.Type) -> bool:
    """Whether a value of this type may hold a reference to memory."""
    match kind:
        case t.StructType() | t.ArrayType():
            return True
        case t.RecordType(fields=fields):
            return any(has_reference(field) for field in fields.values())
        case t.QualifiedType(inner=inner) | t.WrappedType(inner=inner):
            return has_reference(inner)
    return False
