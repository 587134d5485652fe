"""A secret steers nothing: the compiler's own passes are checked for it, and a planted bad pass is caught."""

from __future__ import annotations

import pytest

from dsl.compiler import ir, pipeline
from dsl.compiler.frontend import build_module
from dsl.compiler.inline import inline
from dsl.compiler.pipeline import compile_function
from dsl.compiler.secrets import SecretLeak, refuse_leaks, secret_values
from dsl.lang import Array, Secret, constant_time_select, declassify, machine, secret, u8, u64
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
