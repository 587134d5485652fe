"""Constant folding and algebra, then the control flow that constants decide; until nothing changes.

Constants, symbols and frame addresses end up once each, in the entry block after the parameters: they cost nothing until used.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.algebra import RULES
from dsl.compiler.flow import simplify_flow
from dsl.compiler.graph import final, replace, reverse_postorder
from dsl.compiler.ir import Block, Function, Span, Value
from dsl.lang.operations import BINARY, UNARY, evaluate

ROUNDS: Final = 8
COMMUTATIVE: Final = frozenset(("add", "mul", "umulh", "and", "or", "xor", "eq", "ne"))

POOLED: Final = ("const", "symbol", "frame")


def fold(function: Function) -> None:
    """Fold until nothing changes (or long enough)."""
    for _ in range(ROUNDS):
        changed = Folder(function).run()
        changed = simplify_flow(function) or changed
        if not changed:
            return


class Folder:
    """One walk over a function, arguments before users."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.replaced: dict[Value, Value] = {}
        self.pool: dict[tuple[object, ...], Value] = {}
        self.made: list[Value] = []
        self.block: Block = function.blocks[0]
        self.span: Span | None = None
        self.changed = False

    def run(self) -> bool:
        for block in reverse_postorder(self.function.blocks[0]):
            self.block, self.made = block, []
            for value in block.values:
                self._visit(value)
            block.values = self.made
        replace(self.function, self.replaced)
        self._place_pool()
        return self.changed

    def _visit(self, value: Value) -> None:
        if value.arguments:
            value.arguments = [final(argument, self.replaced) for argument in value.arguments]
        self.span = value.span
        new = self.simplify(value)
        if new is value:
            if value.operation not in POOLED:
                self.made.append(value)
        elif new is not None:
            self.replaced[value] = new
            self.changed = self.changed or value.operation not in POOLED
        else:
            self.changed = True

    def simplify(self, value: Value) -> Value | None:
        """The value itself, an equal one that is simpler, or None: nothing is left to do for it."""
        operation, arguments = value.operation, value.arguments
        if operation in POOLED:
            return self.pooled(value)
        if operation == "check":
            return None if arguments[0].constant == 1 else value
        if operation == "phi":
            return self._phi(value)
        if operation not in BINARY and operation not in UNARY and operation != "select":
            return value
        constants = [argument.integer for argument in arguments if argument.operation == "const"]
        if len(constants) == len(arguments):
            known = evaluate(operation, value.width, constants, arguments[0].width)
            if known is not None:
                return self.constant(known, value.width)
        if operation in COMMUTATIVE and arguments[0].operation == "const":
            arguments.reverse()
        rule = RULES.get(operation)
        return (rule(self, value, *arguments) or value) if rule else value

    def _phi(self, value: Value) -> Value:
        others = {argument for argument in value.arguments if argument is not value}
        return others.pop() if len(others) == 1 else value

    # making values

    def constant(self, number: int, width: int) -> Value:
        """A constant, taken modulo 2**width."""
        return self.pooled(Value("const", width, [], number & ((1 << width) - 1), self.span, self.function.blocks[0]))

    def pooled(self, value: Value) -> Value:
        """The one value that stands for a constant, symbol or frame slot."""
        return self.pool.setdefault((value.operation, value.width, value.data), value)

    def make(self, operation: str, width: int, *arguments: Value) -> Value:
        """A new value before the current one, simplified."""
        value = Value(operation, width, list(arguments), None, self.span, self.block)
        new = self.simplify(value)
        assert new is not None
        if new is value and operation not in POOLED:
            self.made.append(value)
        return new

    def _place_pool(self) -> None:
        entry = self.function.blocks[0]
        for value in self.pool.values():
            value.block = entry
        parameters = sum(1 for value in entry.values if value.operation == "parameter")
        entry.values[parameters:parameters] = self.pool.values()
