"""Which instructions may stand where: privileged ones in their homes, WRMSR for listed registers alone, nothing indirect, no vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dsl.compiler.link import Step
from pipeline.audit.code import Code, Finding
from pipeline.audit.regions import VECTOR, find_regions

INDIRECT: Final = re.compile(r"(?:call|jmp|ljmp|lcall)\b(?! 0x)")
NEVER: Final = {  # mnemonic: why no program has it
    "invd": "drops what other processors have written",
    "bzhi": "Unicorn, which tests this code, executes it wrongly",
    "bextr": "Unicorn, which tests this code, executes it wrongly",
    "int3": "a breakpoint",
    "syscall": "no ring 3", "sysret": "no ring 3", "sysretq": "no ring 3", "sysexit": "no ring 3", "sysexitq": "no ring 3",
    "sysenter": "no ring 3", "swapgs": "GS is the monitor's own, always", "retf": "no code segment but one", "iret": "no 16 bits",
    "iretd": "no 32 bits", "std": "text that compilers and people write takes DF for 0", "int1": "a breakpoint",
}  # fmt: skip
PRIVILEGED: Final = frozenset(
    (
        "cli", "sti", "hlt", "lgdt", "lidt", "lldt", "ltr", "lmsw", "clts", "invlpg", "invpcid", "wbinvd", "wbnoinvd", "wrmsr", "xsetbv",
        "iretq", "retfq", "vmxon", "vmxoff", "vmlaunch", "vmresume", "vmclear", "vmptrld", "vmptrst", "invept", "invvpid",
        "int", "popf", "popfq", "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase", "wrpkru", "getsec", "rsm", "stac", "clac", "monitor",
        "mwait", "vmrun", "vmload", "vmsave", "clgi", "stgi", "skinit",
        # these change the guest's registers, and name none
        "emms", "ldmxcsr", "vldmxcsr", "fxrstor", "fxrstor64", "xrstor", "xrstor64", "xrstors", "xrstors64",
        "vzeroall", "vzeroupper",
    )
)  # fmt: skip
WRITES_OTHERS: Final = {  # what a move changes that is no general register -> how its instructions look
    "mov to control register": re.compile(r"mov [cd]r\d+, "),
    "load of a segment register": re.compile(r"(?:mov|pop) [c-gs]s\b|l[dfegs]s "),
}
MSR_NUMBER: Final = re.compile(r"mov ecx, ((?:0x)?[0-9a-f]+)")
WRITES_ECX: Final = re.compile(
    r"(?!cmp |test|push|bt )\w+ (?:ecx|rcx|c[hlx])\b|(?:cpuid|rdtscp|call|rep|loop|xgetbv)\b|(?:xchg|xadd|mulx) .*\b[er]?cx\b"
)


@dataclass(frozen=True)
class Allowed:
    """What one program may contain.

    homes: mnemonic -> source files that may write it; once: mnemonics that stand in one place at most; computed: source files in which a
    WRMSR's number may be computed; indirect: those that may call indirectly; vectors: those that may use XMM registers, without VEX.
    """

    homes: dict[str, tuple[str, ...]]
    msrs: frozenset[int]
    once: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    indirect: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


def check_instructions(code: Code, allowed: Allowed) -> list[Finding]:
    """Every instruction against every rule."""
    findings: list[Finding] = []
    seen: dict[str, list[str]] = {}
    regions = find_regions(code)
    for function, steps in code.functions.items():
        if function in regions:
            continue
        own = range(steps[0].address, steps[-1].end) if steps else range(0)
        targets = {step.target for step in steps if step.target is not None}
        for index, step in enumerate(steps):
            where = code.where(step, function)
            findings += [Finding(rule, f"{where}: {text}") for rule, text in problems(code, step, allowed)]
            if step.target is not None and step.target not in own and step.target not in code.starts:
                findings.append(Finding("indirect", f"{where}: expected the start of a function, found none there"))
            if step.mnemonic == "wrmsr":
                number = msr_number(steps, index, targets)
                file = code.places.get(step.address, ("no source", 0))[0]
                if number is None and file not in allowed.computed:
                    findings.append(
                        Finding("wrmsr", f"{where}: expected the number of an MSR as a constant, found a computed one")
                    )
                elif number is not None and number not in allowed.msrs:
                    findings.append(Finding("wrmsr", f"{where}: expected one of the listed MSRs, found {number:#x}"))
            if step.mnemonic in allowed.once:
                seen.setdefault(step.mnemonic, []).append(where)
    for mnemonic, places in seen.items():
        if len(places) > 1:
            findings.append(
                Finding("once", f"{mnemonic}: expected in one place, found in {len(places)}: {'; '.join(places)}")
            )
    return findings


def problems(code: Code, step: Step, allowed: Allowed) -> Iterator[tuple[str, str]]:
    """What one instruction breaks, as (rule, text)."""
    file = code.places.get(step.address, ("no source", 0))[0]
    if INDIRECT.match(step.text) and not (step.mnemonic == "call" and file in allowed.indirect):
        yield "indirect", "expected direct calls and jumps, found an indirect one"
    if VECTOR.search(step.text) and not (file in allowed.vectors and not step.mnemonic.startswith("v")):
        yield "vector", "expected general registers, found a vector register"
    if step.mnemonic in NEVER:
        yield "never", f"expected no {step.mnemonic}: {NEVER[step.mnemonic]}"
    name = next((name for name, form in WRITES_OTHERS.items() if form.match(step.text)), step.mnemonic)
    if name in PRIVILEGED or name != step.mnemonic:
        homes = allowed.homes.get(name, ())
        if file not in homes:
            yield "home", f"expected {name} in {', '.join(homes) or 'no file of this program'} alone"


def msr_number(steps: list[Step], index: int, targets: set[int]) -> int | None:
    """The constant that ECX holds at a WRMSR, loaded on the only way to it; None if there is no such constant."""
    for place in range(index - 1, -1, -1):
        if steps[place + 1].address in targets or steps[place].mnemonic in ("jmp", "ret", "ud2"):
            return None
        match = MSR_NUMBER.fullmatch(steps[place].text)
        if match:
            return int(match[1], 0)
        if WRITES_ECX.match(steps[place].text):
            return None
    return None
