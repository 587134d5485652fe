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
    made = [Instruction("push", (_operand(first),))]
    if isinstance(first, Memory) and isinstance(second, Memory):
        # 8 bytes deeper now; pop computes its address after rsp has gone up again
        made.append(Instruction("push", (_deeper(second, 8),)))
        return [*made, Instruction("pop", (_deeper(first, 8),)), Instruction("pop", (second,))]
    if isinstance(first, int):
        assert isinstance(second, Memory)
        return [*made, Instruction("mov", (Register(first, 64), _deeper(second, 8))), Instruction("pop", (second,))]
    assert isinstance(second, int)
    return _exchange(second, first)


def _operand(place: Place) -> Register | Memory:
    return Register(place, 64) if isinstance(place, int) else place


def _deeper(place: Memory, by: int) -> Memory:
    """The same place while rsp is lower by some bytes."""
    return replace(place, displacement=place.displacement + by) if place.base == RSP else place


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
            Instruction("mov", (_deeper(target, 8), Register(0, 64))),
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
