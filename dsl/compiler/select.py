"""Instruction selection: IR to machine instructions on virtual registers.

Values of 8 and 16 bits live in 32-bit registers with undefined upper bits; a width-1 value is 0 or 1 in the low byte. How blocks are
walked and operands folded stands in selector.py, arithmetic in select_arithmetic.py; here are conversions, memory, calls, and the
table of all of them.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler import ir
from dsl.compiler.graph import split_critical_edges
from dsl.compiler.machine import ARGUMENTS, CALLER_SAVED, RESULTS, RSP, MachineFunction, Memory, Register, inverse
from dsl.compiler.select_arithmetic import (
    PLAIN,
    select_count,
    select_divide,
    select_mul,
    select_not,
    select_plain,
    select_rotate,
    select_shift,
    select_unary,
)
from dsl.compiler.select_carry import set_carry
from dsl.compiler.select_intrinsic import select_intrinsic
from dsl.compiler.selector import CONDITION_OF, Handler, Selector, SharedConstant, constant, fits_signed_32
from dsl.compiler.tail import tail_call


def select(function: ir.Function) -> MachineFunction:
    """Turn a function's IR into machine code on virtual registers. Splits the function's critical edges."""
    split_critical_edges(function)
    return Selector(function, HANDLERS).run()


def select_comparison(s: Selector, value: ir.Value) -> None:
    if value.arguments[0].operation == "const" and value.arguments[1].operation == "const":
        left = s.register(value.arguments[0], max(value.arguments[0].width, 8))
        s.emit("cmp", left, s.operand(value.arguments[1], left.width))
        condition = CONDITION_OF[value.operation]
    elif value.operation == "ult":
        condition = set_carry(s, value, (value,))
    else:
        condition = s.compare(value)
    s.emit(f"set{condition}", s.result(value, 8))


def select_zext(s: Selector, value: ir.Value) -> None:
    argument = value.arguments[0]
    width = max(argument.width, 8)
    source = s.folded_load(argument, width) or s.register(argument, width)
    s.emit("mov" if width == 32 else "movzx", s.result(value, 32), source)


def select_sext(s: Selector, value: ir.Value) -> None:
    argument = value.arguments[0]
    target = s.result(value)
    if argument.width == 1:
        s.emit("movzx", Register(target.number, 32), s.register(argument, 8))
        s.emit("neg", target)
        return
    source = s.folded_load(argument, argument.width) or s.register(argument, argument.width)
    s.emit("movsxd" if argument.width == 32 else "movsx", target, source)


def select_trunc(s: Selector, value: ir.Value) -> None:
    """Only to width 1; other cuts share their argument's register."""
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(value.arguments[0], 64))
    s.emit("and", target, 1)


def select_select(s: Selector, value: ir.Value) -> None:
    flag, chosen, other = value.arguments
    target = s.result(value)
    taken = s.register(chosen)
    fallback = s.source(other)
    if isinstance(fallback, int):
        s.emit("mov", Register(target.number, 64 if fallback >> 32 else 32), fallback)
    else:
        s.emit("mov", Register(target.number, 64), s.register(other, 64))
    condition = s.condition(flag)
    s.emit(f"cmov{condition}", target, taken)


def select_opaque(s: Selector, value: ir.Value) -> None:
    s.emit("mov", s.result(value, 64), s.register(value.arguments[0], 64))


def select_frame(s: Selector, value: ir.Value) -> None:
    """The address of a slot. One aligned beyond 16 bytes is found inside a larger place."""
    assert isinstance(value.data, ir.Slot)
    target = s.result(value)
    s.declare(value.data)
    if value.data.align <= 16:
        s.emit("lea", target, Memory(64, place=value.data))
    else:
        s.emit("lea", target, Memory(64, place=value.data, displacement=value.data.align - 16))
        s.emit("and", target, -value.data.align)


def select_load(s: Selector, value: ir.Value) -> None:
    assert isinstance(value.data, ir.Access)
    place = s.address(value.arguments[0], value.data.offset, value.width)
    s.emit("movzx" if value.width < 32 else "mov", s.result(value), place)


def select_store(s: Selector, value: ir.Value) -> None:
    address, stored = value.arguments
    assert isinstance(value.data, ir.Access)
    if select_update(s, value):
        return
    place = s.address(address, value.data.offset, stored.width)
    share = s.stored_often.get(value)
    if share is not None and share.stores > 1:
        store_shared(s, value, place, share)
        return
    number = s.immediate(stored)
    s.emit("mov", place, number if number is not None else s.register(stored, stored.width))


