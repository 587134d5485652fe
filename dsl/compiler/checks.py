"""Removes checks and branches that dominating conditions or ranges decide: two walks over the dominator tree.

On a walk, a condition is known true or false below the edge of a branch on it, and true after a check of it. The first walk finds what
holds of phis: the largest and smallest of what they take, and that a loop's counter only rises or falls; the second one decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsl.compiler.facts import Facts
from dsl.compiler.graph import Dominators
from dsl.compiler.ir import Block, Function, Value
from dsl.lang.array import LONGEST


@dataclass(frozen=True, slots=True)
class Taken:
    """What a phi takes along one edge: its range; for an edge back, whether that is never below (above) what the phi was."""

    least: int
    most: int
    back: bool
    rises: bool
    falls: bool


def remove_checks(function: Function) -> None:
    """Drop checks that hold; make the conditions of decided branches constants, for the folder to finish."""
    dominators = Dominators(function)
    taken: dict[tuple[Value, Block], Taken] = {}
    if any(value.operation == "phi" for value in function.values()):
        _walk(dominators, taken, decides=False)
    _walk(dominators, taken, decides=True)


def _walk(dominators: Dominators, taken: dict[tuple[Value, Block], Taken], decides: bool) -> None:
    facts = Facts()
    marks: list[int] = []
    for block, entering in dominators.walk():
        if not entering:
            facts.back_to(marks.pop())
            continue
        marks.append(len(facts.undo))
        _learn_edge(block, facts)
        for phi in block.phis():
            _learn_phi(phi, facts, taken)
        _take_in(block, facts, decides)
        for index, successor in enumerate(block.successors):
            _note_taken(block, index, successor, facts, taken, dominators)


def _learn_edge(block: Block, facts: Facts) -> None:
    """A block with one predecessor knows the condition that led to it."""
    if len(block.predecessors) == 1:
        (source,) = block.predecessors
        facts.follow(source, source.successors.index(block))


def _learn_phi(phi: Value, facts: Facts, taken: dict[tuple[Value, Block], Taken]) -> None:
    """A phi lies within what it takes; one that only rises lies above where it started, one that only falls below."""
    rows = [taken.get((phi, source)) for source in phi.block.predecessors]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or not known:
        return
    facts.limit(phi, None, max(row.most for row in known))
    facts.limit(None, phi, -min(row.least for row in known))
    starts = {argument for argument, row in zip(phi.arguments, known, strict=True) if not row.back}
    if len(starts) == 1 and any(row.back for row in known):
        (start,) = starts
        if all(row.rises for row in known if row.back):
            facts.limit(start, phi, 0)
        if all(row.falls for row in known if row.back):
            facts.limit(phi, start, 0)


def _note_taken(
    block: Block,
    index: int,
    successor: Block,
    facts: Facts,
    taken: dict[tuple[Value, Block], Taken],
    dominators: Dominators,
) -> None:
    """Note what phis take along an edge, with the condition that leads there."""
    mark = len(facts.undo)
    facts.follow(block, index)
    back = dominators.dominates(successor, block)
    edge = successor.predecessors.index(block)
    for phi in successor.phis():
        value = phi.arguments[edge]
        rises, falls = (back and facts.gap(phi, value) <= 0, back and facts.gap(value, phi) <= 0)
        taken[phi, block] = Taken(*facts.range(value), back, rises, falls)
    facts.back_to(mark)


def _take_in(block: Block, facts: Facts, decides: bool) -> None:
    """Learn from a block's checks; drop those that hold and decide branches and selections, on the second walk."""
    kept: list[Value] = []
    for value in block.values:
        if decides and value.operation == "zext":
            kept += _widen_before_adding(value, facts)
        known = (
            facts.decide(value.arguments[0]) if decides and value.operation in ("check", "branch", "select") else None
        )
        if value.operation == "check":
            test = value.arguments[0]
            facts.learn(test, True)
            if value.data == "index" and test.operation in ("ult", "ule"):
                facts.limit(test.arguments[1], None, LONGEST)
            if known:
                continue
        elif known is not None and value.arguments[0].constant is None:
            flag = Value("const", 1, [], int(known), value.span, block)
            kept.append(flag)
            value.arguments[0] = flag
        kept.append(value)
    block.values = kept


def _widen_before_adding(value: Value, facts: Facts) -> list[Value]:
    """Make the extension of a sum that cannot wrap the sum of an extension, which addresses take in; the values it now needs."""
    base, more = facts.place(value)
    if base is None or not more or base.width > value.width:
        return []
    made = [Value("const", value.width, [], more % (1 << value.width), value.span, value.block)]
    if base.width < value.width:
        made.append(Value("zext", value.width, [base], None, value.span, value.block))
    value.operation, value.arguments = "add", [made[1] if made[1:] else base, made[0]]
    return made
