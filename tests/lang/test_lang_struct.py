"""Structs: views of one memory with checked layouts; Records: frozen values; Arrays: checked indexes."""

from __future__ import annotations

import gc
import inspect
from enum import Enum
from typing import Any

import pytest

from dsl.lang import (
    Array,
    Bits,
    CheckFailed,
    DeclarationError,
    Device,
    Failure,
    GuestPhysical,
    HostVirtual,
    Machine,
    MachineError,
    Record,
    Ref,
    Secret,
    Shared,
    Struct,
    Untrusted,
    address_of,
    array,
    array_at,
    at,
    bit,
    erase,
    frame_array,
    i16,
    offset_of,
    secret,
    size_of,
    u8,
    u16,
    u32,
    u64,
    untrusted,
)
from dsl.lang.memory import Event


class Mode(Enum):
    """A word of two bytes."""

    OFF = u16(0)
    ON = u16(0x1234)


class Flags(Bits, storage=u32):
    """One flag."""

    ready: bool = bit(31)


class Inner(Struct, size=8):
    """Nested."""

    low: u32
    high: u32


class Node(Struct):
    """One of each kind of field. Refers to itself and to a class further down."""

    word: u64
    mode: Mode
    signed: i16
    flags: Flags
    where: GuestPhysical
    inner: Inner
    next: Ref[Node] | None
    owner: Ref[Owner] | None
    guest: Untrusted[u64]
    key: Secret[u64]
    bytes: Array[u8] = array(7)
    truth: bool
    nodes: Array[Inner] = array(2)


class Owner(Struct):
    """Declared after the Struct that refers to it."""

    node: Ref[Node] | None


class Registers(Struct, size=0x100, align=16):
    """A device with gaps."""

    status: Device[u32]
    control: Device[u32] = at(0x80)
    ring: Array[u16] = array(4, at=0x90)
    shared: Shared[u16] = at(0xF0)


class Header(Struct, packed=True):
    """No alignment, no padding."""

    tag: u8
    length: u32
    address: HostVirtual


def test_layout() -> None:
    """Offsets follow sizes and alignment; explicit offsets make gaps; packed drops alignment."""
    offsets = {name: field.offset for name, field in Node.__layout__.fields.items()}
    assert offsets == {
        "word": 0, "mode": 8, "signed": 10, "flags": 12, "where": 16, "inner": 24, "next": 32, "owner": 40, "guest": 48, "key": 56,
        "bytes": 64, "truth": 71, "nodes": 72,
    }  # fmt: skip
    assert (size_of(Node), Node.__layout__.align) == (88, 8)
    assert (size_of(Registers), Registers.__layout__.align) == (0x100, 16)
    assert offset_of(Registers, "ring") == 0x90
    assert (size_of(Header), offset_of(Header, "address")) == (13, 5)
    with pytest.raises(TypeError, match="no field nothing"):
        offset_of(Header, "nothing")


def test_fields_hold_their_types(model: Machine) -> None:
    """What is stored comes back equal and of its type, and lies little-endian at its offset."""
    node = Node()
    node.word = u64(0x1122334455667788)
    node.mode = Mode.ON
    node.signed = i16(-2)
    node.flags = Flags(ready=True)
    node.where = GuestPhysical(0x5000)
    node.truth = True
    node.guest = untrusted(u64(9))
    node.key = secret(u64(10))
    node.bytes[6] = u8(0xEE)
    node.nodes[1].high = u32(0xAABBCCDD)
    assert (node.word, node.mode, node.signed) == (u64(0x1122334455667788), Mode.ON, i16(-2))
    assert node.flags.ready
    assert node.where == GuestPhysical(0x5000)
    assert node.truth is True
    assert node.guest.trusted("a test") == u64(9)
    content = model.memory.read(int(address_of(node)), 88)
    assert content[:16].hex() == "88776655443322113412feff00000080"
    assert content[70:72].hex() == "ee01"
    assert content[84:88].hex() == "ddccbbaa"


