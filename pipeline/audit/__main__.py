"""`python -m pipeline.audit`: compile both loaders and the monitor, audit them, print what was found. Part of `build.py check`."""

from __future__ import annotations

import sys
from typing import Final

from boot.handoff import MONITOR_BASE
from boot.main import start as loader_start
from boot.stages import BODY_BASE
from boot.uefi import start as application_start
from dsl.compiler.diagnostics import CompileError
from dsl.compiler.pipeline import compile_program
from dsl.std.framebuffer import FONT_SIZE
from pipeline.audit.code import Code, Finding, code_of
from pipeline.audit.exits import check_exits
from pipeline.audit.instructions import check_instructions
from pipeline.audit.regions import check_regions
from pipeline.audit.rules import EXITS, RULES, Rules
from pipeline.audit.sections import check_sections
from pipeline.audit.stack import check_stacks, find_recursion
from vmm.exits.dispatch import ENTRIES, HANDLERS
from vmm.exits.hypercall import CALLS
from vmm.main import start as monitor_start

APPLICATION_BASE: Final = 0x401000  # any page: it is relocated
SUPPLIED: Final = {"boot.header_key": bytes(32), "std.font": bytes(FONT_SIZE)}


def audit(code: Code, rules: Rules) -> tuple[list[Finding], list[str]]:
    """Findings of one program, and lines that say how deep its stacks get. Without a bound (recursion) stacks are not measured."""
    findings = [*check_sections(code.name, code.program), *check_instructions(code, rules.allowed)]
    if rules.has_guests:
        findings += check_regions(
            code, tuple(root for stack in rules.stacks for root, _ in (*stack.roots, *stack.interrupts))
        )
    recursion = find_recursion(code)
    if recursion:
        return findings + recursion, []
    stacks, lines = check_stacks(code, rules.stacks, rules.declared)
    return findings + stacks, lines


def main() -> int:
    """Audit every program; 0 if nothing was found."""
    programs = {
        "loader": compile_program(loader_start, base=BODY_BASE, supplied=SUPPLIED),
        "UEFI loader": compile_program(application_start, base=APPLICATION_BASE, supplied=SUPPLIED),
        "monitor": compile_program(monitor_start, base=MONITOR_BASE),
    }
    found: list[Finding] = []
    for name, program in programs.items():
        code = code_of(name, program)
        findings, lines = audit(code, RULES[name])
        if name == "monitor" and lines:  # without stacks there is recursion, and no longest path
            more, table = check_exits(
                code, EXITS, (*ENTRIES.values(), HANDLERS.default, *CALLS.table.values(), CALLS.default)
            )
            findings, lines = findings + more, lines + table
        found += findings
        print("\n".join(lines))
    for finding in found:
        print(f"{finding.rule}: {finding.text}")
    print(f"{len(found)} findings" if found else "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompileError as error:
        sys.exit(str(error))
