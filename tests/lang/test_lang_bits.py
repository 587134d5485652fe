"""Bits: fields where the manual prints them, checked where they are declared."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

import pytest

from dsl.lang import Bits, CheckFailed, DeclarationError, bit, bits, i8, u8, u16, u32, u64


class Kind(Enum):
    """Two bits' worth, one number short."""

    ZERO = u8(0)
    ONE = u8(1)
    TWO = u8(2)


class Leaf(Bits, storage=u64):
    """The example of the language's README, with an Enum."""

    read: bool = bit(0)
    memory_type: u8 = bits(5, 3)
    kind: Kind = bits(7, 6, default=Kind.ONE)
    dirty: bool = bit(9, default=False)
    page_frame: u64 = bits(51, 12)


def leaf() -> Leaf:
    return Leaf(read=True, memory_type=u8(6), page_frame=u64(0xABCDE))


def test_construction_zeroes_the_rest() -> None:
    """Every field lies at its bits, defaults apply, and no other bit is set."""
    assert u64(leaf().raw()) == u64(1 | 6 << 3 | 1 << 6 | 0xABCDE << 12)


def test_loading_keeps_the_rest() -> None:
    """Bits without a field survive from_raw and with_."""
    raw = u64(0xFFF0_0000_0000_0D06)
    changed = Leaf.from_raw(raw).with_(dirty=True)
    assert changed.raw() == raw | 1 << 9
    assert changed.dirty is True
    assert changed.kind is Kind.ZERO
    assert changed.page_frame == u64(0)


def test_fields_read_in_their_types() -> None:
    """A bool, a word, an Enum come back as what they were declared."""
    assert leaf().read is True
    assert leaf().memory_type == u8(6)
    assert leaf().kind is Kind.ONE
    assert leaf().with_(kind=Kind.TWO).kind is Kind.TWO
    with pytest.raises(CheckFailed, match="no Kind"):
        _ = Leaf.from_raw(u64(3 << 6)).kind


def test_overflow_fails_a_check() -> None:
    """A value of the right type with too many bits is caught at construction and update."""
    with pytest.raises(CheckFailed, match="memory_type"):
        leaf().with_(memory_type=u8(8))
    with pytest.raises(CheckFailed, match="page_frame"):
        Leaf(read=True, memory_type=u8(1), page_frame=u64(1 << 40))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"read": True}, "memory_type, page_frame not given"),
        ({"read": u8(1), "memory_type": u8(1), "page_frame": u64(1)}, "takes bool"),
        ({"read": True, "memory_type": u16(1), "page_frame": u64(1)}, "takes u8, not u16"),
        ({"read": True, "memory_type": 1, "page_frame": u64(1)}, "takes u8, not int"),
        ({"read": True, "memory_type": u8(1), "page_frame": u64(1), "other": True}, "no field other"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], expected: str) -> None:
    """A field that is missing, of another type, or unknown."""
    with pytest.raises(TypeError, match=expected):
        Leaf(**fields)


def test_storage_is_exact() -> None:
    """from_raw takes the storage word and no other."""
    with pytest.raises(TypeError, match="takes u64"):
        Leaf.from_raw(u32(1))
    with pytest.raises(TypeError):
        assert leaf() == u64(1)  # type: ignore[operator]
    with pytest.raises(TypeError):
        assert leaf()  # type: ignore[truthy-bool]


def declare_wide_bool() -> None:
    class Wrong(Bits, storage=u64):
        fine: bool = bit(0)
        read: bool = bits(5, 3)  # here


def declare_overlap() -> None:
    class Wrong(Bits, storage=u32):
        low: u8 = bits(5, 0)
        high: u8 = bits(8, 5)  # here


def declare_backwards() -> None:
    class Wrong(Bits, storage=u32):
        low: u8 = bits(0, 5)  # here


def declare_beyond() -> None:
    class Wrong(Bits, storage=u8):
        high: bool = bit(8)  # here


def declare_narrow_type() -> None:
    class Wrong(Bits, storage=u32):
        value: u8 = bits(8, 0)  # here


def declare_signed() -> None:
    class Wrong(Bits, storage=u32):
        value: i8 = bits(3, 0)  # here


def declare_without_place() -> None:
    class Wrong(Bits, storage=u32):
        first: bool = bit(0)
        value: u8  # here


def declare_default_too_large() -> None:
    class Wrong(Bits, storage=u32):
        value: u8 = bits(3, 0, default=16)  # here


@pytest.mark.parametrize(
    "declare",
    [
        declare_wide_bool,
        declare_overlap,
        declare_backwards,
        declare_beyond,
        declare_narrow_type,
        declare_signed,
        declare_without_place,
        declare_default_too_large,
    ],
)
def test_wrong_layouts_are_refused_at_their_line(declare: Any) -> None:
    """The error names the file and the line of the wrong field."""
    lines, start = inspect.getsourcelines(declare)
    (wanted,) = [start + index for index, line in enumerate(lines) if "# here" in line]
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert caught.value.line == wanted
    assert caught.value.file == __file__


def test_storage_is_required() -> None:
    """Bits without storage= are refused."""
    with pytest.raises(DeclarationError, match="storage="):

        class Wrong(Bits):
            read: bool = bit(0)
