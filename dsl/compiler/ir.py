"""The intermediate representation: functions of basic blocks in SSA form, and the check that one is well formed.

A value has a width in bits (1, 8, 16, 32 or 64; 0 for none): types above that (signs, addresses, structs, taints) end in the
checker. Addresses are 64 bits wide. Widths never mix: `zext`, `sext` and `trunc` are the only bridges. Semantics of each operation stand
in its row of OPERATIONS. `call` and `intrinsic` give their results through `extract`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from dsl.lang.instruction import Instruction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a source: repository-relative file, 1-based lines, 0-based character columns (not UTF-8 bytes)."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int


TERMINATORS: Final = ("jump", "branch", "return", "stop")
DECLASSIFIED: Final = "declassified"
COMPARISONS: Final = ("eq", "ne", "ult", "ule", "slt", "sle")


@dataclass(frozen=True, slots=True)
class Access:
    """How a load or store touches memory: a byte offset, and whether it must happen exactly once and in order."""

    offset: int = 0
    volatile: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """A symbol and a byte offset into it."""

    symbol: str
    addend: int = 0


@dataclass(eq=False, slots=True)
class Slot:
    """A place in a function's frame; its content is undefined until stored to."""

    size: int
    align: int


@dataclass(frozen=True, slots=True)
class Callee:
    """A called function: its symbol and the widths of its results."""

    symbol: str
    results: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation is.

    arity: its number of arguments; None: any. pure: it may be removed, repeated and moved. widths: the rule of legality.py that its width
    and its arguments' follow; "": none. kind: of its data, if it has any.
    """

    arity: int | None
    pure: bool
    widths: str
    meaning: str
    kind: type | None = None


OPERATIONS: Final = {
    "const": Operation(0, True, "a width", "the integer in data, 0 <= data < 2**width", int),
    "parameter": Operation(0, False, "", "the function's parameter number data; only in the entry block, first", int),
    "phi": Operation(None, True, "one", "args[i] when control came from block.predecessors[i]; before all others in its block"),
    "symbol": Operation(0, True, "address", "the address of the symbol named in data, an Address(symbol, addend)", Address),
    "frame": Operation(0, True, "address", "the address of the frame slot in data, a Slot(size, align)", Slot),
    "add": Operation(2, True, "one", "wrapping sum"),
    "sub": Operation(2, True, "one", "wrapping difference"),
    "mul": Operation(2, True, "one", "low half of the product"),
    "umulh": Operation(2, True, "only 64", "high half of the unsigned product"),
    "udiv": Operation(2, False, "one", "unsigned quotient; the divisor was checked"),
    "urem": Operation(2, False, "one", "unsigned remainder; the divisor was checked"),
    "sdiv": Operation(2, False, "one", "signed quotient toward zero; divisor not 0, not MIN / -1"),
    "srem": Operation(2, False, "one", "its remainder"),
    "and": Operation(2, True, "one", "bitwise and (width 1 too)"),
    "or": Operation(2, True, "one", "bitwise or (width 1 too)"),
    "xor": Operation(2, True, "one", "bitwise exclusive or (width 1 too)"),
    "not": Operation(1, True, "one", "bitwise complement (width 1 too)"),
    "neg": Operation(1, True, "one", "wrapping negation"),
    "shl": Operation(2, True, "one", "shift left; count (same width) taken modulo the width"),
    "shr": Operation(2, True, "one", "shift right, zeros enter; count modulo the width"),
    "sar": Operation(2, True, "one", "shift right, sign enters; count modulo the width"),
    "rotl": Operation(2, True, "one", "rotate left; count modulo the width"),
    "rotr": Operation(2, True, "one", "rotate right; count modulo the width"),
    "bswap": Operation(1, True, "one", "bytes reversed; width 16, 32, 64"),
    "lzcnt": Operation(1, True, "one", "leading zeros; zero gives the width"),
    "tzcnt": Operation(1, True, "one", "trailing zeros; zero gives the width"),
    "popcnt": Operation(1, True, "one", "bits set"),
    "eq": Operation(2, True, "compared", "equal"),
    "ne": Operation(2, True, "compared", "not equal"),
    "ult": Operation(2, True, "compared", "unsigned less"),
    "ule": Operation(2, True, "compared", "unsigned less or equal"),
    "slt": Operation(2, True, "compared", "signed less"),
    "sle": Operation(2, True, "compared", "signed less or equal"),
    "zext": Operation(1, True, "larger", "to a larger width, zeros enter (from width 1 too)"),
    "sext": Operation(1, True, "larger", "to a larger width, sign enters"),
    "trunc": Operation(1, True, "smaller", "to a smaller width (to width 1: the lowest bit)"),
    "select": Operation(3, True, "selected", "args[1] if args[0] else args[2]"),
    "opaque": Operation(1, True, "one", "its argument, unknown to the optimiser; data DECLASSIFIED: no secret any more"),
    "load": Operation(1, False, "loaded", "memory at args[0] + data.offset, little-endian; width 8 to 64", Access),
    "store": Operation(2, False, "stored", "memory at args[0] + data.offset = args[1]", Access),
    "call": Operation(None, False, "none", "of the Callee in data; results by extract", Callee),
    "intrinsic": Operation(None, False, "", "a row of dsl.lang.intrinsics; results by extract", Instruction),
    "extract": Operation(1, True, "", "result number data of the call or intrinsic args[0]; in the same block", int),
    "check": Operation(1, False, "condition", "stop at this place unless args[0]; data is the message"),
    # terminators, one at the end of each block
    "jump": Operation(0, False, "", "to block.successors[0]"),
    "branch": Operation(1, False, "condition", "to successors[0] if args[0] else successors[1]"),
    "return": Operation(None, False, "", "args are the results"),
    "stop": Operation(0, False, "", "never goes on; data is the message"),
}  # fmt: skip


class Data(Generic[T]):
    """Reads a value's data as what its operation has there (the rows of OPERATIONS say what)."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    def __get__(self, value: Value, owner: type[Value]) -> T:
        assert isinstance(value.data, self.kind), f"{value.operation}: data {value.data!r}, expected {self.kind}"
        return value.data


