"""Loops that read what their turn before read or wrote: at indexes that grow, and at some that are cut from one word."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.random_programs.generator import Generator

ELEMENT = (
    "@machine\ndef element(p0: Array[u64], p1: u64) -> u64:\n    return p0[p1]"  # its check has one line everywhere
)


def walk(maker: Generator, indent: int) -> list[str]:
    """Statements: a word, a sum that starts with an element, and a loop of reads, writes and changes of both."""
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
