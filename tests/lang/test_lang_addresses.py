"""Addresses do not mix with each other or with words, and keep to 64 bits."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsl.lang import CheckFailed, GuestPhysical, GuestVirtual, HostPhysical, HostVirtual, u32, u64

KINDS: list[Any] = [HostPhysical, HostVirtual, GuestPhysical, GuestVirtual]
U64 = st.integers(0, 2**64 - 1)


@given(st.sampled_from(KINDS), U64, U64)
def test_arithmetic(kind: Any, a: int, b: int) -> None:
    """Distances are u64; sums wrap at 2**64."""
    assert int(kind(a) + u64(b)) == (a + b) % 2**64
    assert int(kind(a) - u64(b)) == (a - b) % 2**64
    distance = kind(a) - kind(b)
    assert type(distance) is u64
    assert int(distance) == (a - b) % 2**64
    assert (kind(a) < kind(b)) is (a < b)
    assert kind(u64(a)).as_u64() == u64(a)


@given(st.sampled_from(KINDS), U64, st.integers(0, 40))
def test_alignment(kind: Any, a: int, power: int) -> None:
    """Rounding goes to multiples of a power of two; another alignment fails a check."""
    size = 1 << power
    assert int(kind(a).align_down(size)) == a // size * size
    assert int(kind(a).align_up(u64(size))) == -(-a // size) * size % 2**64
    assert kind(a).is_aligned(size) is (a % size == 0)
    with pytest.raises(CheckFailed):
        kind(a).align_up(3)


@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("right", [*KINDS, u64])
def test_kinds_do_not_mix(left: Any, right: Any) -> None:
    """Two kinds meet in no operator; a word is compared with no address."""
    if left is right:
        return
    operations = [operator.eq, operator.ne, operator.lt, operator.ge]
    for operation in [*operations, operator.sub, operator.add] if right is not u64 else operations:
        with pytest.raises(TypeError):
            operation(left(1), right(1))
    if right is not u64:
        with pytest.raises(TypeError):
            left(right(1))


def test_only_words_of_64_bits_move_an_address() -> None:
    """A narrower word, a bool or an address as condition is refused."""
    for stranger in (u32(1), True, 1.0):
        with pytest.raises(TypeError):
            HostVirtual(1) + stranger  # type: ignore[operator]
    with pytest.raises(TypeError):
        HostVirtual(u32(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        assert HostVirtual(1)  # type: ignore[truthy-bool]
