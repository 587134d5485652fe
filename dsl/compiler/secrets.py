"""Secrets: no pass, and no allocation of registers, may make control flow, an address or a division depend on one.

The checker refuses that in the source; this is the same rule on what the optimiser made. A value is secret if it brings one in
(Value.secret) or comes of one; `opaque` with DECLASSIFIED ends it. Memory is not followed: each load of a secret is marked itself.

Then the same on what selection and allocation made. Followed are processor registers, spilled ones in the frame, and the flags, along all
ways until nothing changes. Other memory is not: each operand that reads a secret there is marked, as are the virtual registers that bring
one in or hold none any more.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.allocate import Location
from dsl.compiler.forms import FORMS
from dsl.compiler.ir import DECLASSIFIED, Function, Span, Value
from dsl.compiler.machine import (
    FIRST_VIRTUAL,
    RAX,
    Instruction,
    MachineBlock,
    MachineFunction,
    Memory,
    Register,
    Source,
    named,
    roles,
)

DIVISIONS: Final = ("udiv", "urem", "sdiv", "srem", "div", "idiv")  # their time depends on what they divide
# What a secret operand does not make its result: memory and calls, whose results are marked by themselves.
ENDS: Final = ("load", "store", "call", "extract", "intrinsic")


class SecretLeak(Exception):
    """A pass made something observable depend on a secret: a defect of the compiler."""


def refuse_leaks(function: Function) -> None:
    """Raise SecretLeak where a secret steers the machine."""
    secrets = secret_values(function)
    if not secrets:
        return
    for value in function.values():
        for index in steering(value):
            if value.arguments[index] in secrets:
                span = value.span
                place = f"{span.file}:{span.line}" if span else "?"
                raise SecretLeak(f"{function.symbol}: {value.operation} at {place} depends on a secret")


def secret_values(function: Function) -> set[Value]:
    """Every value that is secret, to a fixed point (phis of loops come before what they merge)."""
    secrets = {value for value in function.values() if value.secret}
    grown = bool(secrets)
    while grown:
        grown = False
        for value in function.values():
            if value not in secrets and value.operation not in ENDS and value.data != DECLASSIFIED:
                if any(argument in secrets for argument in value.arguments):
                    secrets.add(value)
                    grown = True
    return secrets


def steering(value: Value) -> range | tuple[int, ...]:
    """The arguments of a value that time or an access pattern shows."""
    if value.operation in ("branch", "check", "load", "store"):
        return (0,)
    if value.operation in DIVISIONS:
        return (0, 1)
    if value.operation == "intrinsic":
        name = getattr(value.data, "name", "")
        return (0, 2) if name in ("fill_bytes", "fill_words") else range(len(value.arguments))
    return ()


Place = Location | str  # a processor register, a spilled one's place, or the flags
FLAGS: Final = "flags"
MOVES_ALONE: Final = ("MOVES", "call", "tail", "ret")  # what do nothing but their fixed moves
ZERO_IDIOMS: Final = ("xor", "sub")  # of a register and itself
FILL: Final = "rep stos"  # its value may be a secret, its address and count may not


def refuse_machine_leaks(function: MachineFunction, locations: dict[int, Location]) -> None:
    """Raise SecretLeak where a secret steers a jump, an address, a division or an intrinsic."""
    marked = function.secrets or any(
        isinstance(operand, Memory) and operand.secret
        for block in function.blocks
        for instruction in block.instructions
        for operand in instruction.operands
    )
    if not marked:
        return
    walk = _Walk(function, locations)
    entering: dict[MachineBlock, set[Place]] = {function.blocks[0]: set()}
    pending = [function.blocks[0]]
    while pending:
        block = pending.pop()
        leaving = walk.block(block, set(entering[block]))
        for successor in block.successors:
            known = entering.get(successor)
            if known is None or not leaving <= known:
                entering[successor] = leaving | (known or set())
                pending.append(successor)


class _Walk:
    """Which places hold secrets, from one instruction of a function to the next."""

    def __init__(self, function: MachineFunction, locations: dict[int, Location]) -> None:
        self.function = function
        self.locations = locations

    def block(self, block: MachineBlock, tainted: set[Place]) -> set[Place]:
        """What is tainted at the end of a block, given what is at its beginning."""
        for instruction in block.instructions:
            self.step(instruction, tainted)
        if block.condition and FLAGS in tainted:
            self.leak(f"j{block.condition}", block.span)
        return tainted

    def step(self, instruction: Instruction, tainted: set[Place]) -> None:
        """One instruction, with its fixed moves before and after."""
        moved = [(target, self.is_secret(source, tainted)) for target, source in instruction.inputs]
        for target, secret in moved:
            self.write(target, secret, tainted)
        carries = instruction.mnemonic not in MOVES_ALONE
        comes_of = carries and self.execute(instruction, {target for target, secret in moved if secret}, tainted)
        tainted.difference_update(instruction.clobbers)
        for number, secret in [(number, comes_of or place in tainted) for number, place in instruction.outputs]:
            self.write(number, secret, tainted)

    def execute(self, instruction: Instruction, fixed: set[int], tainted: set[Place]) -> bool:
        """What an instruction does itself; whether its fixed results come of a secret. fixed: the tainted ones of its fixed inputs."""
        mnemonic, template, operands = instruction.mnemonic, instruction.template, instruction.operands
        form = FORMS[mnemonic]
        uses = [(number, role, self.place(number) in tainted) for number, role in named(instruction)]
        if mnemonic != "lea" and any(secret and role == "a" for _, role, secret in uses):
            self.leak(f"the address in {mnemonic}", instruction.span)
        marked = any(
            isinstance(operand, Memory) and operand.secret and role != "w"
            for operand, role in zip(operands, roles(instruction), strict=False)
        )
        by_flags = "r" in form.flags and FLAGS in tainted and not template  # a text sets the flags that it reads
        comes_of = marked or by_flags or bool(fixed) or any(secret and role != "w" for _, role, secret in uses)
        if mnemonic in ZERO_IDIOMS and operands[0] == operands[1]:
            comes_of = False
        steers = mnemonic in DIVISIONS or (mnemonic.startswith("j") and FLAGS in tainted)
        if template:
            steers = not (template.startswith(FILL) and fixed <= {RAX})
        if steers and comes_of:
            self.leak(template or mnemonic, instruction.span)
        comes_of = comes_of and not template
        if "w" in form.flags:
            self.mark(FLAGS, comes_of, tainted)
        for number, role, _ in uses:
            if role in "wb":
                self.write(number, comes_of, tainted)
        return comes_of

    def place(self, number: int) -> Place:
        """Where a register is."""
        return number if number < FIRST_VIRTUAL else self.locations.get(number, number)

    def is_secret(self, source: Source, tainted: set[Place]) -> bool:
        return isinstance(source, Register) and self.place(source.number) in tainted

    def write(self, number: int, is_secret: bool, tainted: set[Place]) -> None:
        """A register gets a value; what brings a secret in is one whatever it comes of, what is declassified is none."""
        is_secret = is_secret or number in self.function.secrets
        self.mark(self.place(number), is_secret and number not in self.function.declassified, tainted)

    def mark(self, place: Place, is_secret: bool, tainted: set[Place]) -> None:
        (tainted.add if is_secret else tainted.discard)(place)

    def leak(self, what: str, span: Span | None) -> None:
        at = f"{span.file}:{span.line}" if span else "?"
        raise SecretLeak(f"{self.function.symbol}: {what} at {at} depends on a secret after register allocation")
