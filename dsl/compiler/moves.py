"""Parallel moves: several registers and frame places take their new values at once, as a sequence of instructions.

No scratch register is needed: cycles of registers are exchanged, memory goes to memory over the stack. Flags are left alone.
"""

from __future__ import annotations

from dataclasses import replace

from dsl.compiler.ir import Address
from dsl.compiler.machine import RAX, RSP, Instruction, Memory, Register, fits_signed_32
from dsl.lang.operations import as_signed

Place = int | Memory  # a processor register, or eight bytes of the frame
Constant = Address | tuple[int]  # (n,) is the number n
Value = Place | Constant  # what a place gets


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


def _constant(target: Place, value: Constant) -> list[Instruction]:
    if isinstance(target, Memory):
        if isinstance(value, tuple) and fits_signed_32(as_signed(value[0], 64)):
            return [Instruction("mov", (target, as_signed(value[0], 64)))]
        borrowed = Register(RAX, 64)
        made = [*_constant(RAX, value), *_move(_deeper(target, 8), RAX)]
        return [Instruction("push", (borrowed,)), *made, Instruction("pop", (borrowed,))]
    if isinstance(value, Address):
        place = Memory(64, symbol=value.symbol, displacement=value.addend)
        return [Instruction("lea", (Register(target, 64), place))]
    return [Instruction("mov", (Register(target, 64 if value[0] >> 32 else 32), value[0]))]
