"""`HANDLERS.call(key, ...)`: direct branches to direct calls, hottest key first."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from dsl.compiler import ir
from dsl.compiler.arguments import evaluate_arguments
from dsl.compiler.builder import Position
from dsl.compiler.conditions import choose
from dsl.compiler.fitting import coerce, public
from dsl.compiler.lower import Lowering
from dsl.compiler.operands import Argument, Typed
from dsl.lang.annotations import resolve
from dsl.lang.staging import Dispatch
from dsl.lang.types import EnumType, ScalarType, StaticType

HOT: Final = 6  # keys compared one by one, in the table's order; the rest form a tree

Arm = tuple[int, Callable[..., Any]]


def dispatch_call(lowering: Lowering, table: Dispatch[Any, Any], node: ast.Call) -> Typed:
    """Lower a dispatch; its result."""
    arguments = evaluate_arguments(lowering, node)
    if arguments.named or not arguments.positional:
        raise lowering.error("argument-count", node, "a dispatch takes the key, then the arguments, all by position")
    (key, where), *given = arguments.positional
    public(lowering, key, where, "the key of a dispatch")
    if not isinstance(key, Typed) or not isinstance(key.type, ScalarType):
        raise lowering.error("type-mismatch", where, f"a key is a word or an Enum, found {key}")
    arms = keys_of(lowering, table, key.type, where)
    tree = Tree(lowering, key.value, parameters(lowering, table, given, node), table.default, node)
    for arm in arms[:HOT]:
        tree.test(arm)
    tree.search(sorted(arms[HOT:], key=lambda arm: arm[0]))
    return choose(lowering, tree.ends)


def keys_of(lowering: Lowering, table: Dispatch[Any, Any], kind: ScalarType, node: ast.AST) -> list[Arm]:
    """The table's rows with their keys as raw words of the key's type."""
    word, wanted = kind.word, next(iter(table.table))
    if isinstance(wanted, Enum):
        enumeration = resolve(type(wanted), {})
        if kind != enumeration and not (isinstance(enumeration, EnumType) and kind == enumeration.word):
            raise lowering.error("type-mismatch", node, f"the keys are {enumeration}, found {kind}")
    elif kind != word and not isinstance(kind, EnumType):
        raise lowering.error("type-mismatch", node, f"a key is a word or an Enum, found {kind}")
    arms = []
    for name, function in table.table.items():
        number = int(name.value) if isinstance(name, Enum) else int(name)
        raw = number & ((1 << word.width) - 1)
        if not word.signed and raw != number:
            raise lowering.error("literal-range", node, f"the key {number} does not fit in {word}")
        arms.append((raw, function))
    return arms


def parameters(lowering: Lowering, table: Dispatch[Any, Any], given: list[Argument], node: ast.Call) -> list[Typed]:
    """The arguments, which every function of the table must take."""
    unit = lowering.unit
    for function in [*table.table.values(), table.default]:
        if getattr(function, "__machine__", None) is None:
            text = f"'{function.__name__}' in the table is no machine function"
            raise lowering.error("not-machine", node, text, "decorate it with @machine")
    wanted = unit.signature(table.default)
    types = list(wanted.parameters.values())
    if any(isinstance(kind, StaticType) for kind in types):
        raise lowering.error("static-argument", node, "a function of a dispatch has no Static parameters")
    for function in table.table.values():
        other = unit.signature(function)
        if list(other.parameters.values()) != types or other.result != wanted.result:
            text = f"'{function.__name__}' and '{table.default.__name__}' of the table have different types"
            raise lowering.error("type-mismatch", node, text, "every function of a dispatch has one signature")
    if len(given) != len(types):
        raise lowering.error("argument-count", node, f"the functions take {len(types)} arguments, found {len(given)}")
    return [coerce(lowering, operand, kind, where) for kind, (operand, where) in zip(types, given, strict=True)]


@dataclass
class Tree:
    """The branches of one dispatch; at their ends, where control goes on and with which result."""

    lowering: Lowering
    key: ir.Value
    passed: list[Typed]
    default: Callable[..., Any]
    node: ast.Call
    ends: list[tuple[Position, Typed]] = field(default_factory=list)

    def test(self, arm: Arm) -> None:
        """Call the arm's function if the key is its; control goes on where it is not."""
        builder = self.lowering.at(self.node)
        yes, no = builder.branch(builder.emit("eq", self.key, arm[0]))
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
        below, above = builder.branch(builder.emit("ult", self.key, arms[middle][0]))
        builder.position = below
        self.search(arms[:middle])
        builder.position = above
        self.search(arms[middle:])

    def leaf(self, function: Callable[..., Any]) -> None:
        result = self.lowering.call(function, (), self.passed, self.node)
        self.ends.append((self.lowering.builder.position, result))
