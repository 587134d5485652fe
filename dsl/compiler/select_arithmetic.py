"""Selection of arithmetic: sums, bits, carries, products, divisions, shifts and counts."""

from __future__ import annotations

from typing import Final

from dsl.compiler.carry import carry_taken, is_carry_of
from dsl.compiler.ir import Value
from dsl.compiler.machine import RAX, RCX, RDX, Memory, Register, Source
from dsl.compiler.selector import Handler, Selector
from dsl.lang.operations import as_signed

PLAIN: Final = ("add", "sub", "and", "or", "xor")
COMMUTES: Final = ("add", "and", "or", "xor", "mul")


# sums and bits


def select_plain(s: Selector, value: Value) -> None:
    """add, sub, and, or, xor."""
    left, right = value.arguments
    operation = value.operation
    if better_swapped(s, value):
        left, right = right, left
    if operation == "and" and select_mask(s, value, left, right):
        return
    if value not in s.flags_wanted and (select_carry(s, value) or (operation == "add" and select_sum(s, value))):
        return
    other = s.operand(right)
    s.emit(operation, s.copied(value, left), other)


def better_swapped(s: Selector, value: Value) -> bool:
    """Whether the right operand is the better one to overwrite: the left one can be read from memory."""
    left, right = value.arguments
    if value.operation not in COMMUTES or right.operation == "const":
        return False
    return left.operation == "const" or (s.can_fold(left) and not s.can_fold(right))


def select_mask(s: Selector, value: Value, left: Value, right: Value) -> bool:
    """Bitwise and with a mask that has a shorter form; with a complement."""
    known, wide = right.constant, value.width >= 32
    if known in (0xFF, 0xFFFF) and wide:
        s.emit("movzx", s.result(value, 32), s.register(left, known.bit_length()))
    elif known == 0xFFFFFFFF and value.width == 64:
        s.emit("mov", s.result(value, 32), s.register(left, 32))
    elif known is not None and (value.width in (8, 16) or (wide and 0 < known < 1 << 32)):
        s.emit("and", s.copied(value, left, 32), as_signed(known, 32))
    elif wide and left.operation == "not" and s.sole_use(left) and known is None:
        s.emit("andn", s.result(value), s.register(left.arguments[0]), s.register(right))
    elif wide and right.operation == "not" and s.sole_use(right):
        s.emit("andn", s.result(value), s.register(right.arguments[0]), s.register(left))
    else:
        return False
    return True


def select_sum(s: Selector, value: Value) -> bool:
    """A sum of three parts, or with a scaled index, in one lea."""

    def joins(part: Value) -> bool:
        nested = part.operation == "add" and part.arguments[1].operation == "const" and part not in s.demanded
        shorter = (nested or s.scaled(part)[1] > 1) and s.sole_use(part)
        return shorter or part.operation in ("frame", "symbol")

    if value.width != 64 or not any(joins(part) for part in value.arguments):
        return False
    s.demanded.discard(value)
    place = s.address(value, 0, 64)
    s.demanded.add(value)
    s.emit("lea", s.result(value), place)
    return True


def select_carry(s: Selector, value: Value) -> bool:
    """Value = other part +- (first < second), through the carry flag; see carry.py for how they come together."""
    taken = carry_taken(value)
    if taken is None or any(not s.sole_use(part) or part in s.demanded for part in taken[1:]):
        return False
    target = s.copied(value, taken[0])
    set_carry(s, value, taken[1:])
    s.emit("adc" if value.operation == "add" else "sbb", target, 0)
    return True


def set_carry(s: Selector, value: Value, folded: tuple[Value, ...]) -> str:
    """Have the flags tell what the comparison folded[-1] does; for free where its sum stands directly before. The condition."""
    carry = folded[-1]
    at = value.block.values.index(value)
    before = next((other for other in reversed(value.block.values[:at]) if other not in folded), value)
    if not is_carry_of(carry, before):
        return s.compare(carry)
    s.demanded.add(before)
    s.flags_wanted.add(before)
    return "b"


def select_not(s: Selector, value: Value) -> None:
    target = s.copied(value, value.arguments[0])
    s.emit("xor", target, 1) if value.width == 1 else s.emit("not", target)