def store_shared(s: Selector, value: ir.Value, place: Memory, share: SharedConstant) -> None:
    """Store from the register that several stores share: shorter than the constant in each."""
    known = constant(value.arguments[1])
    assert known is not None
    share.register = share.register or s.machine.new_register()
    if share.first is value:
        s.emit("mov", Register(share.register, 64 if known >> 32 else 32), known)
    s.emit("mov", place, Register(share.register, value.arguments[1].width))


def select_update(s: Selector, value: ir.Value) -> bool:
    """Memory op= operand, when the stored value was loaded from the same place and is used for nothing else."""
    address, stored = value.arguments
    if (
        stored.operation not in PLAIN
        or not s.sole_use(stored)
        or stored.block is not value.block
        or stored in s.demanded
    ):
        return False
    loaded, other = stored.arguments
    assert isinstance(value.data, ir.Access)
    same_place = loaded.operation == "load" and loaded.arguments[0] is address and loaded.data == value.data
    if not same_place or value.data.volatile:
        return False
    if not s.sole_use(loaded) or loaded in s.demanded or loaded.block is not value.block:
        return False
    if s.epochs[loaded] != s.epochs[value] or loaded.width != stored.width:
        return False
    place = s.address(address, value.data.offset, stored.width)
    number = s.immediate(other)
    s.emit(stored.operation, place, number if number is not None else s.register(other, stored.width))
    return True


def select_call(s: Selector, value: ir.Value) -> None:
    assert isinstance(value.data, ir.Callee)
    s.machine.calls = True
    for position, argument in enumerate(value.arguments[len(ARGUMENTS) :]):
        place = Memory(64, base=RSP, displacement=8 * position)
        s.machine.outgoing = max(s.machine.outgoing, 8 * position + 8)
        number = s.immediate(argument) if argument.width == 64 else constant(argument)
        fitting = number is not None and fits_signed_32(number)
        s.emit("mov", place, number if fitting and number is not None else s.register(argument, 64))
    inputs = tuple((to, s.source(argument)) for to, argument in zip(ARGUMENTS, value.arguments, strict=False))
    if len(value.data.results) > len(RESULTS):
        raise ir.IllegalIR(f"{s.function.symbol}: a call of {value.data.symbol} with {len(value.data.results)} results")
    s.emit(
        "call",
        ir.Address(value.data.symbol),
        inputs=inputs,
        outputs=extract_outputs(s, value, RESULTS),
        clobbers=CALLER_SAVED,
    )


def extract_outputs(s: Selector, value: ir.Value, places: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Which virtual register takes each processor register's result; the first extract of a number defines it."""
    outputs = []
    for user in s.users[value]:
        if user.operation == "extract" and user in s.demanded:
            assert isinstance(user.data, int)
            outputs.append((s.result(user).number, places[user.data]))
    return tuple(outputs)


def select_return(s: Selector, value: ir.Value) -> None:
    if len(value.arguments) > len(RESULTS):
        raise ir.IllegalIR(f"{s.function.symbol}: {len(value.arguments)} results")
    call = tail_call(value.block, value.arguments)
    if call is not None:
        assert isinstance(call.data, ir.Callee)
        s.tail_calls.add(call)
        given = tuple((to, s.source(argument)) for to, argument in zip(ARGUMENTS, call.arguments, strict=False))
        s.emit("tail", ir.Address(call.data.symbol), inputs=given)
        return
    results = tuple((to, s.source(argument)) for to, argument in zip(RESULTS, value.arguments, strict=False))
    s.emit("ret", inputs=results)


def select_check(s: Selector, value: ir.Value) -> None:
    known = constant(value.arguments[0])
    if known == 1:
        return
    condition = s.condition(value.arguments[0])
    s.emit(f"j{inverse(condition)}", s.trap(value))


def select_stop(s: Selector, value: ir.Value) -> None:
    s.emit("ud2", s.trap(value))


HANDLERS: Final[dict[str, Handler]] = {
    **dict.fromkeys(PLAIN, select_plain),
    **dict.fromkeys(("neg", "bswap"), select_unary),
    **dict.fromkeys(("mul", "umulh"), select_mul),
    **dict.fromkeys(("udiv", "urem", "sdiv", "srem"), select_divide),
    **dict.fromkeys(("shl", "shr", "sar"), select_shift),
    **dict.fromkeys(("rotl", "rotr"), select_rotate),
    **dict.fromkeys(("lzcnt", "tzcnt", "popcnt"), select_count),
    **dict.fromkeys(ir.COMPARISONS, select_comparison),
    "not": select_not,
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
