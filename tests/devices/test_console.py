"""The console: prefixes, partial lines, escapes, fairness, focus; and that a box can forge nobody's line."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lang import static_array, text, u8, u64
from dsl.lang.model import Machine
from vmm.console import CONSOLE, console_attach, console_initialize, console_line
from vmm.console_port import console_flush, console_poll
from vmm.console_wire import LINE_LIMIT, PARTIAL_NS
from vmm.devices.board import Board
from vmm.devices.ring import RING_SIZE, ring_count, ring_push, ring_take

pytestmark = pytest.mark.t0
NAMES = ("debian", "witness")
BOARDS = static_array(Board, len(NAMES))  # the console keeps references: not in a frame


class SerialPort:
    """A 16550 with a person at the other end: `screen` is what was sent, `keys` what will be received."""

    def __init__(self) -> None:
        """Start with nothing sent."""
        self.screen = bytearray()
        self.keys: deque[int] = deque()
        self.registers = [0] * 8
        self.fifo = 0

    def read(self, port: int, width: int) -> int:
        """Answer IN."""
        offset = port - 0x3F8
        if offset == 0:
            return self.keys.popleft()
        if offset == 5:
            self.fifo = 0  # a look at the status: the line has been fast
            return 0x60 | (1 if self.keys else 0)
        return self.registers[offset]

    def write(self, port: int, width: int, value: int) -> None:
        """Obey OUT."""
        offset = port - 0x3F8
        if offset == 0 and not self.registers[3] & 0x80:
            self.fifo += 1
            assert self.fifo <= 16, "more bytes than the FIFO takes"
            self.screen.append(value)
        else:
            self.registers[offset] = value


class Bench:
    """A console with two boxes."""

    def __init__(self, machine: Machine) -> None:
        """Attach the boxes."""
        self.port = SerialPort()
        for offset in range(8):
            machine.ports[0x3F8 + offset] = self.port
        self.boards = [BOARDS[u64(index)] for index in range(len(NAMES))]
        self.now = 0
        console_initialize()
        for index, name in enumerate(NAMES):
            console_attach(u64(index), text(name), self.boards[index].output, self.boards[index].input)

    def say(self, box: int, words: bytes) -> None:
        """Let a box print."""
        for value in words:
            assert ring_push(self.boards[box].output, u8(value))

    def poll(self, passed: int = 1_000_000, times: int = 40) -> str:
        """Let time pass and return what appeared on the screen."""
        before = len(self.port.screen)
        for _ in range(times):
            self.now += passed
            console_poll(u64(self.now))
        return self.port.screen[before:].decode("latin-1")

    def heard(self, box: int) -> bytes:
        """Return and remove what a box received."""
        ring = self.boards[box].input
        return bytes(int(ring_take(ring)) for _ in range(int(ring_count(ring))))


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A console on a fresh machine."""
    with Machine() as machine:
        yield Bench(machine)


def test_lines_are_led_by_the_name(bench: Bench) -> None:
    """A whole line appears at once, with its prefix; CR before newline is dropped, tabs pass."""
    bench.say(0, b"hello\tworld\r\n\r\nsecond\n")
    assert bench.poll() == "debian| hello\tworld\r\ndebian| \r\ndebian| second\r\n"


def test_the_monitor_speaks_as_terrane(bench: Bench) -> None:
    """The monitor's lines have its own prefix."""
    console_line(text("2 boxes"))
    assert bench.poll() == "terrane| 2 boxes\r\n"


def test_a_prompt_appears_after_a_while_and_goes_on_in_place(bench: Bench) -> None:
    """A partial line waits 50 ms, then shows; what follows it continues it without a second prefix, at once."""
    bench.say(0, b"debian# ")
    assert bench.poll(passed=1000, times=3) == ""
    assert bench.poll(passed=PARTIAL_NS, times=2) == "debian| debian# "
    bench.say(0, b"ls")
    assert bench.poll(passed=1000) == "ls"
    bench.say(0, b"\r\n")
    assert bench.poll() == "\r\n"


def test_another_line_interrupts_a_prompt(bench: Bench) -> None:
    """Another box's line begins on a line of its own; the rest of the interrupted one is marked with `+`."""
    bench.say(0, b"debian# ")
    bench.poll(passed=PARTIAL_NS, times=2)
    bench.say(1, b"witness ready\n")
    assert bench.poll() == "\r\nwitness| witness ready\r\n"
    bench.say(0, b"ls\n")
    assert bench.poll() == "debian+ ls\r\n"
    bench.say(0, b"file\n")
    assert bench.poll() == "debian| file\r\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"\x1b[2J\n", "\\x1b[2J"),
        (b"\x01\x07\x0b\x7f\x9b\xff\n", "\\x01\\x07\\x0b\\x7f\\x9b\\xff"),
        (b"over\rwrite\n", "over\\x0dwrite"),
        (b"end\r\r\n", "end"),
        (b"ab\x08 \x08\n", "ab\x08 \x08"),
        (b"\x08x\n", "\\x08x"),
        (b"a\x08\x08\n", "a\x08\\x08"),
    ],
)
def test_control_characters(bench: Bench, said: bytes, shown: str) -> None:
    """What could move the cursor out of the box's own text is escaped; backspace within it passes."""
    bench.say(0, said)
    assert bench.poll() == f"debian| {shown}\r\n"


