"""The board: which port belongs to whom, widths, lines, resets; and that no sequence of accesses stops the monitor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import address_of, size_of, u8, u16, u32, u64
from dsl.lang.model import Machine, current_machine
from vmm.descriptor import (
    DEVICE_INTERRUPTS_AND_TIMER,
    DEVICE_KEYBOARD,
    DEVICE_PCI,
    DEVICE_SERIAL,
    DEVICES_KNOWN,
)
from vmm.devices.board import (
    NEVER,
    REGIONS,
    Board,
    Target,
    board_acknowledge,
    board_advance,
    board_interrupt_pending,
    board_port_read,
    board_port_write,
    board_reset,
    board_take_reset,
    can_reset,
)
from vmm.devices.ring import RING_SIZE, ring_count, ring_push, ring_take

pytestmark = pytest.mark.t0


def new_board(devices: int = DEVICES_KNOWN) -> Board:
    """Return a board after reset."""
    board = Board()
    board_reset(board, u64(devices), u64(0))
    return board


def read(board: Board, port: int, width: int = 1, now: int = 0) -> int:
    """Read a port."""
    return int(board_port_read(board, u16(port), u64(width), u64(now)))


def write(board: Board, port: int, value: int, width: int = 1, now: int = 0) -> None:
    """Write a port."""
    board_port_write(board, u16(port), u64(width), u32(value), u64(now))


def test_regions_do_not_overlap() -> None:
    """A port belongs to one row at most."""
    ports = [port for region in REGIONS for port in range(region.first, region.first + region.count)]
    assert len(ports) == len(set(ports))


def test_absent_ports_are_all_ones_at_every_width() -> None:
    """What no row holds, and what the box does not have, reads as all ones of the width, and swallows writes."""
    with Machine():
        board = new_board(0)
        for port in (0, 0x20, 0x3F8, 0x61, 0x80, 0xE9, 0xCF8, 0xFFFF):
            for width, ones in ((1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF)):
                write(board, port, 0, width)
                assert read(board, port, width) == ones
        assert int(board_advance(board, u64(10**12))) == NEVER
        assert not board_interrupt_pending(board)


def test_wide_accesses_are_split() -> None:
    """A word at 3FEh is MSR and scratch register; a write goes to both."""
    with Machine():
        board = new_board()
        write(board, 0x3FE, 0x7700, 2)
        assert read(board, 0x3FF) == 0x77
        assert read(board, 0x3FE, 2) == 0x77B0


@pytest.mark.parametrize(
    "steps", [[(0x64, 0xFE)], [(0x64, 0xD1), (0x60, 0xDE)], [(0xCF9, 0x06)], [(0xCF9, 0x02), (0xCF9, 0x04)]]
)
def test_the_ways_to_reset(steps: list[tuple[int, int]]) -> None:
    """Pulse of line 0, output port, CF9h: each asks once; without the device, none does."""
    with Machine():
        board = new_board()
        for port, value in steps:
            assert not board_take_reset(board)
            write(board, port, value)
        assert board_take_reset(board)
        assert not board_take_reset(board)
        other = new_board(DEVICES_KNOWN & ~(DEVICE_KEYBOARD | DEVICE_PCI))
        for port, value in steps:
            write(other, port, value)
        assert not board_take_reset(other)


def initialize_pics(board: Board) -> None:
    """Vectors 30h and 38h, nothing masked."""
    for command, words in ((0x20, (0x30, 4, 1, 0)), (0xA0, (0x38, 2, 1, 0))):
        write(board, command, 0x11)
        for word in words:
            write(board, command + 1, word)


def test_received_bytes_interrupt() -> None:
    """A byte in the input ring becomes interrupt line 4 at the next advance, and is gone once read."""
    with Machine():
        board = new_board(DEVICE_SERIAL | DEVICE_INTERRUPTS_AND_TIMER)
        initialize_pics(board)
        write(board, 0x43, 0x38)
        write(board, 0x3FC, 0x08)
        write(board, 0x3F9, 0x01)
        board_advance(board, u64(0))
        assert not board_interrupt_pending(board)
        assert ring_push(board.input, u8(0x41))
        board_advance(board, u64(1))
        assert board_interrupt_pending(board)
        assert int(board_acknowledge(board)) == 0x34
        assert read(board, 0x3FA) == 0x04
        assert read(board, 0x3F8) == 0x41
        write(board, 0x20, 0x20)
        assert not board_interrupt_pending(board)


def test_a_lonely_byte_in_the_fifo_times_out() -> None:
    """With a trigger of 14 a single byte interrupts after four character times, at the deadline that was announced."""
    with Machine():
        board = new_board(DEVICE_SERIAL)
        for port, value in ((0x3FB, 0x83), (0x3F8, 1), (0x3F9, 0), (0x3FB, 3), (0x3FA, 0xC1), (0x3F9, 1)):
            write(board, port, value)
        ring_push(board.input, u8(0x41))
        deadline = int(board_advance(board, u64(1000)))
        assert deadline == 1000 + 4 * 86_806
        assert read(board, 0x3FA, now=deadline - 1) == 0xC1
        assert read(board, 0x3FA, now=deadline) == 0xCC
        assert read(board, 0x3F8, now=deadline) == 0x41
        assert read(board, 0x3FA, now=deadline) == 0xC1


def test_a_full_ring_holds_the_transmitter_back() -> None:
    """THRE and TEMT go when the ring has no room for a FIFO, come back with the room and interrupt then: a polling driver loses nothing."""
    with Machine():
        board = new_board(DEVICE_SERIAL | DEVICE_INTERRUPTS_AND_TIMER)
        initialize_pics(board)
        write(board, 0x43, 0x38)
        write(board, 0x3FC, 0x08)
        sent = 0
        while read(board, 0x3FD) & 0x20:
            write(board, 0x3F8, sent & 0xFF)
            sent += 1
        assert RING_SIZE - 16 <= sent <= RING_SIZE
        write(board, 0x3F9, 0x02)
        assert read(board, 0x3FA) == 0x01
        taken = [int(ring_take(board.output)) for _ in range(int(ring_count(board.output)))]
        assert taken == [index & 0xFF for index in range(sent)]
        board_advance(board, u64(1))
        assert board_interrupt_pending(board)
        assert read(board, 0x3FA) == 0x02
        assert read(board, 0x3FD) & 0x60 == 0x60


ports = [port for region in REGIONS for port in range(region.first, region.first + region.count)]
accesses = st.tuples(
    st.sampled_from(ports) | st.integers(0, 0xFFFF),
    st.sampled_from([1, 2, 4]),
    st.none() | st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 10**8),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(accesses, max_size=60))
def test_no_sequence_of_accesses_stops_the_monitor(steps: list[tuple[int, int, int | None, int]]) -> None:
    """Whatever a box does to its ports, no check fails, answers fit their width, and deadlines are never in the past."""
    with Machine():
        board = new_board()
        now = 0
        for port, width, value, passed in steps:
            now += passed
            if value is None:
                assert read(board, port, width, now) < 1 << 8 * width
            else:
                write(board, port, value & ((1 << 8 * width) - 1), width, now)
            assert int(board_advance(board, u64(now))) > now
            if board_interrupt_pending(board):
                board_acknowledge(board)


class Accesses:
    """A board under random accesses, whose time is brought up as the scheduler does it: when it says so, or its deadline has come."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.now = 0
        self.deadline = int(board_advance(board, u64(0)))

    def step(self, action: tuple[str, int, int], ticks: int) -> None:
        """One access, or bytes from the console; then what the scheduler would leave out must change nothing."""
        kind, port, value = action
        self.now += ticks
        if self.now >= self.deadline:
            self.deadline = int(board_advance(self.board, u64(self.now)))
        if kind == "in":
            read(self.board, port, now=self.now)
        elif kind == "out":
            write(self.board, port, value, now=self.now)
        else:
            ring_push(self.board.input, u8(value))
            self.board.needs_advance = True
        is_needed, before = self.board.needs_advance, content(self.board)
        deadline = int(board_advance(self.board, u64(self.now)))
        if is_needed:
            self.deadline = deadline
        else:
            assert content(self.board) == before, action
            assert deadline >= self.deadline, action  # what was known comes no later


