"""A secret steers nothing: the compiler's own passes are checked for it, and a planted bad pass is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from dsl.compiler import ir, pipeline
from dsl.compiler.allocate import Location, allocate
from dsl.compiler.frontend import build_module
from dsl.compiler.inline import inline
from dsl.compiler.machine import RAX, RCX, RDX, RSP, Instruction, MachineFunction, Memory, Register, Spill, Trap
from dsl.compiler.pipeline import compile_function
from dsl.compiler.secrets import SecretLeak, refuse_leaks, secret_values
from dsl.compiler.select import select
from dsl.lang import (
    Array,
    Secret,
    as_secret,
    constant_time_select,
    declassify,
    declassify_array,
    machine,
    rotate_left,
    secret,
    u8,
    u64,
    upto,
)
from tests.compiler import programs


@machine
def select_byte(flag: Secret[u64], bytes: Array[Secret[u8]]) -> Secret[u8]:
    """A select by masks on secrets from memory and from a parameter."""
    return constant_time_select(flag, bytes[0], bytes[1])


@machine
def declassified(flag: Secret[u64]) -> u64:
    """A branch on what is no secret any more."""
    if declassify(flag & 1, "a test") == 0:
        return u64(5)
    return u64(6)


@machine
def both_views(bytes: Array[Secret[u8]], public: Array[u8]) -> u64:
    """One memory, seen as secret and as public, in both orders, also through a store."""
    hidden = bytes[0]
    shown = declassify_array(bytes, "a test")
    if shown[0] == 3:
        return u64(1)
    seen = public[1]
    mixed = as_secret(public)[1] ^ hidden ^ seen
    bytes[2] = mixed
    return u64(7) if shown[2] == 9 else u64(declassify(mixed, "a test"))


def replace_by_branch(function: ir.Function) -> None:
    """A bad optimiser: where a secret is combined by exclusive or, it branches on it first."""
    entry = function.blocks[0]
    secrets = secret_values(function)
    found = next((value for value in entry.values if value in secrets and value.operation == "xor"), None)
    if found is None:
        return
    split = entry.values.index(found) + 1
    after = ir.Block("after", entry.values[split:], [], entry.successors)
    arm = ir.Block("arm", [], [entry], [after])
    for value in after.values:
        value.block = after
    for successor in after.successors:
        successor.predecessors = [after if block is entry else block for block in successor.predecessors]
    arm.values.append(ir.Value("jump", 0, [], None, found.span, arm))
    is_odd = ir.Value("trunc", 1, [found], None, found.span, entry)
    entry.values[split:] = [is_odd, ir.Value("branch", 0, [is_odd], None, found.span, entry)]
    entry.successors = [arm, after]
    after.predecessors = [arm, entry]
    function.blocks[1:1] = [arm, after]


def test_a_load_is_not_taken_for_one_of_another_taint() -> None:
    """Memory seen as public is branched on, memory seen as secret stays secret: loads of one place are not merged across that."""
    module = build_module(both_views)
    (function,) = module.functions.values()
    pipeline.optimise(function)
    loads = [value for value in function.values() if value.operation == "load"]
    assert [value.secret for value in loads].count(True) == 2
    assert [value.secret for value in loads].count(False) == 3


@pytest.mark.parametrize("function", [select_byte, declassified, programs.secrets])
def test_the_compiler_s_passes_leak_nothing(function: object) -> None:
    """Legal programs compile, and their IR is found to hold secrets: the check had something to look at."""
    module = build_module(function)  # type: ignore[arg-type]
    assert any(secret_values(compiled) for compiled in module.functions.values())
    compile_function(function)


@pytest.mark.parametrize("after", list(pipeline.PASSES))
def test_a_planted_branch_is_caught_after_any_pass(after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that branches on a secret makes the compilation fail, wherever it stands."""
    honest = pipeline.PASSES[after]

    def planted(function: ir.Function) -> None:
        honest(function)
        replace_by_branch(function)

    monkeypatch.setitem(pipeline.PASSES, after, planted)
    with pytest.raises(SecretLeak, match=r"branch at .*depends on a secret"):
        compile_function(select_byte)


def test_an_address_from_a_secret_is_caught() -> None:
    """A load whose address depends on a secret parameter."""
    function = build_module(select_byte).functions[f"{__name__}.select_byte"]
    loads = [value for value in function.values() if value.operation == "load"]
    flag = next(value for value in function.values() if value.operation == "parameter" and value.secret)
    loads[0].arguments[0] = flag
    with pytest.raises(SecretLeak, match="load at"):
        refuse_leaks(function)


def test_secret_marks_survive_inlining() -> None:
    """What a called function loads as a secret is still one after inlining."""
    module = build_module(caller)
    inline(module)
    (function,) = module.functions.values()
    assert any(value.secret and value.operation == "load" for value in function.values())


@machine
def caller(bytes: Array[Secret[u8]]) -> Secret[u8]:
    """Calls a function that loads secrets."""
    return select_byte(secret(u64(1)), bytes)


# After register allocation

