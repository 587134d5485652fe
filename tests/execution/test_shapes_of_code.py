"""Shapes of code that the selector and the inliner give on purpose, seen in the instructions; their results are CPython's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from dsl.compiler.pipeline import compile_function
from dsl.lang import Array, Machine, frame_array, machine, rotate_left, static_array, table, u8, u32, u64, upto
from tests.execution.native import Native

WORDS: Final = table(u32, [number * 0x01010101 % (1 << 32) for number in range(768)])
STATE: Final = static_array(u64, 4)


@machine
def looked_up(word: u64, turns: u64) -> u64:
    """Rows of a table at sums of 32 bits, which cannot wrap."""
    mixed = u32(0)
    low = word.truncate(u32)
    for _ in upto(turns & 3):
        mixed ^= WORDS[256 + (low & 0xFF)] ^ WORDS[512 + (low >> 24)]
        low ^= mixed
    return u64(mixed)


@machine
def stepped(word: u64, turns: u64) -> u64:
    """A state in memory that every turn reads and writes."""
    STATE[0] = word
    STATE[1] = turns
    for _ in upto(turns & 15):
        STATE[0] ^= rotate_left(STATE[1] + STATE[0], 7)
        STATE[1] ^= rotate_left(STATE[0], 9)
    return STATE[0] * 5 + STATE[1] * 9


@machine
def rewritten(word: u64, turns: u64) -> u64:
    """Stores that are overwritten unseen, and one that a check may show."""
    STATE[2] = word
    STATE[3] = turns
    STATE[2] ^= STATE[3]
    STATE[3] += STATE[2]
    STATE[2] *= 7
    assert STATE[3] != 77, "seen"
    STATE[3] = word
    return STATE[2]


@machine
def stirred(words: Array[u32], a: u64, b: u64, c: u64, d: u64) -> None:
    """Too large to inline, but for what constants among the arguments decide."""
    words[a] += words[b]
    words[d] = rotate_left(words[d] ^ words[a], 16)
    words[c] += words[d]
    words[b] = rotate_left(words[b] ^ words[c], 12)
    words[a] += words[b]
    words[d] = rotate_left(words[d] ^ words[a], 8)
    words[c] += words[d]
    words[b] = rotate_left(words[b] ^ words[c], 7)


@machine
def rounds_of(word: u64, turns: u64) -> u64:
    words = frame_array(u32, 8)
    words[0] = word.truncate(u32)
    words[5] = (word >> 32).truncate(u32)
    for _ in upto(turns & 7):
        stirred(words, u64(0), u64(1), u64(2), u64(3))
        stirred(words, u64(4), u64(5), u64(6), u64(7))
        stirred(words, u64(0), u64(5), u64(2), u64(7))
    return u64(words[0]) << 32 | u64(words[7])


@machine
def rounds_anywhere(word: u64, turns: u64) -> u64:
    """The same where no index is a constant."""
    words = frame_array(u32, 8)
    words[0] = word.truncate(u32)
    for i in upto(turns & 3):
        stirred(words, i, i + 1, i + 2, i + 3)
        stirred(words, i + 4, i + 3, i, i + 2)
    return u64(words[0]) << 32 | u64(words[3])


@machine
def substituted(word: u32) -> u32:
    """Small enough to inline, once its indexes need no check."""
    return (
        WORDS[word & 0xFF]
        ^ rotate_left(WORDS[word >> 8 & 0xFF], 8)
        ^ rotate_left(WORDS[word >> 16 & 0xFF], 16)
        ^ rotate_left(WORDS[word >> 24], 24)
        ^ u32(u8(7))
    )


@machine
def ciphered(word: u64, turns: u64) -> u64:
    low = word.truncate(u32)
    high = (word >> 32).truncate(u32)
    for _ in upto(turns & 7):
        low ^= substituted(high)
        high ^= substituted(low)
    return u64(low) << 32 | u64(high)


FUNCTIONS: Final = (looked_up, stepped, rewritten, rounds_of, rounds_anywhere, ciphered)


@pytest.mark.t1
@pytest.mark.parametrize("options", [{}, {"disable": ("checks",)}, {"disable": ("number",)}, {"pool": 4}], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_results_are_those_of_cpython(function: Callable[[u64, u64], u64], options: dict[str, Any]) -> None:
    program = compile_function(function, verify=True, **options)
    native = Native(program)
    for word, turns in ((0, 1), (0x0123_4567_89AB_CDEF, 7), (2**64 - 1, 2**64 - 1), (0x8000_0000_FF00_0001, 5)):
        with Machine():
            expected = int(function(u64(word), u64(turns)))
        assert native.call(program.entry, [word, turns])[0] == expected


def lines_of(function: Any) -> list[str]:
    return [line.text for _, line in compile_function(function).linked.lines]


@pytest.mark.t1
def test_a_sum_that_cannot_wrap_goes_into_the_address() -> None:
    """The rows that a table begins with are a displacement."""
    found = " ".join(lines_of(looked_up))
    assert "+ 0x400]" in found
    assert "+ 0x800]" in found


@pytest.mark.t1
def test_what_a_block_stores_to_it_loads_by_a_plain_move() -> None:
    """Processors hand on a stored word to such a move at once; and products by 5 and 9 are addresses."""
    found = lines_of(stepped)
    assert not [text for text in found if text.startswith(("add", "xor", "imul")) and "[" in text]
    assert sum(text.startswith("lea") and ("*4]" in text or "*8]" in text) for text in found) == 2


@pytest.mark.t1
def test_constants_and_proved_checks_make_a_function_small() -> None:
    """Nothing is called where constants decide, or where no check is left; something is where they do not."""
    assert not any(text.startswith("call") for text in lines_of(rounds_of) + lines_of(ciphered))
    assert any(text.startswith("call") for text in lines_of(rounds_anywhere))


@pytest.mark.t1
def test_what_is_overwritten_unseen_is_not_stored() -> None:
    """Of six stores to two words three are left: one to each before the check, and the one behind it."""
    assert sum(text.startswith("mov qword ptr [rip") for text in lines_of(rewritten)) == 3
