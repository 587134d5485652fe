"""Lines, the UART, the screen, the ACPI root and the places of failed checks, under CPython."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as some

from boot.acpi import find_acpi_root
from dsl.lang import Array, HostVirtual, address_of, array_at, text, u8, u64
from dsl.lang.model import Machine
from dsl.std import print as lines
from dsl.std.checks import append_place
from dsl.std.screen import Screen, screen_start, screen_write
from dsl.std.serial import COM1, serial_can_receive, serial_receive, serial_start, serial_write
from tests.boot.model import Cursor, Uart

pytestmark = pytest.mark.t0
VGA = 0xB8000


@pytest.fixture(autouse=True)
def machine() -> Iterator[Machine]:
    with Machine() as model:
        model.memory.map(0, 0x100000)
        yield model


def said(machine: Machine, line: lines.Line) -> str:
    data = lines.line_bytes(line)
    return machine.memory.read(int(address_of(data).as_u64()), int(data.length)).decode()


def array_of(machine: Machine, content: bytes, place: int = 0x20000) -> Array[u8]:
    machine.memory.write(place, content)
    return array_at(u8, HostVirtual(place), u64(len(content)))


@given(some.integers(0, 2**64 - 1) | some.sampled_from([0, 1, 9, 10, 99, 100, 2**64 - 1, 10**19, 10**19 - 1]))
def test_numbers_are_printed_as_python_prints_them(number: int) -> None:
    with Machine() as machine:
        line = lines.Line()
        lines.append_decimal(line, u64(number))
        lines.append_text(line, text(" "))
        lines.append_hexadecimal(line, u64(number))
        assert said(machine, line) == f"{number} 0x{number:016x}"


def test_text_bytes_and_padding(machine: Machine) -> None:
    line = lines.Line()
    lines.append_padded_text(line, array_of(machine, b"name\0\0x"))
    lines.append_text(line, text(": "))
    lines.append_hexadecimal_bytes(line, array_of(machine, bytes([0, 15, 255])))
    assert said(machine, line) == "name: 000fff"
    lines.line_clear(line)
    assert said(machine, line) == ""


def test_a_full_line_says_so(machine: Machine) -> None:
    line = lines.Line()
    for _ in range(lines.LINE_CAPACITY):
        lines.append_byte(line, u8(65))
    assert said(machine, line) == "A" * lines.LINE_CAPACITY
    lines.append_byte(line, u8(66))
    assert said(machine, line) == "A" * (lines.LINE_CAPACITY - 1) + "~"


def test_the_uart_is_set_up_and_sends(machine: Machine) -> None:
    uart = Uart()
    machine.ports |= dict.fromkeys(range(COM1, COM1 + 8), uart)
    assert serial_start()
    assert uart.registers == {COM1: 1, COM1 + 1: 0, COM1 + 2: 7, COM1 + 3: 3, COM1 + 4: 3, COM1 + 7: 0x5A}
    serial_write(text("a\nb"))
    assert uart.sent == b"a\r\nb"


def test_an_absent_or_stuck_uart_does_not_hold_the_machine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsl.std.serial.WAIT_READS", 5)
    machine.ports |= dict.fromkeys(range(COM1, COM1 + 8), Constant(0xFF))
    assert not serial_start()
    stuck = Constant(0)
    machine.ports |= dict.fromkeys(range(COM1, COM1 + 8), stuck)
    serial_write(text("abc"))
    assert stuck.written == []
    assert not serial_can_receive()
    machine.ports |= dict.fromkeys(range(COM1, COM1 + 8), Constant(0x61))
    assert serial_can_receive()
    assert serial_receive() == u8(0x61)


@dataclass
class Constant:
    """A port that always reads the same."""

    value: int

    def __post_init__(self) -> None:
        self.written: list[int] = []

    def read(self, port: int, width: int) -> int:
        return self.value

    def write(self, port: int, width: int, value: int) -> None:
        self.written.append(value)


def rows_of(machine: Machine) -> list[str]:
    content = machine.memory.read(VGA, 4000)[::2].decode("latin-1")
    return [content[row * 80 :][:80].rstrip(" \0") for row in range(25)]


def test_the_screen_goes_on_at_the_cursor_and_scrolls(machine: Machine) -> None:
    cursor = Cursor(registers={0x0E: 0, 0x0F: 3 * 80})
    machine.ports |= {0x3D4: cursor, 0x3D5: cursor}
    screen = Screen()
    screen_start(screen, HostVirtual(VGA))
    screen_write(screen, array_of(machine, b"first\nsecond"))
    assert rows_of(machine)[3:5] == ["first", "second"]
    assert cursor.registers == {0x0E: 0x01, 0x0F: (4 * 80 + 6) & 0xFF}
    for number in range(22):
        screen_write(screen, array_of(machine, f"\nrow {number}".encode()))
    assert rows_of(machine)[:3] == ["", "first", "second"]
    assert rows_of(machine)[-1] == "row 21"
    screen_write(screen, array_of(machine, b"\n" + b"w" * 81))
    assert rows_of(machine)[-2:] == ["w" * 80, "w"]


def test_a_cursor_outside_the_page_starts_at_the_top(machine: Machine) -> None:
    cursor = Cursor(registers={0x0E: 0xFF, 0x0F: 0xFF})
    machine.ports |= {0x3D4: cursor, 0x3D5: cursor}
    screen = Screen()
    screen_start(screen, HostVirtual(VGA))
    screen_write(screen, text("top"))
    assert rows_of(machine)[0] == "top"


@pytest.mark.parametrize("place", [0x9FC00, 0x9FFE0, 0xE0000, 0xF9FA0, 0xFFFE0])
def test_the_acpi_root_is_found_by_signature_and_sum(machine: Machine, place: int) -> None:
    machine.memory.write(0x40E, struct.pack("<H", 0x9FC0))
    root = bytearray(b"RSD PTR \0BOCHS \0" + struct.pack("<I", 0x3FF0000))
    machine.memory.write(place, bytes(root))
    assert int(find_acpi_root().as_u64()) == 0  # its sum is not zero yet
    root[8] = -sum(root) & 0xFF
    machine.memory.write(place, bytes(root))
    assert int(find_acpi_root().as_u64()) == place


def test_an_absurd_pointer_to_the_bios_data_is_ignored(machine: Machine) -> None:
    machine.memory.write(0x40E, b"\xff\xff")
    assert int(find_acpi_root().as_u64()) == 0


def test_a_failed_check_is_found_by_its_address() -> None:
    places = b"".join(struct.pack("<IHH", *row) for row in [(0x40, 0, 7), (0x50, 1, 900), (0x1000, 0, 12)])
    files = b"boot/main.py".ljust(32, b"\0") + b"f" * 32
    with Machine(image=(0x10000, 0x20000), check_places=places, check_files=files) as machine:
        for offset, expected in {0x40: "boot/main.py:7", 0x50: "f" * 32 + ":900", 0x1000: "boot/main.py:12"}.items():
            line = lines.Line()
            assert append_place(line, HostVirtual(0x10000 + offset))
            assert said(machine, line) == expected
        for address in (0, 0xFFFF, 0x10041, 0x1003F, 0x11001, 1 << 63):
            line = lines.Line()
            assert not append_place(line, HostVirtual(address))
            assert said(machine, line) == ""
