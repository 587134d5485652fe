"""Arguments and results pass through regions: a simd region gives the XMM registers back as they were, a wiping one leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from unicorn import x86_const as x86

from dsl.compiler.diagnostics import CompileError
from dsl.compiler.pipeline import compile_function
from dsl.lang import Array, Failure, Record, Secret, asm, frame_array, machine, secret, u8, u64, upto
from tests.execution.emulated import ARGUMENTS, STACK, STACK_SIZE, TOP, Emulated
from tests.worlds import CPython, Native, Unicorn

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


@pytest.mark.parametrize(
    "options", [{"naked": True, "simd": True}, {"kernel": "a.b", "wipes": 8}, {"simd": True, "wipes": 8}]
)
def test_a_region_has_a_body(options: Any) -> None:
    """And is of one kind."""
    with pytest.raises(TypeError, match="spoils: a region is of one kind, around a function with a body of its own"):
        machine(**options)(spoils)


@machine(wipes=256)
def three_more(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, data: Array[Secret[u8]]) -> u64 | Failure:
    """Three words on the stack, two results; a copy of the data in its frame."""
    copied = frame_array(Secret[u8], 16)
    copied.copy_from(data)
    total = secret(u64(0))
    for index in upto(2):
        total += copied.load_u64(index * 8)
    data.store_u64(0, total)
    if a > f:
        return Failure(9)
    return a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7


@machine(wipes=64)
def two_more(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: Secret[u64], data: Array[Secret[u8]]) -> u64:
    """As many words as before but one result."""
    data.store_u64(8, g)
    return a ^ f


@machine(wipes=128)
def no_result(data: Array[Secret[u8]]) -> None:
    """What it computes is in the data alone."""
    copied = frame_array(Secret[u8], 16)
    copied.copy_from(data)
    data.store_u64(8, copied.load_u64(0) * copied.load_u64(8))


@machine
def around_wiping(a: u64, data: Array[Secret[u8]]) -> u64:
    """Calls a wiping region, which inlining leaves alone."""
    no_result(data)
    found = three_more(a, a + 1, a + 2, a + 3, a + 4, a + 5, a + 6, data)
    return u64(0) if isinstance(found, Failure) else found


@machine(wipes=8)
def three_results(a: u64) -> Three:
    """One more than it hands on."""
    return Three(a, a, a)


@pytest.mark.parametrize(
    ("function", "size", "words", "results"),
    [
        (three_more, 256, [1, 2, 3, 4, 5, 6, 7], (0, 140)),
        (three_more, 256, [7, 2, 3, 4, 5, 6, 7], (9, 0)),
        (two_more, 64, [1, 2, 3, 4, 5, 8, 7], (9,)),
        (no_result, 128, [], ()),
    ],
)
def test_a_wiping_region_leaves_nothing(
    function: Callable[..., Any], size: int, words: list[int], results: tuple[int, ...]
) -> None:
    """So many zero bytes below the caller's stack pointer, and nothing below those; zero in the registers that are not results."""
    emulated = Emulated(compile_function(function))
    place = TOP + 0x100
    emulated.engine.mem_write(STACK, b"\xcc" * STACK_SIZE)
    emulated.engine.mem_write(place, b"\x5a" * 16)
    found = emulated.call(emulated.program.entry, [*words, place, 16])
    assert found[: len(results)] == results
    assert emulated.stack_below() == b"\xcc" * (TOP - STACK - size) + bytes(size)
    assert emulated.read(place, 16) != b"\x5a" * 16
    assert emulated.read(place + 16, 16) == b"\xcc" * 16
    free = [x86.UC_X86_REG_RAX, *ARGUMENTS, x86.UC_X86_REG_R10, x86.UC_X86_REG_R11]
    kept = (x86.UC_X86_REG_RAX, x86.UC_X86_REG_RDX)[: len(results)]
    assert not any(emulated.engine.reg_read(register) for register in free if register not in kept)


@pytest.mark.parametrize("options", [{}, {"disable": ("inline",)}])
def test_words_pass_through_a_wiping_region(options: dict[str, object]) -> None:
    """Those on the stack too, in both worlds, and under CPython."""
    data = bytes(range(16))
    found = [world(around_wiping, 5, bytearray(data)) for world in (CPython(), Native(), Unicorn())]
    assert found == [sum((5 + n) * (n + 1) for n in range(7))] * 3
    assert f"{__name__}.three_more.body" in compile_function(around_wiping, **options).symbols


def test_more_than_two_words_of_results_are_refused() -> None:
    with pytest.raises(
        CompileError, match=r"error\[signature\]: expected at most 2 words of results in a wiping region"
    ):
        compile_function(three_results)


@pytest.mark.parametrize("size", [0, -8, 12, True, 8.0])
def test_what_is_wiped_is_whole_words(size: Any) -> None:
    with pytest.raises(TypeError, match=r"wipes=.*: expected a positive multiple of 8"):
        machine(wipes=size)(spoils)
