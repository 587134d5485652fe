"""Boards in any state, edges more often than by chance, and any use of one: what both worlds must treat alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from dsl.lang import address_of, size_of, u8, u16, u32, u64
from dsl.lang.model import current_machine
from tests.devices.box_program import NEEDS_RUN_LOOP
from tests.devices.replay_program import ACKNOWLEDGE, ADVANCE, DRAIN, READ, RESET, TAKE_RESET, TYPE, WRITE
from vmm.box import Box
from vmm.descriptor import DEVICES_KNOWN
from vmm.devices.board import REGIONS, Board, Target
from vmm.devices.i8042 import KeyboardController
from vmm.devices.pci import PciPorts
from vmm.devices.pic import PicChip
from vmm.devices.pit import NEVER, NS_OF_TICK, PitChannel, ticks_at
from vmm.devices.ring import RING_SIZE, ByteRing
from vmm.devices.rtc import CENTURY, NANOSECONDS, SECONDS_A_DAY, STATUS_A, STATUS_B, STATUS_D, UPDATE_NS, Rtc
from vmm.devices.uart import FIFO_SIZE, Uart

Operation = tuple[int, int, int, int, int]  # operation, port, width, value, now
YEAR: Final = 365 * SECONDS_A_DAY
LAST_TICKS: Final = 2**64 - 2**40  # ns; the timer's ticks no longer fit its fixed-point numbers there


def flag(source: Random) -> bool:
    """Yes or no."""
    return bool(source.getrandbits(1))


def byte(source: Random) -> int:
    """A byte, often with few bits."""
    return source.choice((source.getrandbits(8), source.getrandbits(3), 1 << source.randrange(8), 0, 0xFF))


def soon(source: Random) -> int:
    """A time in ns from now on, one that others are likely to choose as well."""
    return source.choice((0, 0, 1, NS_OF_TICK, 2 * NS_OF_TICK, source.randrange(8 * NS_OF_TICK)))


def any_uart(uart: Uart, source: Random, now: int) -> None:
    """A serial port whose receiver is empty, full, or nearly."""
    has_fifos = flag(source)
    uart.timeout_deadline = u64(source.choice((NEVER, now + soon(source))))
    uart.fifo_first = u64(source.randrange(FIFO_SIZE))
    uart.fifo_count = u64(source.choice((0, 1, 4, 7, 8, 13, 14, 15, 16) if has_fifos else (0, 1)))
    uart.divisor = u16(source.choice((0, 1, 12, source.getrandbits(16))))
    uart.interrupt_enable = u8(byte(source))
    uart.fifo_control = u8(source.getrandbits(7) << 1 | has_fifos)
    uart.line_control = u8(byte(source) & source.choice((0x7F, 0x7F, 0xFF)))
    uart.modem_control = u8(source.choice((byte(source), 8, 0x0B)))
    uart.scratch = u8(byte(source))
    uart.overrun = flag(source)
    uart.timed_out = flag(source)
    uart.transmitter_interrupt = flag(source)
    uart.transmitter_blocked = flag(source)


def any_chip(chip: PicChip, source: Random) -> None:
    """An interrupt controller."""
    chip.requests = u8(byte(source))
    chip.in_service = u8(byte(source))
    chip.mask = u8(byte(source))
    chip.lines = u8(byte(source))
    chip.level_triggered = u8(byte(source))
    chip.vector_base = u8(source.getrandbits(5) << 3)
    chip.first_priority = u8(source.choice((0, source.randrange(8))))
    chip.expected = u8(source.choice((0, 0, source.randrange(4))))
    chip.needs_icw4 = flag(source)
    chip.single = flag(source)
    chip.automatic_end = flag(source)
    chip.rotate_on_automatic_end = flag(source)
    chip.special_mask = flag(source)
    chip.special_nested = flag(source)
    chip.reads_in_service = flag(source)
    chip.polled = source.randrange(4) == 0


def any_channel(channel: PitChannel, source: Random, now: int) -> None:
    """A counter of the timer, near an edge of its output."""
    tick = int(ticks_at(u64(now)))
    count = source.choice((1, 2, 3, 4, 5, 8, 255, 65536, source.randint(1, 65536)))
    passed = source.choice((0, 1, 2, count // 2, count - 1, count, count + 1, source.randrange(300)))
    channel.start = u64(max(0, tick - passed - source.choice((0, 0, 0, count))))
    channel.held = u64(source.choice((0, passed, passed, source.randrange(9))))
    channel.count = u64(count)
    channel.next_edge = u64(source.choice((NEVER, tick + source.randrange(-1, 3) if tick else 0)))
    channel.latched = u16(source.getrandbits(16))
    channel.latched_bytes = u8(source.randrange(3))
    channel.latched_status = u8(source.getrandbits(8))
    channel.low_byte = u8(byte(source))
    channel.access = u8(source.randint(1, 3))
    channel.mode = u8(source.choice((source.randrange(6), 2, 3)))
    channel.mode_written = u8(source.randrange(8))
    channel.bcd = flag(source)
    channel.gate = source.randrange(4) != 0
    channel.loaded = source.randrange(4) != 0
    channel.status_latched = source.randrange(4) == 0
    channel.high_next = flag(source)
    channel.high_written_next = flag(source)


def register(source: Random) -> int:
    """A register of the clock that means something, most often; else one of memory."""
    return source.choice(
        (source.randrange(STATUS_A), STATUS_A, STATUS_B, source.randrange(STATUS_D + 2), CENTURY, source.randrange(128))
    )


def any_clock(rtc: Rtc, source: Random) -> None:
    """A clock in some century; whatever its memory holds, what says that it works stays."""
    days = source.choice((source.randrange(430 * 365), source.choice((11_016, 11_017)), 47_540, source.randrange(60)))
    seconds = (source.randrange(SECONDS_A_DAY), 0, SECONDS_A_DAY - 1, source.randrange(24) * 3600)
    rtc.start = u64(days * SECONDS_A_DAY + source.choice(seconds))
    rtc.index = u8(register(source))
    for place in range(128):
        rtc.memory[place] = u8(source.getrandbits(8))


def any_controller(controller: KeyboardController, source: Random) -> None:
    """A keyboard controller, often with a command that waits for its byte."""
    controller.status = u8(source.getrandbits(8))
    controller.mode = u8(source.getrandbits(8))
    controller.output_port = u8(source.getrandbits(8))
    controller.output = u8(source.getrandbits(8))
    controller.command = u8(source.choice((0, 0x60, 0xD1, 0xD2, 0xD3, 0xD4)))
    controller.reset_asked = flag(source)


def any_pci(pci: PciPorts, source: Random) -> None:
    """The PCI ports."""
    pci.address = u32(source.getrandbits(32))
    pci.reset_control = u8(source.getrandbits(8))
    pci.reset_asked = flag(source)


def any_ring(ring: ByteRing, source: Random, room: bool) -> None:
    """A ring whose counts may be about to wrap, with nothing in it, or nearly; or, if it is `room` that counts, nearly full."""
    few = source.choice((0, 0, 0, 0, 1, 2, 14, 15, 16, 17, 18, RING_SIZE))
    waiting = RING_SIZE - few if room else few
    taken = source.choice((0, source.getrandbits(20), 2**64 - source.randrange(1, 40)))
    ring.taken = u64(taken)
    ring.written = u64((taken + waiting) % 2**64)


def any_devices(board: Board, source: Random, now: int) -> None:
    """A board at a time: what nothing gives a meaning to is noise."""
    current_machine().memory.write(int(address_of(board)), source.randbytes(size_of(Board)))
    board.devices = u64(DEVICES_KNOWN if source.randrange(4) else source.getrandbits(5))
    board.needs_advance = flag(source)
    any_uart(board.uart, source, now)
    for number in range(2):
        any_chip(board.pic.chips[number], source)
    for number in range(3):
        any_channel(board.pit.channels[number], source, now)
    board.pit.speaker = u8(source.getrandbits(2))
    any_clock(board.rtc, source)
    any_controller(board.keyboard, source)
    any_pci(board.pci, source)
    any_ring(board.output, source, True)
    any_ring(board.input, source, False)


def any_box(box: Box, source: Random, now: int) -> None:
    """A box whose devices are due, or not yet."""
    any_devices(box.board, source, now)
    box.device_deadline = u64(source.choice((NEVER, now + soon(source))))
    box.vcpu.pending.deferred = u32(source.choice((0, 0, 1 << 31)))
    box.vcpu.pending.is_window_requested = u64(source.choice((0, 0, 1)))


def any_time(source: Random) -> int:
    """A time in ns: early, about where a second ends or is about to, far away."""
    second = source.choice((1, 59, 60, 3600, 86_400, source.randrange(1, YEAR))) * NANOSECONDS
    near = second + source.choice((0, -UPDATE_NS)) + source.choice((-NS_OF_TICK, -1, 0, 1))
    return source.choice((source.randrange(10_000), near, near, source.getrandbits(58), LAST_TICKS))


# --- What is done with a board

PORTS: Final = {region.target: range(region.first, region.first + region.count) for region in REGIONS}
EDGES: Final = [port for ports in PORTS.values() for port in range(ports[0] - 4, ports[-1] + 5)]


def any_port(source: Random) -> tuple[int, int, int]:
    """A port in or about any region, or anywhere, with a width and a value."""
    port = source.choice((source.choice(EDGES), source.choice(EDGES), source.getrandbits(16), source.getrandbits(8)))
    return port, source.choice((1, 1, 2, 4)), source.getrandbits(64)


def of(*targets: Target) -> Callable[[Random], tuple[int, int, int]]:
    """A port of these, a byte wide."""
    ports = [port for target in targets for port in PORTS[target]]
    return lambda source: (source.choice(ports), 1, byte(source))


COMMANDS: Final = [
    0x20, 0x60, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xC0, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xDD, 0xDF, 0xF0, 0xFE, 0xFF,
]  # fmt: skip


def timer(source: Random) -> tuple[int, int, int]:
    """A counter's port, port 61h, or a control word: a read-back, or another."""
    counters, speaker = PORTS[Target.TIMER], PORTS[Target.SPEAKER][0]
    read_back, word = source.choice((0xC0, 0xE0, 0xD0)) | source.getrandbits(4), byte(source)
    rows = [(source.choice(counters), word), (speaker, word), (counters[-1], read_back), (counters[-1], word)]
    port, value = source.choice(rows)
    return port, 1, value


