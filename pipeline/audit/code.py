"""A linked program as its audits see it: functions of instructions, who calls whom, and the source place of each instruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsl.compiler.link import Step


@dataclass(frozen=True)
class Finding:
    """Something that a rule refuses: the rule's name, and what was found where, against what was expected."""

    rule: str
    text: str


@dataclass(frozen=True)
class Code:
    """A program's functions. calls: caller -> callees by direct calls and jumps; taken: functions whose address is taken."""

    name: str
    program: Any  # dsl.compiler.pipeline.Program
    functions: dict[str, list[Step]]
    places: dict[int, tuple[str, int]]
    calls: dict[str, tuple[str, ...]]
    starts: dict[int, str]

    def where(self, step: Step, function: str) -> str:
        """A place for a message."""
        file, line = self.places.get(step.address, ("no source", 0))
        return f"{self.name} {step.address:#x} in {function} ({file}:{line}): {step.text}"


def code_of(name: str, program: Any) -> Code:
    """Take a program apart."""
    functions = program.linked.functions
    starts = {steps[0].address: function for function, steps in functions.items() if steps}
    calls = {
        function: tuple(
            dict.fromkeys(callee for callee in (callee_of(step, function, starts) for step in steps) if callee)
        )
        for function, steps in functions.items()
    }
    return Code(name, program, functions, dict(program.linked.places()), calls, starts)


def callee_of(step: Step, function: str, starts: dict[int, str]) -> str | None:
    """The function that a call or a jump enters; a jump to its own start is a loop, a call is not."""
    target = step.target
    callee = starts.get(target) if target is not None else None
    return None if callee == function and step.mnemonic != "call" else callee
