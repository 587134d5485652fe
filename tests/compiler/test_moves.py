"""Parallel moves: simulated, every permutation and overlap of registers, frame places and constants ends as if all had moved at once."""

from __future__ import annotations

import random

from dsl.compiler.ir import Address
from dsl.compiler.machine import RSP, Instruction, Memory, Register
from dsl.compiler.moves import Place, Value, parallel

PLACES: list[Place] = [0, 1, 2, 3, *(Memory(64, base=RSP, displacement=8 * index) for index in range(4))]
SYMBOL = Address("there", 5)


def simulate(instructions: list[Instruction]) -> dict[Place, object]:
    """The final content of every place; each starts with its own name."""
    registers: dict[int, object] = {number: number for number in range(4)}
    stack: dict[int, object] = {8 * index: PLACES[4 + index] for index in range(4)}
    depth = 0

    def read(operand: object) -> object:
        if isinstance(operand, Register):
            return registers[operand.number]
        assert isinstance(operand, Memory)
        return stack[operand.displacement - depth]

    def write(operand: object, content: object) -> None:
        if isinstance(operand, Register):
            registers[operand.number] = content
        else:
            assert isinstance(operand, Memory)
            stack[operand.displacement - depth] = content

    for instruction in instructions:
        operands = instruction.operands
        match instruction.mnemonic:
            case "mov" if isinstance(operands[1], int):
                write(operands[0], ("constant", operands[1] % (1 << 64)))
            case "mov":
                assert not all(isinstance(operand, Memory) for operand in operands)
                write(operands[0], read(operands[1]))
            case "xchg":
                first, second = read(operands[0]), read(operands[1])
                write(operands[0], second)
                write(operands[1], first)
            case "push":
                content = read(operands[0])
                depth += 8
                stack[-depth] = content
            case "pop":
                content = stack[-depth]
                depth -= 8
                write(operands[0], content)
            case "lea":
                write(operands[0], SYMBOL)
            case other:
                raise AssertionError(other)
    assert depth == 0
    return {place: registers[place] if isinstance(place, int) else stack[place.displacement] for place in PLACES}


def expected(moves: list[tuple[Place, Value]]) -> dict[Place, object]:
    """What must be where afterwards."""
    found: dict[Place, object] = {place: place for place in PLACES}
    for target, value in moves:
        found[target] = ("constant", value[0]) if isinstance(value, tuple) else value
    return found


def test_random_moves() -> None:
    """Ten thousand sets of moves, from permutations to fans."""
    seed = random.Random(5)
    for _ in range(10_000):
        targets = seed.sample(PLACES, seed.randint(1, len(PLACES)))
        pool: list[Value] = [*PLACES, (0,), (7,), SYMBOL] if seed.random() < 0.5 else [*PLACES]
        moves: list[tuple[Place, Value]] = [(target, seed.choice(pool)) for target in targets]
        if seed.random() < 0.3:
            moves = list(zip(targets, seed.sample(targets, len(targets)), strict=True))
        assert simulate(parallel(moves)) == expected(moves), moves