@dataclass(eq=False, slots=True)
class Value:
    """One instruction and its result. Compared by identity."""

    operation: str
    width: int
    arguments: list[Value]
    data: object
    span: Span | None
    block: Block
    number: int = 0  # for printing; renumbered by Function.renumber
    secret: bool = False  # brings a secret in: what comes of it may reach no branch, check, address or division (compiler/secrets.py)

    integer = Data(int)  # of const, parameter, extract
    access = Data(Access)  # of load, store
    address = Data(Address)  # of symbol
    slot = Data(Slot)  # of frame
    callee = Data(Callee)  # of call
    row = Data(Instruction)  # of intrinsic

    @property
    def name(self) -> str:
        return f"%{self.number}"

    @property
    def constant(self) -> int | None:
        """The integer of a const; None for any other operation."""
        return self.integer if self.operation == "const" else None


@dataclass(eq=False, slots=True)
class Block:
    """Instructions, phis first, one terminator last."""

    label: str
    values: list[Value] = field(default_factory=list)
    predecessors: list[Block] = field(default_factory=list)
    successors: list[Block] = field(default_factory=list)
    cold: bool = False

    @property
    def terminator(self) -> Value:
        return self.values[-1]

    def phis(self) -> Iterator[Value]:
        for value in self.values:
            if value.operation != "phi":
                return
            yield value


@dataclass(eq=False, slots=True)
class Function:
    """One compiled function. blocks[0] is the entry and has no predecessors."""

    symbol: str
    parameters: tuple[int, ...]  # widths
    results: tuple[int, ...]  # widths
    span: Span
    blocks: list[Block] = field(default_factory=list)
    assembly: Assembly | Kernel | None = None  # of a naked function or a kernel, which has no blocks

    def values(self) -> Iterator[Value]:
        for block in self.blocks:
            yield from block.values

    def renumber(self) -> None:
        for number, value in enumerate(self.values()):
            value.number = number


@dataclass(frozen=True, slots=True)
class Assembly:
    """A naked function's text; each {name} stands for an int, or an Address. place: where the text stands, and that line, for errors."""

    text: str
    names: tuple[tuple[str, int | Address], ...]
    place: tuple[Span, str] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's builder, as a dotted name, and a digest of the sources that it comes from."""

    builder: str
    sources: str


@dataclass(frozen=True, slots=True)
class DataObject:
    """A memory object of a program. content None: zeroed (BSS), size bytes; else read-only bytes."""

    symbol: str
    size: int
    align: int
    content: bytes | None = None


@dataclass(eq=False, slots=True)
class Module:
    """What the front end hands on: functions and objects by symbol, in a fixed order; entry symbols first."""

    functions: dict[str, Function] = field(default_factory=dict)
    objects: dict[str, DataObject] = field(default_factory=dict)
    supplied: dict[str, str] = field(default_factory=dict)  # symbol -> name in compile_program(supplied=...)


class IllegalIR(Exception):
    """The IR broke one of its rules: a defect of the compiler, never of a program."""


def verify(function: Function) -> None:
    """Check every rule of the IR; raise IllegalIR naming function, block and value.

    Rules: arity and widths fit the operation; phis first and one argument per predecessor; edges recorded at both ends; one terminator,
    last; every use is dominated by its definition; extracts in the block of their call.
    """
    from dsl.compiler.legality import Verifier  # kept apart: this file stays a screen of definitions

    Verifier(function).check()


def render(function: Function) -> str:
    """The function as text, one value a line: all of it but places in the source. For --dump, golden tests and the cache."""
    function.renumber()
    slots: dict[Slot, int] = {}
    text = f"function {function.symbol}({', '.join(map(str, function.parameters))}) -> {function.results}"
    lines = [text if function.assembly is None else f"{text} {function.assembly}"]
    for block in function.blocks:
        came = ", ".join(predecessor.label for predecessor in block.predecessors)
        lines.append(f"{block.label}:{'  ; from ' if came else ''}{came}{'  ; cold' if block.cold else ''}")
        for value in block.values:
            operands = [argument.name for argument in value.arguments]
            if isinstance(value.data, Slot):
                operands.append(f"{value.data} number {slots.setdefault(value.data, len(slots))}")
            elif value.data is not None:
                operands.append(str(value.data))
            operands += [successor.label for successor in block.successors] if value.operation in TERMINATORS else []
            left = f"{value.name}:{value.width} = " if value.width else ""
            lines.append(
                f"  {left}{value.operation} {', '.join(operands)}{'  ; secret' if value.secret else ''}".rstrip()
            )
    return "\n".join(lines) + "\n"