def keyboard(source: Random) -> tuple[int, int, int]:
    """A command that a controller has, or the one before or after it; or a byte."""
    if source.randrange(3) == 0:
        return PORTS[Target.KEYBOARD_DATA][0], 1, byte(source)
    return PORTS[Target.KEYBOARD_COMMAND][0], 1, (source.choice(COMMANDS) + source.choice((0, 0, 0, -1, 1))) & 0xFF


def clock(source: Random) -> tuple[int, int, int]:
    """The clock's index, or more often what it points at."""
    index, data = PORTS[Target.CLOCK]
    return source.choice(
        ((index, 1, register(source) | source.getrandbits(1) << 7), (data, 1, byte(source)), (data, 1, byte(source)))
    )


def configuration(source: Random) -> tuple[int, int, int]:
    """One of the PCI ports, the address as such most often."""
    return source.choice(PORTS[Target.PCI]), source.choice((1, 2, 4)), source.getrandbits(32)


def any_or_configuration(source: Random) -> tuple[int, int, int]:
    """Any port; or one of PCI's, as wide as its address."""
    return source.choice((any_port, any_port, configuration))(source)


@dataclass(frozen=True)
class Part:
    """What is used, and how: accesses, what else is done as often as to read and write, and whether by the board alone or by its box."""

    access: Callable[[Random], tuple[int, int, int]]
    others: tuple[int, ...]
    of_box: bool = False


