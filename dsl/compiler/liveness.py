"""Where each virtual register is live, as a bit mask over positions.

Instruction number k of a function owns three positions: 3k, where its fixed inputs are read; 3k + 1, where its operands are read, its
fixed registers hold their values and its clobbers happen; 3k + 2, from where on its results live. Two registers interfere when their
masks have a bit in common. Each block ends with an instruction number of its own for its jump.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsl.compiler.machine import FIRST_VIRTUAL, Instruction, MachineFunction, Memory, Register, Spill, roles


@dataclass(slots=True)
class Ranges:
    """masks: virtual register -> positions; fixed: processor register -> positions; weights: uses and definitions by frequency."""

    masks: dict[int, int] = field(default_factory=dict)
    fixed: dict[int, int] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)
    hints: dict[int, list[tuple[float, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class Mentions:
    """The virtual registers that one instruction reads and writes, by position."""

    first: list[int] = field(default_factory=list)  # read at 3k
    middle: list[int] = field(default_factory=list)  # read at 3k + 1
    early: list[int] = field(default_factory=list)  # written at 3k + 1
    late: list[int] = field(default_factory=list)  # written at 3k + 2


def mentions(instruction: Instruction) -> Mentions:
    """Which virtual registers an instruction mentions; a Spill in memory counts as the register that it holds."""
    found = Mentions()
    written = (
        found.early
        if instruction.early or (instruction.mnemonic not in ("MOVES", "call") and instruction.outputs)
        else found.late
    )
    for operand, role in zip(instruction.operands, roles(instruction), strict=False):
        if isinstance(operand, Register):
            if operand.number >= FIRST_VIRTUAL:
                if role != "w":
                    found.middle.append(operand.number)
                if role != "r":
                    written.append(operand.number)
        elif isinstance(operand, Memory):
            if operand.base is not None and operand.base >= FIRST_VIRTUAL:
                found.middle.append(operand.base)
            if operand.index is not None:
                found.middle.append(operand.index)
            if isinstance(operand.place, Spill):
                if role != "w":
                    found.middle.append(operand.place.number)
                if role != "r":
                    found.late.append(operand.place.number)
    for target, source in instruction.inputs:
        if isinstance(source, Register):
            found.first.append(source.number)
        if target >= FIRST_VIRTUAL:
            found.late.append(target)
    found.late += [target for target, _ in instruction.outputs]
    return found


def frequency(depth: int, cold: bool) -> float:
    """How often a block is guessed to run."""
    return 0.01 if cold else float(10 ** min(depth, 5))


def ranges(function: MachineFunction) -> Ranges:
    """Compute masks, fixed occupations, weights and hints of a whole function."""
    found = Ranges()
    all_mentions = [[mentions(instruction) for instruction in block.instructions] for block in function.blocks]
    live_out = _live_out(function, all_mentions)
    position = 0
    for block, mentioned, live in zip(function.blocks, all_mentions, live_out, strict=True):
        end = position + 3 * (len(block.instructions) + 1)
        ends = dict.fromkeys(_bits(live), end)
        _scan_block(found, mentioned, ends, position)
        _scan_fixed(found, block.instructions, position, frequency(block.depth, block.cold))
        _weigh(found, mentioned, frequency(block.depth, block.cold))
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
        for number in mention.middle:
            if ends.get(number, 0) < position + 2:
                ends[number] = position + 2
        for number in mention.first:
            if ends.get(number, 0) < position + 1:
                ends[number] = position + 1
    for number, end in ends.items():
        masks[number] = masks.get(number, 0) | ((1 << (end - start)) - 1) << start


def _scan_fixed(found: Ranges, instructions: list[Instruction], start: int, often: float) -> None:
    """Occupy fixed registers and collect hints: which register would save a move."""
    hints, fixed = found.hints, found.fixed
    for number, instruction in enumerate(instructions):
        bit = 1 << start + 3 * number + 1
        virtual = instruction.mnemonic == "MOVES"
        for target, source in instruction.inputs:
            if not virtual:
                fixed[target] = fixed.get(target, 0) | bit
            if isinstance(source, Register):
                hints.setdefault(source.number, []).append((often, target))
                if virtual:
                    hints.setdefault(target, []).append((often, source.number))
        for target, place in instruction.outputs:
            fixed[place] = fixed.get(place, 0) | bit
            hints.setdefault(target, []).append((often, place))
        for place in instruction.clobbers:
            fixed[place] = fixed.get(place, 0) | bit
        if instruction.mnemonic == "mov":
            left, right = instruction.operands
            if isinstance(left, Register) and isinstance(right, Register):
                hints.setdefault(left.number, []).append((often, right.number))
                hints.setdefault(right.number, []).append((often, left.number))


def _weigh(found: Ranges, mentioned: list[Mentions], often: float) -> None:
    weights = found.weights
    for mention in mentioned:
        for numbers in (mention.first, mention.middle, mention.early, mention.late):
            for number in numbers:
                weights[number] = weights.get(number, 0.0) + often


def _live_out(function: MachineFunction, all_mentions: list[list[Mentions]]) -> list[int]:
    """The registers live at each block's end, as bit sets over register numbers."""
    uses, definitions = [], []
    for mentioned in all_mentions:
        use = defined = 0
        for mention in mentioned:
            for number in mention.first:
                if not defined >> number & 1:
                    use |= 1 << number
            for number in mention.middle:
                if not defined >> number & 1:
                    use |= 1 << number
            for number in mention.early:
                defined |= 1 << number
            for number in mention.late:
                defined |= 1 << number
        uses.append(use)
        definitions.append(defined)
    index = {block: number for number, block in enumerate(function.blocks)}
    successors = [[index[successor] for successor in block.successors] for block in function.blocks]
    live_in = list(uses)
    live_out = [0] * len(uses)
    changed = True
    while changed:
        changed = False
        for number in range(len(uses) - 1, -1, -1):
            out = 0
            for successor in successors[number]:
                out |= live_in[successor]
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