def test_views_alias(model: Machine) -> None:
    """Two references to one memory see each other's writes, also through addresses."""
    node = Node()
    again = Node.at(address_of(node))
    node.inner.low = u32(5)
    assert again.inner.low == u32(5)
    inner = again.inner
    inner.low = u32(6)
    assert node.inner.low == u32(6)
    words = array_at(u8, address_of(node) + 64, 7)
    words.fill(u8(1))
    assert node.bytes[3] == u8(1)


def test_references(model: Machine) -> None:
    """A reference is absent or a view; one into a frame may not be stored."""
    model.memory.map(0x10000, 4096)
    node = Node.at(HostVirtual(0x10000))
    assert node.next is None
    node.next = node
    assert node.next is not None
    node.next.word = u64(3)
    assert node.word == u64(3)
    node.next = None
    assert node.next is None
    with pytest.raises(TypeError, match="frame"):
        node.next = Node()
    with pytest.raises(TypeError):
        node.next = Owner.at(HostVirtual(0x10000))  # type: ignore[assignment]


def test_wrong_types_are_refused(model: Machine) -> None:
    """Another width, a literal, an absent taint, a whole Struct: each is a TypeError, and nothing is written."""
    node: Any = Node()
    before = model.memory.read(int(address_of(node)), 88)
    for name, value in {
        "word": u32(1), "mode": u16(1), "signed": u16(1), "flags": u32(1), "where": HostVirtual(1), "inner": Inner(), "truth": u8(1),
        "guest": u64(1), "key": untrusted(u64(1)), "bytes": node.bytes,
    }.items():  # fmt: skip
        with pytest.raises(TypeError):
            setattr(node, name, value)
    with pytest.raises(TypeError):
        node.word = 1
    with pytest.raises(AttributeError):
        node.wrod = u64(1)
    with pytest.raises(TypeError):
        assert node == node
    with pytest.raises(TypeError):
        assert node
    assert model.memory.read(int(address_of(node)), 88) == before


def test_enum_and_bool_from_memory(model: Machine) -> None:
    """A word that is no member, and a bool that is neither 0 nor 1, fail a check."""
    node = Node()
    model.memory.store(int(address_of(node)) + 8, 2, 7)
    with pytest.raises(CheckFailed, match="no Mode"):
        _ = node.mode
    model.memory.store(int(address_of(node)) + 71, 1, 2)
    with pytest.raises(CheckFailed, match="0 or 1"):
        _ = node.truth


def test_device_accesses_are_events(model: Machine) -> None:
    """Each mention of a Device or Shared field is one access of its width, in order; a device may answer."""

    class Counter:
        reads = 0

        def read(self, offset: int, width: int) -> int:
            self.reads += 1
            return self.reads

        def write(self, offset: int, width: int, value: int) -> None:
            assert (offset, width, value) == (0x80, 32, 7)

    model.memory.map_device(0xFEE00000, 0x100, Counter())
    device = Registers.at(HostVirtual(0xFEE00000))
    assert device.status + device.status == u32(3)
    device.control = u32(7)
    assert model.events == [
        Event("read", 0xFEE00000, 32, 1),
        Event("read", 0xFEE00000, 32, 2),
        Event("write", 0xFEE00080, 32, 7),
    ]


def test_copy_clear_erase(model: Machine) -> None:
    """copy_from takes every byte, clear and erase leave zeros, erase leaves an event."""
    one, other = Inner(), Inner()
    one.low, one.high = u32(1), u32(2)
    other.copy_from(one)
    assert other.high == u32(2)
    one.clear()
    assert one.high == u32(0)
    erase(other)
    assert other.high == u32(0)
    assert model.events == [Event("erase", int(address_of(other)), 8, 0)]
    with pytest.raises(TypeError):
        one.copy_from(Header())  # type: ignore[arg-type]


