"""Loops of shapes that single statements seldom make: over what the turn before read or wrote, and around a machine of states."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.random_programs.generator import Generator

ELEMENT = (
    "@machine\ndef element(p0: Array[u64], p1: u64) -> u64:\n    return p0[p1]"  # its check has one line everywhere
)


def walk(maker: Generator, indent: int) -> list[str]:
    """A loop of reads and writes, at indexes that grow and at some that are cut from one word, which it changes."""
    word, total, turn = maker.new_name("word"), maker.new_name("total"), maker.new_name("turn")
    found = [(text, length) for text, element, length in maker.arrays(constant=False) if element == "u64"]
    arrays = [maker.random.choice(found) for _ in range(maker.random.randint(1, 2))]

    def cut() -> str:
        return f"u64({word}.truncate({maker.pick('u8', 'u16')})) // 37"

    def place(grows: bool) -> tuple[str, str]:
        text, length = maker.random.choice(arrays)
        index = maker.pick(turn, f"{turn} + 1", f"{turn} + 2", f"{turn} - 1") if grows and maker.chance(0.6) else cut()
        return text, index if turn in index else f"{index} & {length - 1}"

    def step() -> str:
        text, index = place(grows=True)
        return maker.pick(
            f"{total} += {text}[{index}]",
            f"{total} += {text}[{index}]",
            f"{total} ^= element({text}, {index})",
            f"{total} ^= element({text}, {index})",
            f"{text}[{index}] = {total}",
            f"{word} = {word} * 3 + {total}",
            f"{word} = {word} * 5 + 1",
        )

    pad = "    " * indent
    lines = [f"{pad}{word} = {maker.expression('u64', 2)}"]
    maker.locals[word] = "u64"
    text, index = place(grows=False)
    lines.append(f"{pad}{total} = {text}[{index}]")
    low, high = f"{maker.expression('u64', 1)} & 3", f"{maker.expression('u64', 1)} % 9"
    lines.append(f"{pad}for {turn} in between({low}, {high}):")
    lines += [f"{pad}    {step()}" for _ in range(maker.random.randint(2, 7))]
    maker.locals[total] = "u64"
    return lines


def states(maker: Generator, indent: int) -> list[str]:
    """A loop around a machine of a few states: each compares the state, and gives it constants, or, seldom, something else."""
    state, total, turn = maker.new_name("state"), maker.new_name("total"), maker.new_name("turn")
    kind = maker.pick("u8", "u32", "u64")
    pad = "    " * indent

    def step() -> str:
        known = f"{kind}({maker.random.randrange(5)})"
        asked = f"{total} & {maker.random.choice((1, 2, 7, 96))} {maker.pick('==', '!=')} {maker.random.randrange(3)}"
        return maker.pick(
            f"{state} = {known}",
            f"{state} = {known} if {asked} else {kind}({maker.random.randrange(5)})",
            f"{state} = {known} if {asked} else {state}",
            f"{state} = {maker.expression(kind, 1)} & 3" if maker.chance(0.3) else f"{state} = {known}",
            f"{total} {maker.pick('+', '^', '*')}= {maker.expression('u64', 1)}",
            f"BYTES[{maker.random.randrange(32)}] += u8({turn})",
            f"if {asked}:\n{pad}            {maker.pick('break', 'continue', f'{state} = {known}')}",
        )

    lines = [f"{pad}{state} = {kind}({maker.random.randrange(4)})", f"{pad}{total} = {maker.expression('u64', 2)}"]
    lines.append(f"{pad}for {turn} in upto(u8({maker.random.randint(1, 12)})):")
    maker.locals[total] = "u64"
    for number in range(maker.random.randint(2, 4)):
        test = f"{state} {maker.pick('==', '==', '==', '<', '>=', '!=')} {number}"
        lines.append(f"{pad}    {maker.pick('if', 'elif') if number else 'if'} {test}:")
        lines += [f"{pad}        {step()}" for _ in range(maker.random.randint(1, 3))]
    if maker.chance(0.6):
        lines += [f"{pad}    else:", f"{pad}        {step()}"]
    return lines
