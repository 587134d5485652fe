"""What is known about values at one place of a function: conditions, and how far one value lies above another at most.

A fact is left - right <= k, over the integers that the words stand for; None in place of a value is zero, so bounds are facts too.
Conditions bring facts; operations that cannot wrap there relate a value to its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from dsl.compiler.algebra import all_ones
from dsl.compiler.ir import Block, Value
from dsl.lang.operations import BINARY, UNARY, as_signed

DEPTH: Final = 6  # how far a bound is looked for through operations
STEPS: Final = 3  # how many facts are put together
K = TypeVar("K")
V = TypeVar("V")
Node = Value | None
Edges = tuple[tuple[Node, int], ...]
OPPOSITE: Final = {"ult": "ule", "ule": "ult", "eq": "ne", "ne": "eq"}


class Facts:
    """What is known at one place; undone on the way out of a subtree."""

    def __init__(self) -> None:
        self.conditions: dict[Value, bool] = {}
        self.above: dict[Value, Edges] = {}  # left: right and k of each fact
        self.below: dict[Value, Edges] = {}  # right: left and k
        self.undo: list[Callable[[], object]] = []

    def set(self, table: dict[K, V], key: K, new: V) -> None:
        self.undo.append(partial(table.__setitem__, key, table[key]) if key in table else partial(table.pop, key))
        table[key] = new

    def back_to(self, mark: int) -> None:
        while len(self.undo) > mark:
            self.undo.pop()()

    def follow(self, block: Block, index: int) -> None:
        """Take in what holds where a block's edge number `index` leads."""
        if block.terminator.operation == "branch" and block.successors[0] is not block.successors[1]:
            self.learn(block.terminator.arguments[0], index == 0)

    def learn(self, condition: Value, holds: bool) -> None:
        """Take in that a condition is true (or false) from here on."""
        self.set(self.conditions, condition, holds)
        operation = condition.operation
        if operation == "not":
            self.learn(condition.arguments[0], not holds)
        elif (operation == "and" and holds) or (operation == "or" and not holds):
            for argument in condition.arguments:
                self.learn(argument, holds)
        elif operation in OPPOSITE:
            self._learn_order(operation, condition.arguments, holds)

    def _learn_order(self, operation: str, arguments: list[Value], holds: bool) -> None:
        left, right = arguments
        if not holds:
            operation = OPPOSITE[operation]
            if operation in ("ult", "ule"):
                left, right = right, left
        if operation == "ne":
            for first, second in ((left, right), (right, left)):
                if self.gap(first, second) <= 0:
                    self.limit(first, second, -1)
            return
        self.limit(left, right, -1 if operation == "ult" else 0)
        if operation == "eq":
            self.limit(right, left, 0)

    def limit(self, left: Node, right: Node, most: int) -> None:
        """Take in that left - right <= most."""
        (left, more), (right, less) = self.place(left), self.place(right)
        if left is not right:
            most += less - more
            if left is not None:
                self.set(self.above, left, (*self.above.get(left, ()), (right, most)))
            if right is not None:
                self.set(self.below, right, (*self.below.get(right, ()), (left, most)))

    # asking

    def gap(self, left: Node, right: Node) -> int:
        """The smallest k for which left - right <= k is known."""
        (left, more), (right, less) = self.place(left), self.place(right)
        return self._gap(left, right, STEPS) + more - less

    def _gap(self, left: Node, right: Node, steps: int) -> int:
        if left is right:
            return 0
        if left is None:
            return -self.range(right)[0] if right else 0
        if right is None:
            return self.range(left)[1]
        best = self.range(left)[1] - self.range(right)[0]
        if steps:
            for other, k in (*self.above.get(left, ()), *self._relations(left)):
                if other is not None:
                    best = min(best, k + self._gap(other, right, steps - 1))
        return best

    def place(self, value: Node, depth: int = DEPTH) -> tuple[Node, int]:
        """A value as another one plus a constant, as far as nothing wraps or is cut off."""
        if value is None or value.constant is not None:
            return None, value.constant or 0 if value else 0
        if depth and value.operation in ("add", "zext", "trunc"):
            first, more = value.arguments[0], 0
            if value.operation == "add":
                more = as_signed(value.arguments[1].constant or 0, value.width)
            least, most = self.range(first, depth - 1)
            if least + more >= 0 and most + more <= all_ones(value.width) and (more or value.operation != "add"):
                base, offset = self.place(first, depth - 1)
                return base, offset + more
        return value, 0

    def _relations(self, value: Value) -> Edges:
        """Facts that an operation itself brings: what it gives is at most so far above its arguments."""
        arguments = value.arguments
        match value.operation:
            case "and":
                return (arguments[0], 0), (arguments[1], 0)
            case "udiv" | "shr":
                return ((arguments[0], 0),)
            case "urem":
                return (arguments[0], 0), (arguments[1], -1)
        return ()

    def range(self, value: Value, depth: int = DEPTH) -> tuple[int, int]:
        """The smallest and the largest unsigned value that it may have."""
        if value.constant is not None:
            return value.constant, value.constant
        least, most = self._computed(value, depth - 1) if depth else (0, all_ones(value.width))
        if depth:
            for other, k in self.below.get(value, ()):
                least = max(least, (self.range(other, max(depth - 2, 0))[0] if other else 0) - k)
            for other, k in self.above.get(value, ()):
                most = min(most, (self.range(other, max(depth - 2, 0))[1] if other else 0) + k)
        return least, most

    def _computed(self, value: Value, depth: int) -> tuple[int, int]:
        """The range that an operation's arguments leave its result."""
        top = all_ones(value.width)
        if value.operation not in BINARY and value.operation not in UNARY and value.operation != "select":
            return 0, top
        ranges = [self.range(argument, depth) for argument in value.arguments]
        (low, high), (other_low, other_high) = ranges[0], ranges[-1]
        least, most = 0, top
        match value.operation:
            case "and":
                most = min(high, other_high)
            case "or" | "xor":
                most = all_ones(max(high, other_high).bit_length())
            case "zext" | "trunc":
                least, most = low, high
            case "add" if other_low == other_high > top >> 1:  # a constant less
                least, most = low + other_low - top - 1, high + other_low - top - 1
            case "add":
                least, most = low + other_low, high + other_high
            case "mul":
                least, most = low * other_low, high * other_high
            case "shl" if other_low == other_high:
                least, most = low << other_low % value.width, high << other_low % value.width
            case "shr" if other_low == other_high:
                least, most = low >> other_low % value.width, high >> other_low % value.width
            case "udiv" if other_low:
                least, most = low // other_high, high // other_low
            case "urem" if other_low:
                most = min(high, other_high - 1)
            case "lzcnt" | "tzcnt" | "popcnt":
                most = value.width
            case "select":
                least, most = min(ranges[1][0], other_low), max(ranges[1][1], other_high)
        return (least, most) if least >= 0 and most <= top else (0, top)

    def decide(self, condition: Value) -> bool | None:
        """Whether a condition is true here; None: not known."""
        known = self.conditions.get(condition)
        if known is not None:
            return known
        if condition.operation == "not":
            inner = self.decide(condition.arguments[0])
            return None if inner is None else not inner
        if condition.operation in OPPOSITE:
            return self._decide_order(condition.operation, *condition.arguments)
        return None

    def _decide_order(self, operation: str, left: Value, right: Value) -> bool | None:
        up, down = self.gap(left, right), self.gap(right, left)
        if operation in ("ult", "ule"):
            least = -1 if operation == "ult" else 0
            return True if up <= least else False if down < -least else None
        if up < 0 or down < 0:
            return operation == "ne"
        return operation == "eq" if up == down == 0 else None
