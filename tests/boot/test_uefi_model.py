"""The UEFI part of the loader against a model of firmware: what it hands to the body, and how it refuses."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator

import pytest

import boot.uefi
from boot.firmware import exit_boot_services
from boot.parameters import FIRMWARE_RANGES, check_parameters
from boot.refusal import Rule
from boot.uefi import PARAMETERS, note_memory
from boot.uefi_disk import parent_length
from dsl.hw.uefi import BootServices
from dsl.lang import HostVirtual, u64
from dsl.lang.model import Halted
from tests.boot.efi_model import (
    BOOT,
    CONFIGURATION,
    DEVICE_ERROR,
    DEVICE_PATH,
    END,
    FINAL_EVENTS,
    FRAMEBUFFER,
    IMAGE,
    INVALID,
    SYSTEM,
    Firmware,
    firmware,
    node,
    partition_path,
)
from tests.boot.tables import walk

pytestmark = pytest.mark.t0
TERRANE = b"TERRANE1".ljust(512 * 40, b"t") + b"end".ljust(1 << 20, b"e")
BASE, SIZE = 0x1000000, 0x30000


class Moved(Exception):
    """The loader left firmware's world, with these arguments of `move`."""


@pytest.fixture
def efi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Firmware]:
    """A firmware whose disk has an ESP, ours, and others around them."""

    def move(*arguments: HostVirtual | u64) -> None:
        raise Moved(*(int(a.as_u64()) if isinstance(a, HostVirtual) else int(a) for a in arguments))

    monkeypatch.setattr(boot.uefi, "move", move)
    model = firmware()
    with model.machine:
        model.add_partition(partition_path(b"other disk", 3), TERRANE[:-1024])
        model.add_partition(partition_path(b"disk", 1), bytes(1 << 16))
        esp = model.add_partition(partition_path(b"disk", 2), b"\xeb".ljust(1 << 16))
        model.add_partition(node(2, 1, b"root") + node(3, 18, b"disk") + END, bytes(1 << 16))
        model.add_partition(partition_path(b"disk", 4), TERRANE[:4096])  # too small to be ours
        model.add_partition(partition_path(b"disk", 3), TERRANE)
        model.load_from(esp)
        yield model


def prepare(model: Firmware) -> tuple[int, ...]:
    """Run it to its end; the arguments of `move`."""
    try:
        boot.uefi.prepare(u64(IMAGE), HostVirtual(SYSTEM))
    except Moved as end:
        return end.args
    raise AssertionError("it came back")


def test_what_the_body_is_given(efi: Firmware) -> None:
    """Partition, memory, screen, ACPI root, and its own place, which is aligned, below 4 GiB and not handed over."""
    efi.add_screen()
    tables, place, base, size = prepare(efi)
    assert (base, size, place % 0x200000, tables) == (BASE, SIZE, 0, place + SIZE)
    assert efi.console == "terrane| loader: reading the image\r\n"
    assert check_parameters(PARAMETERS).rule == Rule.GOOD
    assert int(PARAMETERS.firmware) == 1
    assert int(PARAMETERS.staging_base) == efi.allocations[0]
    assert efi.machine.memory.read(efi.allocations[0], int(PARAMETERS.staging_size)) == TERRANE
    assert int(PARAMETERS.acpi_root.as_u64()) == 0xF2000
    assert (int(PARAMETERS.loader_base), int(PARAMETERS.loader_size)) == (place, SIZE + 0x30000)
    screen = (PARAMETERS.framebuffer_width, PARAMETERS.framebuffer_height, PARAMETERS.framebuffer_pitch)
    assert (int(PARAMETERS.framebuffer.as_u64()), *map(int, screen)) == (FRAMEBUFFER, 64, 32, 288)
    count = int(PARAMETERS.range_count)
    ranges = [(int(PARAMETERS.ranges[i].base), int(PARAMETERS.ranges[i].size)) for i in range(count)]
    assert ranges == [(0, 0xA0000), (0x100000, 0x700000), (0xA00000, 0x3600000)]
    assert (efi.machine.ports[0x21], efi.machine.ports[0xA1]) == (0xFF, 0xFF)


def test_the_new_page_tables_are_an_identity_map(efi: Firmware) -> None:
    """Of 4 GiB, and of what lies above and is needed: the framebuffer."""
    efi.add_screen(place=0x123_4567_8000)
    tables, *_ = prepare(efi)
    mapped = dict(walk(efi.machine.memory.load, tables))
    assert all(address == physical for address, (physical, _, _) in mapped.items())
    low = {address for address in mapped if address < 1 << 32}
    assert low == set(range(0, 1 << 32, 1 << 21))
    high = {address >> 30 for address in mapped if address >= 1 << 32}
    assert high == {0x123_4567_8000 >> 30}


