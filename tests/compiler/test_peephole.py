"""Repeated moves: simulated, random blocks leave the same in every register without them, and those that change nothing are gone."""

from __future__ import annotations

import random
from copy import deepcopy

from dsl.compiler.machine import RSP, Instruction, MachineBlock, Memory, Register
from dsl.compiler.peephole import drop_repeated

REGISTERS = (0, 1, 2, 3)
NUMBERS = (-1, 5, 0xFFFF_FFFF, 1 << 40)
SPILLED = (8, 16)  # offsets in the frame
State = dict[int, object]


def place(offset: int) -> Memory:
    return Memory(64, base=RSP, displacement=offset)


def random_instruction(source: random.Random) -> Instruction:
    """A move, a constant, an address, a sum, an exchange, a call, or something done to a spilled register."""
    target, other = (Register(source.choice(REGISTERS), source.choice((64, 64, 32))) for _ in range(2))
    spilled, whole = place(source.choice(SPILLED)), Register(other.number, 64)
    match source.randrange(11):
        case 6 | 7:
            return Instruction("mov", (whole, spilled))
        case 8 | 9:
            return Instruction("mov", (spilled, source.choice((whole, whole, 5))))
        case 10:
            return Instruction("add", (spilled, whole))
        case 0 | 1:
            return Instruction("mov", (target, Register(other.number, target.width)))
        case 2:
            return Instruction("mov", (target, source.choice(NUMBERS[: 4 if target.width == 64 else 2])))
        case 3:
            return Instruction("lea", (Register(target.number, 64), Memory(64, symbol=source.choice("ab"))))
        case 4:
            return Instruction(
                source.choice(("add", "xchg")), (Register(target.number, 64), Register(other.number, 64))
            )
    return Instruction("call", clobbers=(0, 1))


def run(instructions: list[Instruction], state: State) -> None:
    """Carry instructions out on what registers hold: names of what was there, numbers, addresses, and what was made of them."""

    def number(operand: object) -> int | None:
        if isinstance(operand, Memory) and operand.base == RSP:
            return ~operand.displacement
        return operand.number if isinstance(operand, Register) else None

    def read(operand: object) -> object:
        known = number(operand)
        return operand if known is None else state[known]

    for instruction in instructions:
        values = [read(operand) for operand in instruction.operands]
        target = number(instruction.operands[0]) if instruction.operands else None
        match instruction.mnemonic, instruction.operands:
            case "mov", (Register(_, width) | Memory(width), _) if target is not None:
                held = values[1]
                state[target] = held % (1 << width) if isinstance(held, int) else held if width == 64 else ("low", held)
            case "lea", _ if target is not None:
                state[target] = values[1]
            case "add", _ if target is not None:
                state[target] = ("sum", *values)
            case "xchg", (Register(first, _), Register(second, _)):
                state[first], state[second] = values[1], values[0]
            case "call", _:
                state.update({number: ("lost", state[number]) for number in instruction.clobbers})


def test_random_blocks_do_the_same_without_repeated_moves() -> None:
    """Two blocks, the second entered by the first alone, or by itself too, in which case nothing is known of its start."""
    dropped = 0
    for seed in range(3000):
        source = random.Random(seed)
        first, second = (
            MachineBlock(name, [random_instruction(source) for _ in range(source.randrange(1, 9))]) for name in "xy"
        )
        first.successors, second.successors = [second], [second] if seed % 2 else []
        before = deepcopy([first.instructions, second.instructions])
        drop_repeated([first, second], SPILLED)
        dropped += sum(map(len, before)) - len(first.instructions) - len(second.instructions)
        expected: State = {number: f"start{number}" for number in (*REGISTERS, *(~offset for offset in SPILLED))}
        found = dict(expected)
        for turn in range(3):
            run(before[bool(turn)], expected)
            run((first, second)[bool(turn)].instructions, found)
            assert found == expected, f"seed {seed}, turn {turn}"
            if not second.successors and turn:
                break
    assert dropped > 1000


def test_what_changes_nothing_is_dropped() -> None:
    """A copy back, the same constant and the same address again, in the block and in the next; not behind a write or a call."""
    a, b, place = Register(0, 64), Register(3, 64), Memory(64, symbol="there")
    copy, back = Instruction("mov", (b, a)), Instruction("mov", (a, b))
    number, again = (Instruction("mov", (Register(1, 32), 7)) for _ in range(2))
    address, twice = (Instruction("lea", (Register(2, 64), place)) for _ in range(2))
    call, wanted = Instruction("call", clobbers=(0, 1, 2)), Instruction("mov", (a, b))
    second = MachineBlock("second", [again, twice, call, wanted])
    first = MachineBlock("first", [copy, number, address, back], [second])
    drop_repeated([first, second])
    assert first.instructions == [copy, number, address]
    assert second.instructions == [call, wanted]


def test_a_spilled_register_is_followed_until_offsets_move() -> None:
    """What was stored is not loaded again, nor stored; another register takes it from where it is; a push moves all offsets."""
    a, b = Register(0, 64), Register(3, 64)
    store, load, again = (Instruction("mov", pair) for pair in ((place(8), a), (a, place(8)), (place(8), a)))
    other, beyond = Instruction("mov", (b, place(8))), Instruction("mov", (a, place(24)))
    push, pop, shifted, after = (
        *(Instruction(name, (Register(5, 64),)) for name in ("push", "pop")),
        *(Instruction("mov", (a, place(8))) for _ in range(2)),
    )
    block = MachineBlock("block", [store, load, again, other, beyond, push, shifted, pop, after])
    drop_repeated([block], SPILLED)
    assert block.instructions == [store, other, beyond, push, shifted, pop, after]
    assert other.operands == (b, a), "a register is nearer than the frame"
    assert shifted.operands == (a, place(8))