def select_unary(s: Selector, value: Value) -> None:
    """neg, bswap."""
    target = s.copied(value, value.arguments[0])
    if value.operation == "bswap" and value.width == 16:
        s.emit("rol", Register(target.number, 16), 8)
    else:
        s.emit(value.operation, target)


# products and divisions


def select_mul(s: Selector, value: Value) -> None:
    """mul, umulh; both halves in one mulx."""
    left, right = value.arguments
    other = s.also.get(value)
    if value.operation == "umulh" or other is not None:
        low, high = (value, other) if value.operation == "mul" else (other, value)
        target = s.result(high) if high is not None else s.new(64)
        below = s.result(low) if low is not None else target
        s.emit("mulx", target, below, s.read(right, 64), inputs=[(RDX, s.source(left))])
        return
    if better_swapped(s, value):
        left, right = right, left
    number = s.immediate(right)
    if number in (3, 5, 9) and value.width >= 32:
        part = s.register(left)
        s.emit("lea", s.result(value), Memory(part.width, part.number, part.number, number - 1))
    elif number is not None and left.operation != "const":
        s.emit("imul3", s.result(value), s.register(left), number)
    else:
        factor = s.read(right)
        s.emit("imul", s.copied(value, left), factor)


def select_divide(s: Selector, value: Value) -> None:
    """udiv, urem, sdiv, srem through rdx:rax; the pair of quotient and remainder in one division."""
    asked = [result for result in (value, s.also.get(value)) if result is not None and result in s.demanded]
    outputs = [(s.result(result).number, RAX if result.operation.endswith("div") else RDX) for result in asked]
    is_signed = value.operation.startswith("s")
    dividend: Source
    if value.width < 32:
        wide, divisor = (extended(s, argument, is_signed, always=True) for argument in value.arguments)
        dividend = Register(wide.number, 64)
    else:
        dividend, divisor = s.source(value.arguments[0]), s.register(value.arguments[1])
    inputs = [(RAX, dividend)] if is_signed else [(RAX, dividend), (RDX, 0)]
    s.emit("idiv" if is_signed else "div", divisor, inputs=inputs, outputs=outputs, clobbers=(RAX, RDX))


# shifts and counts


def extended(s: Selector, value: Value, is_signed: bool, always: bool = False) -> Register:
    """The value in a 32-bit register of its own meaning: extended from 8 or 16 bits. always: also where the upper bits are known."""
    if value.width >= 32 or (not is_signed and s.clean(value) and not always):
        return s.register(value)
    wide = s.new(32)
    s.emit("movsx" if is_signed else "movzx", wide, s.register(value, value.width))
    return wide


def select_shift(s: Selector, value: Value) -> None:
    """shl, shr, sar."""
    left, right = value.arguments
    target, count = s.result(value), right.constant
    source = s.register(left) if value.operation == "shl" else extended(s, left, value.operation == "sar")
    if count is not None:
        s.emit(value.operation, s.copied(value, source), count % value.width)
        return
    counter = s.register(right)
    if value.width < 32:
        masked = s.new(32)
        s.emit("mov", Register(masked.number, 64), Register(counter.number, 64))
        s.emit("and", masked, value.width - 1)
        counter = masked
    s.emit(value.operation + "x", target, source, counter)


def select_rotate(s: Selector, value: Value) -> None:
    """rotl, rotr."""
    left, right = value.arguments
    count, to_right = right.constant, value.operation == "rotr"
    if count is not None and value.width >= 32:
        s.emit("rorx", s.result(value), s.register(left), (count if to_right else -count) % value.width)
        return
    target, mnemonic = s.copied(value, left, value.width), "ror" if to_right else "rol"
    if count is not None:
        s.emit(mnemonic, target, count % value.width)
    else:
        s.emit(mnemonic, target, Register(RCX, 8), inputs=[(RCX, s.source(right))])


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


ARITHMETIC: Final[dict[str, Handler]] = {
    **dict.fromkeys(PLAIN, select_plain),
    **dict.fromkeys(("neg", "bswap"), select_unary),
    **dict.fromkeys(("mul", "umulh"), select_mul),
    **dict.fromkeys(("udiv", "urem", "sdiv", "srem"), select_divide),
    **dict.fromkeys(("shl", "shr", "sar"), select_shift),
    **dict.fromkeys(("rotl", "rotr"), select_rotate),
    **dict.fromkeys(("lzcnt", "tzcnt", "popcnt"), select_count),
    "not": select_not,
}
