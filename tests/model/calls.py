"""Our own rule: a function of the monitor gives back the registers that its caller keeps, and of the others it needs its arguments alone.

Both hold whatever caller and callee happen to have in them: at each call all registers but the arguments are filled with noise, at each
return all but the results and what the caller keeps, which was put aside at the call.
"""

from __future__ import annotations

import random
from functools import cache
from importlib import import_module
from typing import Any, Final

import unicorn as uc

from dsl.compiler.machine import ARGUMENTS, CALLEE_SAVED, CALLER_SAVED, NAMES, RESULTS
from dsl.lang.annotations import resolve as resolve_annotation
from dsl.lang.types import StaticType
from tests.model.machine import REGISTERS, RFLAGS_ARITHMETIC, Machine, ModelFailure
from tests.vmm.images import monitor

STACK, FLAGS = REGISTERS["rsp"], REGISTERS["rflags"]
BY_NUMBER: Final = [REGISTERS[name] for name in NAMES[64]]
KEPT: Final = [BY_NUMBER[number] for number in CALLEE_SAVED]
CALLED: Final = ("vmm.vmx.entry.enter_guest", "vmm.interrupts.take_blocked_nmi")  # naked, but called as others are
LEFT_OUT: Final = ("vmm.console", "vmm.devices.ring")  # called for each byte that is said


class Calls:
    """The calls that have not returned, by the stack pointer at their entry: several stacks are in use."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.noise = random.Random(len(CALLED))
        self.waiting: dict[int, tuple[tuple[int, ...], tuple[int, ...], list[int]]] = {}
        self.seen: set[int] = set()  # functions
        functions, returns = boundaries()
        for address, (unused, dead) in functions.items():
            # Where the first instruction is the model's, it was here first: the registers are its results.
            self.hook(address, self.enter, ([] if address in machine.sites else unused, dead))
        for address in returns:
            self.hook(address, self.leave, None)
        machine.engine.ctl_flush_tb()  # it may run already

    def hook(self, address: int, action: Any, data: Any) -> None:
        """Act before an instruction."""
        self.machine.engine.hook_add(uc.UC_HOOK_CODE, action, data, address, address)

    def spoil(self, engine: Any, registers: list[int]) -> None:
        """Fill registers with noise, and the flags."""
        flags = engine.reg_read(FLAGS) ^ self.noise.getrandbits(12) & RFLAGS_ARITHMETIC
        engine.reg_write_batch([(FLAGS, flags), *((register, self.noise.getrandbits(64)) for register in registers)])

    def enter(self, engine: Any, address: int, __: int, data: tuple[list[int], list[int]]) -> None:
        """A function begins."""
        unused, dead = data
        self.seen.add(address)
        stack, callers = engine.reg_read(STACK), engine.reg_read_batch(KEPT)
        if stack in self.waiting:  # a jump in place of a call and a return
            self.look(self.waiting[stack][1], callers)
            callers, _, dead = self.waiting[stack]
        self.spoil(engine, [*unused, *KEPT])
        self.waiting[stack] = callers, engine.reg_read_batch(KEPT), dead

    def leave(self, engine: Any, _: int, __: int, ___: Any) -> None:
        """A function ends."""
        waiting = self.waiting.pop(engine.reg_read(STACK), None)
        if waiting is None:
            return  # it was called before anybody looked
        callers, expected, dead = waiting
        self.look(expected, engine.reg_read_batch(KEPT))
        self.spoil(engine, dead)
        engine.reg_write_batch(list(zip(KEPT, callers, strict=True)))

    def look(self, expected: tuple[int, ...], found: tuple[int, ...]) -> None:
        """What a function should have kept, and what is there."""
        wrong = [NAMES[64][CALLEE_SAVED[place]] for place in range(len(KEPT)) if found[place] != expected[place]]
        if wrong:
            failure = ModelFailure(f"a function ends at {self.machine['rip']:#x} and loses {', '.join(wrong)}")
            self.machine.guarded(lambda: raise_it(failure))


@cache
def boundaries() -> tuple[dict[int, tuple[list[int], list[int]]], list[int]]:
    """Where the monitor's functions begin, with the registers that say nothing there, and when they return; all places of return."""
    program = monitor()
    functions = {}
    own: set[int] = set()
    for name, (address, size, kind) in program.symbols.items():
        if kind == "function" and name.startswith("vmm."):
            own |= set(range(address, address + size))
            function = machine_function(name)
            if not name.startswith(LEFT_OUT) and (not function.__machine__.naked or name in CALLED):
                arguments, results = sizes(function)
                unused = [BY_NUMBER[number] for number in CALLER_SAVED if number not in ARGUMENTS[:arguments]]
                functions[address] = (
                    unused,
                    [BY_NUMBER[number] for number in CALLER_SAVED if number not in RESULTS[:results]],
                )
    return functions, [address for address, line in program.linked.lines if line.text == "ret" and address in own]


def machine_function(symbol: str) -> Any:
    """The function that a symbol of the monitor stands for."""
    module, _, name = symbol.partition("[")[0].rpartition(".")
    return getattr(import_module(module), name)


def sizes(function: Any) -> tuple[int, int]:
    """How many registers a function's arguments and its results take, were there enough."""
    kinds = {name: resolve_annotation(kind, function.__globals__) for name, kind in function.__annotations__.items()}
    results = kinds.pop("return")
    arguments = [kind for kind in kinds.values() if not isinstance(kind, StaticType)]
    return sum(len(kind.widths) for kind in arguments), len(results.widths)


def raise_it(failure: ModelFailure) -> None:
    """End the run."""
    raise failure
