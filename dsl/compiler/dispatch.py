"""`HANDLERS.call(key, ...)`: direct branches to direct calls, hottest key first."""

from __future__ import annotations

import ast
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from dsl.compiler import ir
from dsl.compiler.builder import Position
from dsl.compiler.conditions import choose
from dsl.compiler.fitting import coerce, taint_barrier
from dsl.compiler.operands import Named, Typed
from dsl.compiler.shapes import describe, taint_of, word_of
from dsl.lang.staging import Dispatch
from dsl.lang.types import EnumType, StaticType, WordType

if TYPE_CHECKING:
    from dsl.compiler.calls import Arguments
    from dsl.compiler.lower import Lowering

HOT: Final = 6  # keys compared one by one, in the table's order; the rest form a tree

Arm = tuple[int, Callable[..., Any]]


def dispatch_call(lowering: Lowering, receiver: Named, arguments: Arguments, node: ast.Call) -> Typed:
    """Lower a dispatch; its result."""
    table: Any = receiver.python
    assert isinstance(table, Dispatch)
    if arguments.named or not arguments.positional:
        raise lowering.error("argument-count", node, "a dispatch takes the key, then the arguments, all by position")
    key, key_node = arguments.positional[0]
    if not isinstance(key, Typed) or word_of(key.type) is None:
        barrier = taint_of(key.type) if isinstance(key, Typed) else ""
        if barrier and isinstance(key, Typed):
            raise taint_barrier(lowering, key.type, key_node, "the key of a dispatch")
        raise lowering.error("type-mismatch", key_node, f"a key is a word or an Enum, found {lowering.spell(key)}")
    arms = keys_of(lowering, table, key, key_node)
    passed = parameters(lowering, table, arguments, node)
    return Tree(lowering, key.value, passed, table.default, node).lower(arms)


def keys_of(lowering: Lowering, table: Dispatch[Any, Any], key: Typed, node: ast.AST) -> list[Arm]:
    """The table's rows with their keys as raw words of the key's type."""
    word = word_of(key.type)
    assert word is not None
    wanted = next(iter(table.table))
    if isinstance(wanted, Enum):
        enumeration = lowering.unit.constants.enum_type(type(wanted))
        if key.type not in (enumeration, enumeration.word):
            text = f"the keys are {describe(enumeration)}, found {describe(key.type)}"
            raise lowering.error("type-mismatch", node, text)
    elif not isinstance(key.type, WordType | EnumType):
        raise lowering.error("type-mismatch", node, f"a key is a word or an Enum, found {describe(key.type)}")
    arms = []
    for name, function in table.table.items():
        number = int(name.value) if isinstance(name, Enum) else int(name)
        raw = number & ((1 << word.width) - 1)
        if not word.signed and raw != number:
            raise lowering.error("literal-range", node, f"the key {number} does not fit in {describe(word)}")
        arms.append((raw, function))
    return arms


def parameters(lowering: Lowering, table: Dispatch[Any, Any], arguments: Arguments, node: ast.Call) -> list[Typed]:
    """The arguments, which every function of the table must take."""
    unit = lowering.unit
    for function in [*table.table.values(), table.default]:
        if getattr(function, "__machine__", None) is None:
            text = f"'{function.__name__}' in the table is no machine function"
            raise lowering.error("not-machine", node, text, "decorate it with @machine")
    wanted = unit.signature(table.default)
    types = [kind for _, kind in wanted.parameters]
    if any(isinstance(kind, StaticType) for kind in types):
        raise lowering.error("static-argument", node, "a function of a dispatch has no Static parameters")
    for function in table.table.values():
        other = unit.signature(function)
        if [kind for _, kind in other.parameters] != types or other.result != wanted.result:
            text = f"'{function.__name__}' and '{table.default.__name__}' of the table have different types"
            raise lowering.error("type-mismatch", node, text, "every function of a dispatch has one signature")
    given = arguments.positional[1:]
    if len(given) != len(types):
        raise lowering.error("argument-count", node, f"the functions take {len(types)} arguments, found {len(given)}")
    return [coerce(lowering, operand, kind, where) for kind, (operand, where) in zip(types, given, strict=True)]


class Tree:
    """The branches of one dispatch."""

    def __init__(
        self, lowering: Lowering, key: ir.Value, passed: list[Typed], default: Callable[..., Any], node: ast.Call
    ) -> None:
        self.lowering, self.key, self.passed, self.default, self.node = lowering, key, passed, default, node
        self.ends: list[tuple[Position, Typed]] = []

    def lower(self, arms: list[Arm]) -> Typed:
        hot = len(arms) if len(arms) <= HOT else HOT
        for arm in arms[:hot]:
            self.test(arm)
        self.search(sorted(arms[hot:], key=lambda arm: arm[0]))
        return choose(self.lowering, self.ends)

    def test(self, arm: Arm) -> None:
        """Call the arm's function if the key is its; control goes on where it is not."""
        builder = self.lowering.at(self.node)
        yes, no = builder.branch(builder.emit("eq", 1, self.key, builder.constant(arm[0], self.key.width)))
        builder.position = yes
        self.leaf(arm[1])
        builder.position = no

    def search(self, arms: list[Arm]) -> None:
        """A binary tree over sorted keys; its leaves are chains of up to three."""
        if len(arms) <= 3:
            for arm in arms:
                self.test(arm)
            self.leaf(self.default)
            return
        middle = len(arms) // 2
        builder = self.lowering.at(self.node)
        below, above = builder.branch(
            builder.emit("ult", 1, self.key, builder.constant(arms[middle][0], self.key.width))
        )
        builder.position = below
        self.search(arms[:middle])
        builder.position = above
        self.search(arms[middle:])

    def leaf(self, function: Callable[..., Any]) -> None:
        from dsl.compiler.calls import emit_call

        lowering = self.lowering
        signature = lowering.unit.signature(function)
        symbol = lowering.unit.request(function, (), lowering, self.node)
        builder = lowering.at(self.node)
        result = emit_call(lowering, symbol, self.passed, signature.result, self.node, builder, signature.returns)
        self.ends.append((builder.position, result))
