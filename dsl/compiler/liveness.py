"""Where each virtual register is live, as a bit mask over positions.

Instruction number k of a function owns three positions: 3k, where its fixed inputs are read; 3k + 1, where its operands are read, its
fixed registers hold their values and its clobbers happen; 3k + 2, from where on its results live. Two registers interfere when their
masks have a bit in common. Each block ends with an instruction number of its own for its jump.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from dsl.compiler.machine import FIRST_VIRTUAL, Instruction, MachineFunction, Register, named


@dataclass(slots=True)
class Ranges:
    """masks: virtual register -> positions; fixed: processor register -> positions; weights: uses and definitions by frequency.

    copies: how often one virtual register is copied to another (the lower number first). hints: the same of a virtual and a processor
    register.
    """

    masks: dict[int, int] = field(default_factory=dict)
    fixed: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    weights: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    copies: defaultdict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))
    hints: defaultdict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))

    def note_copy(self, first: int, second: int, often: float) -> None:
        """A copy that one register for both would save."""
        low, high = sorted((first, second))
        if low >= FIRST_VIRTUAL:
            self.copies[low, high] += often
        else:
            self.hints[high, low] += often


@dataclass(slots=True)
class Mentions:
    """The virtual registers that one instruction reads and writes, by position."""

    first: list[int] = field(default_factory=list)  # read at 3k
    middle: list[int] = field(default_factory=list)  # read at 3k + 1
    early: list[int] = field(default_factory=list)  # written at 3k + 1
    late: list[int] = field(default_factory=list)  # written at 3k + 2


def mentions(instruction: Instruction) -> Mentions:
    """Which virtual registers an instruction mentions."""
    found = Mentions()
    fixes = instruction.outputs and instruction.mnemonic not in ("MOVES", "call")
    writes = found.early if instruction.template or fixes else found.late
    for number, role in named(instruction):
        if number >= FIRST_VIRTUAL:
            if role != "w":
                found.middle.append(number)
            if role in "wb":
                writes.append(number)
    for target, source in instruction.inputs:
        if isinstance(source, Register):
            found.first.append(source.number)
        if target >= FIRST_VIRTUAL:
            found.late.append(target)
    found.late += [target for target, _ in instruction.outputs]
    return found


def ranges(function: MachineFunction) -> Ranges:
    """Compute masks, fixed occupations, weights and hints of a whole function."""
    found = Ranges()
    all_mentions = [[mentions(instruction) for instruction in block.instructions] for block in function.blocks]
    position = 0
    for block, mentioned, live in zip(function.blocks, all_mentions, _live_out(function, all_mentions), strict=True):
        often = 0.01 if block.cold else float(10 ** min(block.depth, 5))  # how often a block is guessed to run
        end = position + 3 * (len(block.instructions) + 1)
        _scan_block(found, mentioned, dict.fromkeys(_bits(live), end), position)
        _scan_fixed(found, block.instructions, position, often)
        for mention in mentioned:
            for number in (*mention.first, *mention.middle, *mention.early, *mention.late):
                found.weights[number] += often
        position = end
    return found


def _scan_block(found: Ranges, mentioned: list[Mentions], ends: dict[int, int], start: int) -> None:
    """Add a block's live stretches to the masks, from the last instruction to the first. ends: live registers and where they end."""
    masks = found.masks
    position = start + 3 * len(mentioned)
    for mention in reversed(mentioned):
        position -= 3
        for writes, offset in ((mention.late, 2), (mention.early, 1)):
            for number in writes:
                begin = position + offset
                end = ends.pop(number, position + 3)
                masks[number] = masks.get(number, 0) | ((1 << (end - begin)) - 1) << begin
        for reads, offset in ((mention.middle, 2), (mention.first, 1)):
            for number in reads:
                ends[number] = max(ends.get(number, 0), position + offset)
    for number, end in ends.items():
        masks[number] = masks.get(number, 0) | ((1 << (end - start)) - 1) << start


def _scan_fixed(found: Ranges, instructions: list[Instruction], start: int, often: float) -> None:
    """Occupy fixed registers and note copies."""
    for number, instruction in enumerate(instructions):
        bit = 1 << start + 3 * number + 1
        for target, source in instruction.inputs:
            if target < FIRST_VIRTUAL:
                found.fixed[target] |= bit
            if isinstance(source, Register):
                found.note_copy(target, source.number, often)
        for target, place in instruction.outputs:
            found.fixed[place] |= bit
            found.note_copy(target, place, often)
        for place in instruction.clobbers:
            found.fixed[place] |= bit
        match instruction.mnemonic, instruction.operands:
            case "mov", (Register(left, _), Register(right, _)):
                found.note_copy(left, right, often)


def _live_out(function: MachineFunction, all_mentions: list[list[Mentions]]) -> list[int]:
    """The registers live at each block's end, as bit sets over register numbers."""
    uses, definitions = [], []
    for mentioned in all_mentions:
        use = defined = 0
        for mention in mentioned:
            for number in (*mention.first, *mention.middle):
                use |= 1 << number & ~defined
            for number in (*mention.early, *mention.late):
                defined |= 1 << number
        uses.append(use)
        definitions.append(defined)
    index = {block: number for number, block in enumerate(function.blocks)}
    live_in, live_out = list(uses), [0] * len(uses)
    changed = True
    while changed:
        changed = False
        for number in range(len(uses) - 1, -1, -1):
            out = 0
            for successor in function.blocks[number].successors:
                out |= live_in[index[successor]]
            if out != live_out[number]:
                live_out[number] = out
                live_in[number] = uses[number] | out & ~definitions[number]
                changed = True
    return live_out


def _bits(mask: int) -> list[int]:
    """The numbers of the bits set, in order."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
