"""The ELF's DWARF, read by pyelftools, says of every instruction what the compiler and the running program say of it."""

from __future__ import annotations

import io
from functools import cache
from typing import Any, Final

import pytest
import unicorn as uc
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile
from unicorn import x86_const as x86

from dsl.compiler.pipeline import Program, compile_function
from dsl.lang import Array, machine, static_array, u64, upto
from tests.execution.emulated import Emulated

TABLE: Final = static_array(u64, 64)
CALLEE_SAVED: Final = {
    3: x86.UC_X86_REG_RBX, 6: x86.UC_X86_REG_RBP, 12: x86.UC_X86_REG_R12, 13: x86.UC_X86_REG_R13, 14: x86.UC_X86_REG_R14,
    15: x86.UC_X86_REG_R15,
}  # fmt: skip
RETURN_ADDRESS, STACK_POINTER = 16, 7


@machine
def mix(data: Array[u64], seed: u64) -> u64:
    """Enough values for spills, an early return, a failed check's ud2."""
    if seed == 0:
        return u64(7)
    a, b, c, d, e, f, g = seed, seed + 1, seed + 2, seed + 3, seed + 4, seed + 5, seed + 6
    for i in upto(data.length):
        a, b, c, d, e, f, g = b ^ data[i], c + a, d, e + b, f ^ c, g + d, a
        data[i] = a + g
    return a ^ b ^ c ^ d ^ e ^ f ^ g


@machine(depth=8)
def descend(data: Array[u64], depth: u64) -> u64:
    """Real calls, one below another."""
    if depth == 0:
        return mix(data, u64(3))
    inner = descend(data, depth - 1)
    return inner + mix(data, depth) * depth


@machine
def entry(depth: u64) -> u64:
    """Where the test starts."""
    return descend(TABLE, depth) + mix(TABLE.slice(u64(1), u64(5)), u64(0))


@cache
def program() -> Program:
    return compile_function(entry)


def dwarf(built: Program) -> Any:
    return ELFFile(io.BytesIO(built.elf())).get_dwarf_info()


def line_rows(built: Program) -> list[tuple[int, int, str, int]]:
    """(start, end, file, line) as the line table has them."""
    information = dwarf(built)
    (unit,) = information.iter_CUs()
    table = information.line_program_for_CU(unit)
    files = [entry.name.decode() for entry in table["file_entry"]]
    rows, before = [], None
    for item in table.get_entries():
        state = item.state
        if state is None:
            continue
        if before is not None:
            rows.append((before.address, state.address, files[before.file - 1], before.line))
        before = None if state.end_sequence else state
    return rows


@pytest.mark.t0
def test_every_instruction_has_its_source_line() -> None:
    built = program()
    rows = line_rows(built)
    checks = {built.base + offset: trap for offset, trap in built.linked.checks}
    assert checks
    for address, line in built.linked.lines:
        found = {(file, number) for start, end, file, number in rows if start <= address < end}
        if address in checks:
            assert found == {(checks[address].file, checks[address].line)}
        elif line.span is not None:
            assert found == {(line.span.file, line.span.line)}, hex(address)


@pytest.mark.t0
def test_no_line_claims_what_lies_between_functions() -> None:
    built = program()
    functions = [(start, start + size) for start, size, kind in built.symbols.values() if kind == "function"]
    for start, end, _, _ in line_rows(built):
        assert start < end
        assert any(low <= start and end <= high for low, high in functions)


@pytest.mark.t0
def test_functions_are_named_with_their_ranges() -> None:
    built = program()
    (unit,) = dwarf(built).iter_CUs()
    found = {
        die.attributes["DW_AT_name"].value.decode(): (
            die.attributes["DW_AT_low_pc"].value, die.attributes["DW_AT_high_pc"].value,
        )
        for die in unit.iter_DIEs()
        if die.tag == "DW_TAG_subprogram"
    }  # fmt: skip
    assert found == {name: (start, size) for name, (start, size, kind) in built.symbols.items() if kind == "function"}


@pytest.mark.t1
def test_the_caller_is_found_from_every_instruction() -> None:
    """Run, and at each step let the frame rules find return address, stack pointer and saved registers of the caller."""
    built = program()
    tables = [row for row in dwarf(built).CFI_entries() if isinstance(row, FDE)]
    rules = {
        row["pc"]: row
        for table in tables
        for row in table.get_decoded().table
        if row["pc"] < table["initial_location"] + table["address_range"]
    }
    starts = sorted(rules)
    emulated = Emulated(built)
    engine = emulated.engine
    callers: list[
        tuple[int, int, dict[int, int]]
    ] = []  # return address, stack pointer after the return, saved registers
    seen: set[int] = set()
    calls = {address for address, line in built.linked.lines if line.text.startswith("call")}

    def look(_engine: Any, address: int, size: int, _data: object) -> None:
        place = engine.reg_read(x86.UC_X86_REG_RSP)
        registers = {number: engine.reg_read(register) for number, register in CALLEE_SAVED.items()}
        if not callers:
            callers.append((word(place), place + 8, registers))
        while callers and place >= callers[-1][1]:
            callers.pop()
        back, stack, saved = callers[-1]
        row = rules[max(start for start in starts if start <= address)]
        cfa = place + row["cfa"].offset
        assert (row["cfa"].reg, cfa) == (STACK_POINTER, stack), hex(address)
        assert word(cfa + row[RETURN_ADDRESS].arg) == back, hex(address)
        for number, value in saved.items():
            stored = number in row and row[number].type == "OFFSET"
            assert (word(cfa + row[number].arg) if stored else registers[number]) == value, (hex(address), number)
        seen.add(address)
        if address in calls:
            callers.append((address + size, place, registers))

    def word(address: int) -> int:
        return int.from_bytes(engine.mem_read(address, 8), "little")

    failures: list[BaseException] = []

    def guarded(*arguments: Any) -> None:
        try:
            look(*arguments)
        except BaseException as error:
            failures.append(error)
            engine.emu_stop()

    engine.hook_add(uc.UC_HOOK_CODE, guarded)
    try:
        result = emulated.call(entry.__module__ + ".entry", [3])
    finally:
        assert failures == []
    assert isinstance(result, tuple)
    assert len(calls & seen) >= 3
    assert len(seen) > len(built.linked.lines) // 2


@pytest.mark.t0
def test_a_wrong_rule_would_be_seen() -> None:
    """The functions of this program move the stack: rules that never change could not pass the test above."""
    built = program()
    depths = {
        row["cfa"].offset
        for table in dwarf(built).CFI_entries()
        if isinstance(table, FDE)
        for row in table.get_decoded().table
    }
    assert len(depths) > 3
