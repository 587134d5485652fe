"""Global value numbering: one value for equal pure computations where one dominates the other; loads until the next effect.

A store makes what it stored known to the loads of the same place that follow it. What memory holds at the end of a block is known at
the beginning of those that only it leads to; where several lead, a load becomes a phi of what each of them knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsl.compiler.aliases import Aliases
from dsl.compiler.graph import Dominators, final, replace
from dsl.compiler.ir import OPERATIONS, Block, Function, Value
from dsl.compiler.secrets import secret_values
from dsl.lang.operations import BINARY, evaluate

COMMUTATIVE = frozenset(("add", "mul", "umulh", "and", "or", "xor", "eq", "ne"))
DIVISIONS = ("udiv", "urem", "sdiv", "srem")
Key = tuple[object, ...]


def number(function: Function) -> None:
    """Replace values by earlier equal ones."""
    dominators = Dominators(function)
    replaced: dict[Value, Value] = {}
    identity = {value: index for index, value in enumerate(function.values())}
    table: dict[Key, Value] = {}
    added: list[list[Key]] = []
    aliases = Aliases(function)
    secrets = secret_values(function)
    ends: dict[Block, dict[Key, Value]] = {}
    for block, entering in dominators.walk():
        if entering:
            added.append([])
            memory = dict(ends[block.predecessors[0]]) if len(block.predecessors) == 1 else {}
            ends[block] = memory
            _number_block(block, table, added[-1], replaced, _Memory(memory, secrets, identity, aliases))
        else:
            for key in added.pop():
                del table[key]
    replace(function, replaced)
    replaced = {}
    for block in dominators.order:
        if len(block.predecessors) > 1:
            for load in _first_loads(block):
                brought = [_brought(load, block, edge, ends, dominators) for edge in range(len(block.predecessors))]
                values = [value for value in brought if value is not None]
                if len(values) == len(brought):
                    replaced[load] = Value("phi", load.width, values, None, load.span, block)
                    block.values.insert(0, replaced[load])
    replace(function, replaced)


def _first_loads(block: Block) -> list[Value]:
    """The loads that no effect comes before since a block was entered."""
    found: list[Value] = []
    pending = [block]
    while pending:
        block = pending.pop()
        for value in block.values:
            if (
                value.operation == "store"
                or writes_memory(value)
                or (value.operation == "load" and value.access.volatile)
            ):
                break
            if value.operation == "load":
                found.append(value)
        else:
            pending += [successor for successor in block.successors if len(successor.predecessors) == 1]
    return found


def _brought(
    load: Value, join: Block, edge: int, ends: dict[Block, dict[Key, Value]], dominators: Dominators
) -> Value | None:
    """What memory holds at a load's place where control comes into a join along an edge, if that is known."""

    def constant(value: Value) -> int | None:
        if value.operation == "phi" and value.block is join:
            return value.arguments[edge].constant
        if value.operation not in BINARY or not OPERATIONS[value.operation].pure:
            return value.constant
        left, right = map(constant, value.arguments)
        if left is None or right is None:
            return None
        return evaluate(value.operation, value.width, [left, right], value.arguments[0].width)

    def same(wanted: Value, known: Value) -> bool:
        """Whether an address of the join's phis is, with what they take along the edge, a known one."""
        if not dominators.dominates(join, wanted.block):
            return wanted is known
        if wanted.operation == "phi":
            return wanted.block is join and wanted.arguments[edge] is known
        if wanted.operation == "add" and constant(wanted.arguments[1]) == 0:
            return same(wanted.arguments[0], known)
        alike = (wanted.operation, wanted.data) == (known.operation, known.data) and OPERATIONS[wanted.operation].pure
        return alike and all(same(*pair) for pair in zip(wanted.arguments, known.arguments, strict=True))

    for (base, *place, is_secret), value in ends[join.predecessors[edge]].items():
        assert isinstance(base, Value)
        if place == [load.access.offset, load.width] and is_secret == load.secret and same(load.arguments[0], base):
            return value
    return None


def _number_block(
    block: Block, table: dict[Key, Value], added: list[Key], replaced: dict[Value, Value], memory: _Memory
) -> None:
    for value in block.values:
        arguments = [final(argument, replaced) for argument in value.arguments]
        operation = value.operation
        if operation in ("load", "store"):
            memory.access(value, arguments, replaced)
        elif writes_memory(value):
            memory.known.clear()
        if operation == "phi":
            _trivial_phi(value, arguments, replaced)
        elif (OPERATIONS[operation].pure or operation in DIVISIONS) and operation != "opaque":
            key = _key(value, arguments, memory.identity)
            known = table.get(key)
            if known is None:
                table[key] = value
                added.append(key)
            else:
                replaced[value] = known


def writes_memory(value: Value) -> bool:
    """Whether loads before and after a call or intrinsic may give different values."""
    return value.operation == "call" or (
        value.operation == "intrinsic" and bool(getattr(value.data, "writes_memory", True))
    )


def _trivial_phi(value: Value, arguments: list[Value], replaced: dict[Value, Value]) -> None:
    others = {argument for argument in arguments if argument is not value}
    if len(others) == 1:
        replaced[value] = others.pop()


def _key(value: Value, arguments: list[Value], identity: dict[Value, int]) -> Key:
    numbers = [identity[argument] for argument in arguments]
    if value.operation in COMMUTATIVE:
        numbers.sort()
    return (value.operation, value.width, value.data, *numbers)


@dataclass(slots=True)
class _Memory:
    """What is known about memory at one place: (base, offset, width, whether it is seen as a secret) -> the value there."""

    known: dict[Key, Value]
    secrets: set[Value]
    identity: dict[Value, int]
    aliases: Aliases

    def access(self, value: Value, arguments: list[Value], replaced: dict[Value, Value]) -> None:
        """Take in a load, which may turn out to be known, or a store."""
        if value.access.volatile:
            self.known.clear()
            return
        stored = value.operation == "store"
        width = arguments[1].width if stored else value.width
        place = (arguments[0], value.access.offset, width)
        if stored:
            self._forget(place)
            self.known[*place, arguments[1] in self.secrets] = arguments[1]
            return
        known = self.known.get((*place, value.secret))
        if known is None and value.secret:  # what is zeroed is as good as secret
            public = self.known.get((*place, False))
            known = public if public is not None and public.operation == "const" else None
        if known is not None:
            replaced[value] = known
        else:
            self.known[*place, value.secret] = value

    def _forget(self, written: tuple[Value, int, int]) -> None:
        """Drop what a store may have changed: all but other places of the same base, and what cannot be there."""
        base, offset, width = written
        for key in list(self.known):
            other_base, other, other_width, _ = key
            assert isinstance(other_base, Value)
            assert isinstance(other, int)
            assert isinstance(other_width, int)
            if other_base is base:
                apart = other + other_width // 8 <= offset or offset + width // 8 <= other
            else:
                apart = self.aliases.apart(base, other_base)
            if not apart:
                del self.known[key]
