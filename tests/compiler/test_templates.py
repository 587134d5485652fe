"""Every row of the instruction table assembles for every register that it may get, and decodes to its own text."""

from __future__ import annotations

from typing import Any, Final

import pytest

from dsl.compiler.ir import Address
from dsl.compiler.keystone import AssemblyError
from dsl.compiler.listing import assemble_naked, assemble_template
from dsl.compiler.machine import NAMES, NUMBERS
from dsl.lang import intrinsics
from dsl.lang.instruction import PLACEHOLDER, Instruction

ROWS: Final[dict[str, Any]] = {
    name: function.__instruction__
    for name, function in vars(intrinsics).items()
    if hasattr(function, "__instruction__")
}
REGISTERS: Final = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def filled(row: Instruction, registers: dict[str, str]) -> str:
    """The row's text with each operand's register (by operand name) put in."""
    return PLACEHOLDER.sub(lambda match: NAMES[int(match[2] or 64)][NUMBERS[registers[match[1]]][0]], row.text)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_row_assembles(name: str) -> None:
    """With free operands in each register in turn, besides those that the row fixes."""
    row = ROWS[name]
    free = [operand.name for operand in (*row.inputs, *row.outputs) if operand.where == "any"]
    fixed = {operand.where for operand in (*row.inputs, *row.outputs)} | set(row.clobbers)
    allowed = [register for register in REGISTERS if register not in fixed]
    for turn in range(len(allowed) if free else 1):
        registers = {operand: allowed[(turn + position) % len(allowed)] for position, operand in enumerate(free)}
        assembled = assemble_template(filled(row, registers))
        assert assembled.data
        assert len(assembled.rows) == row.text.count(";") + 1


def test_there_are_rows() -> None:
    """The table is not empty, and has the instructions that the monitor cannot do without."""
    assert {"cpuid", "rdmsr", "wrmsr", "vmread", "vmwrite", "invlpg", "in8", "out8"} <= set(ROWS)


def test_naked_names() -> None:
    """Constants are written out; symbols become places for the linker; nothing else may name one."""
    there, data = Address("there"), Address("data", 8)
    text = "mov eax, {five}; call {there}; lea rcx, [rip + {data}]; cmp qword ptr [rip + {data}], 5; jne {there}; ret"
    assembled = assemble_naked(text, {"five": 5, "there": there, "data": data})
    assert [row.target for row in assembled.relocations] == [there, data, data, there]
    assert assembled.data[:5] == b"\xb8\x05\0\0\0"
    ends = [row.end for row in assembled.relocations]
    assert [row.end - row.offset for row in assembled.relocations] == [4, 4, 5, 4]
    assert ends == sorted(ends)
    with pytest.raises(AssemblyError, match="no symbol 'nobody'"):
        assemble_naked("call {nobody}", {})
    with pytest.raises(AssemblyError, match="may only stand in"):
        assemble_naked("mov rax, {there}", {"there": there})
