"""Whole boots in Bochs: a good image reaches the monitor as promised, anything else is refused by name and nothing is started."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from boot.handoff import DIRECT_MAP, HANDOFF_SIZE, MONITOR_BASE
from boot.stages import BODY_BASE, BOUNCE_BASE, SECTOR_SIZE, STAGE2_SIZE, emit_stage1
from tests.boot import chain
from tests.boot.images import PARTITION_LBA, STAGE2_LBA, disk_of, loader, partition_of, program_disk, usual_parts
from tests.boot.keys import OTHER_KEY, PUBLIC_KEY, SECRET
from tests.boot.machine import BOCHS, Outcome, boot
from tests.boot.tables import walk

pytestmark = [pytest.mark.t2, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
RAM = 64 << 20


def lines_of(outcome: Outcome) -> list[str]:
    return outcome.serial.replace("\r", "").splitlines()


class Good:
    """One good boot: what the small monitor printed, by name, and all of RAM when it was done."""

    def __init__(self, folder: Path) -> None:
        ram = folder / "ram.bin"
        script = f'c\nwritemem "{ram}" {DIRECT_MAP + 0:#x} {0x3C00000:#x}\n'
        script += f'writemem "{ram}.top" {DIRECT_MAP + 0x3E00000:#x} {0x200000:#x}\n'
        script += f'writemem "{ram}.monitor" {MONITOR_BASE:#x} {0x200000:#x}\n'
        self.outcome = boot(folder, disk_of(partition_of(usual_parts())), until=None, script=script)
        self.values: dict[str, list[str]] = {}
        for line in lines_of(self.outcome):
            name, _, value = line.rpartition(" ")
            self.values.setdefault(name, []).append(value)
        assert self.number("monitor physical") == 0x3C00000, self.outcome.serial
        self.low, self.top, self.monitor = (Path(f"{ram}{end}").read_bytes() for end in ("", ".top", ".monitor"))

    def number(self, name: str) -> int:
        return int(self.values[name][0], 16)

    def numbers(self, name: str) -> list[int]:
        return [int(value, 16) for value in self.values[name]]

    def data(self, name: str) -> bytes:
        return bytes.fromhex("".join(self.values[name]))

    def physical(self, place: int, size: int) -> bytes:
        if place >= 0x3E00000:
            return self.top[place - 0x3E00000 :][:size]
        return self.monitor[place - 0x3C00000 :][:size] if place >= 0x3C00000 else self.low[place:][:size]

    def load(self, place: int, size: int) -> int:
        return int.from_bytes(self.physical(place, size), "little")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return Good(tmp_path_factory.mktemp("good"))


def test_the_monitor_finds_its_registers_cleared(good: Good) -> None:
    for number in range(14):
        assert good.number(f"register {number}:") == 0
    assert good.number("register 14:") & 0x600 == 0  # RFLAGS: interrupts off, direction up


def test_the_handoff_says_where_everything_is(good: Good) -> None:
    parts = usual_parts()
    assert good.number("magic") == int.from_bytes(b"TRNHANDO", "little")
    assert (good.number("version"), good.number("size")) == (2, HANDOFF_SIZE)
    assert good.numbers("entry kind") == [1, 2, 3, 4]
    for part, place, size in zip(parts, good.numbers("entry place"), good.numbers("entry size"), strict=False):
        assert size == len(part.content)
        if part.kind != 1:  # the monitor's own data was written to
            assert good.physical(place, size) == part.content
    text_end = int.from_bytes(parts[0].content[12:16], "little")
    assert good.monitor[:text_end] == parts[0].content[:text_end]
    assert (good.number("mode"), good.number("posture"), good.number("security version")) == (2, 9, 7)
    assert good.physical(good.number("acpi"), 8) == b"RSD PTR "


def test_free_memory_is_what_nothing_else_has(good: Good) -> None:
    free = list(zip(good.numbers("range base"), good.numbers("range size"), strict=True))
    taken = [
        (0, 0x100000),
        (good.number("monitor physical"), good.number("monitor memory")),
        (good.number("tables"), good.number("tables size")),
        (good.number("place") - DIRECT_MAP, HANDOFF_SIZE),
        *zip(good.numbers("entry place")[1:], good.numbers("entry size")[1:], strict=True),
    ]
    pages = sorted(page for base, size in free + taken for page in range(base // 4096, (base + size + 4095) // 4096))
    assert len(pages) == len(set(pages))
    assert set(range((RAM - 0x10000) // 4096)) == set(pages)  # the rest is firmware's, and ACPI's


def test_the_chain_is_what_another_implementation_derives(good: Good) -> None:
    row = good.data("entry row")[:64]
    expected = chain.derive(SECRET, row, PUBLIC_KEY, security_version=5)
    assert good.data("signer") == PUBLIC_KEY
    chain.check(good.data("device"), good.data("certificate"), expected)
    handoff = good.physical(good.number("place") - DIRECT_MAP, HANDOFF_SIZE)
    assert handoff.count(expected.cdi_attest + expected.cdi_seal) == 1


def test_no_secret_of_the_loader_is_left_in_memory(good: Good) -> None:
    expected = chain.derive(SECRET, good.data("entry row")[:64], PUBLIC_KEY, security_version=5)
    memory = good.low + good.monitor + good.top
    assert memory.count(usual_parts()[1].content) >= 2  # the search sees what is there: as read, and as placed
    for name, key in (("device", expected.device), ("monitor", expected.monitor)):
        seed = key.private_bytes_raw()
        expanded = hashlib.sha512(seed).digest()
        scalar = bytes([expanded[0] & 0xF8, *expanded[1:31], expanded[31] & 0x7F | 0x40])
        for secret in (seed, scalar, expanded[:16], expanded[16:32], expanded[32:48], expanded[48:]):
            assert secret not in memory, name
    for half in (SECRET[:16], SECRET[16:]):
        assert half not in memory
    assert memory.count(expected.cdi_attest) == memory.count(expected.cdi_seal) == 1


def test_the_loaders_own_memory_is_wiped(good: Good) -> None:
    begin = BODY_BASE + int.from_bytes(loader().image[16:20], "little")  # after its read-only data
    end = (
        BODY_BASE + loader().memory_size - 8
    )  # where `leave` puts the entry's address, and the small monitor its flags
    for low, high in [(begin, end), (BOUNCE_BASE, BOUNCE_BASE + 0x8000), (0x7000, 0x7C00)]:
        assert not any(good.low[low:high]), hex(low)


def test_no_page_is_writable_and_executable(good: Good) -> None:
    mapped = dict(walk(good.load, good.number("tables")))
    assert not any(writable and executable for _, writable, executable in mapped.values())
    monitor = good.number("monitor physical")
    assert DIRECT_MAP + monitor not in mapped
    assert mapped[MONITOR_BASE] == (monitor, False, True)
    gate = loader().symbols["boot.leave.leave"][0] & ~4095
    low = {address: row for address, row in mapped.items() if address < DIRECT_MAP}
    assert low == {page: (page, False, True) for page in (gate, gate + 4096)}


def flip(offset: int) -> Callable[[bytes], bytes]:
    def change(partition: bytes) -> bytes:
        content = bytearray(partition)
        content[offset] ^= 1
        return bytes(content)

    return change


def place_of(number: int) -> int:
    """Where the usual image's entry lies in its partition."""
    offset = 8192
    for part in usual_parts()[:number]:
        offset += -(-len(part.content) // 4096) * 4096
    return offset


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (lambda: 100, "header: signature: "),
        (lambda: 8191, "header: signature: "),
        (lambda: place_of(0) + 100, "monitor: entry 0, "),
        (lambda: place_of(1) + 4095, "descriptor: entry 1, "),
        (lambda: place_of(2), "segment: entry 2, "),
        (lambda: place_of(3) + 2, "release chain: entry 3, "),
        (lambda: place_of(4) + 31, "development secret: entry 4, "),
    ],
)
def test_a_flipped_byte_is_refused(tmp_path: Path, offset: Callable[[], int], expected: str) -> None:
    said = lines_of(boot(tmp_path, disk_of(flip(offset())(partition_of(usual_parts())))))
    assert said[-1] == "terrane| stopped"
    assert said[-2].startswith(f"terrane| refused: {expected}")
    assert "monitor" not in said


