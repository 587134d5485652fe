"""The order of a function's blocks, and the jumps between them.

A block is followed by the successor that runs most often; a loop's test goes to its end, so that each turn has one jump; cold
blocks and the ud2 of failed checks stand after everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dsl.compiler.graph import reverse_postorder
from dsl.compiler.ir import Span
from dsl.compiler.machine import Instruction, MachineBlock, MachineFunction, Trap, inverse

COPIED: Final = 3  # instructions of a block that stands at each place that would jump to it


@dataclass(eq=False, slots=True)
class Label:
    """A place in a function that jumps go to; cold: of a block that a failed check or a stop is ahead of, behind all others."""

    name: str
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Jump:
    """A jump inside the function; condition "": always."""

    condition: str
    target: Label
    span: Span | None = None


Item = Label | Jump | Instruction


Traps = dict[Trap, Label]  # the shared ud2 of each place where a check may fail, in order of first mention


def lay_out(function: MachineFunction) -> list[Item]:
    """The function as one sequence of labels, instructions and jumps."""
    _spread_cold(function)
    _thread_jumps(function)
    order = _order(function)
    labels = {block: Label(block.label, block.cold) for block in order}
    traps: Traps = {}
    items: list[Item] = []
    room = -1 if function.calls else COPIED  # beside a call a jump costs nothing
    followers = dict(zip(order, [*order[1:], None], strict=True))
    for block in order:
        items += [labels[block], *_body(block, traps), *_jumps(block, followers[block], labels, traps, followers, room)]
    for trap, label in traps.items():
        items += [label, Instruction("ud2", (trap,))]
    return items


def _body(block: MachineBlock, traps: Traps) -> Iterator[Item]:
    for instruction in block.instructions:
        target = instruction.operands[0] if instruction.operands else None
        if isinstance(target, Trap) and instruction.mnemonic != "ud2":
            yield Jump(
                instruction.mnemonic[1:],
                traps.setdefault(target, Label(f"trap{len(traps)}", cold=True)),
                instruction.span,
            )
        else:
            yield instruction


def _jumps(
    block: MachineBlock,
    following: MachineBlock | None,
    labels: dict[MachineBlock, Label],
    traps: Traps,
    followers: dict[MachineBlock, MachineBlock | None],
    room: int,
) -> list[Item]:
    """What takes control from a block to where it goes on. A short block of a loop is copied instead of jumped to: one jump a turn less."""
    if not block.successors:
        return []
    if not block.condition or block.successors[0] is block.successors[-1]:
        target = block.successors[0]
        if target is following:
            return []
        room -= len(target.instructions)
        if room >= 0 and not block.cold and _may_be_copied(target, followers):
            return [*_body(target, traps), *_jumps(target, following, labels, traps, followers, room)]
        return [Jump("", labels[target], block.span)]
    taken, other = block.successors
    if other is following:
        return [Jump(block.condition, labels[taken], block.span)]
    if taken is following:
        return [Jump(inverse(block.condition), labels[other], block.span)]
    return [Jump(block.condition, labels[taken], block.span), Jump("", labels[other], block.span)]


def _may_be_copied(block: MachineBlock, followers: dict[MachineBlock, MachineBlock | None]) -> bool:
    """Whether jumps to a block of a loop may become copies; for one that it is entered by, all that enter must copy: one head stays."""
    if not block.depth or block.cold or not block.successors:
        return False
    outside = [source for source in block.predecessors if source.depth < block.depth]
    return not any(source.condition or source.cold or followers[source] is block for source in outside)


def _spread_cold(function: MachineFunction) -> None:
    """A block all of whose successors are cold is cold, but for the entry."""
    changed = True
    while changed:
        changed = False
        for block in function.blocks[1:]:
            if not block.cold and block.successors and all(successor.cold for successor in block.successors):
                block.cold = changed = True


def _thread_jumps(function: MachineFunction) -> None:
    """Send jumps past blocks that only jump on, and drop those blocks."""

    def final(block: MachineBlock) -> MachineBlock:
        seen = {block}
        while not block.instructions and len(block.successors) == 1 and block.successors[0] not in seen:
            block = block.successors[0]
            seen.add(block)
        return block

    for block in function.blocks:
        block.successors = [final(successor) for successor in block.successors]
    reached = set(reverse_postorder(function.blocks[0]))
    function.blocks = [block for block in function.blocks if block in reached]
    for block in function.blocks:
        block.predecessors = []
    for block in function.blocks:
        for successor in block.successors:
            successor.predecessors.append(block)


def _order(function: MachineFunction) -> list[MachineBlock]:
    """Chains of blocks that fall through, hot ones first."""
    placed: dict[MachineBlock, None] = {}
    for start in (function.blocks[0], *sorted(function.blocks, key=lambda block: block.cold)):
        block: MachineBlock | None = None if start in placed else start
        depth = 0
        while block is not None:
            placed |= dict.fromkeys([*(_arm(block, placed) if depth < block.depth else ()), block])
            depth, block = block.depth, _follower(block, placed)
    return list(placed)


def _arm(block: MachineBlock, placed: dict[MachineBlock, None]) -> list[MachineBlock]:
    """What to place before a loop's first block: the arm that does not follow it, and what leads from there back to the block."""
    following = _follower(block, placed)
    found = [other for other in block.successors if other is not following]
    while block.condition and found and len(found[-1].successors) == 1:
        found.append(found[-1].successors[0])
        if found[-1] in placed or found[-1] in found[:-1] or found[-1].cold or found[-1].depth != block.depth:
            return []
        if block in found[-1].successors:
            return found if found[0] not in placed and found[0].depth == block.depth and not found[0].cold else []
    return []


def _follower(block: MachineBlock, placed: dict[MachineBlock, None], far: int = COPIED) -> MachineBlock | None:
    """What to place after a block: its likeliest successor; for a loop that tests at its top, the loop's body instead of the test."""
    choices = [other for other in reversed(block.successors) if other not in placed and other.cold == block.cold]
    if not choices:  # a jump to what is placed may become a copy of it, and then goes on
        return _follower(block.successors[0], placed, far - 1) if far and len(block.successors) == 1 else None
    chosen = max(choices, key=lambda successor: (successor.depth, len(successor.predecessors) == 1))
    if chosen.depth > block.depth and chosen.condition:
        inside = [other for other in chosen.successors if other.depth >= chosen.depth and other not in placed]
        leaves = any(other.depth < chosen.depth for other in chosen.successors)
        # whether the test is entered again from deeper blocks, which can then fall into it
        returns = any(other.depth >= chosen.depth and other is not chosen for other in chosen.predecessors)
        if inside and leaves and returns and inside[0] is not chosen and not inside[0].cold:
            return inside[0]
    return chosen
