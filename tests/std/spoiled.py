"""Registers that a call may change are changed by every call, so that code which counts on them shows; the others are compared."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, get_args, get_type_hints

import unicorn as uc
from unicorn import x86_const as x86

from dsl.lang import Record
from tests.execution.emulated import RESULTS, SAVED, Emulated

FREE: Final = (*RESULTS, x86.UC_X86_REG_R11)  # in the order in which results take them
ALL_FLAGS: Final = 0x8D5
SMALL: Final = (
    12  # less than the lengths that are used, and no flag in its lowest bits: a large number would pass for a length
)
KEPT: Final = 2  # of a function that is not one of Python's: a region's body


def spoil_after_calls(machine: Emulated) -> None:
    """From now on set the free registers that hold no result, and the flags, whenever a call returns; stop where it gave no others back."""
    linked = machine.program.linked
    names = {place.address: symbol for symbol, place in linked.symbols.items()}
    spoilt: dict[int, int] = {}
    ends = [address for address, _ in linked.lines[1:]]
    for (_, line), end in zip(linked.lines, ends, strict=False):
        mnemonic, _, target = line.text.partition(" ")
        if mnemonic == "call":
            spoilt[end] = results_of(names[int(target, 16)])

    starts = set(names)
    held: dict[
        int, tuple[int, ...]
    ] = {}  # by the stack pointer at a function's start: the registers that it must give back

    def spoil(engine: Any, address: int, _size: int, _data: object) -> None:
        if address in starts:
            held[engine.reg_read(x86.UC_X86_REG_RSP)] = tuple(engine.reg_read(register) for register in SAVED)
        before = held.pop(engine.reg_read(x86.UC_X86_REG_RSP) - 8, None) if address in spoilt else None
        if before is not None:  # a call came back, and no jump came here
            if before != tuple(engine.reg_read(register) for register in SAVED):
                machine.stopped_at = address
                engine.emu_stop()
            for register in FREE[spoilt[address] :]:
                engine.reg_write(register, SMALL)
            engine.reg_write(x86.UC_X86_REG_RFLAGS, engine.reg_read(x86.UC_X86_REG_RFLAGS) | ALL_FLAGS)

    machine.engine.hook_add(uc.UC_HOOK_BLOCK, spoil)


def results_of(symbol: str) -> int:
    """How many registers hold results of a function."""
    module, _, name = symbol.removesuffix(".body").rpartition(".")
    returned = get_type_hints(getattr(import_module(module), name), include_extras=True).get("return")
    if isinstance(returned, type) and issubclass(returned, Record):
        return len(get_type_hints(returned))
    if returned is None or returned is type(None):
        return 0
    return 1 if len([kind for kind in get_args(returned) if kind is not type(None)]) < KEPT else KEPT
