"""A simd region gives the XMM registers back as they were, and its arguments and results pass through it."""

from __future__ import annotations

from typing import Final

import pytest
from unicorn import x86_const as x86

from dsl.compiler.diagnostics import CompileError
from dsl.compiler.pipeline import compile_function
from dsl.lang import Array, Record, Secret, asm, machine, u8, u64
from tests.execution.emulated import Emulated
from tests.worlds import Native, Unicorn

pytestmark = pytest.mark.t1
XMM = [getattr(x86, f"UC_X86_REG_XMM{number}") for number in range(16)]

SPOIL: Final = "; ".join(["movq xmm0, rsp", *(f"movaps xmm{number}, xmm0" for number in range(1, 16)), "ret"])


class Three(Record):
    """Several results."""

    first: u64
    second: u64
    third: u64


@machine(naked=True)
def spoil() -> None:
    """Sets every XMM register."""
    asm(SPOIL)


@machine(simd=True)
def six(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> Three:
    """As many words as a region takes."""
    spoil()
    return Three(a + b * 3, c ^ d, e - f)


@machine
def around(a: u64, data: Array[u8]) -> u64:
    """Calls a region, which inlining leaves alone."""
    found = six(a, a + 1, a + 2, a + 3, a + 4, a + 5)
    return found.first ^ found.second ^ (found.third << 8) ^ u64(data[0])


@machine
def spoils() -> u64:
    """Outside a region."""
    spoil()
    return u64(0)


@machine(simd=True)
def too_many(data: Array[u8], more: Array[u8], key: Secret[u64], last: Array[u8]) -> None:
    """Seven words."""


def registers_after(function: object, symbol: str) -> list[int]:
    """XMM0 to XMM15 after a call that found canaries in them."""
    program = compile_function(function)
    emulated = Emulated(program)
    for number, register in enumerate(XMM):
        emulated.engine.reg_write(register, canary(number))
    assert emulated.call(symbol, [1, 2, 3, 4, 5, 6]) != "stopped"
    return [emulated.engine.reg_read(register) for register in XMM]


def canary(number: int) -> int:
    return (0xA5A5_0000_1234_0000 + number) << 64 | (0x5A5A_0000_4321_0000 + number)


def test_what_a_guest_had_in_xmm_registers_stays() -> None:
    """All sixteen, though the body sets them; without a region they are gone."""
    expected = [canary(number) for number in range(16)]
    assert registers_after(six, f"{__name__}.six") == expected
    assert not set(registers_after(spoils, f"{__name__}.spoils")) & set(expected)


@pytest.mark.parametrize("options", [{}, {"disable": ("inline",)}])
def test_arguments_and_results_pass_through(options: dict[str, object]) -> None:
    a = 1 << 40
    expected = (a + (a + 1) * 3) ^ ((a + 2) ^ (a + 3)) ^ (((a + 4) - (a + 5)) << 8 & (1 << 64) - 1) ^ 7
    assert Unicorn()(around, a, b"\7") == Native()(around, a, b"\7") == expected % (1 << 64)
    assert f"{__name__}.six.body" in compile_function(around, **options).symbols


def test_more_than_six_words_are_refused() -> None:
    with pytest.raises(
        CompileError, match=r"error\[signature\]: expected at most 6 words of arguments in a simd region, found 7"
    ):
        compile_function(too_many)


def test_a_region_has_a_body() -> None:
    with pytest.raises(TypeError, match="a simd region is a function with a body of its own"):
        machine(naked=True, simd=True)(spoils)
