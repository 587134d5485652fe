"""Global value numbering: one value for equal pure computations where one dominates the other; loads until the next effect.

A store makes what it stored known to the loads of the same place that follow it. What memory holds at the end of a block is known at
the beginning of those that only it leads to; where several lead, a load becomes a phi of what each of them knows.
"""

from __future__ import annotations

from dsl.compiler.fold import COMMUTATIVE
from dsl.compiler.graph import Dominators, constant_of, final, parts, replace
from dsl.compiler.ir import OPERATIONS, Block, Function, Value
from dsl.compiler.secrets import secret_values
from dsl.lang.operations import DIVISIONS

Key = tuple[object, ...]
# base, offset, width, whether it is seen as a secret: the value there
Known = dict[tuple[Value, int, int, bool], Value]


def number(function: Function) -> None:
    """Replace values by earlier equal ones."""
    dominators = Dominators(function)
    replaced: dict[Value, Value] = {}
    table: dict[Key, Value] = {}
    added: list[list[Key]] = []
    secrets = secret_values(function)
    ends: dict[Block, Known] = {}
    for block, entering in dominators.walk():
        if entering:
            added.append([])
            memory = dict(ends[block.predecessors[0]]) if len(block.predecessors) == 1 else {}
            ends[block] = memory
            _number_block(block, table, added[-1], replaced, memory, secrets)
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
            if writes_memory(value):
                break
            if value.operation == "load":
                found.append(value)
        else:
            pending += [successor for successor in block.successors if len(successor.predecessors) == 1]
    return found


def _brought(load: Value, join: Block, edge: int, ends: dict[Block, Known], dominators: Dominators) -> Value | None:
    """What memory holds at a load's place where control comes into a join along an edge, if that is known."""
    given = {phi: phi.arguments[edge].constant for phi in join.phis()}

    def same(wanted: Value, known: Value) -> bool:
        """Whether an address of the join's phis is, with what they take along the edge, a known one."""
        if not dominators.dominates(join, wanted.block):
            return wanted is known
        if wanted.operation == "phi":
            return wanted.block is join and wanted.arguments[edge] is known
        if wanted.operation == "add" and constant_of(wanted.arguments[1], given) == 0:
            return same(wanted.arguments[0], known)
        kinds = [(value.operation, value.width, value.data) for value in (wanted, known)]
        alike = kinds[0] == kinds[1] and OPERATIONS[wanted.operation].pure
        return alike and all(same(*pair) for pair in zip(wanted.arguments, known.arguments, strict=True))

    start, offset = place_of(load, load.arguments[0])
    for (base, *place, is_secret), value in ends[join.predecessors[edge]].items():
        if place == [offset, load.width] and is_secret == load.secret and same(start, base):
            return value
    return None


def _number_block(
    block: Block,
    table: dict[Key, Value],
    added: list[Key],
    replaced: dict[Value, Value],
    known: Known,
    secrets: set[Value],
) -> None:
    """Number a block's values; known: what memory holds at its beginning, then at its end."""
    for value in block.values:
        arguments = [final(argument, replaced) for argument in value.arguments]
        operation = value.operation
        if operation == "load" and not value.access.volatile:
            _load(value, *place_of(value, arguments[0]), replaced, known)
        elif operation == "store" and not value.access.volatile:
            place = (*place_of(value, arguments[0]), arguments[1].width)
            _forget(known, *place)
            known[*place, arguments[1] in secrets] = arguments[1]
        elif writes_memory(value):
            known.clear()
        elif (OPERATIONS[operation].pure or operation in DIVISIONS) and operation not in ("phi", "opaque"):
            together = frozenset(arguments) if operation in COMMUTATIVE else tuple(arguments)
            key = (operation, value.width, value.data, together)
            if table.setdefault(key, value) is value:
                added.append(key)
            else:
                replaced[value] = table[key]


def place_of(access: Value, address: Value) -> tuple[Value, int]:
    """Where a load or a store at an address goes: a base and an offset."""
    base, more = parts(address)
    return base, more + access.access.offset


def writes_memory(value: Value) -> bool:
    """Whether loads before and after a value may differ: a store, an access that must happen, a call, most intrinsics."""
    match value.operation:
        case "load":
            return value.access.volatile
        case "intrinsic":
            return value.row.writes_memory
    return value.operation in ("store", "call")


def _load(value: Value, base: Value, offset: int, replaced: dict[Value, Value], known: Known) -> None:
    """Take in a load, which may turn out to be known."""
    place = (base, offset, value.width)
    found = known.get((*place, value.secret))
    if found is None and value.secret:  # what is zeroed is as good as secret
        public = known.get((*place, False))
        found = public if public is not None and public.operation == "const" else None
    if found is not None:
        replaced[value] = found
    else:
        known[*place, value.secret] = value


def _forget(known: Known, base: Value, offset: int, width: int) -> None:
    """Drop what a store may have changed: all but other places of the same base."""
    for place in list(known):
        other, start, size, _ = place
        apart = start + size // 8 <= offset or offset + width // 8 <= start
        if other is not base or not apart:
            del known[place]
