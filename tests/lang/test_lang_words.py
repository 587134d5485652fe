"""Words compute modulo their width, refuse to mix, and convert only where no value is lost."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsl.lang import CheckFailed, Failure, HostVirtual, i8, i16, i32, i64, u8, u16, u32, u64
from dsl.lang.words import WORDS

UNSIGNED: list[Any] = [u8, u16, u32, u64]
SIGNED: list[Any] = [i8, i16, i32, i64]
ALL: list[Any] = list(WORDS)
BINARY: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.and_,
    operator.or_,
    operator.xor,
]
COMPARISONS: list[Callable[[Any, Any], Any]] = [
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
]


def reduce(word: Any, number: int) -> int:
    """The number that word holds for this one: its residue in the word's range, found without the word's own arithmetic."""
    residue: int = number % 2**word.width
    return residue - 2**word.width if word.signed and residue >= 2 ** (word.width - 1) else residue


@st.composite
def pairs(draw: st.DrawFn, words: list[Any]) -> tuple[Any, int, int]:
    """A word class and two numbers in its range, often at its edges."""
    word = draw(st.sampled_from(words))
    low, high = reduce(word, 2 ** (word.width - 1)) if word.signed else 0, 2 ** (word.width - word.signed) - 1
    numbers = st.one_of(st.integers(low, high), st.sampled_from([low, low + 1, 0, 1, high - 1, high]))
    return word, draw(numbers), draw(numbers)


@given(pairs(ALL), st.sampled_from(BINARY))
def test_arithmetic_wraps(pair: tuple[Any, int, int], operation: Callable[[Any, Any], Any]) -> None:
    """Every operator is the integers' own, reduced to the width; a literal on either side takes the other's type."""
    word, a, b = pair
    expected = reduce(word, operation(a, b))
    for result in (operation(word(a), word(b)), operation(word(a), b), operation(a, word(b))):
        assert type(result) is word
        assert int(result) == expected


@given(pairs(ALL), st.sampled_from(COMPARISONS))
def test_comparisons(pair: tuple[Any, int, int], operation: Callable[[Any, Any], Any]) -> None:
    """Comparisons are the integers' own and give a bool."""
    word, a, b = pair
    assert operation(word(a), word(b)) is operation(a, b)
    assert operation(word(a), b) is operation(a, b)
    assert operation(a, word(b)) is operation(a, b)


@given(pairs(ALL), st.integers(0, 63))
def test_shifts(pair: tuple[Any, int, int], count: int) -> None:
    """Shifts below the width are the integers' own; at the width a variable count fails a check, a literal one is refused."""
    word, a, _ = pair
    for counter in UNSIGNED:
        if count < word.width:
            assert int(word(a) << counter(count)) == reduce(word, a << count)
            assert int(word(a) >> counter(count)) == a >> count
            assert int(word(a) >> count) == a >> count
        else:
            with pytest.raises(CheckFailed):
                word(a) << counter(count)
            with pytest.raises(CheckFailed):
                word(a) >> counter(count)
            with pytest.raises(ValueError, match="shift"):
                word(a) << count


@given(pairs(UNSIGNED))
def test_unsigned_division(pair: tuple[Any, int, int]) -> None:
    """Unsigned // and % are the integers' own; by zero they fail a check."""
    word, a, b = pair
    if b == 0:
        with pytest.raises(CheckFailed, match="division by zero"):
            word(a) // word(b)
        with pytest.raises(CheckFailed, match="division by zero"):
            a % word(b)
    else:
        assert int(word(a) // word(b)) == a // b
        assert int(word(a) % b) == a % b
        assert int(a // word(b)) == a // b


@given(pairs(ALL))
def test_unary(pair: tuple[Any, int, int]) -> None:
    """~ complements every word; - negates signed ones, the lowest to itself."""
    word, a, _ = pair
    assert int(~word(a)) == reduce(word, ~a)
    if word.signed:
        assert int(-word(a)) == reduce(word, -a)
    else:
        with pytest.raises(TypeError):
            -word(a)


@pytest.mark.parametrize("left", ALL)
@pytest.mark.parametrize("right", ALL)
def test_widths_do_not_mix(left: Any, right: Any) -> None:
    """Two different words meet in no operator but as a shift's count."""
    if left is right:
        return
    for operation in (*BINARY, *COMPARISONS, operator.floordiv, operator.mod):
        with pytest.raises(TypeError):
            operation(left(1), right(1))


@pytest.mark.parametrize("stranger", [True, 1.0, "1", None, HostVirtual(1), Failure(1), b"1"])
def test_strangers_do_not_mix(stranger: Any) -> None:
    """A bool, a float, a text, an address or a Failure beside a word is a TypeError."""
    for operation in (*BINARY, *COMPARISONS, operator.lshift):
        with pytest.raises(TypeError):
            operation(u64(1), stranger)


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("target", ALL)
def test_conversion_keeps_values(source: Any, target: Any) -> None:
    """A word converts to another exactly if all its values fit there."""
    fits = reduce(target, source.lowest) == source.lowest and reduce(target, source.highest) == source.highest
    for number in (source.lowest, 0, 1, source.highest):
        if fits:
            assert int(target(source(number))) == number
        else:
            with pytest.raises(TypeError, match="only widens"):
                target(source(number))


@pytest.mark.parametrize("word", ALL)
def test_literals_must_fit(word: Any) -> None:
    """A literal one beyond either end is refused, alone and as an operand; the ends and bools are taken."""
    assert int(word(word.lowest)) == word.lowest
    assert int(word(word.highest)) == word.highest
    assert int(word(True)) == 1
    for number in (word.lowest - 1, word.highest + 1):
        with pytest.raises(ValueError, match="does not fit"):
            word(number)
        with pytest.raises(ValueError, match="does not fit"):
            word(1) + number
        with pytest.raises(ValueError, match="does not fit"):
            assert word(1) == number


@given(pairs(ALL))
def test_truncate_and_sign(pair: tuple[Any, int, int]) -> None:
    """Truncation keeps the low bits and the sign of the type; as_signed and as_unsigned keep all bits."""
    word, a, _ = pair
    for target in ALL:
        if target.signed == word.signed and target.width < word.width:
            assert int(word(a).truncate(target)) == reduce(target, a)
            assert type(word(a).truncate(target)) is target
        else:
            with pytest.raises(TypeError):
                word(a).truncate(target)
    other = word(a).as_unsigned() if word.signed else word(a).as_signed()
    assert (type(other).width, type(other).signed) == (word.width, not word.signed)
    assert int(other) == reduce(type(other), a)


def test_words_are_no_ints_and_no_conditions() -> None:
    """Nothing that Python does with ints or conditions works by accident."""
    assert not isinstance(u64(1), int)
    with pytest.raises(TypeError):
        assert u64(1)  # type: ignore[truthy-bool]
    with pytest.raises(TypeError):
        [1, 2, 3][u64(1)]  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        range(u64(3))  # type: ignore[call-overload]


def test_words_are_keys() -> None:
    """Equal words are one key; their texts say type and value."""
    assert {u32(1): "a"}[u32(1)] == "a"
    assert repr(i8(-3)) == "i8(-3)"
    assert f"{u16(255):#06x}" == "0x00ff"