def test_long_lines_are_cut(bench: Bench) -> None:
    """No line on the wire is longer than the limit."""
    bench.say(0, b"x" * 450 + b"\n")
    lines = bench.poll(times=200).split("\r\n")
    assert lines == ["debian| " + "x" * LINE_LIMIT, "debian+ " + "x" * LINE_LIMIT, "debian+ " + "x" * 50, ""]


def test_flooding_boxes_take_turns(bench: Bench) -> None:
    """A box that always has a line does not keep another one from printing."""
    seen = ""
    for _ in range(400):
        while ring_count(bench.boards[0].output) < RING_SIZE - 64:
            bench.say(0, b"flood\n")
        if ring_count(bench.boards[1].output) == 0:
            bench.say(1, b"me too\n")
        seen += bench.poll(times=1)
    assert seen.count("witness|") > 80


def test_focus(bench: Bench) -> None:
    """Keys go to the box in focus; Ctrl-A and a digit move it and say so; Ctrl-A twice is one Ctrl-A; other keys list the boxes."""
    bench.port.keys.extend(b"ls\r")
    bench.poll()
    assert (bench.heard(0), bench.heard(1)) == (b"ls\r", b"")
    bench.port.keys.extend(b"\x011attest\x01\x01")
    assert bench.poll() == "terrane| focus: witness\r\n"
    assert (bench.heard(0), bench.heard(1)) == (b"", b"attest\x01")
    bench.port.keys.extend(b"\x017\x01?z")
    assert bench.poll() == "terrane| focus: there is no box 7\r\nterrane| boxes: 0=debian 1=witness\r\n"
    assert (bench.heard(0), bench.heard(1)) == (b"", b"z")


def test_a_box_that_does_not_read_loses_its_own_input_only(bench: Bench) -> None:
    """A full input ring swallows keys, and the attention still works."""
    for _ in range(RING_SIZE // 16 + 2):
        bench.port.keys.extend(b"0123456789abcdef")
        bench.poll(times=1)
    bench.port.keys.extend(b"\x011k")
    assert "focus: witness" in bench.poll()
    assert bench.heard(1) == b"k"


def test_the_monitor_reports_what_it_lost(bench: Bench) -> None:
    """When the monitor says more than its ring holds, the loss is counted and said, not silent."""
    for _ in range(100):
        console_line(text("x" * 63))
    seen = bench.poll(times=1000)
    lost = re.search(r"terrane\| (\d+) bytes of the monitor's output were lost here\r\n", seen)
    assert lost is not None
    assert int(lost[1]) == 100 * 64 - RING_SIZE


def test_flush_sends_everything(bench: Bench) -> None:
    """A flush leaves nothing behind, partial lines included."""
    bench.say(0, b"y" * 1000)
    console_line(text("stopped"))
    console_flush(u64(0))
    sent = bench.port.screen.decode()
    assert sent.count("y") == 1000
    assert "terrane| stopped\r\n" in sent


def test_without_a_port_output_is_thrown_away(bench: Bench) -> None:
    """A machine without COM1 does not hold its boxes back."""
    with Machine() as machine:
        for offset in range(8):
            machine.ports[0x3F8 + offset] = Absent()
        console_initialize()
        board = BOARDS[u64(0)]
        console_attach(u64(0), text("debian"), board.output, board.input)
        for _ in range(RING_SIZE):
            ring_push(board.output, u8(0x41))
        for step in range(100):
            console_poll(u64(step * PARTIAL_NS))
        assert ring_count(board.output) == 0


class Absent:
    """Nobody answers."""

    def read(self, port: int, width: int) -> int:
        """All ones."""
        return 0xFF

    def write(self, port: int, width: int, value: int) -> None:
        """Swallow it."""


def shown_lines(screen: bytes) -> list[str]:
    """What a terminal shows: backspaces obeyed, lines ended by CR LF."""
    lines = [""]
    column = 0
    for character in screen.decode("latin-1"):
        if character == "\n":
            lines.append("")
            column = 0
        elif character == "\r":
            column = 0
        elif character == "\x08":
            column -= 1
            assert column >= 0
        else:
            lines[-1] = lines[-1][:column] + character + lines[-1][column + 1 :]
            column += 1
    return lines


LINE = re.compile(r"(debian|witness|terrane)([|+]) ([\t\x20-\x7e]*)")


words_of_a_box = st.binary(max_size=30) | st.lists(st.sampled_from(b"\x08\r\n\t\x1b|+ terane"), max_size=30).map(bytes)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), words_of_a_box, st.integers(0, 3))))
def test_no_box_can_forge_a_line(parts: list[tuple[int, bytes, int]]) -> None:
    """Whatever two boxes print, every line that a terminal shows has the prefix of whoever printed it, and only the monitor's say so."""
    with Machine() as machine:
        bench = Bench(machine)
        spoken = 0
        for source, words, wait in parts:
            if source == 2:
                console_line(text("truth"))
                spoken += 1
            else:
                bench.say(source, words.replace(b"truth", b""))
            bench.poll(passed=wait * 20_000_000, times=2)
        console_flush(u64(bench.now))
        lines = shown_lines(bytes(bench.port.screen))
        assert all(LINE.fullmatch(line) for line in lines if line)
        assert sum(line.startswith("terrane") for line in lines) == spoken


def test_state_is_cleared_by_initialize(bench: Bench) -> None:
    """A second start forgets focus and boxes."""
    bench.port.keys.extend(b"\x011")
    bench.poll()
    assert int(CONSOLE.focus) == 1
    console_initialize()
    assert int(CONSOLE.focus) == 0
    bench.port.keys.extend(b"\x010")
    assert bench.poll() == "terrane| focus: there is no box 0\r\n"
