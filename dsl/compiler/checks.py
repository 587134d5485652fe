"""Removes checks and branches that dominating conditions or ranges decide. Cheap: one walk over the dominator tree.

On the walk, a condition is known true or false below the edge of a branch on it, and true after a check of it; from orderings with
constants follow upper bounds of values, and orderings carry over to weaker ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from dsl.compiler.algebra import all_ones
from dsl.compiler.graph import Dominators
from dsl.compiler.ir import Block, Function, Value

DEPTH: Final = 6  # how far a bound is looked for through operations

Fact = tuple[str, Value, Value]
K = TypeVar("K")
V = TypeVar("V")


class Facts:
    """What is known at one place; undone on the way out of a subtree."""

    def __init__(self) -> None:
        self.conditions: dict[Value, bool] = {}
        self.orders: dict[Fact, bool] = {}
        self.bounds: dict[Value, int] = {}
        self.same: dict[Value, Value] = {}  # a value and another that it equals here
        self.undo: list[Callable[[], object]] = []

    def set(self, table: dict[K, V], key: K, new: V) -> None:
        self.undo.append(partial(table.__setitem__, key, table[key]) if key in table else partial(table.pop, key))
        table[key] = new

    def back_to(self, mark: int) -> None:
        while len(self.undo) > mark:
            self.undo.pop()()

    def learn(self, condition: Value, holds: bool) -> None:
        """Take in that a condition is true (or false) from here on."""
        self.set(self.conditions, condition, holds)
        operation = condition.operation
        if operation == "not":
            self.learn(condition.arguments[0], not holds)
        elif (operation == "and" and holds) or (operation == "or" and not holds):
            for argument in condition.arguments:
                self.learn(argument, holds)
        elif operation in ("eq", "ne", "ult", "ule"):
            self._learn_order(operation, condition.arguments, holds)

    def _learn_order(self, operation: str, arguments: list[Value], holds: bool) -> None:
        left, right = arguments
        if operation in ("ult", "ule") and not holds:
            operation, left, right = ("ule" if operation == "ult" else "ult"), right, left
        elif operation in ("eq", "ne"):
            operation = operation if holds else {"eq": "ne", "ne": "eq"}[operation]
        left, right = self.leader(left), self.leader(right)
        self.set(self.orders, (operation, left, right), True)
        if operation == "eq" and left is not right:
            self.set(self.same, left, right)
        if operation in ("ult", "ule", "eq"):
            bound = self.bound(right)
            bound = bound - 1 if operation == "ult" and bound else bound
            if bound < self.bound(left):
                self.set(self.bounds, left, bound)

    def leader(self, value: Value) -> Value:
        """The value that stands for all that are known to equal it."""
        while value in self.same:
            value = self.same[value]
        return value

    def bound(self, value: Value, depth: int = DEPTH) -> int:
        """The largest unsigned value that it may have."""
        top = all_ones(value.width)
        known = self.bounds.get(value, top)
        if value.operation == "const":
            return value.integer
        if depth == 0 or not value.arguments:
            return known
        return min(known, self._bound_of(value, depth - 1, top))

    def _bound_of(self, value: Value, depth: int, top: int) -> int:
        arguments = value.arguments
        match value.operation:
            case "and":
                return min(self.bound(arguments[0], depth), self.bound(arguments[1], depth))
            case "or" | "xor":
                bits = max(self.bound(arguments[0], depth).bit_length(), self.bound(arguments[1], depth).bit_length())
                return all_ones(bits)
            case "zext":
                return self.bound(arguments[0], depth)
            case "trunc":
                return min(top, self.bound(arguments[0], depth))
            case "add":
                total = self.bound(arguments[0], depth) + self.bound(arguments[1], depth)
                return total if total <= top else top
            case "mul":
                product = self.bound(arguments[0], depth) * self.bound(arguments[1], depth)
                return product if product <= top else top
            case "shr":
                count = arguments[1].constant
                return top if count is None else self.bound(arguments[0], depth) >> count % value.width
            case "shl":
                count = arguments[1].constant
                shifted = top + 1 if count is None else self.bound(arguments[0], depth) << count % value.width
                return shifted if shifted <= top else top
            case "udiv":
                divisor = arguments[1].constant
                return self.bound(arguments[0], depth) // divisor if divisor else top
            case "urem":
                largest = self.bound(arguments[1], depth)
                return min(self.bound(arguments[0], depth), largest - 1) if largest else top
            case "lzcnt" | "tzcnt" | "popcnt":
                return arguments[0].width
            case "select":
                return max(self.bound(arguments[1], depth), self.bound(arguments[2], depth))
        return top

    def decide(self, condition: Value) -> bool | None:
        """Whether a condition is true here; None: not known."""
        known = self.conditions.get(condition)
        if known is not None:
            return known
        if condition.operation == "not":
            inner = self.decide(condition.arguments[0])
            return None if inner is None else not inner
        if condition.operation in ("ult", "ule", "eq", "ne"):
            return self._decide_order(condition.operation, *condition.arguments)
        return None

    def _decide_order(self, operation: str, left: Value, right: Value) -> bool | None:
        orders = self.orders
        left, right = self.leader(left), self.leader(right)
        low, high = left.constant, right.constant
        if left is right:
            return operation in ("ule", "eq")
        if operation == "ult":
            if ("ult", left, right) in orders or (high is not None and self.bound(left) < high):
                return True
            if ("ule", right, left) in orders or ("ult", right, left) in orders or ("eq", left, right) in orders:
                return False
            return False if low is not None and low >= self.bound(right) else None
        if operation == "ule":
            if (
                ("ule", left, right) in orders
                or ("ult", left, right) in orders
                or (high is not None and self.bound(left) <= high)
            ):
                return True
            if ("ult", right, left) in orders:
                return False
            return False if low is not None and low > self.bound(right) else None
        different = any((order, *pair) in orders for order in ("ne", "ult") for pair in ((left, right), (right, left)))
        same = ("eq", left, right) in orders or ("eq", right, left) in orders
        if high is not None and self.bound(left) < high:
            different = True
        if same or different:
            return same if operation == "eq" else not same
        return None


def remove_checks(function: Function) -> None:
    """Drop checks that hold; make the conditions of decided branches constants, for the folder to finish."""
    dominators = Dominators(function)
    facts = Facts()
    marks: list[int] = []
    for block, entering in dominators.walk():
        if not entering:
            facts.back_to(marks.pop())
            continue
        marks.append(len(facts.undo))
        _learn_edge(block, facts)
        _learn_counter(block, facts)
        _check_block(function, block, facts)


def _learn_edge(block: Block, facts: Facts) -> None:
    """A block with one predecessor knows the condition that led to it."""
    if len(block.predecessors) != 1:
        return
    source = block.predecessors[0]
    last = source.terminator
    if last.operation == "branch" and source.successors[0] is not source.successors[1]:
        facts.learn(last.arguments[0], source.successors[0] is block)


def _learn_counter(block: Block, facts: Facts) -> None:
    """A phi of values all of which are bounded is bounded by the largest; a counter that starts low is bounded by its loop's test later."""
    for phi in block.phis():
        bound = 0
        for argument in phi.arguments:
            if argument.operation != "const":
                break
            bound = max(bound, argument.integer)
        else:
            facts.set(facts.bounds, phi, bound)


def _check_block(function: Function, block: Block, facts: Facts) -> None:
    kept = []
    for value in block.values:
        if value.operation == "check":
            known = facts.decide(value.arguments[0])
            if known is True:
                continue
            facts.learn(value.arguments[0], True)
        elif value.operation in ("branch", "select"):
            known = facts.decide(value.arguments[0])
            if known is not None and value.arguments[0].operation != "const":
                flag = Value("const", 1, [], int(known), value.span, block)
                kept.append(flag)
                value.arguments[0] = flag
        kept.append(value)
    block.values = kept
