"""One machine function from syntax tree to IR, checked and lowered in one typed walk: its state, and who lowers which node.

Statements, expressions, conditions, calls and memory are in modules beside this one; each takes the Lowering as its first argument.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from dsl.compiler import ir
from dsl.compiler.builder import Builder, Loop
from dsl.compiler.diagnostics import Note, Reported, instead
from dsl.compiler.operands import Operand, Typed
from dsl.compiler.signatures import Signature
from dsl.compiler.source import SourceFile, assigned_names, declaration_error
from dsl.lang import types as t
from dsl.lang.failure import DeclarationError

if TYPE_CHECKING:
    from dsl.compiler.frontend import Unit

Grammar = Mapping[type[ast.AST], Callable[["Lowering", Any], Any]]  # who lowers which node


class Lowering:
    """The state of compiling one function: its locals' types, open loops and the block being filled."""

    def __init__(
        self,
        unit: Unit,
        grammar: Grammar,
        python: Callable[..., Any],
        signature: Signature,
        ir_function: ir.Function,
        chain: tuple[Note, ...],
    ) -> None:
        self.unit = unit
        self.grammar = grammar
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
        self.stored: list[tuple[ir.Value, ir.Span, str]] = []  # references put into memory, and into which place
        self.returned: list[tuple[ir.Value, ir.Span, str]] = []  # references in a result, and its type
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
        return Typed(signature.result, extracted)

    def instruction(self, python: Any, *inputs: ir.Value) -> ir.Value:
        """Emit an intrinsic; its results are extracted from the value."""
        return self.builder.append("intrinsic", 0, list(inputs), python.__instruction__)

    # errors

    def error(self, code: str, node: ast.AST, text: str, help: str = "") -> Reported:
        """Record an error at a node; raise the result to go on with the next statement."""
        return self.unit.error(code, self.source.span(node), text, help, self.chain)

    def require(self, code: str, holds: ir.Value, message: str, node: ast.AST, text: str, help: str = "") -> None:
        """Stop the machine here unless `holds`; what is known to fail already is an error at the node."""
        if holds.constant == 0 and not self.dead:
            raise self.error(code, node, text, help)
        self.builder.check(holds, message)

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
            if name in self.statics:
                text, help_ = f"'{name}' is a Static parameter, which is not assigned", "use a local of another name"
            if name in self.loop_variables:
                text = f"the loop variable '{name}' has no value after its loop"
                help_ = "copy it to a local inside the loop"
            raise self.error("unassigned", node, text, help_)
        values = binding.values
        if isinstance(self.declared[name], t.FallibleType) and not isinstance(binding.type, t.FallibleType):
            values = values[:1] if binding.type == t.FAILURE else values[1:]  # narrowed: the code, or what follows it
        return Typed(binding.type, values)

    # expressions and statements

    def evaluate(self, node: ast.expr) -> Operand:
        """Lower an expression here; its value."""
        operand: Operand = self.lower(node, "expression", type(node).__name__)
        return operand

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
                    self.builder.leave()

    def statement(self, node: ast.stmt) -> None:
        self.at(node)
        self.lower(node, "statement", type(node).__name__.lower())

    def lower(self, node: ast.AST, what: str, name: str) -> Any:
        """Let the grammar's function for a node lower it."""
        if type(node) not in self.grammar:
            help_ = instead(type(node).__name__, "see dsl/README.md, Functions")
            raise self.error("unsupported", node, f"the {what} '{name}' is not in the language", help_)
        return self.grammar[type(node)](self, node)

    def open_loop(self, assigned: set[str]) -> Loop:
        """Start a loop that assigns these locals; note which of them refer to memory."""
        loop = self.builder.open_loop(assigned)
        for name in loop.phis:
            self.carried |= dict.fromkeys(self.builder.environment[name].references, name)
        return loop


def mark_secrets(values: tuple[ir.Value, ...], kind: t.Type) -> None:
    """Say of components that come from elsewhere which are secret."""
    for value, part in zip(values, kind.parts, strict=True):
        value.secret = part.secret
