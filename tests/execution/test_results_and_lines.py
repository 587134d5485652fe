"""Programs whose results, memory and lines of failed checks are compared in every world, as those of random programs are."""

from __future__ import annotations

import random
import sys
from typing import Any, Final

import pytest

from dsl.lang import Array, between, machine, static_array, table, u8, u16, u64, upto
from tests.execution.support import OPTIONS, name_of
from tests.random_programs.agreement import Counts, check_calls
from tests.random_programs.subject import Call, Subject

BYTES: Final = table(u8, random.Random(16).randbytes(1 << 16))
WORDS: Final = static_array(u64, 16)
GIVEN: Final = static_array(u64, 4)


@machine
def two_widths(start: u64, turns: u64) -> u64:
    """A turn reads where the one before it read, but by more bits of the same word."""
    word = start
    total = u64(BYTES[u64(word.truncate(u16))])
    for turn in upto(turns & 7):
        total += u64(BYTES[u64(word.truncate(u16))]) * 7 + turn
        word = word * 3 + 1
        total += u64(BYTES[u64(word.truncate(u8))])
    return total


@machine
def element(array: Array[u64], index: u64) -> u64:
    """Its check is on this line, wherever it is inlined."""
    return array[index]


@machine
def two_lines(bounds: u64, lengths: u64) -> u64:
    """Checks of two lines take turns, and the first to fail is between others of its line."""
    total = u64(0)
    first = WORDS.slice(u64(0), lengths & 7)
    second = WORDS.slice(u64(8), lengths >> 3 & 7)
    for index in between(bounds >> 4 & 3, bounds & 15):
        total += element(first, index)
        total += second[index]
        total += element(first, index + 1)
        total += element(first, index - 1)
    return total


@machine
def everything() -> None:
    """Names all of them."""
    _ = two_widths(GIVEN[0], GIVEN[1]) + two_widths(GIVEN[2], GIVEN[3])
    _ = two_lines(GIVEN[0], GIVEN[1]) + two_lines(GIVEN[2], GIVEN[3])


@pytest.mark.t1
@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("entry", ["two_widths", "two_lines"])
def test_all_worlds_agree(entry: str, options: dict[str, Any]) -> None:
    """On results, what memory holds, and the line that fails."""
    subject = Subject(sys.modules[__name__])
    source = random.Random(entry)
    calls = [
        Call(entry, {name: source.randrange(1 << 12) for name in subject.parameters(entry)}, seed) for seed in range(40)
    ]
    counts = Counts()
    assert check_calls(subject, calls, options, counts) is None
    assert counts.calls > counts.stopped
