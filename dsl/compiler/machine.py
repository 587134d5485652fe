"""Machine code before it is bytes: registers, operands, instructions, blocks, and what each instruction does with its operands.

Registers 0 to 15 are the processor's, in its own numbering; from 16 on they are virtual. An instruction's operands are read and written as
forms.py says. Besides them it may have fixed ones: `inputs` are put into processor registers by a parallel move just before it, `outputs`
are taken from processor registers by one just after it, and `clobbers` are registers that it destroys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from dsl.compiler.forms import CONDITIONS, FORMS
from dsl.compiler.ir import Address, Slot, Span

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)
FIRST_VIRTUAL: Final = 16

NAMES: Final = {
    64: ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))),
    32: ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", *(f"r{n}d" for n in range(8, 16))),
    16: ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{n}w" for n in range(8, 16))),
    8: ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"r{n}b" for n in range(8, 16))),
}
NUMBERS: Final = {name: (number, width) for width, names in NAMES.items() for number, name in enumerate(names)}

CALLEE_SAVED: Final = (RBX, RBP, R12, R13, R14, R15)
CALLER_SAVED: Final = (RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11)
ARGUMENTS: Final = (RDI, RSI, RDX, RCX, R8, R9)
RESULTS: Final = (RAX, RDX, RCX, RSI, RDI, R8, R9, R10, R11)
# The order in which a cut pool takes registers: those that fewest instructions fix come first.
POOL: Final = (RSI, R8, RBX, R12, RCX, RDI, RAX, RDX, R9, R10, R13, RBP, R14, R15, R11)


@dataclass(frozen=True, slots=True)
class Register:
    """A register, or the low `width` bits of one."""

    number: int
    width: int


@dataclass(frozen=True, slots=True)
class Memory:
    """[base + index*scale + displacement], or [rip + symbol + displacement], or a place in the frame plus displacement.

    place: a Slot of the function, a Spill (both resolved after allocation), an Incoming or Outgoing stack argument.
    """

    width: int
    base: int | None = None
    index: int | None = None
    scale: int = 1
    displacement: int = 0
    symbol: str | None = None
    place: Slot | Spill | Incoming | None = None
    secret: bool = field(default=False, compare=False)  # what is read there is a secret


@dataclass(eq=False, slots=True)
class Spill:
    """Eight bytes of the frame that hold a virtual register."""

    number: int


@dataclass(frozen=True, slots=True)
class Incoming:
    """The caller's stack argument number `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class Trap:
    """The cold ud2 of a failed check: a row of the check table."""

    file: str
    line: int


Operand = Register | Memory | int | Address | Trap
Source = Register | int | Address  # what a parallel move can read: ints and addresses are made on the spot


@dataclass(eq=False, slots=True)
class Instruction:
    """One instruction. Mnemonics in capitals are the compiler's own: MOVES (outputs <- inputs in parallel), TEMPLATE (an intrinsic)."""

    mnemonic: str
    operands: tuple[Operand, ...] = ()
    span: Span | None = None
    inputs: tuple[tuple[int, Source], ...] = ()  # processor register <- source; for MOVES: virtual register <- source
    outputs: tuple[tuple[int, int], ...] = ()  # virtual register <- processor register
    clobbers: tuple[int, ...] = ()
    template: str = ""  # TEMPLATE: the row's text
    roles: str = (
        ""  # TEMPLATE: of the operands, in the order of the text's mentions; what it writes, it writes before it reads
    )


@dataclass(eq=False, slots=True)
class MachineBlock:
    """Instructions, then control: a conditional jump if `condition`, to successors[0], else to the last successor."""

    label: str
    instructions: list[Instruction] = field(default_factory=list)
    successors: list[MachineBlock] = field(default_factory=list)
    predecessors: list[MachineBlock] = field(default_factory=list)
    condition: str = ""
    depth: int = 0
    cold: bool = False
    span: Span | None = None


@dataclass(eq=False, slots=True)
class MachineFunction:
    """A function as machine code, on virtual registers until allocation."""

    symbol: str
    span: Span
    blocks: list[MachineBlock] = field(default_factory=list)
    next_register: int = FIRST_VIRTUAL
    slots: list[Slot] = field(default_factory=list)
    outgoing: int = 0  # bytes of stack arguments of calls
    calls: bool = False
    secrets: set[int] = field(default_factory=set)  # virtual registers that bring secrets in
    declassified: set[int] = field(default_factory=set)  # virtual registers that hold no secret, whatever they come of

    def new_register(self, like: int = 0) -> int:
        """A virtual register; one that stands for another in some places is as secret as that."""
        self.next_register += 1
        for marked in (self.secrets, self.declassified):
            if like in marked:
                marked.add(self.next_register - 1)
        return self.next_register - 1


def fits_signed_32(value: int) -> bool:
    return -(1 << 31) <= value < 1 << 31


def inverse(condition: str) -> str:
    """The condition that holds when this one does not."""
    return CONDITIONS[CONDITIONS.index(condition) ^ 1]


def roles(instruction: Instruction) -> str:
    """What becomes of each operand, one letter each, as in forms.py."""
    return instruction.roles or FORMS[instruction.mnemonic].roles


def named(instruction: Instruction) -> Iterator[tuple[int, str]]:
    """The registers that the operands name, each with its role; "a" in an address. A Spill in memory counts as what it holds."""
    for operand, role in zip(instruction.operands, roles(instruction), strict=False):
        if isinstance(operand, Register):
            yield operand.number, role
        elif isinstance(operand, Memory):
            yield from ((part, "a") for part in (operand.base, operand.index) if part is not None)
            if isinstance(operand.place, Spill):
                yield operand.place.number, role


def change_registers(instruction: Instruction, change: Callable[[int, str], int]) -> None:
    """Give each register among the operands its new number; `change` gets the old one and its role. Fixed inputs and outputs stay."""
    changed: list[Operand] = []
    for operand, role in zip(instruction.operands, roles(instruction), strict=False):
        if isinstance(operand, Register):
            operand = Register(change(operand.number, role), operand.width)
        elif isinstance(operand, Memory):
            base, index = (None if part is None else change(part, "r") for part in (operand.base, operand.index))
            operand = replace(operand, base=base, index=index)
        changed.append(operand)
    instruction.operands = (*changed, *instruction.operands[len(changed) :])
