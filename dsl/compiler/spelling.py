"""Machine code as text: instructions spelt as Capstone prints them, and whole functions for people."""

from __future__ import annotations

from dsl.compiler.capstone import SIZES
from dsl.compiler.ir import Address
from dsl.compiler.machine import FIRST_VIRTUAL, NAMES, Instruction, MachineFunction, Memory, Operand, Register

POINTERS = {width: f"{word} ptr " for word, width in SIZES.items()}


def spell(mnemonic: str, operands: tuple[Operand, ...]) -> str:
    """The instruction's text. A symbol that has no place yet stands in angle brackets."""
    match mnemonic, operands:
        case "imul3", _:
            mnemonic = "imul"
        case "mov", (Register(_, 64), int(number)) if number >= 1 << 31:
            mnemonic = "movabs"
    sized = mnemonic != "lea"
    return f"{mnemonic} {', '.join(spell_operand(operand, sized) for operand in operands)}".rstrip()


def spell_operand(operand: Operand, sized: bool = True) -> str:
    match operand:
        case Register(number, width):
            return name(number, width)
        case Memory():
            return (POINTERS[operand.width] if sized else "") + spell_address(operand)
        case Address(symbol, addend):
            return f"<{symbol}+{addend}>"
        case int():
            return spell_number(operand)
    return str(operand)


def spell_address(operand: Memory) -> str:
    if operand.symbol:
        return f"[rip <{operand.symbol}+{operand.displacement}>]"
    parts = ["rip"] if operand.symbol is not None else []
    parts += [type(operand.place).__name__] if operand.place is not None else []
    parts += [name(operand.base)] if operand.base is not None else []
    if operand.index is not None:
        parts.append(name(operand.index) + (f"*{operand.scale}" if operand.scale > 1 else ""))
    return f"[{' + '.join(parts)}{spell_displacement(operand.displacement)}]"


def spell_displacement(value: int) -> str:
    return f" {'-' if value < 0 else '+'} {spell_number(abs(value))}" if value else ""


def spell_number(value: int) -> str:
    return str(value) if -10 < value < 10 else hex(value)


def name(number: int, width: int = 64) -> str:
    return NAMES[width][number] if number < FIRST_VIRTUAL else f"v{number}" + ("" if width == 64 else f".{width}")


def render(function: MachineFunction) -> str:
    """The machine code as text, for dump="select" and dump="allocate"."""
    lines = [f"machine function {function.symbol}"]
    for block in function.blocks:
        lines.append(f"{block.label}:  ; depth {block.depth}{' cold' if block.cold else ''}")
        lines += ["  " + describe(instruction) for instruction in block.instructions]
        targets = ", ".join(successor.label for successor in block.successors)
        lines.append(f"  -> {block.condition} {targets}" if targets else "  -> end")
    return "\n".join(lines) + "\n"


def describe(instruction: Instruction) -> str:
    text = instruction.template and repr(instruction.template)
    parts = [" ".join(filter(None, (spell(instruction.mnemonic, instruction.operands), text)))]
    if instruction.inputs:
        parts.append("in " + ", ".join(f"{name(to)}<-{spell_operand(source)}" for to, source in instruction.inputs))
    if instruction.outputs:
        parts.append("out " + ", ".join(f"{name(to)}<-{name(source)}" for to, source in instruction.outputs))
    return "  ".join(parts)
