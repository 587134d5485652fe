"""Selection of arithmetic: sums, products, divisions, shifts, bit counts.

Values of 8 and 16 bits are computed in 32-bit registers with undefined upper bits; where those would matter, they are extended first.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.ir import Value
from dsl.compiler.machine import RAX, RCX, RDX, Operand, Register, Source
from dsl.compiler.select_carry import select_carry
from dsl.compiler.selector import Selector, constant, machine_width, signed

PLAIN: Final = ("add", "sub", "and", "or", "xor")
COMMUTES: Final = ("add", "and", "or", "xor", "mul")


def two_address(s: Selector, value: Value, mnemonic: str, left: Value, right: Operand) -> None:
    """Target = left; target op= right."""
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(left, 64))
    s.emit(mnemonic, target, right)


def select_plain(s: Selector, value: Value) -> None:
    """add, sub, and, or, xor."""
    left, right = value.arguments
    operation = value.operation
    if operation in COMMUTES and right.operation != "const" and better_swapped(s, value, left, right):
        left, right = right, left
    if operation == "and" and select_mask(s, value, left, right):
        return
    if value not in s.flags_wanted and (select_carry(s, value) or (operation == "add" and select_sum(s, value))):
        return
    if left.operation == "const":
        target = s.result(value)
        assert isinstance(left.data, int)
        s.emit("mov", Register(target.number, 64 if left.data >> 32 else 32), left.data)
        s.emit(operation, target, s.operand(right))
        return
    two_address(s, value, operation, left, s.operand(right))


def better_swapped(s: Selector, value: Value, left: Value, right: Value) -> bool:
    """Whether the right operand is the better one to overwrite: the left one is needed later, or can be read from memory.

    What a loop carries is overwritten by its own next value, so that no move is left at the loop's end.
    """
    if left.operation == "const" or s.can_fold(right):
        return left.operation == "const"
    if s.can_fold(left) or carries(left, value) or carries(right, value):
        return s.can_fold(left) or not carries(left, value)
    return s.lives_on(left) and not s.lives_on(right)


def carries(phi: Value, value: Value) -> bool:
    """Whether a phi takes this value on its next turn."""
    return phi.operation == "phi" and value in phi.arguments


def select_mask(s: Selector, value: Value, left: Value, right: Value) -> bool:
    """Bitwise and with a mask that has a shorter form; with a complement."""
    known = constant(right)
    if known in (0xFF, 0xFFFF) and value.width >= 32:
        s.emit("movzx", s.result(value, 32), s.register(left, known.bit_length()))
    elif known == 0xFFFFFFFF and value.width == 64:
        s.emit("mov", s.result(value, 32), s.register(left, 32))
    elif known is not None and value.width >= 32 and known >> 32 == 0 and known:
        target = s.result(value, 32)
        s.emit("mov", Register(target.number, 64), s.register(left, 64))
        s.emit("and", target, signed(known, 32))
    elif value.width >= 32 and left.operation == "not" and s.sole_use(left) and known is None:
        s.emit("andn", s.result(value), s.register(left.arguments[0]), s.register(right))
    elif value.width >= 32 and right.operation == "not" and s.sole_use(right):
        s.emit("andn", s.result(value), s.register(right.arguments[0]), s.register(left))
    elif known is not None and value.width in (8, 16):
        target = s.result(value, 32)
        s.emit("mov", Register(target.number, 64), s.register(left, 64))
        s.emit("and", target, known)
    else:
        return False
    return True


def select_sum(s: Selector, value: Value) -> bool:
    """A sum of three parts, or with a scaled index, in one lea."""
    left, right = value.arguments
    if value.width != 64:
        return False
    nested = any(
        a.operation == "add" and constant(a.arguments[1]) is not None and s.sole_use(a) and a not in s.demanded
        for a in (left, right)
    )
    shifted = any(s.scaled(a)[1] > 1 and s.sole_use(a) for a in (left, right))
    framed = any(a.operation in ("frame", "symbol") for a in (left, right))
    if not (nested or shifted or framed):
        return False
    s.demanded.discard(value)
    place = s.address(value, 0, 64)
    s.demanded.add(value)
    s.emit("lea", s.result(value), place)
    return True


def select_not(s: Selector, value: Value) -> None:
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(value.arguments[0], 64))
    if value.width == 1:
        s.emit("xor", target, 1)
    else:
        s.emit("not", target)


def select_unary(s: Selector, value: Value) -> None:
    """neg, bswap."""
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(value.arguments[0], 64))
    if value.operation == "bswap" and value.width == 16:
        s.emit("rol", Register(target.number, 16), 8)
    else:
        s.emit(value.operation, target)


def select_mul(s: Selector, value: Value) -> None:
    left, right = value.arguments
    other = s.demanded_later(value)
    if value.operation == "umulh" or other is not None:
        low, high = (value, other) if value.operation == "mul" else (other, value)
        target = s.result(high) if high is not None else s.new(64)
        below = s.result(low) if low is not None else target
        source = s.folded_load(right, 64) or s.register(right, 64)
        s.emit("mulx", target, below, source, inputs=((RDX, s.source(left)),))
        return
    if right.operation != "const" and better_swapped(s, value, left, right):
        left, right = right, left
    number = s.immediate(right)
    if number is not None and left.operation != "const":
        s.emit("imul3", s.result(value), s.register(left), number)
    else:
        two_address(s, value, "imul", left, s.folded_load(right, machine_width(value.width)) or s.register(right))


def select_divide(s: Selector, value: Value) -> None:
    """udiv, urem, sdiv, srem through rdx:rax; the pair of quotient and remainder in one division."""
    left, right = value.arguments
    width = machine_width(value.width)
    other = s.demanded_later(value)
    outputs = []
    for result in (value, other):
        if result is not None and result in s.demanded:
            outputs.append((s.result(result).number, RAX if result.operation.endswith("div") else RDX))
    is_signed = value.operation.startswith("s")
    if value.width < 32:
        extend = "movsx" if is_signed else "movzx"
        sources = []
        for argument in (left, right):
            wide = s.new(32)
            s.emit(extend, wide, s.register(argument, argument.width))
            sources.append(wide)
        dividend: Source = Register(sources[0].number, 64)
        divisor = sources[1]
    else:
        dividend, divisor = s.source(left), s.register(right, width)
    inputs: tuple[tuple[int, Source], ...] = ((RAX, dividend),) if is_signed else ((RAX, dividend), (RDX, 0))
    s.emit("idiv" if is_signed else "div", divisor, inputs=inputs, outputs=tuple(outputs), clobbers=(RAX, RDX))


def extended(s: Selector, value: Value, is_signed: bool) -> Register:
    """The value in a 32-bit register of its own meaning: extended from 8 or 16 bits."""
    if value.width >= 32 or (not is_signed and s.clean(value)):
        return s.register(value)
    wide = s.new(32)
    s.emit("movsx" if is_signed else "movzx", wide, s.register(value, value.width))
    return wide


def select_shift(s: Selector, value: Value) -> None:
    left, right = value.arguments
    count = constant(right)
    target = s.result(value)
    source = s.register(left) if value.operation == "shl" else extended(s, left, value.operation == "sar")
    if count is not None:
        s.emit("mov", Register(target.number, 64), Register(source.number, 64))
        s.emit(value.operation, target, count % value.width)
        return
    counter = s.register(right)
    if value.width < 32:
        masked = s.new(32)
        s.emit("mov", Register(masked.number, 64), Register(counter.number, 64))
        s.emit("and", masked, value.width - 1)
        counter = masked
    s.emit(value.operation + "x", target, source, counter)


def select_rotate(s: Selector, value: Value) -> None:
    left, right = value.arguments
    count = constant(right)
    target = s.result(value)
    right_ward = value.operation == "rotr"
    if count is not None and value.width >= 32:
        amount = (count if right_ward else -count) % value.width
        s.emit("rorx", target, s.register(left), amount)
        return
    part = Register(target.number, value.width)
    s.emit("mov", Register(target.number, 64), s.register(left, 64))
    mnemonic = "ror" if right_ward else "rol"
    if count is not None:
        s.emit(mnemonic, part, count % value.width)
    else:
        s.emit(mnemonic, part, Register(RCX, 8), inputs=((RCX, s.source(right)),))


def select_count(s: Selector, value: Value) -> None:
    """lzcnt, tzcnt, popcnt: at 8 and 16 bits through 32, with what that adds taken away."""
    argument = value.arguments[0]
    target = s.result(value)
    if value.operation == "tzcnt" and value.width < 32:
        source = s.new(32)
        s.emit("mov", Register(source.number, 64), s.register(argument, 64))
        s.emit("or", source, 1 << value.width)
    else:
        source = extended(s, argument, is_signed=False)
    s.emit(value.operation, target, source)
    if value.operation == "lzcnt" and value.width < 32:
        s.emit("sub", target, 32 - value.width)