def test_another_signer_is_refused(tmp_path: Path) -> None:
    said = lines_of(boot(tmp_path, disk_of(partition_of(usual_parts(), key=OTHER_KEY))))
    assert said[-2:] == [
        "terrane| refused: header: signature: expected one by the key in the loader, found another",
        "terrane| stopped",
    ]


def test_a_cut_disk_is_refused(tmp_path: Path) -> None:
    partition = partition_of(usual_parts())
    said = lines_of(boot(tmp_path, disk_of(partition[: 20 * 512], partition_sectors=40000)))
    assert said == [
        "terrane| refused: stage 2: Terrane partition: expected it read, found a disk error",
        "terrane| stopped",
    ]


def test_a_disk_without_stage_2_is_refused(tmp_path: Path) -> None:
    disk = emit_stage1(1000000).ljust(510, b"\0") + b"\x55\xaa"
    said = lines_of(boot(tmp_path, disk))
    assert said == [
        "terrane| refused: stage 1: stage 2: expected it read by INT 13h extensions, found a disk error",
        "terrane| stopped",
    ]


def test_a_damaged_loader_body_is_refused(tmp_path: Path) -> None:
    disk = bytearray(disk_of(partition_of(usual_parts())))
    disk[STAGE2_LBA * SECTOR_SIZE + STAGE2_SIZE] ^= 1
    said = lines_of(boot(tmp_path, bytes(disk)))
    assert said == [
        "terrane| refused: stage 2: loader body: expected a whole flat program, found another",
        "terrane| stopped",
    ]


