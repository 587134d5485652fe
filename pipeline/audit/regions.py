"""Vector registers: a program beside guests uses them only where a region has saved what the guest had there.

A region is a function of exactly the instructions of dsl/compiler/assembly.py, which is read again from its emitted code: whatever
differs is none.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.audit.code import Code, Finding, callee_of

VECTOR: Final = re.compile(r"\b[xyz]?mm\d+\b|\bst\(|^f(?!x)")  # what begins with f is x87's, named registers or not
COUNT: Final = 16
ROOM: Final = "0x108"


def find_regions(code: Code) -> dict[str, str]:
    """Each region of a program, and the function that it calls."""
    found = {}
    for function, steps in code.functions.items():
        calls = [step for step in steps if step.mnemonic == "call"]
        callee = callee_of(calls[0], function, code.starts) if len(calls) == 1 else None
        if callee is not None and [step.text for step in steps] == region(calls[0].text):
            found[function] = callee
    return found


def region(call: str) -> list[str]:
    """The instructions of a region, as Capstone spells them."""
    places = ["[rsp]", *(f"[rsp + {number * 16:#x}]" for number in range(1, COUNT))]
    saves = [f"movaps xmmword ptr {place}, xmm{number}" for number, place in enumerate(places)]
    restores = [f"movaps xmm{number}, xmmword ptr {place}" for number, place in enumerate(places)]
    return [f"sub rsp, {ROOM}", *saves, call, *restores, f"add rsp, {ROOM}", "ret"]


def check_regions(code: Code, roots: tuple[str, ...]) -> list[Finding]:
    """Every way from a root to a function with a vector instruction that passes through no region; the shortest one each."""
    regions = find_regions(code)
    vectors = {
        function
        for function, steps in code.functions.items()
        if function not in regions and any(VECTOR.search(step.text) for step in steps)
    }
    findings = []
    came: dict[str, str | None] = dict.fromkeys(roots)
    pending = list(came)
    for function in pending:
        if function in regions:
            continue
        if function in vectors:
            path = [function]
            while (caller := came[path[-1]]) is not None:
                path.append(caller)
            text = f"{code.name}: {' > '.join(reversed(path))}: expected vector registers in a simd region alone"
            findings.append(Finding("simd", text))
        for callee in code.calls.get(function, ()):
            if callee not in came:
                came[callee] = function
                pending.append(callee)
    return findings
