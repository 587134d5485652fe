"""Selection of carries: a sum that takes the carry of another becomes adc, a difference sbb; see carry.py for how they come together."""

from __future__ import annotations

from dsl.compiler.carry import carry_taken, is_carry_of
from dsl.compiler.ir import Value
from dsl.compiler.machine import Register
from dsl.compiler.selector import Selector


def select_carry(s: Selector, value: Value) -> bool:
    """Value = other part + (first < second), through the carry flag."""
    taken = carry_taken(value)
    if taken is None:
        return False
    other, wide, carry = taken
    if not s.sole_use(wide) or not s.sole_use(carry) or wide in s.demanded or carry in s.demanded:
        return False
    target = s.result(value)
    s.emit("mov", Register(target.number, 64), s.register(other, 64))
    set_carry(s, value, (wide, carry))
    s.emit("adc" if value.operation == "add" else "sbb", target, 0)
    return True


def set_carry(s: Selector, value: Value, folded: tuple[Value, ...]) -> str:
    """Have the flags tell what the comparison folded[-1] does; for free where its sum stands directly before. The condition."""
    carry = folded[-1]
    at = value.block.values.index(value) - 1
    while at >= 0 and value.block.values[at] in folded:
        at -= 1
    before = value.block.values[at] if at >= 0 else value
    if is_carry_of(carry, before):
        s.demanded.add(before)
        s.flags_wanted.add(before)
        return "b"
    return s.compare(carry)
