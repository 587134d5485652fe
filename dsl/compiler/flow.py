"""Control flow that constants decide: branches folded, dead blocks dropped, straight lines merged."""

from __future__ import annotations

from dsl.compiler.graph import decide, drop_unreachable
from dsl.compiler.ir import Block, Function


def simplify_flow(function: Function) -> bool:
    """Do each simplification once; whether anything changed."""
    changed = _fold_branches(function)
    changed = drop_unreachable(function) or changed
    changed = merge_lines(function) or changed
    for block in function.blocks:
        block.cold = block.cold or block.terminator.operation == "stop"
    return changed


def _fold_branches(function: Function) -> bool:
    changed = False
    for block in function.blocks:
        last = block.terminator
        if last.operation != "branch":
            continue
        condition = last.arguments[0]
        same = block.successors[0] is block.successors[1] and next(block.successors[0].phis(), None) is None
        if condition.operation == "const" or same:
            decide(block, 1 if condition.constant == 0 else 0)
            changed = True
        elif condition.operation == "not" and block.successors[0] is not block.successors[1]:
            last.arguments = [condition.arguments[0]]
            block.successors.reverse()
            changed = True
    return changed


def merge_lines(function: Function) -> bool:
    """Append a block to its only predecessor where that one only goes there."""
    gone: set[Block] = set()
    for block in function.blocks:
        if block in gone:
            continue
        while len(block.successors) == 1 and block.terminator.operation == "jump":
            follower = block.successors[0]
            if len(follower.predecessors) != 1 or follower is block or next(follower.phis(), None) is not None:
                break
            block.values.pop()
            for value in follower.values:
                value.block = block
            block.values += follower.values
            block.successors = follower.successors
            for successor in block.successors:
                successor.predecessors = [block if other is follower else other for other in successor.predecessors]
            block.cold = block.cold or follower.cold
            gone.add(follower)
    function.blocks = [block for block in function.blocks if block not in gone]
    return bool(gone)