TRAP = Trap("planted.py", 1)
Planting = Callable[[Register], list[Instruction]]
PLANTED: Final[dict[str, Planting]] = {
    "jne": lambda r: [Instruction("test", (r, r)), Instruction("jne", (TRAP,))],
    "jb": lambda r: [Instruction("cmp", (r, 5)), Instruction("mov", (r, 1)), Instruction("jb", (TRAP,))],
    "the address in mov": lambda r: [Instruction("mov", (r, Memory(64, base=r.number)))],
    "the address in add": lambda r: [Instruction("add", (Memory(64, base=RSP, index=r.number), 1))],
    "div": lambda r: [Instruction("div", (r,), inputs=((RAX, 7), (RDX, 0)), clobbers=(RAX, RDX))],
    "idiv": lambda r: [Instruction("idiv", (Register(RSP, 64),), inputs=((RAX, r),), clobbers=(RAX, RDX))],
    "out dx, al": lambda r: [Instruction("TEMPLATE", (), inputs=((RAX, r), (RDX, 0x80)), template="out dx, al")],
    "rep stosb": lambda r: [Instruction("TEMPLATE", (), inputs=((RCX, r), (RAX, 0)), template="rep stosb")],
}
HARMLESS: Final[dict[str, Planting]] = {
    "lea": lambda r: [Instruction("lea", (r, Memory(64, base=r.number, index=r.number, scale=2)))],
    "fill": lambda r: [Instruction("TEMPLATE", (), inputs=((RAX, r), (RCX, 8)), template="rep stosb")],
    "zeroed": lambda r: [Instruction("xor", (r, r)), Instruction("test", (r, r)), Instruction("jne", (TRAP,))],
    "overwritten": lambda r: [Instruction("mov", (r, 3)), Instruction("cmp", (r, 5)), Instruction("jb", (TRAP,))],
    "select": lambda r: [Instruction("test", (r, r)), Instruction("cmove", (r, r))],
    "text": lambda r: [Instruction("test", (r, r)), Instruction("TEMPLATE", template="pause")],
}


@machine
def mixed(key: Array[Secret[u64]]) -> Secret[u64]:
    """More secrets at a time than a small pool has registers."""
    a, b, c, d, e, f = key[0], key[1], key[2], key[3], key[4], key[5]
    for _ in upto(3):
        a, b, c, d, e, f = rotate_left(b ^ f, 7), c + a, d ^ b, e + c, f ^ d, a + e
    return a ^ b ^ c ^ d ^ e ^ f


def plant_after(
    monkeypatch: pytest.MonkeyPatch, wanted: Callable[[MachineFunction, Instruction], bool], planting: Planting
) -> None:
    """Have the allocator's result changed: behind the first instruction of a kind whose register holds a secret."""

    def planted(function: MachineFunction, pool: int | None = None) -> dict[int, Location]:
        locations = allocate(function, pool)
        for block in function.blocks:
            for index, instruction in enumerate(block.instructions):
                if wanted(function, instruction):
                    target = instruction.operands[0]
                    assert isinstance(target, Register)
                    place = locations[target.number]
                    assert isinstance(place, int)
                    block.instructions[index + 1 : index + 1] = planting(Register(place, 64))
                    return locations
        raise AssertionError("nowhere to plant")

    monkeypatch.setattr(pipeline, "allocate", planted)


def brings_a_secret(function: MachineFunction, instruction: Instruction) -> bool:
    """A load of one."""
    first = instruction.operands[:1]
    return instruction.mnemonic == "mov" and isinstance(first[0], Register) and first[0].number in function.secrets


def comes_of_a_spilled_secret(function: MachineFunction, instruction: Instruction) -> bool:
    """A load from the frame of what only comes of secrets."""
    return (
        instruction.mnemonic == "mov"
        and isinstance(instruction.operands[1], Memory)
        and isinstance(instruction.operands[1].place, Spill)
        and instruction.operands[1].place.number not in function.secrets
    )


@pytest.mark.parametrize("kind", PLANTED)
def test_a_leak_planted_after_allocation_is_caught(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By flags, also across an instruction that leaves them, by address, by a division, by an intrinsic."""
    plant_after(monkeypatch, brings_a_secret, PLANTED[kind])
    with pytest.raises(SecretLeak, match=rf"{kind} at .*depends on a secret after register allocation"):
        compile_function(mixed)


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_shows_nothing_passes_after_allocation(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic in lea, a secret as what memory is filled with, a register that was overwritten, a select, flags before a text."""
    plant_after(monkeypatch, brings_a_secret, HARMLESS[kind])
    compile_function(mixed)


def test_a_secret_is_followed_through_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pool of four what comes of secrets is spilled; a branch on it, reloaded, is caught."""
    plant_after(monkeypatch, comes_of_a_spilled_secret, PLANTED["jne"])
    with pytest.raises(SecretLeak, match="jne at"):
        compile_function(mixed, pool=4)


def test_what_is_declassified_may_steer_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the mark that selection leaves, the branch on a declassified value is a leak."""
    compile_function(declassified)
    honest = select

    def forgetful(function: ir.Function) -> MachineFunction:
        made = honest(function)
        made.declassified.clear()
        return made

    monkeypatch.setattr(pipeline, "select", forgetful)
    with pytest.raises(SecretLeak, match="after register allocation"):
        compile_function(declassified)


def test_results_of_calls_and_folded_loads_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that comes from a call that was not inlined; one that is read as an operand in memory."""
    seen: list[tuple[set[int], int]] = []

    def looking(function: MachineFunction, locations: dict[int, Location]) -> None:
        operands = [o for block in function.blocks for i in block.instructions for o in i.operands]
        seen.append((function.secrets, sum(isinstance(o, Memory) and o.secret for o in operands)))

    monkeypatch.setattr(pipeline, "refuse_machine_leaks", looking)
    compile_function(caller, disable=("inline",))
    assert all(secrets for secrets, _ in seen)
    seen.clear()
    compile_function(folding)
    assert [folded for _, folded in seen] == [1]


@machine
def folding(key: Array[Secret[u64]], other: Secret[u64]) -> Secret[u64]:
    """A load that becomes an operand."""
    return other ^ key[0]