PARTS: Final = {
    "uart": Part(of(Target.SERIAL), (WRITE, READ, ADVANCE, TYPE, DRAIN)),
    "pic": Part(of(Target.PIC_MASTER, Target.PIC_SLAVE, Target.TRIGGER_MODES), (WRITE, ACKNOWLEDGE)),
    "pit": Part(timer, (WRITE, ADVANCE)),
    "rtc": Part(clock, (READ,)),
    "i8042": Part(keyboard, (WRITE, TAKE_RESET)),
    "pci": Part(configuration, (WRITE, TAKE_RESET)),
    "board": Part(any_port, (RESET, ADVANCE, ACKNOWLEDGE)),
    "box": Part(any_or_configuration, (ADVANCE, TYPE, DRAIN, NEEDS_RUN_LOOP, NEEDS_RUN_LOOP), of_box=True),
}


def any_operations(part: str, source: Random, now: int, count: int) -> list[Operation]:
    """What a box and the monitor do with a board from a time on."""
    chosen = PARTS[part]
    operations: list[Operation] = []
    for _ in range(count):
        now = min(now + soon(source), 2**64 - 1)
        operation = source.choice((READ, WRITE, *chosen.others))
        if operation == RESET:
            operations.append((RESET, 0, 0, source.getrandbits(5), now))
        else:
            operations.append((operation, *chosen.access(source), now))
    return operations
