"""From a machine function to an IR module: everything reachable is found, checked and lowered."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dsl.compiler import ir
from dsl.compiler.assembly import enclose, read_assembly
from dsl.compiler.constants import Constants
from dsl.compiler.dead import remove_dead
from dsl.compiler.diagnostics import CompileError, Diagnostic, Note, Reported
from dsl.compiler.escape import refuse_escapes
from dsl.compiler.flow import merge_lines
from dsl.compiler.grammar import GRAMMAR
from dsl.compiler.graph import drop_unreachable
from dsl.compiler.kernels import read_kernel
from dsl.compiler.lower import Lowering
from dsl.compiler.reach import drop_unreached
from dsl.compiler.recursion import refuse_recursion
from dsl.compiler.signatures import Signature, read_signature
from dsl.compiler.source import Sources, assigned_names, declaration_error
from dsl.compiler.statements import end
from dsl.lang.failure import DeclarationError

if TYPE_CHECKING:
    from dsl.lang.functions import MachineOptions

MOST_VALUES: Final = 256  # specialisations of one function: one that calls itself with other values would never end


def build_module(entry: Callable[..., Any]) -> ir.Module:
    """Compile `entry` and all that it reaches. Raises CompileError with every error found."""
    if getattr(entry, "__machine__", None) is None:
        raise ValueError(f"{entry!r} is no machine function: decorate it with @machine")
    unit = Unit()
    unit.request(entry)
    unit.run()
    refuse_recursion(unit)
    refuse_escapes(unit)
    if not unit.diagnostics:
        enclose(unit)
    if unit.diagnostics:
        raise CompileError(unit.diagnostics)
    drop_unreached(unit.module, reorder=True)
    return unit.module


class Request(NamedTuple):
    """A function to compile: with the values of its Static parameters, and the calls that led to it."""

    python: Any
    statics: tuple[object, ...]
    chain: tuple[Note, ...]


class Unit:
    """One compilation: what was found, what is still to do, what was wrong."""

    def __init__(self) -> None:
        self.sources = Sources()
        self.module = ir.Module()
        self.constants = Constants(self.module)
        self.diagnostics: list[Diagnostic] = []
        self.requests: dict[str, Request] = {}
        self.pending: list[str] = []
        self.signatures: dict[Callable[..., Any], Signature] = {}
        self.options: dict[str, MachineOptions] = {}
        self.lowerings: dict[str, Lowering] = {}

    def report(self, diagnostic: Diagnostic) -> None:
        """Record an error, once."""
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    def error(
        self, code: str, span: ir.Span | None, text: str, help_: str = "", chain: tuple[Note, ...] = ()
    ) -> Reported:
        """Record an error at a place of the program; raise the result to go on behind it."""
        assert span is not None
        line = self.sources.by_display(span.file).line(span.line)
        self.report(Diagnostic(code, text, span, line, help_, chain))
        return Reported()

    # finding functions

    def request(
        self, python: Any, statics: tuple[object, ...] = (), at: ir.Span | None = None, chain: tuple[Note, ...] = ()
    ) -> str:
        """The symbol of a machine function for these Static values, called at a place; it will be compiled."""
        symbol = function_symbol(python, statics)
        if symbol not in self.requests:
            alike = sum(request.python is python for request in self.requests.values()) if statics else 0
            if alike == MOST_VALUES:
                text = f"'{python.__name__}' is called with more than {MOST_VALUES} values of its Static parameters"
                raise self.error(
                    "static-argument", at, text, "pass what changes at every call as a plain argument", chain[:4]
                )
            calls = (Note(symbol.rpartition(".")[2], at), *chain) if statics and at else ()
            self.requests[symbol] = Request(python, statics, calls)
            self.pending.append(symbol)
        return symbol

    def node_of(self, python: Callable[..., Any]) -> ast.FunctionDef:
        """The syntax of a function, which stands unconditionally at its module's top level."""
        source = self.sources.file_of(python)
        node, line = source.functions.get(python.__name__), python.__code__.co_firstlineno
        if node is None or line != (node.decorator_list[0] if node.decorator_list else node).lineno:
            shown = source.line(line)
            span = ir.Span(source.display, line, len(shown) - len(shown.lstrip()), line, len(shown))
            text = f"'{python.__qualname__}' is not what its module defines at top level under this name"
            help_ = "a machine function is defined once, unconditionally, and no decorator puts another in its place"
            raise self.error("signature", span, text, help_)
        return node

    def signature(self, python: Callable[..., Any]) -> Signature:
        """The signature of a machine function; an error in it is reported once, at its place."""
        if python not in self.signatures:
            source = self.sources.file_of(python)
            self.signatures[python] = read_signature(
                python, self.node_of(python), lambda node, *says: self.error("signature", source.span(node), *says)
            )
        return self.signatures[python]

    # compiling

    def run(self) -> None:
        """Compile what was asked for, and what that asks for, first come first served."""
        while self.pending:
            symbol = self.pending.pop(0)
            try:
                self.module.functions[symbol] = self.compile(symbol, self.requests[symbol])
            except DeclarationError as problem:
                self.report(declaration_error(problem))
            except Reported:
                continue

    def compile(self, symbol: str, request: Request) -> ir.Function:
        python = request.python
        signature = self.signature(python)
        node, source = self.node_of(python), self.sources.file_of(python)
        function = ir.Function(symbol, signature.widths, signature.result.widths, source.span(node))
        options = python.__machine__
        self.options[symbol] = options
        lowering = Lowering(self, GRAMMAR, python, signature, function, request.chain)
        self.lowerings[symbol] = lowering
        lowering.bind_parameters(node, request.statics)
        if options.naked or options.kernel is not None:
            kernel = options.kernel
            function.assembly = read_kernel(lowering, node, kernel) if kernel else read_assembly(lowering, node)
            function.blocks.clear()
            return function
        lowering.locals |= assigned_names(node.body)
        lowering.enter(symbol, options.depth)
        lowering.body(node.body)
        end(lowering, node)
        drop_unreachable(function)
        merge_lines(function)
        remove_dead(function)
        return function


def function_symbol(python: Callable[..., Any], statics: tuple[object, ...]) -> str:
    """`module.path.function`, and `[values]` for a specialisation."""
    symbol = f"{python.__module__}.{python.__qualname__}"
    return f"{symbol}[{','.join(static_name(value) for value in statics)}]" if statics else symbol


def static_name(value: Any) -> str:
    name = getattr(value, "name", None)
    return str(name) if isinstance(name, str) else str(value if isinstance(value, bool) else int(value))
