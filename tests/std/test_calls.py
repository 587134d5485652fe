"""Each routine works where every call in it changes all registers that a call may change, on a stack that held something else before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from dsl.lang import asm, machine, u64
from dsl.std.ed25519 import ed25519_verify
from tests.execution.emulated import STACK, STACK_SIZE, Emulated
from tests.std.secret_takers import Arguments
from tests.std.spoiled import results_of, spoil_after_calls
from tests.std.test_contracts import ALL_SHAPES, KEYS, TRIED
from tests.std.vectors import ed25519_signatures
from tests.worlds import program_of

PLACE: Final = 0x4000_0000
Outcome = tuple[tuple[int, ...], list[bytes]]
EXPECTED: Final[dict[str, Outcome]] = {}


def outcome(
    function: Callable[..., Any], buffers: list[tuple[int, bytes]], components: list[int], is_spoilt: bool
) -> Outcome:
    """A function's results, and what is in the buffers after its call."""
    machine = Emulated(program_of(function))
    machine.engine.mem_map(PLACE, 1 << 20)
    for address, content in buffers:
        machine.engine.mem_write(address, content)
    if is_spoilt:
        machine.engine.mem_write(STACK, b"\x3c" * STACK_SIZE)
        spoil_after_calls(machine)
    results = machine.call(machine.program.entry, components)
    assert not isinstance(results, str)
    return results[: results_of(machine.program.entry)], [
        machine.read(address, len(content)) for address, content in buffers
    ]


def both_ways(name: str, function: Callable[..., Any], buffers: list[tuple[int, bytes]], components: list[int]) -> None:
    """The outcome is the one that was found when the first test asked, without spoiling."""
    if name not in EXPECTED:
        EXPECTED[name] = outcome(function, buffers, components, is_spoilt=False)
    assert outcome(function, buffers, components, is_spoilt=True) == EXPECTED[name]


@pytest.mark.t1
@pytest.mark.parametrize("symbol", TRIED)
def test_nothing_is_expected_of_registers_that_a_call_may_change(symbol: str) -> None:
    """Results and memory are as they are otherwise."""
    arguments = Arguments(TRIED[symbol], KEYS[0], PLACE, ALL_SHAPES)
    both_ways(symbol, TRIED[symbol], arguments.buffers, arguments.components)


@pytest.mark.t1
def test_the_same_of_a_good_signature() -> None:
    """It is taken: all of verification runs."""
    vector = ed25519_signatures()[3]
    contents = (vector.public_key, vector.message, vector.signature)
    buffers = [(PLACE + 4096 * number, content) for number, content in enumerate(contents)]
    components = [word for address, content in buffers for word in (address, len(content))]
    both_ways("a good signature", ed25519_verify, buffers, components)
    assert EXPECTED["a good signature"][0][0] & 0xFF == 1


@machine
def callee(value: u64) -> u64:
    """A call whose argument's register is left alone."""
    return value * 3 if value > 5 else value // 7 + (value ^ 5) % 11 * 3 + (value & 12) // 5 + (value >> 3) % 13


@machine(naked=True)
def counts_on_rdi(value: u64) -> u64:
    """What the test must find."""
    asm("push rbx; call {callee}; mov rax, rdi; pop rbx; ret", callee=callee)


@pytest.mark.t1
def test_what_counts_on_a_register_is_found() -> None:
    assert outcome(counts_on_rdi, [], [77], is_spoilt=False) == ((77,), [])
    assert outcome(counts_on_rdi, [], [77], is_spoilt=True) != ((77,), [])