def content(board: Board) -> bytes:
    """All of a board's bytes."""
    return current_machine().memory.read(int(address_of(board)), size_of(Board))


SOME_PORTS = [
    0x20,
    0x21,
    0xA0,
    0xA1,
    0x40,
    0x42,
    0x43,
    0x61,
    0x60,
    0x64,
    0x70,
    0x71,
    0x4D0,
    0xCF8,
    0x80,
    *range(0x3F8, 0x400),
]
LOOPBACK = (("out", 0x3FC, 0x10), ("out", 0x3FA, 1), ("out", 0x3F8, 0x41), ("in", 0x3F8, 0))
ANY = st.tuples(st.sampled_from(("in", "out", "out", "key")), st.sampled_from(SOME_PORTS), st.integers(0, 255))
ACTIONS = st.one_of(ANY, st.sampled_from(LOOPBACK))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(ACTIONS, st.sampled_from((0, 1, 1000, 400_000, 5_000_000))), max_size=60))
def test_an_access_that_needs_no_advance_needs_none(steps: list[tuple[tuple[str, int, int], int]]) -> None:
    """Where needs_advance stays clear, board_advance finds nothing to do: the scheduler may leave it out."""
    with Machine():
        accesses = Accesses(new_board())
        for action, ticks in steps:
            accesses.step(action, ticks)


def test_only_some_ports_can_reset() -> None:
    """Every access of 1, 2 or 4 bytes that touches the keyboard controller or the PCI ports is among them; the usual ones are not."""
    with Machine():
        touching = {
            port - offset
            for region in REGIONS
            if region.target in (Target.KEYBOARD_DATA, Target.KEYBOARD_COMMAND, Target.PCI)
            for port in range(region.first, region.first + region.count)
            for offset in range(4)
        }
        assert all(can_reset(u16(port)) for port in touching)
        usual = [0x20, 0x21, 0xA0, 0xA1, 0x40, 0x43, 0x70, 0x71, 0x80, *range(0x3F8, 0x400), 0, 0xFFFF]
        assert not any(can_reset(u16(port)) for port in usual)
