"""Instruction selection: IR to machine instructions on virtual registers; a function for each kind of operation, and the table of them.

Values of 8 and 16 bits live in 32-bit registers with undefined upper bits, and are extended where those would matter; a width-1 value is
0 or 1 in the low byte. How blocks are walked and operands folded stands in selector.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dsl.compiler import ir
from dsl.compiler.graph import split_critical_edges
from dsl.compiler.ir import Value
from dsl.compiler.machine import (
    ARGUMENTS,
    CALLER_SAVED,
    NUMBERS,
    RESULTS,
    RSP,
    Instruction,
    MachineFunction,
    Memory,
    Register,
    Source,
    inverse,
)
from dsl.compiler.select_arithmetic import ARITHMETIC, PLAIN, set_carry
from dsl.compiler.selector import Handler, Selector
from dsl.compiler.tail import tail_call
from dsl.lang.instruction import PLACEHOLDER


def select(function: ir.Function) -> MachineFunction:
    """Turn a function's IR into machine code on virtual registers. Splits the function's critical edges."""
    split_critical_edges(function)
    return Selector(function, HANDLERS).run()


# conditions and conversions


def select_comparison(s: Selector, value: Value) -> None:
    condition = set_carry(s, value, (value,)) if value.operation == "ult" else s.compare(value)
    s.emit(f"set{condition}", s.result(value, 8))


def select_select(s: Selector, value: Value) -> None:
    """A conditional move onto the constant one of the two values, or else the other one."""
    flag, chosen, other = value.arguments
    swapped = chosen.constant is not None and other.constant is None
    if swapped:
        chosen, other = other, chosen
    target, taken = s.result(value), s.register(chosen)
    if other.constant is None:  # copied behind the comparison, which may read what it overwrites
        condition = s.condition(flag)
        s.copied(value, other)
    else:
        s.load_constant(target.number, other.constant)
        condition = s.condition(flag)
    s.emit(f"cmov{inverse(condition) if swapped else condition}", target, taken)


def select_zext(s: Selector, value: Value) -> None:
    width = max(value.arguments[0].width, 8)
    source = s.read(value.arguments[0], width)
    s.emit("mov" if width == 32 else "movzx", s.result(value, 32), source)


def select_sext(s: Selector, value: Value) -> None:
    argument = value.arguments[0]
    target = s.result(value)
    if argument.width == 1:
        s.emit("movzx", Register(target.number, 32), s.register(argument, 8))
        s.emit("neg", target)
    else:
        s.emit("movsxd" if argument.width == 32 else "movsx", target, s.read(argument, argument.width))


def select_trunc(s: Selector, value: Value) -> None:
    """Only to width 1; other cuts share their argument's register."""
    s.emit("and", s.copied(value, value.arguments[0]), 1)


def select_opaque(s: Selector, value: Value) -> None:
    s.copied(value, value.arguments[0])


# memory


def select_frame(s: Selector, value: Value) -> None:
    """The address of a slot aligned beyond 16 bytes, inside a larger place; others are made where they are used."""
    target, slot = s.result(value), value.slot
    s.declare(slot)
    s.emit("lea", target, Memory(64, place=slot, displacement=slot.align - 16))
    s.emit("and", target, -slot.align)


def select_load(s: Selector, value: Value) -> None:
    place = s.address(value.arguments[0], value.access.offset, value.width)
    s.emit("movzx" if value.width < 32 else "mov", s.result(value), place)


def select_store(s: Selector, value: Value) -> None:
    """A store; of a constant that several stores share, from a register that holds it: shorter than the constant in each."""
    address, stored = value.arguments
    if updates_in_place(s, value):
        place = replace(s.address(address, value.access.offset, stored.width), secret=stored.arguments[0].secret)
        s.emit(stored.operation, place, immediate_or_register(s, stored.arguments[1]))
        return
    place = s.address(address, value.access.offset, stored.width)
    sharing = s.stored_often.get(value, [])
    if len(sharing) < 2:
        s.emit("mov", place, immediate_or_register(s, stored))
        return
    shared = s.result(sharing[0], stored.width)
    if sharing[0] is value:
        s.load_constant(shared.number, stored.integer)
    s.emit("mov", place, shared)