def test_too_little_memory_is_refused(tmp_path: Path) -> None:
    said = lines_of(boot(tmp_path, disk_of(partition_of(usual_parts()), partition_sectors=40000), memory=32))
    assert said[0] == (
        "terrane| refused: stage 2: memory for the image at 0x01000000: expected usable bytes 0x01388000, found 0x00ff0000"
    )


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ("p4_willamette", "x86-64 long mode"),
        ("core2_penryn_t9600", "POPCNT"),
        ("corei5_lynnfield_750", "AES-NI"),
        ("corei7_sandy_bridge_2600k", "LZCNT"),
        ("corei7_haswell_4770", "ADX"),
    ],
)
def test_a_processor_without_the_baseline_is_refused(tmp_path: Path, model: str, missing: str) -> None:
    said = lines_of(boot(tmp_path, disk_of(partition_of(usual_parts())), model=model))
    assert said == [
        f"terrane| refused: stage 2: processor: expected {missing}, found a processor without it",
        "terrane| stopped",
    ]


@pytest.mark.parametrize("model", ["broadwell_ult", "corei3_cnl", "corei7_icelake_u", "tigerlake"])
def test_other_processors_boot(tmp_path: Path, model: str) -> None:
    assert "monitor" in lines_of(boot(tmp_path, disk_of(partition_of(usual_parts())), model=model))


def test_a_second_processor_stays_parked(tmp_path: Path) -> None:
    outcome = boot(tmp_path, disk_of(partition_of(usual_parts())), processors=2)
    assert "monitor" in lines_of(outcome)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("check", "terrane| loader: failed check at tests/boot/faults.py:"),
        ("opcode", "terrane| loader: failed check at exception 6 at 0x"),
        ("page", "terrane| loader: exception 14 at 0x"),
        ("protection", "terrane| loader: exception 13 at 0x"),
    ],
)
def test_a_fault_in_the_loader_says_where_and_stops(tmp_path: Path, name: str, expected: str) -> None:
    from tests.boot import faults

    said = lines_of(boot(tmp_path, program_disk(getattr(faults, f"{name}_start"))))
    assert said[0].startswith(expected)
    assert said[1:] == ["terrane| stopped"]


def test_the_loader_fits_its_place() -> None:
    assert loader().memory_size <= 0x70000
    assert STAGE2_LBA * SECTOR_SIZE + STAGE2_SIZE + len(loader().image) <= PARTITION_LBA * SECTOR_SIZE
