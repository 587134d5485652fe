"""Our own rule: every function of the monitor gives back the registers that its caller keeps, whether or not that caller needs them."""

from __future__ import annotations

from typing import Any, Final

import unicorn as uc

from dsl.compiler.pipeline import Program
from tests.model.machine import REGISTERS, Machine, ModelFailure

KEPT: Final = ("rsp", "rbx", "rbp", "r12", "r13", "r14", "r15")  # System V: a callee's to preserve
NUMBERS: Final = [REGISTERS[name] for name in KEPT]


class Calls:
    """The calls that have not returned, by the stack pointer at their entry: several stacks are in use."""

    def __init__(self, machine: Machine, program: Program) -> None:
        self.machine = machine
        self.program = program
        self.entered: dict[int, tuple[int, ...]] = {}
        self.own: set[int] = set()  # addresses of the monitor's functions
        for name, (address, size, kind) in program.symbols.items():
            if kind == "function" and name.startswith("vmm."):
                self.hook(address, self.enter)
                self.own |= set(range(address, address + size))
        for address, line in program.linked.lines:
            if line.text == "ret" and address in self.own:
                self.hook(address, self.leave)

    def hook(self, address: int, action: Any) -> None:
        """Look at the registers before an instruction."""
        self.machine.engine.hook_add(uc.UC_HOOK_CODE, action, None, address, address)

    def enter(self, engine: Any, _: int, __: int, ___: Any) -> None:
        """A function begins."""
        kept = engine.reg_read_batch(NUMBERS)
        self.entered[kept[0]] = kept

    def leave(self, engine: Any, address: int, _: int, __: Any) -> None:
        """A function ends."""
        kept = engine.reg_read_batch(NUMBERS)
        expected = self.entered.pop(kept[0], kept)
        if expected != kept:
            wrong = [name for name, old, new in zip(KEPT, expected, kept, strict=True) if old != new]
            failure = ModelFailure(f"the function that returns at {address:#x} loses {', '.join(wrong)}")
            self.machine.guarded(lambda: raise_it(failure))


def raise_it(failure: ModelFailure) -> None:
    """End the run."""
    raise failure
