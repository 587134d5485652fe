"""Secrets steer neither control flow nor addresses: the trace of blocks and memory accesses is one, whatever the secret."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Final

import pytest
from unicorn import x86_const as x86

from dsl.compiler.pipeline import compile_function
from dsl.lang import Array, Secret, declassify, frame_array, machine, secret, u8, u16, upto
from dsl.std.wipe import WIPED_SIZE
from tests.execution.emulated import ARGUMENTS, RESULTS, STACK, STACK_SIZE, Emulated
from tests.execution.traced import Tracer
from tests.std.secret_takers import ROOT, SECRETS, SHAPES, Arguments, functions, parameters, stream_of, takes_secret
from tests.worlds import program_of


@machine
def leaks_by_address(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Read where a secret says: what the test must find."""
    out[0] = out[declassify(key[0], "a planted leak") & 15]


@machine
def leaks_by_branch(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Branch on a secret: what the test must find."""
    if declassify(key[0], "a planted leak") & 1 == 1:
        out[0] = u8(1)


@machine
def leaks_one_value(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Branch where the last byte of a secret has one value of 256: what the test must find."""
    if declassify(key[key.length - 1], "a planted leak") == 0x37:
        out[0] = u8(1)


@machine
def leaks_by_size(out: Array[u8], key: Array[Secret[u8]]) -> None:
    """Read a word or a byte of it, as a secret says: what the test must find where both ways are one block."""
    if declassify(key[0], "a planted leak") & 1 == 1:
        out.store_u16(0, u16(1))
    else:
        out[0] = u8(1)


@machine
def leaves_a_secret(out: Array[Secret[u8]], key: Array[Secret[u8]]) -> None:
    """Copy a secret to a frame and leave it there: what the test must find."""
    frame = frame_array(Secret[u8], 32)
    frame.copy_from(key)
    for index in upto(out.length):
        out[index] = frame[index]


@machine
def does_not_leak(out: Array[Secret[u8]], key: Array[Secret[u8]]) -> None:
    """Compute on a secret without showing it."""
    out[0] = (key[0] ^ secret(u8(0x55))) + 1


FREE: Final = (*ARGUMENTS, *RESULTS, x86.UC_X86_REG_R11)
PLACE: Final = 0x4000_0000  # arguments in Unicorn
TAKERS: Final = functions()
DECLASSIFYING: Final = {  # what may leave more than one trace, and why
    "dsl.std.edwards25519.point_is_identity": "the point of a public key or a signature; the answer is public",
    "dsl.std.edwards25519.recover_x": "the same: whether a public encoding is a point",
    "boot.device.derive_monitor": "the identifier in the monitor's certificate is public, and its hex digits are read from a table",
}


class Traced:
    """One function in an emulated machine that is followed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.machine = Emulated(compile_function(function))
        self.machine.engine.mem_map(PLACE, 1 << 20)
        self.tracer = Tracer(self.machine.engine)

    def trace(self, key: bytes) -> tuple[int, int, int]:
        """What a run with this secret shows."""
        arguments = Arguments(self.function, key, PLACE)
        for address, content in arguments.buffers:
            self.machine.engine.mem_write(address, content)
        self.tracer.clear()
        ended = self.machine.call(self.machine.program.entry, arguments.components)
        assert ended != "stopped", (
            f"{self.function.__name__}: a failed check: does secret_takers.SHAPES need a row for it?"
        )
        assert self.tracer.count > 1
        return self.tracer.digest()

    def traces(self, count: int) -> set[tuple[int, int, int]]:
        """What runs with so many secrets show."""
        return {self.trace(stream_of(number)) for number in SECRETS[:count]}


@pytest.mark.t1
@pytest.mark.parametrize("symbol", [symbol for symbol in TAKERS if symbol not in DECLASSIFYING])
def test_one_trace(symbol: str) -> None:
    """A few secrets leave one trace."""
    assert len(Traced(TAKERS[symbol]).traces(3)) == 1


@pytest.mark.t1
@pytest.mark.slow
@pytest.mark.parametrize("symbol", [symbol for symbol in TAKERS if symbol not in DECLASSIFYING])
def test_one_trace_of_all_secrets(symbol: str) -> None:
    """258 secrets, every value of every byte among them, leave one trace."""
    assert len(Traced(TAKERS[symbol]).traces(len(SECRETS))) == 1


@pytest.mark.t1
@pytest.mark.parametrize("symbol", DECLASSIFYING)
def test_an_exception_is_one(symbol: str) -> None:
    """What is said to show something that is public does so."""
    assert len(Traced(TAKERS[symbol]).traces(3)) > 1


@pytest.mark.t0
def test_takers_are_found_by_what_they_take() -> None:
    """By a secret word, an array, a field of a Struct and one of a Record; a function of public things is none."""
    found = {symbol.rpartition(".")[2] for symbol in TAKERS}
    assert {
        "addend_negate_if",
        "hmac_update",
        "field_square",
        "pad_block",
        "derive_monitor",
        "write_endorsement",
    } <= found
    assert not {"ed25519_verify", "derive_identifier", "sha256", "fill_names"} & found
    assert all(takes_secret(function) for function in (leaks_by_address, leaks_by_branch, leaks_by_size))


@pytest.mark.t0
def test_no_row_of_the_shapes_is_left_over() -> None:
    """Each names a parameter that there is."""
    names = {name for function in TAKERS.values() for name in parameters(function)}
    names |= {f"{function.__name__}.{name}" for function in TAKERS.values() for name in parameters(function)}
    assert set(SHAPES) <= names


@pytest.mark.t1
@pytest.mark.parametrize(
    ("function", "count"),
    [(leaks_by_address, 16), (leaks_by_branch, 2), (leaks_one_value, 2), (leaks_by_size, 2), (does_not_leak, 1)],
)
def test_the_test_finds_leaks(function: Callable[..., Any], count: int) -> None:
    """Planted leaks by address, by branch, for one value of a byte and by an access's width are seen; their absence too."""
    assert len(Traced(function).traces(len(SECRETS))) == count


OUTSIDE: Final = ("boot", "vmm", "guests")


def asked_from_outside() -> list[str]:
    """The takers of dsl/std that other folders import."""
    found = set()
    for folder in OUTSIDE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dsl.std"):
                    found |= {f"{node.module}.{name.name}" for name in node.names}
    return sorted(found & set(TAKERS) | {"dsl.std.x25519.x25519"})  # which no program of the tree needs yet


def left_by(symbol: str, key: bytes) -> tuple[bytes, list[int]]:
    """The stack below the caller's, and the registers that are free, after a routine has worked on a secret."""
    machine = Emulated(program_of(TAKERS[symbol]))
    machine.engine.mem_map(PLACE, 1 << 20)
    machine.engine.mem_write(STACK, b"\xcc" * STACK_SIZE)
    arguments = Arguments(TAKERS[symbol], key, PLACE)
    for address, content in arguments.buffers:
        machine.engine.mem_write(address, content)
    assert machine.call(machine.program.entry, arguments.components) != "stopped"
    return machine.stack_below(), [machine.engine.reg_read(register) for register in FREE]


@pytest.mark.t1
@pytest.mark.parametrize("symbol", asked_from_outside())
def test_nothing_of_a_secret_is_left(symbol: str) -> None:
    """After each routine that others call on secrets: one stack, one set of registers for all; where it wipes, zeros as far as it went."""
    stacks, registers = zip(*(left_by(symbol, stream_of(number)) for number in SECRETS[:3]), strict=True)
    assert len(set(stacks)) == 1
    assert len(set(map(tuple, registers))) == 1
    if TAKERS[symbol].__machine__.wipes is not None:  # type: ignore[attr-defined]
        zeros = stacks[0].lstrip(b"\xcc")
        assert len(zeros) >= WIPED_SIZE
        assert not any(zeros)
        assert not any(registers[0])


@pytest.mark.t0
def test_who_is_asked_from_outside_wipes() -> None:
    """All but those that sign certificates, by a routine that wipes."""
    assert len(asked_from_outside()) == 10
    others = [symbol for symbol in asked_from_outside() if TAKERS[symbol].__machine__.wipes is None]  # type: ignore[attr-defined]
    assert others == [
        f"dsl.std.dice.write_{kind}" for kind in ("device_certificate", "endorsement", "layer_certificate")
    ]


@pytest.mark.t1
def test_the_stack_test_finds_what_is_left() -> None:
    """A routine that leaves its caller's secret in its frame is seen."""
    TAKERS["leaves_a_secret"] = leaves_a_secret
    try:
        assert len({left_by("leaves_a_secret", stream_of(number))[0] for number in SECRETS[:3]}) == 3
    finally:
        del TAKERS["leaves_a_secret"]
