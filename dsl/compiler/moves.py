"""Parallel moves: several registers and frame places take their new values at once, as a sequence of instructions.

No scratch register is needed: cycles of registers are exchanged, memory goes to memory over the stack. Flags are left alone.
"""

from __future__ import annotations

from dataclasses import replace

from dsl.compiler.ir import Address
from dsl.compiler.machine import RSP, Instruction, Memory, Register

Place = int | Memory  # a processor register, or eight bytes of the frame
Value = Place | Address | tuple[int]  # what a place gets: (n,) is the constant n


def parallel(moves: list[tuple[Place, Value]]) -> list[Instruction]:
    """Instructions that perform all moves as if at once. Targets are distinct."""
    made: list[Instruction] = []
    constants = [(target, value) for target, value in moves if isinstance(value, tuple | Address)]
    pending: dict[Place, Place] = {
        target: value for target, value in moves if not isinstance(value, tuple | Address) and target != value
    }
    while pending:
        sources = list(pending.values())
        ready = [target for target in pending if target not in sources]
        if ready:
            for target in ready:
                made += _move(target, pending.pop(target))
            continue
        made += _open_cycle(pending)
    for target, value in constants:
        made += _constant(target, value)
    return made


def _open_cycle(pending: dict[Place, Place]) -> list[Instruction]:
    """Every pending target is also a source: settle one member of a cycle by exchanging two places."""
    target = next((place for place in pending if isinstance(place, int)), next(iter(pending)))
    source = pending.pop(target)
    # after the exchange, what was in the target is in the source's place
    for other, value in list(pending.items()):
        if value == target:
            pending[other] = source
            if other == source:
                del pending[other]
    return _exchange(target, source)


def _exchange(first: Place, second: Place) -> list[Instruction]:
    if isinstance(first, int) and isinstance(second, int):
        return [Instruction("xchg", (Register(first, 64), Register(second, 64)))]
    # over the stack, which is 8 bytes deeper in between
    return [
        Instruction("push", (_operand(first),)),
        *_move(_deeper(first, 8), _deeper(second, 8)),
        Instruction("pop", (_operand(second),)),
    ]


def _operand(place: Place) -> Register | Memory:
    return Register(place, 64) if isinstance(place, int) else place


def _deeper(place: Place, by: int) -> Place:
    """The same place while rsp is lower by some bytes."""
    if isinstance(place, Memory) and place.base == RSP:
        return replace(place, displacement=place.displacement + by)
    return place


def _move(target: Place, source: Place) -> list[Instruction]:
    if isinstance(target, Memory) and isinstance(source, Memory):
        return [Instruction("push", (source,)), Instruction("pop", (target,))]
    return [Instruction("mov", (_operand(target), _operand(source)))]


def _constant(target: Place, value: Value) -> list[Instruction]:
    if isinstance(value, Address):
        place = Memory(64, symbol=value.symbol, displacement=value.addend)
        if isinstance(target, int):
            return [Instruction("lea", (Register(target, 64), place))]
        # over a borrowed register
        return [
            Instruction("push", (Register(0, 64),)),
            Instruction("lea", (Register(0, 64), place)),
            *_move(_deeper(target, 8), 0),
            Instruction("pop", (Register(0, 64),)),
        ]
    assert isinstance(value, tuple)
    number = value[0]
    if isinstance(target, int):
        return [Instruction("mov", (Register(target, 64 if number >> 32 else 32), number))]
    signed = number - (1 << 64) if number >> 63 else number
    if -(1 << 31) <= signed < 1 << 31:
        return [Instruction("mov", (target, signed))]
    low, high = (signed & 0xFFFFFFFF), signed >> 32 & 0xFFFFFFFF
    return [
        Instruction("mov", (replace(target, width=32), low)),
        Instruction("mov", (replace(target, width=32, displacement=target.displacement + 4), high)),
    ]
