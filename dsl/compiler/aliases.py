"""Which addresses cannot meet: frame slots are apart from each other, from memory objects, and from all else unless it got out."""

from __future__ import annotations

from dsl.compiler.ir import Function, Value


def summands(address: Value) -> list[Value]:
    """The values that an address is the sum of."""
    found = []
    seen = {address}
    pending = [address]
    while pending:
        value = pending.pop()
        if value.operation != "add":
            found.append(value)
            continue
        for argument in value.arguments:
            if argument not in seen:
                seen.add(argument)
                pending.append(argument)
    return found


def root(address: Value) -> Value:
    """The frame slot or memory object that an address points into; any summand if it is neither."""
    parts = summands(address)
    return next((part for part in parts if part.operation in ("frame", "symbol")), parts[0])


class Aliases:
    """The slots of one function whose address is only ever added to, loaded from and stored to."""

    def __init__(self, function: Function) -> None:
        escaped: set[int] = set()
        self.private: set[int] = set()
        for value in function.values():
            if value.operation == "frame":
                self.private.add(id(value.data))
            for position, argument in enumerate(value.arguments):
                accessed = position == 0 and value.operation in ("load", "store")
                if not accessed and value.operation != "add":
                    escaped.update(id(part.data) for part in summands(argument) if part.operation == "frame")
        self.private -= escaped

    def apart(self, first: Value, second: Value) -> bool:
        """Whether accesses through these two addresses never touch the same byte."""
        left, right = root(first), root(second)
        if left.operation != "frame":
            left, right = right, left
        if left.operation != "frame" or left.data is right.data:
            return False
        return right.operation in ("frame", "symbol") or id(left.data) in self.private
