"""One machine function from syntax tree to IR: state and statements. Checks and lowers in one typed walk.

Expressions, conditions, calls and memory are in modules beside this one; each takes the Lowering as its first argument.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from dsl.compiler import ir
from dsl.compiler.builder import Binding, Builder, Loop, Position
from dsl.compiler.calls import call, discardable
from dsl.compiler.conditions import bool_value, condition, conditional, narrows, truth
from dsl.compiler.diagnostics import Note, Reported
from dsl.compiler.expressions import attribute, constant, named, place_of, subscript
from dsl.compiler.fitting import coerce, public
from dsl.compiler.loading import declaration_error
from dsl.compiler.memory import load, store
from dsl.compiler.operands import Integer, Named, Nothing, Operand, Typed
from dsl.compiler.operators import binary, comparison, operate, unary
from dsl.compiler.signatures import Signature
from dsl.compiler.source import SourceFile
from dsl.lang import types as t
from dsl.lang.failure import DeclarationError
from dsl.lang.types import NONE, U64

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
                continue
            values = tuple(self.builder.append("parameter", width, [], next(numbers)) for width in kind.widths)
            mark_secrets(values, kind)
            self.locals.add(name)
            self.declared[name] = kind.general
            self.builder.environment[name] = Binding(values, kind.general)

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
        symbol = self.unit.request(python, statics, self, node)
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
        if previous is not None and previous.read_only:
            raise self.error("loop-variable", node, f"the loop variable '{name}' is read-only", "use another local")
        if isinstance(operand, Integer):
            help_ = f"give the literal a type: u64({operand.value})"
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
        self.builder.environment[name] = Binding(stored.values, narrowed, stored.in_frame)

    # expressions and statements

    def evaluate(self, node: ast.expr) -> Operand:
        """Lower an expression here; its value."""
        lower = EXPRESSIONS.get(type(node))
        if lower is None:
            text = f"the expression '{type(node).__name__}' is not in the language"
            raise self.error("unsupported", node, text, "see dsl/README.md, Functions")
        return lower(self, node)

    def body(self, statements: list[ast.stmt]) -> None:
        """Lower statements; an error in one does not hide those in the next."""
        for statement in statements:
            try:
                try:
                    self.statement(statement)
                except DeclarationError as problem:
                    self.unit.report(declaration_error(problem))
                    raise Reported() from None
                except RecursionError:
                    raise self.error(
                        "unsupported", statement, "this is nested too deeply", "give parts names"
                    ) from None
            except Reported:
                self.failed |= assigned_names([statement]) - self.builder.environment.keys()
                self.failed |= {name for name in assigned_names([statement]) if name not in self.declared}
                if isinstance(statement, ast.Return):
                    self.leave_block()

    def statement(self, node: ast.stmt) -> None:
        self.at(node)
        lower = STATEMENTS.get(type(node))
        if lower is None:
            text = f"the statement '{type(node).__name__.lower()}' is not in the language"
            raise self.error("unsupported", node, text, "see dsl/README.md, Functions")
        lower(self, node)

    def expression_statement(self, node: ast.Expr) -> None:
        match node.value:
            case ast.Constant(value=str()):
                return  # a docstring
            case ast.Call():
                result = call(self, node.value)
                if not discardable(result):
                    text = f"the result, {result}, is discarded"
                    raise self.error("discarded-result", node, text, "use it, or assign it to _")
            case _:
                text = "this expression has no effect"
                raise self.error("discarded-result", node, text, "did you mean an assignment?")

    def assign_statement(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            help_ = "write one assignment a line"
            raise self.error("unsupported", node, "an assignment has one target here", help_)
        match node.targets[0], node.value:
            case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                if len(targets) != len(values):
                    raise self.error("type-mismatch", node, f"{len(targets)} targets, {len(values)} values")
                operands = [self.evaluate(element) for element in values]
                for part, operand, element in zip(targets, operands, values, strict=True):
                    self.assign_target(part, operand, element)
            case ast.Tuple(), _:
                help_ = "assign the Record to a local and read its fields"
                raise self.error("unsupported", node, "only a tuple display can be unpacked", help_)
            case target, value:
                self.assign_target(target, self.evaluate(value), value)

    def assign_target(self, target: ast.expr, operand: Operand, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.assign(target.id, operand, target, value)
        else:
            store(self, place_of(self, target), operand, target, value)

    def annotated_assignment(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise self.error("unsupported", node.target, "only a local can be annotated")
        name, kind = node.target.id, self.unit.annotation(self, node.annotation)
        if self.declared.setdefault(name, kind.general) != kind.general:
            text = f"'{name}' is {self.declared[name]}, and is annotated {kind}"
            raise self.error("type-mismatch", node.annotation, text, "a local has one type")
        if node.value is not None:
            self.assign(name, self.evaluate(node.value), node.target, node.value)

    def augmented_assignment(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            left: Operand = self.read(node.target.id, node.target)
            right = self.evaluate(node.value)
            self.assign(node.target.id, operate(self, node.op, left, right, node), node.target, node)
            return
        place = place_of(self, node.target)
        left = load(self, place)
        right = self.evaluate(node.value)
        store(self, place, operate(self, node.op, left, right, node), node.target, node)

    def if_statement(self, node: ast.If) -> None:
        yes, no = condition(self, node.test)
        self.builder.position = yes
        self.body(node.body)
        yes = self.builder.position
        self.builder.position = no
        self.body(node.orelse)
        self.builder.position = self.builder.join([yes, self.builder.position])

    def while_statement(self, node: ast.While) -> None:
        self.refuse_else(node)
        loop = self.open_loop(assigned_names([node]))
        yes, no = condition(self, node.test)
        self.loop_body(loop, yes, node.body)
        self.builder.close_loop(loop)
        self.builder.position = self.builder.join([no, *loop.breaks])

    def open_loop(self, assigned: set[str]) -> Loop:
        """Start a loop that assigns these locals; note which of them refer to memory."""
        loop = self.builder.open_loop(assigned)
        for name, phis in loop.phis.items():
            if has_reference(self.builder.environment[name].type):
                self.carried |= dict.fromkeys(phis, name)
        return loop

    def refuse_else(self, node: ast.While | ast.For) -> None:
        if node.orelse:
            raise self.error("unsupported", node.orelse[0], "a loop has no else here", "use a bool local")

    def loop_body(self, loop: Loop, entry: Position, statements: list[ast.stmt]) -> None:
        """Lower a loop's body; leaves the builder where the body's end and its continues meet."""
        self.builder.position = entry
        self.loops.append(loop)
        self.body(statements)
        self.loops.pop()
        self.builder.position = self.builder.join([self.builder.position, *loop.continues])

    def for_statement(self, node: ast.For) -> None:
        """`for i in` upto(n), between(low, high) or rounds(n): count up while below the end, which is evaluated once."""
        self.refuse_else(node)
        if not isinstance(node.target, ast.Name):
            raise self.error("unsupported", node.target, "a loop variable is one name")
        name, hidden = node.target.id, f"{node.target.id} "  # the counter: a local that no program can name
        low, high, must_leave = self.loop_range(node.iter)
        kind = low.type
        if name in self.builder.environment or self.declared.setdefault(name, kind) != kind:
            help_ = "give the loop variable a name of its own"
            raise self.error("loop-variable", node.target, f"'{name}' is already a local", help_)
        self.loop_variables.add(name)
        builder = self.at(node.iter)
        builder.environment[hidden] = Binding(low.values, kind)
        self.declared[hidden] = kind
        loop = self.open_loop(assigned_names(node.body) | {hidden})
        (counter,) = builder.environment[hidden].values
        yes, no = builder.branch(builder.emit("ult", counter, high.value))
        yes.environment[name] = Binding((counter,), kind, read_only=True)
        self.loop_body(loop, yes, node.body)
        builder = self.at(node.iter)
        if not self.dead:
            builder.environment[hidden] = Binding((builder.emit("add", counter, 1),), kind)
        builder.close_loop(loop)
        if must_leave:
            no = self.stop_at(no, "the loop runs too often")
        builder.position = builder.join([no, *loop.breaks])
        for dead in (name, hidden):
            builder.environment.pop(dead, None)

    def loop_range(self, node: ast.expr) -> tuple[Typed, Typed, bool]:
        """The first value and the end of a for loop, and whether the loop must be left before it comes to its end."""
        function = self.evaluate(node.func) if isinstance(node, ast.Call) else None
        name = getattr(function.python, "__name__", "") if isinstance(function, Named) else ""
        if not isinstance(node, ast.Call) or name not in ("upto", "between", "rounds"):
            text = "a for loop goes over upto(n), between(low, high) or rounds(n)"
            raise self.error("unsupported", node, text, "or use while")
        ends = [self.evaluate(argument) for argument in node.args]
        expected = 2 if name == "between" else 1
        if len(ends) != expected:
            raise self.error("argument-count", node, f"{name} takes {expected} arguments, found {len(ends)}")
        if name == "rounds" and not isinstance(ends[0], Integer):
            text = f"the bound of rounds must be an int constant, found {ends[0]}"
            raise self.error("static-argument", node.args[0], text)
        counted = next((end for end in ends if isinstance(end, Typed)), Typed(U64))
        public(self, counted, node, "the end of a loop")
        if not counted.is_unsigned:
            raise self.error("type-mismatch", node, f"a loop counts unsigned words, found {counted}")
        typed = [coerce(self, end, counted.type, node, literal=True) for end in ends]
        builder = self.at(node)
        for keyword in node.keywords:
            most = self.evaluate(keyword.value)
            if name != "upto" or keyword.arg != "at_most" or not isinstance(most, Integer):
                raise self.error("argument-count", keyword, "upto alone takes a keyword: at_most, an int constant")
            bound = coerce(self, most, counted.type, node, literal=True)
            holds = builder.emit("ule", typed[-1].value, bound.value)
            builder.check(holds, f"the loop runs at most {most.value} times")
        if name != "between":
            typed.insert(0, Typed(counted.type, (builder.constant(0, typed[0].value.width),)))
        return typed[0], typed[1], name == "rounds"

    def leave_loop(self, node: ast.Break | ast.Continue) -> None:
        if not self.loops:
            raise self.error("unsupported", node, "not in a loop")
        loop = self.loops[-1]
        (loop.breaks if isinstance(node, ast.Break) else loop.continues).append(self.builder.position)
        self.leave_block()

    def leave_block(self) -> None:
        """What follows here is not reached."""
        self.builder.position = Position(self.builder.new_block(), dict(self.builder.environment), dead=True)

    def stop_at(self, position: Position, message: str) -> Position:
        """Stop the machine at a position that is hardly ever reached; where control would go on."""
        position.block.cold = True
        self.builder.position = position
        self.builder.finish("stop", [], message)
        return self.builder.position

    def assert_statement(self, node: ast.Assert) -> None:
        if not isinstance(node.msg, ast.Constant | None) or (node.msg and not isinstance(node.msg.value, str)):
            raise self.error("unsupported", node, "the text of an assert is a literal")
        self.assert_condition(node.test, str(node.msg.value) if node.msg else "assertion")

    def assert_condition(self, test: ast.expr, message: str) -> None:
        """Stop unless test holds; what it narrows stays narrowed."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                self.assert_condition(part, message)
        elif narrows(test) or isinstance(test, ast.BoolOp):
            yes, no = condition(self, test)
            self.at(test)
            self.stop_at(no, message)
            self.builder.position = yes
        else:
            holds = truth(self, test)
            self.at(test).check(holds, message)

    def return_statement(self, node: ast.Return) -> None:
        operand: Operand = Nothing() if node.value is None else self.evaluate(node.value)
        where = node.value or node
        result = coerce(self, operand, self.signature.result, where)
        if result.in_frame:
            text = f"{result} refers to this function's frame, which ends here"
            raise self.error("frame-escape", where, text, "let the caller pass the memory")
        self.at(node)
        self.leave(result.values)

    def end(self, node: ast.FunctionDef) -> None:
        """Finish the function at its last line."""
        if self.dead:
            return
        self.builder.span = self.source.span(node.body[-1])
        result = self.signature.result
        if (result.inner if isinstance(result, t.FallibleType) else result) != NONE:
            text = f"'{node.name}' can end without returning {result}"
            raise self.error("missing-return", node.body[-1], text, "return on every path, or stop(...)")
        self.leave(coerce(self, Nothing(), result, node.body[-1]).values)


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
    ast.Expr: Lowering.expression_statement,
    ast.Assign: Lowering.assign_statement,
    ast.AnnAssign: Lowering.annotated_assignment,
    ast.AugAssign: Lowering.augmented_assignment,
    ast.If: Lowering.if_statement,
    ast.While: Lowering.while_statement,
    ast.For: Lowering.for_statement,
    ast.Return: Lowering.return_statement,
    ast.Break: Lowering.leave_loop,
    ast.Continue: Lowering.leave_loop,
    ast.Assert: Lowering.assert_statement,
    ast.Pass: lambda lowering, node: None,
}


def mark_secrets(values: tuple[ir.Value, ...], kind: t.Type) -> None:
    """Say of components that come from elsewhere which are secret."""
    for value, is_secret in zip(values, kind.secret_parts, strict=True):
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


def assigned_names(statements: list[ast.stmt]) -> set[str]:
    """Every local that these statements assign."""
    return {name for statement in statements for name in _assigned_in(statement)}


@lru_cache(maxsize=1 << 13)  # programs share their sources, and a function has a specialisation for each value
def _assigned_in(statement: ast.stmt) -> frozenset[str]:
    names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return frozenset(node.id for node in names if isinstance(node.ctx, ast.Store))
