"""Control flow that constants decide: branches folded, dead blocks dropped, straight lines merged, jumps sent past known tests."""

from __future__ import annotations

from dsl.compiler.graph import drop_unreachable, remove_edge
from dsl.compiler.ir import Block, Function, Value


def simplify_flow(function: Function) -> bool:
    """Do each simplification once; whether anything changed."""
    changed = _fold_branches(function)
    changed = _thread_known_phis(function) or changed
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
        if condition.operation == "const":
            remove_edge(block, block.successors[0 if condition.data == 0 else 1])
            _become_jump(last)
            changed = True
        elif block.successors[0] is block.successors[1] and next(block.successors[0].phis(), None) is None:
            remove_edge(block, block.successors[1])
            _become_jump(last)
            changed = True
        elif condition.operation == "not" and block.successors[0] is not block.successors[1]:
            last.arguments = [condition.arguments[0]]
            block.successors.reverse()
            changed = True
    return changed


def _become_jump(terminator: Value) -> None:
    terminator.operation = "jump"
    terminator.arguments = []


def _thread_known_phis(function: Function) -> bool:
    """A block of one phi and a branch on it: predecessors that bring a constant go straight to where it leads."""
    changed = False
    uses: dict[Value, int] = {}
    for value in function.values():
        for argument in value.arguments:
            uses[argument] = uses.get(argument, 0) + 1
    for block in function.blocks:
        if (
            len(block.values) != 2
            or block.terminator.operation != "branch"
            or block.successors[0] is block.successors[1]
        ):
            continue
        phi = block.values[0]
        if phi.operation != "phi" or block.terminator.arguments[0] is not phi or uses[phi] != 1:
            continue
        for index in range(len(phi.arguments) - 1, -1, -1):
            argument, source = phi.arguments[index], block.predecessors[index]
            if argument.operation == "const" and source is not block and block not in block.successors:
                target = block.successors[0 if argument.data else 1]
                if source.successors.count(block) == 1 and source not in target.predecessors:
                    _redirect(source, block, target, index)
                    changed = True
    return changed


def _redirect(source: Block, middle: Block, target: Block, index: int) -> None:
    """Make the edge source -> middle (middle's predecessor number index) go to target, with the phi arguments that middle brought."""
    edge = target.predecessors.index(middle)
    source.successors[source.successors.index(middle)] = target
    del middle.predecessors[index]
    for phi in middle.phis():
        del phi.arguments[index]
    target.predecessors.append(source)
    for phi in target.phis():
        phi.arguments.append(phi.arguments[edge])


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