def immediate_or_register(s: Selector, value: Value, width: int = 0) -> int | Register:
    number = s.immediate(value)
    return number if number is not None else s.register(value, width or value.width)


def updates_in_place(s: Selector, value: Value) -> bool:
    """Memory op= operand: whether a store's value was computed from what lay there, and is used for nothing else."""
    address, stored = value.arguments
    if stored.operation not in PLAIN or value.access.volatile:
        return False
    loaded = stored.arguments[0]
    if loaded.operation != "load" or loaded.arguments[0] is not address or loaded.data != value.data:
        return False
    alone = all(s.sole_use(part) and part not in s.demanded and part.block is value.block for part in (stored, loaded))
    return alone and s.epochs[loaded] == s.epochs[value] and loaded.width == stored.width


# control


def select_call(s: Selector, value: Value) -> None:
    s.machine.calls = True
    for position, argument in enumerate(value.arguments[len(ARGUMENTS) :]):
        s.machine.outgoing = max(s.machine.outgoing, 8 * position + 8)
        s.emit("mov", Memory(64, base=RSP, displacement=8 * position), immediate_or_register(s, argument, 64))
    inputs = s.sources(ARGUMENTS, value.arguments)
    extracts = [user for user in s.users[value] if user.operation == "extract" and user in s.demanded]
    outputs = [(s.result(user).number, RESULTS[user.integer]) for user in extracts]
    s.emit("call", ir.Address(value.callee.symbol), inputs=inputs, outputs=outputs, clobbers=CALLER_SAVED)


def select_return(s: Selector, value: Value) -> None:
    """A return; as a jump, where it returns what the call before it returned."""
    call = tail_call(value.block, value.arguments)
    if call is None:
        s.emit("ret", inputs=s.sources(RESULTS, value.arguments))
        return
    s.tail_calls.add(call)
    s.emit("tail", ir.Address(call.callee.symbol), inputs=s.sources(ARGUMENTS, call.arguments))


def select_check(s: Selector, value: Value) -> None:
    if value.arguments[0].constant != 1:
        condition = s.condition(value.arguments[0])
        s.emit(f"j{inverse(condition)}", s.trap(value))


def select_stop(s: Selector, value: Value) -> None:
    s.emit("ud2", s.trap(value))


def select_intrinsic(s: Selector, value: Value) -> None:
    """Emit the row's text, with its operands where it wants them, and the jump to ud2 of one that can fail a check."""
    row = value.row
    free: dict[str, tuple[int, str]] = {}
    inputs: list[tuple[int, Source]] = []
    outputs: list[tuple[int, int]] = []
    for operand, argument in zip(row.inputs, value.arguments, strict=True):
        if operand.where == "any":
            free[operand.name] = (s.register(argument, 64).number, "r")
        else:
            inputs.append((NUMBERS[operand.where][0], s.source(argument)))
    results = {user.integer: user for user in s.users[value] if user.operation == "extract" and user in s.demanded}
    for number, operand in enumerate(row.outputs):
        register = s.result(results[number]).number if number in results else s.machine.new_register()
        if operand.where == "any":
            free[operand.name] = (register, "w")
        else:
            outputs.append((register, NUMBERS[operand.where][0]))
    mentions = [(*free[match[1]], int(match[2] or 64)) for match in PLACEHOLDER.finditer(row.text)]
    made = Instruction("TEMPLATE", tuple(Register(register, width) for register, _, width in mentions))
    made.template, made.roles = row.text, "".join(letter for _, letter, _ in mentions)
    made.inputs, made.outputs = tuple(inputs), tuple(outputs)
    made.clobbers = tuple(NUMBERS[register][0] for register in row.clobbers if register != "flags")
    s.now.append(made)
    if row.stops_if:
        s.emit(f"j{row.stops_if}", s.trap(value))


HANDLERS: Final[dict[str, Handler]] = {
    **ARITHMETIC,
    **dict.fromkeys(ir.COMPARISONS, select_comparison),
    "zext": select_zext,
    "sext": select_sext,
    "trunc": select_trunc,
    "select": select_select,
    "opaque": select_opaque,
    "frame": select_frame,
    "load": select_load,
    "store": select_store,
    "call": select_call,
    "return": select_return,
    "check": select_check,
    "stop": select_stop,
    "intrinsic": select_intrinsic,
}
