"""How deep each stack gets at worst, from the emitted instructions; and that nothing calls itself.

Depth is counted from the stack's top. A function that sets the stack pointer leaves its caller's stack; what it enters afterwards must be a
root of its own, with the stack that it runs on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from dsl.compiler.frames import WORD, Frame, effect, successors
from pipeline.audit.code import Code, Finding, callee_of

ALIGNS: Final = re.compile(r"and rsp, (0xf{14}[0-9a-f]{2}|-\d+)")
BELOW: Final = re.compile(r"\[rsp - ((?:0x)?[0-9a-f]+)\]")
MOST: Final = 1 << 24  # a deeper frame is a loop that pushes


@dataclass(frozen=True)
class Stack:
    """A stack: its size in bytes, the functions that start on it with what is there already, and what may interrupt them.

    interrupts: roots that the processor enters on the same stack, each with the bytes that it pushes before.
    """

    name: str
    size: int
    roots: tuple[tuple[str, int], ...]
    interrupts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Depths:
    """One function's use of the stack: its own worst depth, its calls with the depth at each, and what it enters on another stack."""

    own: int
    calls: tuple[tuple[str, int], ...]
    elsewhere: tuple[str, ...]


def depths_of(code: Code, function: str) -> Depths:
    """Walk one function; an instruction that is reached with several depths counts with the deepest."""
    steps = code.functions[function]
    at = {step.address: step for step in steps}
    found: dict[int, int | None] = {}
    pending: list[tuple[int, Frame]] = [(steps[0].address, Frame())]
    while pending:
        address, frame = pending.pop()
        if address in found and not deeper(frame.depth, found[address]):
            continue
        if frame.depth is not None and frame.depth > MOST:
            raise OverflowError(f"{function}: a loop pushes without end")
        found[address] = frame.depth
        step = at[address]
        aligned = ALIGNS.fullmatch(step.text)
        if aligned and frame.depth is not None:
            room = -int(aligned[1], 0) % (1 << 64)
            pending.append((step.end, replace(frame, depth=frame.depth + room - WORD)))
        else:
            pending += successors(step, frame, at)
    own, calls, elsewhere = 0, [], []
    for address, depth in found.items():
        step = at[address]
        callee = callee_of(step, function, code.starts)
        if depth is None:
            elsewhere += [callee] if callee else []
            continue
        if step.mnemonic == "ret" and depth != Frame().depth:
            raise OverflowError(
                f"{function}: expected its return address at ret, found what it pushed: an indirect jump"
            )
        after = effect(step.text, Frame(depth)).depth
        below = BELOW.search(step.text)
        own = max(own, depth, after or 0, depth + int(below[1], 0) if below else 0)
        if callee:
            calls.append((callee, depth if step.mnemonic == "call" else depth - WORD))
    return Depths(own, tuple(calls), tuple(elsewhere))


def deeper(new: int | None, known: int | None) -> bool:
    """Whether a depth says more than the one that is known; unknown says least."""
    return new is not None and (known is None or new > known)


def cycles(calls: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """Each way back to a function that is being called, as the path from it to itself."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(function: str, path: list[str]) -> None:
        if function in path:
            found.append([*path[path.index(function) :], function])
            return
        if function in done:
            return
        for callee in calls.get(function, ()):
            visit(callee, [*path, function])
        done.add(function)

    for function in calls:
        visit(function, [])
    return found


def find_recursion(code: Code) -> list[Finding]:
    """Functions that call themselves, directly or not."""
    return [Finding("recursion", f"{code.name}: {' -> '.join(path)}") for path in cycles(code.calls)]


def worst(depths: dict[str, Depths], function: str, known: dict[str, tuple[int, list[str]]]) -> tuple[int, list[str]]:
    """The deepest that the stack gets below a function's entry (its return address included), and the calls that lead there."""
    if function not in known:
        deepest = (depths[function].own, [function])
        for callee, depth in depths[function].calls:
            below, path = worst(depths, callee, known)
            if depth + below > deepest[0]:
                deepest = (depth + below, [function, *path])
        known[function] = deepest
    return known[function]


def all_depths(code: Code, declared: dict[str, int]) -> tuple[dict[str, Depths], list[Finding]]:
    """Every function's depths; those of `declared`, whose loops push, are what the table says, and they call nobody."""
    depths: dict[str, Depths] = {}
    findings: list[Finding] = []
    for function, steps in code.functions.items():
        if function in declared:
            depths[function] = Depths(declared[function], (), ())
            continue
        try:
            depths[function] = depths_of(code, function) if steps else Depths(WORD, (), ())
        except OverflowError as error:
            depths[function] = Depths(MOST, (), ())
            findings.append(Finding("stack", f"{code.name}: {error}"))
    for function in sorted(set(declared) - set(depths)):
        findings.append(
            Finding("stack", f"{code.name}: expected a function {function}, whose depth is declared, found none")
        )
    return depths, findings


def check_stacks(
    code: Code, stacks: tuple[Stack, ...], declared: dict[str, int] | None = None
) -> tuple[list[Finding], list[str]]:
    """Findings, and one line a stack for the report. The call graph must be free of cycles. declared: see all_depths."""
    depths, findings = all_depths(code, declared or {})
    known: dict[str, tuple[int, list[str]]] = {}
    lines: list[str] = []
    roots = {root for stack in stacks for root, _ in (*stack.roots, *stack.interrupts)}
    for missing in sorted(roots - set(depths)):
        findings.append(Finding("stack", f"{code.name}: expected a function {missing}, a root of a stack, found none"))
    if findings:
        return findings, lines
    for function, depth in depths.items():
        for callee in depth.elsewhere:
            if callee not in roots:
                text = f"{code.name}: {function} enters {callee} on a stack of its own: expected it among the roots"
                findings.append(Finding("stack", text))
    findings += find_unreached(code, depths, roots)
    for stack in stacks:
        entered = [
            (before + worst(depths, root, known)[0], worst(depths, root, known)[1]) for root, before in stack.roots
        ]
        interrupted = [
            (before + worst(depths, root, known)[0], worst(depths, root, known)[1]) for root, before in stack.interrupts
        ]
        need, path = max(entered)
        extra, handler = max(interrupted, default=(0, []))
        said = (
            f"{code.name}: stack {stack.name}: {need + extra:,} of {stack.size:,} bytes, by {' > '.join(short(path))}"
        )
        said += f", then {' > '.join(short(handler))}" if handler else ""
        lines.append(said)
        if need + extra > stack.size:
            findings.append(Finding("stack", f"{said}: expected at most {stack.size:,}, found {need + extra:,}"))
    return findings, lines


def find_unreached(code: Code, depths: dict[str, Depths], roots: set[str]) -> list[Finding]:
    """Functions that no root reaches: their stack is not accounted for."""
    reached: set[str] = set()
    pending = list(roots)
    while pending:
        function = pending.pop()
        if function not in reached:
            reached.add(function)
            pending += [callee for callee, _ in depths[function].calls]
            pending += depths[function].elsewhere
    return [
        Finding("stack", f"{code.name}: no root reaches {function}: expected an entry in the table of stacks")
        for function in depths
        if function not in reached
    ]


def short(path: list[str]) -> list[str]:
    """Function names without their modules; the middle of a long path left out."""
    names = [name.rpartition(".")[2] for name in path]
    return names if len(names) <= 6 else [*names[:3], "...", *names[-2:]]