def test_frames_are_zeroed_and_given_back(model: Machine) -> None:
    """A frame object's memory is used again after it died, zeroed; a view into it keeps it alive."""
    first = Inner()
    first.low = u32(9)
    where = address_of(first)
    inside = frame_array(u32, 2)
    part = inside.slice(1, 1)
    part[0] = u32(4)
    del first, inside
    gc.collect()
    assert part[0] == u32(4)
    again = Inner()
    assert address_of(again) == where
    assert again.low == u32(0)


def test_memory_that_is_not_there(model: Machine) -> None:
    """Address zero and unmapped memory are errors, not zeros."""
    with pytest.raises(MachineError, match="not mapped"):
        _ = Inner.at(HostVirtual(0)).low
    with pytest.raises(MachineError, match="not mapped"):
        Inner.at(HostVirtual(0x123456)).low = u32(1)


def test_no_machine() -> None:
    """Without a Machine a Struct is a clear error."""
    with pytest.raises(MachineError, match="with Machine"):
        Inner()


# Declarations that are wrong


def declare_misaligned() -> None:
    class Wrong(Struct):
        low: u8
        high: u32  # here


def declare_ragged_end() -> None:
    class Wrong(Struct):  # here
        low: u32
        high: u8


def declare_other_size() -> None:
    class Wrong(Struct, size=16):  # here
        low: u64


def declare_small_align() -> None:
    class Wrong(Struct, align=4):  # here
        low: u64


def declare_overlap() -> None:
    class Wrong(Struct):
        low: u64
        high: u64 = at(4)  # here


def declare_array_without_length() -> None:
    class Wrong(Struct):
        low: Array[u8]  # here


def declare_int() -> None:
    class Wrong(Struct):
        low: int  # here


def declare_bare_reference() -> None:
    class Wrong(Struct):
        low: Ref[Inner]  # here


def declare_optional_word() -> None:
    class Wrong(Struct):
        low: u64 | None  # here


def declare_device_struct() -> None:
    class Wrong(Struct):
        low: Device[Inner]  # here


def declare_record_field() -> None:
    class Wrong(Struct):
        low: Pair  # here


def declare_inheritance() -> None:
    class Wrong(Inner):  # here
        more: u64


@pytest.mark.parametrize(
    "declare",
    [
        declare_misaligned,
        declare_ragged_end,
        declare_other_size,
        declare_small_align,
        declare_overlap,
        declare_array_without_length,
        declare_int,
        declare_bare_reference,
        declare_optional_word,
        declare_device_struct,
        declare_record_field,
        declare_inheritance,
    ],
)
def test_wrong_declarations_are_refused_at_their_line(declare: Any) -> None:
    """The error names the file and line of the field, or of the class."""
    lines, start = inspect.getsourcelines(declare)
    (wanted,) = [start + index for index, line in enumerate(lines) if "# here" in line]
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert (caught.value.line, caught.value.file) == (wanted, __file__), caught.value


def test_unknown_names_surface_at_first_use() -> None:
    """A name that never comes to be is an error when the layout is needed."""

    class Waiting(Struct):
        other: Ref[Nowhere] | None  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(NameError, match="Nowhere"):
        size_of(Waiting)


# Records


class Pair(Record):
    """Two words and a reference."""

    first: u32
    second: bool
    inner: Inner | None


class Outer(Record):
    """A Record in a Record."""

    pair: Pair
    flags: Flags