def event(pcr: int, data: bytes) -> bytes:
    """A TCG_PCR_EVENT2 with one digest."""
    return struct.pack("<IIIH32sI", pcr, 0xD, 1, 0xB, hashlib.sha256(data).digest(), len(data)) + data


FIRST = (
    struct.pack("<II20sI", 0, 3, bytes(20), 33)
    + b"Spec ID Event03\0"
    + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, 0xB, 32, 0)
)


@pytest.mark.parametrize(("events", "before", "later"), [
    ([event(0, b"crtm"), event(4, b"x" * 300)], 0, [event(5, b"exit"), event(5, b"")]),
    ([event(0, b"crtm")], 2, [event(5, b"exit")]),
    ([], 0, []),
])  # fmt: skip
def test_the_event_log_is_taken_over(efi: Firmware, events: list[bytes], before: int, later: list[bytes]) -> None:
    """Up to its last event, and then what firmware logged on its way out: not what both places have."""
    whole = FIRST + b"".join(events)
    place = efi.put(whole + b"\xee" * 100)  # what follows is none of it
    final = efi.put(struct.pack("<QQ", 1, before) + event(1, b"old") * before + b"".join(later))
    memory = efi.machine.memory

    def get_event_log(this: int, kind: int, location: int, last: int, truncated: int) -> int:
        assert kind == 2
        efi.words(location, place)
        efi.words(last, place + len(whole) - len(events[-1]) if events else place)
        return 0

    def exit_boot_services(image: int, key: int, *_: int) -> int:
        efi.words(final + 8, before + len(later))
        return 0

    efi.tcg2 = efi.put(struct.pack("<QQ", 0, efi.function(get_event_log)) + bytes(40))
    efi.words(BOOT + 232, efi.function(exit_boot_services))
    tables = memory.read(CONFIGURATION, 48) + FINAL_EVENTS + struct.pack("<Q", final)
    memory.write(CONFIGURATION, tables)
    efi.words(SYSTEM + 104, 3)
    prepare(efi)
    assert memory.read(int(PARAMETERS.event_log), int(PARAMETERS.event_log_size)) == whole + b"".join(later)


@pytest.mark.parametrize("damage", [b"\0" * 200, b"\xff" * 200, FIRST[:40], FIRST + b"\xff" * 100])
def test_an_event_log_that_is_none_is_left(efi: Firmware, damage: bytes) -> None:
    """Nothing but whole events is taken."""
    place = efi.put(damage.ljust(400, b"\xff"))

    def get_event_log(this: int, kind: int, location: int, last: int, truncated: int) -> int:
        efi.words(location, place)
        efi.words(last, place + 65)
        return 0

    efi.tcg2 = efi.put(struct.pack("<QQ", 0, efi.function(get_event_log)) + bytes(40))
    efi.words(SYSTEM + 104, 2)
    prepare(efi)
    assert int(PARAMETERS.event_log_size) == 0


@pytest.mark.parametrize("pixel_format", [2, 3])
def test_a_screen_of_other_pixels_is_left_alone(efi: Firmware, pixel_format: int) -> None:
    """Then the serial line is all there is."""
    efi.add_screen(pixel_format=pixel_format)
    prepare(efi)
    assert int(PARAMETERS.framebuffer.as_u64()) == 0


def test_firmware_is_left_with_the_key_of_its_last_map(efi: Firmware) -> None:
    """When the map changed in between it is asked for again."""
    efi.exits = [INVALID, INVALID, 0]
    prepare(efi)
    assert efi.maps == 3


def break_paging(efi: Firmware) -> None:
    efi.machine.cpu.control[4] |= 1 << 12


def hide_image(efi: Firmware) -> None:
    del efi.handles[IMAGE]


def load_from_network(efi: Firmware) -> None:
    efi.handles[0x102][DEVICE_PATH] = efi.put(node(2, 1, b"root") + node(3, 11, b"card") + END)


def load_from_nowhere(efi: Firmware) -> None:
    efi.handles[0x102][DEVICE_PATH] = efi.put(END)


def take_partition_away(efi: Firmware) -> None:
    del efi.handles[0x105]


