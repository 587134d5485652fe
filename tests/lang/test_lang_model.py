"""The Machine's memory: sparse, exact at its borders, and read-only where it should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsl.lang import Machine, MachineError, current_machine
from dsl.lang.memory import Event, Memory


def memory() -> Memory:
    made = Memory(lambda _event: None)
    made.map(0x1000, 0x3000)
    return made


@given(
    st.lists(
        st.tuples(st.integers(0x1000, 0x4000 - 8), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)),
        max_size=30,
    )
)
def test_memory_is_an_array_of_bytes(stores: list[tuple[int, int, int]]) -> None:
    """Stores and loads of any size, across pages too, behave as on one flat array."""
    made, flat = memory(), bytearray(0x3000)
    for address, size, number in stores:
        value = number % (1 << size * 8)
        made.store(address, size, value)
        flat[address - 0x1000 : address - 0x1000 + size] = value.to_bytes(size, "little")
    assert made.read(0x1000, 0x3000) == bytes(flat)
    for address, size, _ in stores:
        assert made.load(address, size) == int.from_bytes(flat[address - 0x1000 : address - 0x1000 + size], "little")


def test_borders() -> None:
    """One byte before and after what is mapped is an error, also for an access that begins inside."""
    made = memory()
    for address, size in ((0xFFF, 1), (0x4000, 1), (0x3FFF, 2), (0xFFF, 2)):
        with pytest.raises(MachineError, match="not mapped"):
            made.load(address, size)
        with pytest.raises(MachineError, match="not mapped"):
            made.store(address, size, 0)
    for address, size in ((0, 0), (-1, 2), (2**64 - 1, 2)):
        with pytest.raises(MachineError, match="cannot map"):
            made.map(address, size)


def test_the_last_page() -> None:
    """The last page of the address space works."""
    made = memory()
    made.map(2**64 - 4096, 4096)
    made.store(2**64 - 8, 8, 2**64 - 1)
    assert made.load(2**64 - 1, 1) == 0xFF


def test_read_only() -> None:
    """Constant pages load and refuse stores; they never share a page with writable memory."""
    made = memory()
    made.map_read_only(0x10FF0, bytes(range(32)))
    assert made.load(0x10FFF, 2) == 0x100F
    for address in (0x10FF0, 0x11000):
        with pytest.raises(MachineError, match="read-only"):
            made.store(address, 1, 0)
    made.store(0x1000, 1, 1)
    with pytest.raises(MachineError, match="writable already"):
        made.map_read_only(0x1000, b"x")


def test_devices() -> None:
    """A device answers volatile accesses inside its range; elsewhere they reach memory; all are events."""
    events: list[Event] = []
    made = Memory(events.append)
    made.map(0x1000, 4096)

    class Fixed:
        def read(self, offset: int, width: int) -> int:
            return 0x1FF if offset else 7

        def write(self, offset: int, width: int, value: int) -> None:
            raise AssertionError("no write is expected")

    made.map_device(0x2000, 8, Fixed())
    assert made.load_volatile(0x2000, 4) == 7
    with pytest.raises(MachineError, match="gave 0x1ff for 1 bytes"):
        made.load_volatile(0x2001, 1)
    made.store_volatile(0x1000, 2, 9)
    assert made.load_volatile(0x1000, 2) == 9
    assert events == [Event("read", 0x2000, 32, 7), Event("write", 0x1000, 16, 9), Event("read", 0x1000, 16, 9)]


def test_frames_do_not_leak() -> None:
    """Ten thousand frame objects in turn take the memory of one."""
    from dsl.lang import address_of, frame_array, u64

    with Machine():
        places = set()
        for _ in range(10_000):
            places.add(int(address_of(frame_array(u64, 100))))
        assert len(places) <= 2


def test_machines_end() -> None:
    """After the with block no machine is current, even if it ended in an exception."""
    with pytest.raises(ZeroDivisionError), Machine():
        raise ZeroDivisionError
    with pytest.raises(MachineError):
        current_machine()
