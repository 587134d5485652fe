"""Carries: a comparison that finds out whether a sum wrapped goes directly behind that sum, and the sum that takes it directly behind it.

Selection (select_arithmetic.py) then needs no comparison: the first sum leaves the answer in the carry flag. Two carries of one sum of
three are never both set, if its third part is a bit: their disjunction becomes a sum here.
"""

from __future__ import annotations

from dsl.compiler.graph import users
from dsl.compiler.ir import Block, Function, Value


def place_carries(function: Function) -> None:
    """Add up disjunctions of carries; then move each carry and what takes it to the sum that it is of."""
    sums = [value for value in function.values() if _is_carry_of_three(value)]
    for value in sums:
        _add_up(value)
    used = users(function)
    for block in function.blocks:
        for sum_ in [value for value in block.values if value.operation in ("add", "sub")]:
            for carry in used[sum_ if sum_.operation == "add" else sum_.arguments[0]]:
                if carry.block is block and is_carry_of(carry, sum_):
                    _move_behind(block, sum_, carry, used)
                    break


def is_carry_of(carry: Value, sum_: Value) -> bool:
    """Whether a comparison tells that this sum (or difference) wrapped."""
    if carry.operation != "ult" or sum_.width < 32:
        return False
    first, second = carry.arguments
    if sum_.operation == "add":
        return first is sum_ and second in sum_.arguments
    return sum_.operation == "sub" and sum_.arguments == [first, second]


def carry_taken(value: Value) -> tuple[Value, Value, Value] | None:
    """For a sum or difference with a widened comparison: the other part, the widening, the comparison."""
    if value.operation not in ("add", "sub") or value.width < 32:
        return None
    left, right = value.arguments
    for other, wide in ((left, right), (right, left)) if value.operation == "add" else ((left, right),):
        if wide.operation == "zext" and wide.arguments[0].operation == "ult" and other is not wide:
            if wide.arguments[0].arguments[0].operation != "const":
                return other, wide, wide.arguments[0]
    return None


def _move_behind(block: Block, sum_: Value, carry: Value, used: dict[Value, list[Value]]) -> None:
    moving = [carry]
    if len(used[carry]) == 1 and used[carry][0].operation == "zext" and used[carry][0].block is block:
        wide = used[carry][0]
        moving.append(wide)
        if len(used[wide]) == 1 and used[wide][0].block is block:
            taker = used[wide][0]
            taken = carry_taken(taker)
            if taken is not None and taken[1] is wide and _is_before(taken[0], sum_, block):
                moving.append(taker)
    at = block.values.index(sum_)
    if any(block.values.index(value) < at for value in moving):
        return
    block.values = [value for value in block.values if value not in moving]
    at = block.values.index(sum_) + 1
    block.values[at:at] = moving


def _is_before(value: Value, sum_: Value, block: Block) -> bool:
    return value.block is not block or block.values.index(value) < block.values.index(sum_)


def _is_carry_of_three(value: Value) -> bool:
    """zext(ult(s, a) | ult(t, s)) with s = a + b and t = s + c, where c is 0 or 1."""
    if value.operation != "zext" or value.arguments[0].operation != "or" or value.arguments[0].width != 1:
        return False
    first, second = value.arguments[0].arguments
    if first.operation != "ult" or second.operation != "ult":
        return False
    partial, total = first.arguments[0], second.arguments[0]
    if not (is_carry_of(first, partial) and is_carry_of(second, total) and second.arguments[1] is partial):
        return False
    other = total.arguments[1] if total.arguments[0] is partial else total.arguments[0]
    return partial.operation == total.operation == "add" and _is_bit(other, set())


def _is_bit(value: Value, seen: set[Value]) -> bool:
    """Whether a value is 0 or 1, assuming it of those seen."""
    if value in seen or (value.operation == "zext" and value.arguments[0].width == 1):
        return True
    if value.operation == "const":
        return value.data in (0, 1)
    return value.operation == "phi" and all(_is_bit(argument, seen | {value}) for argument in value.arguments)


def _add_up(value: Value) -> None:
    block = value.block
    at = block.values.index(value)
    wide = [Value("zext", value.width, [carry], None, value.span, block) for carry in value.arguments[0].arguments]
    block.values[at:at] = wide
    value.operation, value.arguments = "add", [*wide]