def fill_memory(number: int) -> Callable[[Firmware], None]:
    return lambda efi: efi.allocation_status.update({number: 1 << 63 | 9})


def break_disk(efi: Firmware) -> None:
    efi.read_status = DEVICE_ERROR


REFUSALS: list[tuple[Callable[[Firmware], None], str]] = [
    (break_paging, "loader: paging: expected 0x0000000000000004 levels, found 0x0000000000000005"),
    (hide_image, "loader: UEFI: expected to be told what was loaded, found no such protocol"),
    (load_from_network, "loader: UEFI: expected to come from a partition of a disk, found another device path"),
    (load_from_nowhere, "loader: UEFI: expected to come from a partition of a disk, found another device path"),
    (take_partition_away, "Terrane partition: expected one on the loader's disk, found none among 0x0000000000000005 block devices"),
    (fill_memory(0), "memory: image as read: expected 0x0000000000105000 bytes below 4 GiB, found UEFI status 0x8000000000000009"),
    (fill_memory(1), "memory: loader: expected 0x0000000000260000 bytes below 4 GiB, found UEFI status 0x8000000000000009"),
    (break_disk, "Terrane partition: expected 0x0000000000105000 bytes read, found UEFI status 0x8000000000000007"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), REFUSALS)
def test_what_is_missing_is_said_on_firmwares_console(
    efi: Firmware, change: Callable[[Firmware], None], expected: str
) -> None:
    """One line with what was expected and found, and nothing goes on."""
    change(efi)
    with pytest.raises(Halted):
        prepare(efi)
    assert efi.console.endswith(f"terrane| refused: {expected}\r\nterrane| stopped\r\n")
    assert efi.exits == [0], "firmware was not left"


def test_firmware_that_does_not_let_go_is_refused(efi: Firmware) -> None:
    """It must not be asked for its console then: the serial line and the framebuffer say it."""
    efi.exits = [INVALID] * 20
    efi.add_screen()
    efi.machine.memory.map(FRAMEBUFFER, 288 * 32)
    with pytest.raises(Halted):
        prepare(efi)
    said = efi.uart.sent.decode().replace("\r", "")
    assert said == (
        "terrane| refused: loader: ExitBootServices: expected UEFI status 0x0000000000000000, found 0x8000000000000002\n"
        "terrane| stopped\n"
    )
    assert len(efi.exits) == 12
    assert any(efi.machine.memory.read(FRAMEBUFFER, 288 * 32))


def test_memory_is_what_firmware_leaves(efi: Firmware) -> None:
    """Types that are free after it, that can be written back; neighbours joined; too many are counted and refused."""
    efi.rows = [(page, 1, kind, 15) for page, kind in zip(range(0x100, 0x120, 2), range(16), strict=True)]
    efi.rows += [(0x200, 1, 7, 7), (0x300, 2, 7, 8), (0x302, 1, 1, 8), (0x304, 1, 7, 8)]
    efi.exits = [0]
    note_memory(exit_boot_services(BootServices.at(HostVirtual(BOOT)), u64(IMAGE)))
    count = int(PARAMETERS.range_count)
    pages = [(int(PARAMETERS.ranges[i].base) >> 12, int(PARAMETERS.ranges[i].size) >> 12) for i in range(count)]
    kinds = (1, 2, 3, 4, 7)
    assert pages == [*((0x100 + 2 * kind, 1) for kind in kinds), (0x300, 3), (0x304, 1)]
    efi.rows, efi.exits = [(page, 1, 7, 15) for page in range(0x1000, 0x1000 + 2 * FIRMWARE_RANGES, 2)], [0]
    note_memory(exit_boot_services(BootServices.at(HostVirtual(BOOT)), u64(IMAGE)))
    assert int(PARAMETERS.range_count) == FIRMWARE_RANGES + 1


@pytest.mark.parametrize(
    ("path", "length"),
    [
        (partition_path(b"disk", 1), 8 + 8),
        (node(4, 1, bytes(38)) + END, 0),  # a partition of nothing
        (node(2, 1, b"root") + END, 0),
        (node(4, 1, bytes(38)) + node(4, 4, b"file") + END, 0),
        (END, 0),
        (node(1, 1, b"") * 100 + END, 0),  # longer than any
        (b"\x01\x01\x00\x00", 0),  # a node of no length: the search ends
    ],
)
def test_the_parent_of_a_partition(efi: Firmware, path: bytes, length: int) -> None:
    """Bytes before the last node, where that is a partition."""
    assert int(parent_length(HostVirtual(efi.put(path)))) == length
