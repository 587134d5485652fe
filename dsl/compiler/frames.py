"""The stack at every instruction of a linked function: how deep it is and where the caller's registers lie.

Read from the emitted instructions along every jump, so it says what the code does and not what the compiler meant: call frame
information, the worst-case stack depth and the call graph all come from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from dsl.compiler.link import Step
from dsl.compiler.machine import CALLEE_SAVED, NAMES

WORD: Final = 8  # bytes; what a call, a push and a pop move
SAVED_NAMES: Final = frozenset(NAMES[64][register] for register in CALLEE_SAVED)
ADJUST: Final = re.compile(r"(add|sub) rsp, (-?(?:0x)?[0-9a-f]+)")
KEEPS: Final = re.compile(r"mov (r\w+), rsp")
SETS_STACK: Final = re.compile(r"(?:mov|lea|and|or|xor|pop|xchg) [re]sp\b|xchg \w+, rsp\b")
ENDS: Final = ("ret", "ud2", "iretq", "jmp", "ljmp")


@dataclass(frozen=True, slots=True)
class Frame:
    """The stack before an instruction: bytes from the stack pointer to the caller's (8 at the entry); None once it was set anew.

    saved: callee-saved registers in memory, each with its distance below the caller's stack pointer. kept: a register to which the stack
    pointer was copied, with depth and saved at that time, until it is copied back (as around a call of firmware).
    """

    depth: int | None = WORD
    saved: tuple[tuple[str, int], ...] = ()
    kept: tuple[str, int, tuple[tuple[str, int], ...]] | None = field(default=None, compare=False)


def frames(steps: list[Step]) -> dict[int, Frame]:
    """The frame at each instruction that the function's first one reaches.

    Where two ways meet with different stacks the depth is unknown (None).
    """
    at = {step.address: step for step in steps}
    found: dict[int, Frame] = {}
    pending = [(steps[0].address, Frame())] if steps else []
    while pending:
        address, frame = pending.pop()
        known = found.get(address)
        if known is not None:
            if known == frame or known.depth is None:
                continue
            frame = Frame(None)
        found[address] = frame
        pending += successors(at[address], frame, at)
    return found


def successors(step: Step, frame: Frame, at: dict[int, Step]) -> Iterator[tuple[int, Frame]]:
    """Where control goes inside the function, each with the frame there."""
    target = step.target
    if target is not None and step.mnemonic == "call" and target in at and target != next(iter(at)):
        # to a label: a stub of the function's own, not a call
        yield target, replace(frame, depth=None if frame.depth is None else frame.depth + WORD)
        return
    after = effect(step.text, frame)
    if target is not None and target in at and step.mnemonic != "call":
        yield target, after
    if step.mnemonic not in ENDS and step.end in at:
        yield step.end, after


def effect(text: str, frame: Frame) -> Frame:
    """The frame after an instruction."""
    if frame.kept and text == f"mov rsp, {frame.kept[0]}":
        return Frame(frame.kept[1], frame.kept[2])
    if SETS_STACK.match(text):
        return Frame(None, kept=frame.kept)
    if frame.depth is None:
        return frame
    keeps = KEEPS.fullmatch(text)
    if keeps:
        return replace(frame, kept=(keeps[1], frame.depth, frame.saved))
    mnemonic, _, operand = text.partition(" ")
    if mnemonic in ("push", "pushfq"):
        depth = frame.depth + WORD
        if operand in SAVED_NAMES and all(name != operand for name, _ in frame.saved):
            return Frame(depth, (*frame.saved, (operand, depth)))
        return replace(frame, depth=depth)
    if mnemonic == "retfq":  # to a pushed address and segment: the instruction behind it, as code segments are reloaded
        return replace(frame, depth=frame.depth - 2 * WORD)
    if mnemonic in ("pop", "popfq"):
        return Frame(frame.depth - WORD, tuple(row for row in frame.saved if row != (operand, frame.depth)))
    match = ADJUST.fullmatch(text)
    if match:
        size = int(match[2], 0)
        return replace(frame, depth=frame.depth + (size if match[1] == "sub" else -size))
    return frame
