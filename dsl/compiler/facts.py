"""What is known about values at one place of a function: conditions, and how far one value lies above another at most.

A fact is left - right <= k, over the integers that the words stand for; None in place of a value is zero, so bounds are facts too.
Conditions bring facts; operations that cannot wrap there relate a value to its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from dsl.compiler.algebra import all_ones
from dsl.compiler.ir import Value
from dsl.lang.operations import as_signed

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
        self.different: dict[tuple[Value, Value], bool] = {}
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
                self.set(self.different, (first, second), True)
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
            return -self.lower(right) if right else 0
        if right is None:
            return self.bound(left)
        best = self.bound(left) - self.lower(right)
        if steps:
            for other, k in (*self.above.get(left, ()), *self._relations(left)):
                if other is not None:
                    best = min(best, k + self._gap(other, right, steps - 1))
        return best

    def place(self, value: Node, depth: int = DEPTH) -> tuple[Node, int]:
        """A value as another one plus a constant, as far as nothing wraps or is cut off."""
        if value is None or value.constant is not None:
            return None, value.constant or 0 if value else 0
        if depth and value.operation == "add" and value.arguments[1].constant is not None:
            first, more = value.arguments[0], as_signed(value.arguments[1].constant, value.width)
            if (
                self.lower(first, depth - 1) >= -more
                if more < 0
                else self.bound(first, depth - 1) <= all_ones(value.width) - more
            ):
                base, offset = self.place(first, depth - 1)
                return base, offset + more
        if depth and self._keeps(value, depth):
            return self.place(value.arguments[0], depth - 1)
        return value, 0

    def _keeps(self, value: Value, depth: int) -> bool:
        """Whether a widening or a cut leaves the number as it is."""
        if value.operation == "trunc":
            return self.bound(value.arguments[0], depth - 1) <= all_ones(value.width)
        return value.operation == "zext"

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
            case "add" if self.bound(arguments[0]) + self.bound(arguments[1]) <= all_ones(value.width):
                return (arguments[0], self.bound(arguments[1])), (arguments[1], self.bound(arguments[0]))
            case "sub" if self._gap(arguments[1], arguments[0], 1) <= 0:
                return ((arguments[0], -self.lower(arguments[1])),)
        return ()

    def lower(self, value: Value, depth: int = DEPTH) -> int:
        """The smallest unsigned value that it may have."""
        if value.constant is not None:
            return value.constant
        least = 0
        if depth:
            for other, k in self.below.get(value, ()):
                least = max(least, (0 if other is None else self.lower(other, depth - 2 if depth > 1 else 0)) - k)
            if value.operation == "zext":
                least = max(least, self.lower(value.arguments[0], depth - 1))
            elif value.operation == "add":
                first, second = value.arguments
                more = second.constant
                if more is not None and more >> value.width - 1:  # a constant less
                    least = max(least, self.lower(first, depth - 1) - (1 << value.width) + more)
                elif self.bound(first, depth - 1) + self.bound(second, depth - 1) <= all_ones(value.width):
                    least = max(least, self.lower(first, depth - 1) + self.lower(second, depth - 1))
        return least

    def bound(self, value: Value, depth: int = DEPTH) -> int:
        """The largest unsigned value that it may have."""
        if value.constant is not None:
            return value.constant
        most = all_ones(value.width)
        if depth:
            for other, k in self.above.get(value, ()):
                most = min(most, (0 if other is None else self.bound(other, depth - 2 if depth > 1 else 0)) + k)
            if value.arguments:
                most = min(most, self._bound_of(value, depth - 1, most))
        return most

    def _bound_of(self, value: Value, depth: int, most: int) -> int:
        arguments, top = value.arguments, all_ones(value.width)
        match value.operation:
            case "and":
                return min(self.bound(arguments[0], depth), self.bound(arguments[1], depth))
            case "or" | "xor":
                return all_ones(max(self.bound(argument, depth).bit_length() for argument in arguments))
            case "zext" | "trunc":
                return self.bound(arguments[0], depth)
            case "add":
                more = arguments[1].constant
                if more is not None and more >> value.width - 1:  # a constant less
                    less = top + 1 - more
                    return self.bound(arguments[0], depth) - less if self.lower(arguments[0], depth) >= less else top
                total = self.bound(arguments[0], depth) + self.bound(arguments[1], depth)
                return total if total <= top else top
            case "mul":
                product = self.bound(arguments[0], depth) * self.bound(arguments[1], depth)
                return product if product <= top else top
            case "shr":
                count = arguments[1].constant
                return most if count is None else self.bound(arguments[0], depth) >> count % value.width
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
        return most

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
        if up < 0 or down < 0 or (left, right) in self.different:
            return operation == "ne"
        return operation == "eq" if up == down == 0 else None
