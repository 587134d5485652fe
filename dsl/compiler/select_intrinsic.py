"""Selection of intrinsics: a row of dsl.lang.intrinsics becomes one instruction with fixed and free operands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from dsl.compiler.ir import Value
from dsl.compiler.machine import NUMBERS, Register, Source

if TYPE_CHECKING:
    from dsl.compiler.selector import Selector

PLACEHOLDER: Final = re.compile(r"\{(\w+)(?::(8|16|32|64))?\}")


def select_intrinsic(s: Selector, value: Value) -> None:
    """Emit the row's text, with its operands where it wants them, and the jump to ud2 of one that can fail a check."""
    row: Any = value.data
    free: dict[str, tuple[int, str]] = {}
    inputs: list[tuple[int, Source]] = []
    for operand, argument in zip(row.inputs, value.arguments, strict=True):
        if operand.where == "any":
            free[operand.name] = (s.register(argument, 64).number, "r")
        else:
            inputs.append((NUMBERS[operand.where][0], s.source(argument)))
    results = {user.data: user for user in s.users[value] if user.operation == "extract" and user in s.demanded}
    outputs: list[tuple[int, int]] = []
    for number, operand in enumerate(row.outputs):
        register = s.result(results[number]).number if number in results else s.machine.new_register()
        if operand.where == "any":
            free[operand.name] = (register, "w")
        else:
            outputs.append((register, NUMBERS[operand.where][0]))
    operands: list[Register] = []
    letters = ""

    def fill(match: re.Match[str]) -> str:
        nonlocal letters
        register, letter = free[match[1]]
        operands.append(Register(register, int(match[2] or 64)))
        letters += letter
        return f"{{{len(operands) - 1}}}"

    template = PLACEHOLDER.sub(fill, row.text)
    clobbers = tuple(NUMBERS[register][0] for register in row.clobbers if register != "flags")
    writes = any(letter == "w" for _, letter in free.values())
    s.emit(
        f"TEMPLATE:{letters}",
        *operands,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        clobbers=clobbers,
        template=template,
        early=writes,
    )
    if row.stops_if:
        s.emit(f"j{row.stops_if}", s.trap(value))