def test_records(model: Machine) -> None:
    """Positional and keyword construction; fields of their types; frozen; not compared or unpacked."""
    pair = Pair(u32(1), second=True, inner=None)
    outer = Outer(pair, Flags(ready=True))
    assert outer.pair.first == u32(1)
    assert outer.pair.second is True
    assert repr(pair) == "Pair(first=u32(1), second=True, inner=None)"
    with pytest.raises(AttributeError):
        pair.first = u32(2)  # type: ignore[misc]
    loose: Any = pair
    with pytest.raises(TypeError):
        assert loose == pair
    with pytest.raises(TypeError):
        _first, _second, _inner = loose


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ((u32(1),), {}),
        ((u32(1), True, None, None), {}),
        ((u32(1), True), {"first": u32(1)}),
        ((u32(1), True), {"other": None}),
        ((u64(1), True, None), {}),
        ((1, True, None), {}),
        ((u32(1), u8(1), None), {}),
    ],
)
def test_wrong_records_are_refused(positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Missing, surplus, doubled, unknown and wrongly typed values."""
    with pytest.raises(TypeError):
        Pair(*positional, **named)


# Arrays


def test_indexes_are_checked(model: Machine) -> None:
    """Any unsigned word or literal below the length; one past the end, a signed word or a secret is refused."""
    words = frame_array(u32, 3)
    words[2] = u32(7)
    for index in (2, u8(2), u16(2), u32(2), u64(2)):
        assert words[index] == u32(7)
    for index in (3, u8(3), u64(2**64 - 1)):
        with pytest.raises(CheckFailed, match="of an array of 3"):
            words[index]
    for stranger in (-1, True, i16(1), secret(u64(1)), untrusted(u64(1)), slice(1)):
        with pytest.raises((TypeError, CheckFailed)):
            words[stranger]  # type: ignore[index]
    with pytest.raises(TypeError):
        list(words)  # type: ignore[call-overload]
    assert words.length == u64(3)


def test_slices(model: Machine) -> None:
    """A slice is a view; one past the end, also by wrapping, fails a check."""
    octets = frame_array(u8, 8)
    octets.slice(2, 4).fill(u8(9))
    assert [int(octets[i]) for i in range(8)] == [0, 0, 9, 9, 9, 9, 0, 0]
    assert octets.slice(8, 0).length == u64(0)
    for offset, count in ((5, 4), (9, 0), (u64(2**64 - 1), u64(2))):
        with pytest.raises(CheckFailed):
            octets.slice(offset, count)


def test_copies(model: Machine) -> None:
    """Equal lengths and types; overlapping is refused by the model."""
    a, b, short = frame_array(u16, 4), frame_array(u16, 4), frame_array(u16, 3)
    a[1] = u16(5)
    b.copy_from(a)
    assert b.equals(a)
    b[3] = u16(1)
    assert not b.equals(a)
    assert not a.equals(short)
    with pytest.raises(CheckFailed):
        a.copy_from(short)
    with pytest.raises(MachineError, match="overlap"):
        a.slice(0, 3).copy_from(a.slice(1, 3))
    with pytest.raises(TypeError):
        a.copy_from(frame_array(u8, 4))  # type: ignore[arg-type]


def test_words_in_bytes(model: Machine) -> None:
    """Little- and big-endian words at any offset; past the end fails a check; only in bytes."""
    octets = frame_array(u8, 11)
    octets.store_u64(3, u64(0x1122334455667788))
    octets.store_u16(u8(1), u16(0xAABB))
    assert octets.load_u64(3) == u64(0x1122334455667788)
    assert octets.load_u32(u64(1)) == u32(0x7788AABB)
    assert octets.load_be32(3) == u32(0x88776655)
    octets.store_be64(0, u64(1))
    assert (octets[7], octets.load_be64(0)) == (u8(1), u64(1))
    octets.store_be32(0, u32(2))
    assert octets[3] == u8(2)
    for offset in (4, u64(2**64 - 1)):
        with pytest.raises(CheckFailed):
            octets.load_u64(offset)
    with pytest.raises(TypeError):
        octets.store_u32(0, u64(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        frame_array(u16, 8).load_u64(0)  # type: ignore[arg-type]


def test_failure_in_a_place_for_words(model: Machine) -> None:
    """A Failure is no element."""
    with pytest.raises(TypeError):
        frame_array(u64, 1)[0] = Failure(1)  # type: ignore[assignment]
