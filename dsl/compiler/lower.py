"""One machine function from syntax tree to IR: state and statements. Checks and lowers in one typed walk.

Expressions, conditions, calls and memory are in modules beside this one; each takes the Lowering as its first argument.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dsl.compiler import ir
from dsl.compiler.builder import Binding, Builder, Loop, Position
from dsl.compiler.calls import call, discardable
from dsl.compiler.conditions import condition, narrows, truth
from dsl.compiler.diagnostics import Diagnostic, Note, Reported
from dsl.compiler.expressions import evaluate, place_of
from dsl.compiler.fitting import coerce, taint_barrier
from dsl.compiler.memory import load, store
from dsl.compiler.operands import Integer, Named, Nothing, Operand, Place, Typed
from dsl.compiler.operators import operate
from dsl.compiler.shapes import NONE, U64, describe, general, has_reference, secret_parts, taint_of, widths
from dsl.compiler.signatures import Signature
from dsl.compiler.source import SourceFile
from dsl.lang.types import FallibleType, NoneType_, StaticType, Type, WordType

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
        self.declared: dict[str, Type] = {}
        self.failed: set[str] = set()  # locals whose assignment had an error: silence about them
        self.locals: set[str] = set()
        self.statics: dict[str, object] = {}
        self.loops: list[Loop] = []
        self.loop_variables: set[str] = set()
        self.carried: dict[
            ir.Value, str
        ] = {}  # at the head of a loop: locals that bring references from its earlier turns
        self.stored: list[tuple[ir.Value, ir.Span]] = []  # references that were stored in memory, and where
        self.depth_counter = ""  # the symbol of a recursive function's count of activations

    # entry

    def bind_parameters(self, node: ast.FunctionDef, statics: tuple[object, ...]) -> None:
        """Give the parameters their places: values of the entry block, or constants of this specialisation."""
        self.builder.span = self.source.span(node)
        remaining = list(statics)
        number = 0
        for name, kind in self.signature.parameters:
            if isinstance(kind, StaticType):
                self.statics[name] = remaining.pop(0) if remaining else None
                continue
            values = []
            for width, is_secret in zip(widths(kind), secret_parts(kind), strict=True):
                parameter = self.builder.emit("parameter", width, data=number)
                parameter.secret = is_secret
                values.append(parameter)
                number += 1
            self.locals.add(name)
            self.declared[name] = general(kind)
            self.builder.environment[name] = Binding(tuple(values), general(kind))

    def enter(self, symbol: str, depth: int | None) -> None:
        """Count an activation of a function that may call itself; one too many stops."""
        if depth is None:
            return
        counter = f"{symbol}.depth"
        self.unit.module.objects[counter] = ir.DataObject(counter, 8, 8)
        self.depth_counter = counter
        live = self.count_activation(1)
        self.builder.check(
            self.builder.emit("ule", 1, live, self.builder.constant(depth, 64)), f"recursion deeper than {depth}"
        )

    def count_activation(self, change: int) -> ir.Value:
        builder = self.builder
        address = builder.emit("symbol", 64, data=ir.Address(self.depth_counter))
        live = builder.add_constant(builder.emit("load", 64, address, data=ir.Access()), change)
        builder.emit("store", 0, address, live, data=ir.Access())
        return live

    def leave(self, values: list[ir.Value]) -> None:
        """Return these components."""
        if self.depth_counter:
            self.count_activation(-1)
        self.builder.finish("return", values)

    # errors

    def error(self, code: str, node: ast.AST, text: str, help: str = "") -> Reported:
        """Record an error at a node; raise the result to go on with the next statement."""
        span = self.source.span(node)
        self.unit.report(Diagnostic(code, text, span, self.source.line(span.line), help, self.chain))
        return Reported()

    def at(self, node: ast.AST) -> Builder:
        """The builder, set to give new values this node's span."""
        self.builder.span = self.source.span(node)
        return self.builder

    @property
    def dead(self) -> bool:
        return self.builder.position.dead

    # locals

    def read(self, name: str, node: ast.AST) -> Typed:
        if name in self.failed:
            raise Reported()
        binding = self.builder.environment.get(name)
        if binding is None:
            if name in self.loop_variables:
                text, help_ = (
                    f"the loop variable '{name}' has no value after its loop",
                    "copy it to a local inside the loop",
                )
            else:
                text, help_ = f"'{name}' is not assigned on every path to here", "assign it before the branch or loop"
            raise self.error("unassigned", node, text, help_)
        return Typed(binding.type, self.narrowed_values(name, binding), binding.in_frame)

    def narrowed_values(self, name: str, binding: Binding) -> tuple[ir.Value, ...]:
        """The components of a local as its narrowed type sees them."""
        declared = self.declared[name]
        if isinstance(declared, FallibleType) and not isinstance(binding.type, FallibleType):
            return binding.values[:1] if binding.type == self.unit.failure else binding.values[1:]
        return binding.values

    def assign(self, name: str, operand: Operand, node: ast.AST, value: ast.AST) -> None:
        """Give a local the value of an expression; the first assignment decides its type."""
        if (
            name in self.loop_variables
            and name in self.builder.environment
            and self.builder.environment[name].read_only
        ):
            raise self.error("loop-variable", node, f"the loop variable '{name}' is read-only", "use another local")
        if isinstance(operand, Integer):
            raise self.error(
                "bare-int", value, f"'{name}' would be a bare int", f"give the literal a type: u64({operand.value})"
            )
        if isinstance(operand, Typed) and isinstance(operand.type, NoneType_) and name != "_":
            raise self.error(
                "type-mismatch", value, f"'{name}' is assigned None, which the call returns", "call it as a statement"
            )
        if name == "_":
            return
        if name not in self.declared:
            if not isinstance(operand, Typed):
                raise self.error(
                    "type-mismatch", value, f"'{name}' has no type yet, and {self.spell(operand)} gives it none"
                )
            self.declared[name] = general(operand.type)
        declared = self.declared[name]
        stored = coerce(self, operand, declared, value)
        narrowed = general(operand.type) if isinstance(operand, Typed) else declared
        previous = self.builder.environment.get(name)
        if stored.in_frame and self.loops and previous is not None and not previous.in_frame:
            raise self.error(
                "frame-escape",
                node,
                f"'{name}' referred to other memory, and would refer to this function's frame",
                "use another local",
            )
        self.builder.environment[name] = Binding(stored.values, narrowed, stored.in_frame)

    def spell(self, operand: Operand) -> str:
        """An operand's type for a message."""
        match operand:
            case Typed(type=kind):
                return describe(kind)
            case Integer(value=value):
                return f"the literal {value}"
            case Nothing():
                return "None"
            case Named(python=str()):
                return "a text"
            case Named(text=text):
                return f"'{text}'"

    # statements

    def body(self, statements: list[ast.stmt]) -> None:
        """Lower statements; an error in one does not hide those in the next."""
        for statement in statements:
            try:
                self.statement(statement)
            except Reported:
                self.failed |= assigned_names([statement]) - self.builder.environment.keys()
                self.failed |= {name for name in assigned_names([statement]) if name not in self.declared}
                if isinstance(statement, ast.Return):
                    self.leave_block()

    def statement(self, node: ast.stmt) -> None:
        self.at(node)
        match node:
            case ast.Expr():
                self.expression_statement(node)
            case ast.Assign(targets=[target]):
                self.assignment(target, node.value, node)
            case ast.Assign():
                raise self.error(
                    "unsupported", node, "an assignment has one target here", "write one assignment a line"
                )
            case ast.AnnAssign():
                self.annotated_assignment(node)
            case ast.AugAssign():
                self.augmented_assignment(node)
            case ast.If():
                self.if_statement(node)
            case ast.While():
                self.while_statement(node)
            case ast.For():
                self.for_statement(node)
            case ast.Return():
                self.return_statement(node)
            case ast.Break() | ast.Continue():
                self.leave_loop(node)
            case ast.Assert():
                self.assert_statement(node)
            case ast.Pass():
                pass
            case _:
                name = type(node).__name__.lower()
                raise self.error(
                    "unsupported",
                    node,
                    f"the statement '{name}' is not in the language",
                    "see dsl/README.md, Functions",
                )

    def expression_statement(self, node: ast.Expr) -> None:
        match node.value:
            case ast.Constant(value=str()):
                return  # a docstring
            case ast.Call():
                result = call(self, node.value)
                if not discardable(result):
                    text = f"the result, {self.spell(result)}, is discarded"
                    raise self.error("discarded-result", node, text, "use it, or assign it to _")
            case _:
                raise self.error(
                    "discarded-result", node, "this expression has no effect", "did you mean an assignment?"
                )

    def assignment(self, target: ast.expr, value: ast.expr, node: ast.stmt) -> None:
        match target, value:
            case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                if len(targets) != len(values):
                    raise self.error("type-mismatch", node, f"{len(targets)} targets, {len(values)} values")
                operands = [evaluate(self, element) for element in values]
                for part, operand, element in zip(targets, operands, values, strict=True):
                    self.assign_target(part, operand, element)
            case ast.Tuple(), _:
                help_ = "assign the Record to a local and read its fields"
                raise self.error("unsupported", node, "only a tuple display can be unpacked", help_)
            case _:
                self.assign_target(target, evaluate(self, value), value)

    def assign_target(self, target: ast.expr, operand: Operand, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.assign(target.id, operand, target, value)
        else:
            store(self, self.place(target), operand, target, value)

    def place(self, target: ast.expr) -> Place:
        """The memory cell that an assignment's target names; evaluates the target's parts."""
        return place_of(self, target)

    def annotated_assignment(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise self.error("unsupported", node.target, "only a local can be annotated")
        name, kind = node.target.id, self.unit.annotation(self, node.annotation)
        if self.declared.setdefault(name, general(kind)) != general(kind):
            text = f"'{name}' is {describe(self.declared[name])}, and is annotated {describe(kind)}"
            raise self.error("type-mismatch", node.annotation, text, "a local has one type")
        if node.value is not None:
            self.assign(name, evaluate(self, node.value), node.target, node.value)

    def augmented_assignment(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            left: Operand = self.read(node.target.id, node.target)
            right = evaluate(self, node.value)
            self.assign(node.target.id, operate(self, node.op, left, right, node), node.target, node)
            return
        place = self.place(node.target)
        left = load(self, place)
        right = evaluate(self, node.value)
        store(self, place, operate(self, node.op, left, right, node), node.target, node)

    def if_statement(self, node: ast.If) -> None:
        yes, no = condition(self, node.test)
        self.builder.position = yes
        self.body(node.body)
        yes = self.builder.position
        self.builder.position = no
        self.body(node.orelse)
        self.builder.position = self.builder.join([yes, self.builder.position], self.declared)

    def while_statement(self, node: ast.While) -> None:
        if node.orelse:
            raise self.error("unsupported", node.orelse[0], "a loop has no else here", "use a bool local")
        loop = self.open_loop(assigned_names([node]))
        yes, no = condition(self, node.test)
        self.loop_body(loop, yes, node.body)
        self.builder.close_loop(loop)
        self.builder.position = self.builder.join([no, *loop.breaks], self.declared)

    def open_loop(self, assigned: set[str]) -> Loop:
        """Start a loop that assigns these locals; note which of them refer to memory."""
        loop = self.builder.open_loop(assigned, self.declared)
        for name, phis in loop.phis.items():
            if has_reference(self.builder.environment[name].type):
                self.carried |= dict.fromkeys(phis, name)
        return loop

    def loop_body(self, loop: Loop, entry: Position, statements: list[ast.stmt]) -> None:
        """Lower a loop's body; leaves the builder where the body's end and its continues meet."""
        self.builder.position = entry
        self.loops.append(loop)
        self.body(statements)
        self.loops.pop()
        self.builder.position = self.builder.join([self.builder.position, *loop.continues], self.declared)

    def for_statement(self, node: ast.For) -> None:
        """`for i in` upto(n), between(low, high) or rounds(n): count up while below the end, which is evaluated once."""
        if node.orelse:
            raise self.error("unsupported", node.orelse[0], "a loop has no else here", "use a bool local")
        if not isinstance(node.target, ast.Name):
            raise self.error("unsupported", node.target, "a loop variable is one name")
        name = node.target.id
        low, high, must_leave = self.loop_range(node.iter)
        kind = low.type
        if name in self.builder.environment or self.declared.setdefault(name, kind) != kind:
            raise self.error(
                "loop-variable", node.target, f"'{name}' is already a local", "give the loop variable a name of its own"
            )
        self.loop_variables.add(name)
        builder = self.at(node.iter)
        hidden = f"{name} "  # the counter: a local that no program can name
        builder.environment[hidden] = Binding(low.values, kind)
        self.declared[hidden] = kind
        loop = self.open_loop(assigned_names(node.body) | {hidden})
        counter = builder.environment[hidden].values[0]
        below = builder.emit("ult", 1, counter, high.value)
        yes, no = builder.branch(below)
        yes.environment[name] = Binding((counter,), kind, read_only=True)
        self.loop_body(loop, yes, node.body)
        builder = self.at(node.iter)
        if not self.dead:
            following = builder.emit("add", counter.width, counter, builder.constant(1, counter.width))
            builder.environment[hidden] = Binding((following,), kind)
        builder.close_loop(loop)
        if must_leave:
            builder.position = no
            no.block.cold = True
            builder.finish("stop", [], "the loop runs too often")
            no = builder.position
        builder.position = builder.join([no, *loop.breaks], self.declared)
        for dead in (name, hidden):
            builder.environment.pop(dead, None)

    def loop_range(self, node: ast.expr) -> tuple[Typed, Typed, bool]:
        """The first value and the end of a for loop, and whether the loop must be left before it comes to its end."""
        function = evaluate(self, node.func) if isinstance(node, ast.Call) else None
        name = getattr(function.python, "__name__", "") if isinstance(function, Named) else ""
        if not isinstance(node, ast.Call) or name not in ("upto", "between", "rounds"):
            text = "a for loop goes over upto(n), between(low, high) or rounds(n)"
            raise self.error("unsupported", node, text, "or use while")
        ends = [evaluate(self, argument) for argument in node.args]
        expected = 2 if name == "between" else 1
        if len(ends) != expected:
            raise self.error("argument-count", node, f"{name} takes {expected} arguments, found {len(ends)}")
        if name == "rounds" and not isinstance(ends[0], Integer):
            text = f"the bound of rounds must be an int constant, found {self.spell(ends[0])}"
            raise self.error("static-argument", node.args[0], text)
        kind = next((end.type for end in ends if isinstance(end, Typed)), U64)
        if not isinstance(kind, WordType) or kind.signed:
            barrier = taint_of(kind)
            if barrier:
                raise taint_barrier(self, kind, node, "the end of a loop")
            raise self.error("type-mismatch", node, f"a loop counts unsigned words, found {describe(kind)}")
        typed = [coerce(self, end, kind, node, literal=True) for end in ends]
        builder = self.at(node)
        for keyword in node.keywords:
            most = evaluate(self, keyword.value)
            if name != "upto" or keyword.arg != "at_most" or not isinstance(most, Integer):
                raise self.error("argument-count", keyword, "upto alone takes a keyword: at_most, an int constant")
            bound = coerce(self, most, kind, node, literal=True)
            builder.check(
                builder.emit("ule", 1, typed[-1].value, bound.value), f"the loop runs at most {most.value} times"
            )
        low = typed[0] if name == "between" else Typed(kind, (builder.constant(0, typed[0].value.width),))
        return low, typed[-1], name == "rounds"

    def leave_loop(self, node: ast.Break | ast.Continue) -> None:
        if not self.loops:
            raise self.error("unsupported", node, "not in a loop")
        loop = self.loops[-1]
        (loop.breaks if isinstance(node, ast.Break) else loop.continues).append(self.builder.position)
        self.leave_block()

    def leave_block(self) -> None:
        """What follows here is not reached."""
        self.builder.position = Position(self.builder.new_block(), dict(self.builder.environment), dead=True)

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
            self.builder.position = no
            no.block.cold = True
            self.at(test).finish("stop", [], message)
            self.builder.position = yes
        else:
            holds = truth(self, test)
            self.at(test).check(holds, message)

    def return_statement(self, node: ast.Return) -> None:
        expected = self.signature.result
        operand: Operand = Nothing() if node.value is None else evaluate(self, node.value)
        where = node.value or node
        if isinstance(operand, Nothing) and isinstance(expected, NoneType_):
            result = Typed(NONE, ())
        else:
            result = coerce(self, operand, expected, where)
        if result.in_frame:
            text = f"{describe(result.type)} refers to this function's frame, which ends here"
            raise self.error("frame-escape", where, text, "let the caller pass the memory")
        self.at(node)
        self.leave(list(result.values))

    def end(self, node: ast.FunctionDef) -> None:
        """Finish the function at its last line."""
        if self.dead:
            return
        self.builder.span = self.source.span(node.body[-1])
        expected = self.signature.result
        if isinstance(expected, NoneType_):
            self.leave([])
        elif isinstance(expected, FallibleType) and isinstance(expected.inner, NoneType_):
            self.leave([self.builder.constant(0, 64)])
        else:
            text = f"'{node.name}' can end without returning {describe(expected)}"
            raise self.error("missing-return", node.body[-1], text, "return on every path, or stop(...)")


def assigned_names(statements: list[ast.stmt]) -> set[str]:
    """Every local that these statements assign."""
    return {name for statement in statements for name in _assigned_in(statement)}


@lru_cache(maxsize=1 << 13)  # programs share their sources, and a function has a specialisation for each value
def _assigned_in(statement: ast.stmt) -> frozenset[str]:
    names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return frozenset(node.id for node in names if isinstance(node.ctx, ast.Store))
