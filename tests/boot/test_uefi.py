"""Whole boots in QEMU: the same image from BIOS and UEFI, as every kind of disk; what is not as signed is refused there too."""

from __future__ import annotations

import functools
import itertools
import json
import socket
import time
from pathlib import Path

import pytest

from boot.handoff import MONITOR_BASE
from boot.uefi import start
from dsl.compiler.pipeline import Program, compile_program
from dsl.std.framebuffer import FIRST_GLYPH, GLYPH_HEIGHT, GLYPH_WIDTH
from pipeline import assemble, disk
from pipeline.emulator import EmulatorError
from pipeline.errors import OK, UsageError
from pipeline.qemu import DISKS, FIRMWARES, UEFI, Qemu, QemuMachine
from pipeline.run_qemu import run_qemu
from tests import needs
from tests.boot.images import DEVELOPMENT_SECRET, MONITOR, Part, loader, partition_of, usual_parts
from tests.boot.keys import FONT, PUBLIC_KEY, SECRET
from vmm.main import start as monitor_start

pytestmark = needs.whole_machines(needs.firmware)
SECONDS = 120.0
END = b"terrane| stopped"
MONITOR_AT = 8192  # the first entry's offset in the partition


@functools.cache
def application() -> Program:
    """The loader for UEFI, trusting the tests' key."""
    supplied = {"boot.header_key": PUBLIC_KEY, "std.font": FONT}
    return compile_program(start, base=assemble.APPLICATION_BASE, supplied=supplied)


@functools.cache
def partition() -> bytes:
    return partition_of(usual_parts())


def image_of(content: bytes) -> bytes:
    """A whole image, as the pipeline lays it out."""
    stage1, stage2 = assemble.loader_stages(loader().image, len(content))
    return disk.build_disk(stage1, stage2, content, {disk.APPLICATION: application().pe()})


def boot(folder: Path, image: bytes, firmware: str = UEFI, kind: str = "ahci", more: tuple[str, ...] = ()) -> Qemu:
    """A machine that runs this image. To be entered."""
    path = folder / "image.img"
    disk.write_sparse(path, image)
    return Qemu(QemuMachine(path, firmware=firmware, disk=kind, more=more))


def run(machine: Qemu) -> list[str]:
    """Wait for the end; the lines that came, firmware's terminal codes left out."""
    machine.wait_for(lambda: END + b"\r\n" in machine.output, "its end", SECONDS)
    return bytes(machine.output).decode("latin-1").replace("\r", "").splitlines()


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the good image."""
    folder = tmp_path_factory.mktemp("good")
    disk.write_sparse(folder / "image.img", image_of(partition()))
    return folder


@pytest.mark.parametrize("kind", DISKS)
@pytest.mark.parametrize("firmware", FIRMWARES)
def test_one_image_boots_everywhere(image_folder: Path, firmware: str, kind: str) -> None:
    """The small monitor prints its handoff: what it was given does not depend on how the machine booted."""
    with Qemu(QemuMachine(image_folder / "image.img", firmware=firmware, disk=kind)) as machine:
        lines = run(machine)
    values: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.rpartition(" ")
        values.setdefault(name, []).append(value)
    assert "terrane| loader: every entry is what the signed header says; the monitor starts" in lines
    assert ("terrane| loader: reading the image" in lines) == (firmware == UEFI)
    for number in range(14):
        assert int(values[f"register {number}:"][0], 16) == 0
    assert [int(kind, 16) for kind in values["entry kind"]] == [1, 2, 3, 4]
    assert bytes.fromhex("".join(values["signer"])) == PUBLIC_KEY
    assert int(values["acpi"][0], 16) != 0
    pieces = list(zip(numbers(values, "range base"), numbers(values, "range size"), strict=True))
    pieces += list(zip(numbers(values, "entry place")[1:], numbers(values, "entry size")[1:], strict=True))
    pieces.append((numbers(values, "monitor physical")[0], numbers(values, "monitor memory")[0]))
    pieces.append((numbers(values, "tables")[0], numbers(values, "tables size")[0]))
    pieces.sort()
    assert all(base + size <= after for (base, size), (after, _) in itertools.pairwise(pieces))
    assert sum(numbers(values, "range size")) > 200 << 20  # of 256 MiB


def numbers(values: dict[str, list[str]], name: str) -> list[int]:
    return [int(value, 16) for value in values[name]]


def flipped(offset: int) -> bytes:
    """The partition with a bit changed."""
    content = bytearray(partition())
    content[offset] ^= 4
    return bytes(content)


def screen_text(folder: Path, columns: int) -> list[str]:
    """What is on the screen, read by the tests' font; QEMU says what its pixels are."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(folder / "qmp"))
        talk = line.makefile("rw")
        for command in (
            {"execute": "qmp_capabilities"},
            {"execute": "screendump", "arguments": {"filename": str(folder / "screen.ppm")}},
        ):
            talk.readline()
            talk.write(json.dumps(command) + "\n")
            talk.flush()
        assert "error" not in json.loads(talk.readline())
    data = (folder / "screen.ppm").read_bytes()
    _, size, _, pixels = data.split(b"\n", 3)
    width, height = (int(number) for number in size.split())
    glyphs = {FONT[at * GLYPH_HEIGHT : (at + 1) * GLYPH_HEIGHT]: chr(FIRST_GLYPH + at) for at in range(95)}
    glyphs[bytes(GLYPH_HEIGHT)] = " "
    lines = []
    for row in range(height // GLYPH_HEIGHT):
        text = ""
        for column in range(min(columns, width // GLYPH_WIDTH)):
            cell = bytearray()
            for y in range(GLYPH_HEIGHT):
                at = ((row * GLYPH_HEIGHT + y) * width + column * GLYPH_WIDTH) * 3
                cell.append(sum(0x80 >> x for x in range(GLYPH_WIDTH) if pixels[at + 3 * x]))
            text += glyphs.get(bytes(cell), "?")
        lines.append(text.rstrip())
    return lines


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (70, "refused: header: signature: expected one by the key in the loader, found another"),
        (MONITOR_AT + 500, "refused: monitor: entry 0, partition bytes 0x0000000000002000 to "),
    ],
)
def test_a_flipped_bit_is_refused_under_uefi(tmp_path: Path, offset: int, expected: str) -> None:
    """By name, on the serial line and on the framebuffer; the monitor is not started."""
    machine = boot(tmp_path, image_of(flipped(offset)), more=("-qmp", f"unix:{tmp_path / 'qmp'},server=on,wait=off"))
    with machine:
        lines = run(machine)
        time.sleep(0.5)  # the screen comes after the line
        shown = screen_text(tmp_path, 60)
    assert any(line.startswith(f"terrane| {expected}") for line in lines), lines
    assert "monitor" not in lines
    assert shown[0] == "terrane| loader: checking the image"
    assert shown[1] == f"terrane| {expected}"[:60]
    assert "terrane| stopped" in shown


def test_a_disk_without_the_partition_is_refused_under_uefi(tmp_path: Path) -> None:
    """By firmware's console: the loader takes no partition of another disk, and starts nothing."""
    other = tmp_path / "other.img"
    disk.write_sparse(other, image_of(partition()))
    content = bytearray(partition())
    content[0] ^= 1
    more = ("-drive", f"if=none,id=other,format=raw,snapshot=on,file={other}", "-device", "virtio-blk-pci,drive=other")
    with boot(tmp_path, image_of(bytes(content)), more=more) as machine:
        lines = run(machine)
    assert any(
        "terrane| refused: Terrane partition: expected one on the loader's disk, found none" in line for line in lines
    )
    assert "terrane| loader: checking the image" not in lines


def test_a_processor_without_the_baseline_is_refused_under_uefi(tmp_path: Path) -> None:
    """Before any compiled code that needs it: what is missing is named."""
    with boot(tmp_path, image_of(partition()), more=("-cpu", "max,adx=off")) as machine:
        lines = run(machine)
    assert "terrane| refused: loader: processor: expected ADX, found a processor without it" in lines
    assert "terrane| loader: reading the image" not in lines


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_the_tree_s_own_monitor_is_reached(tmp_path: Path, firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What `run --engine qemu` waits for is what the monitor says."""
    parts = [Part(MONITOR, monitor()), Part(DEVELOPMENT_SECRET, SECRET)]
    path = tmp_path / "image.img"
    disk.write_sparse(path, image_of(partition_of(parts)))
    assert run_qemu(QemuMachine(path, firmware=firmware), None, SECONDS, as_json=True) == OK
    assert json.loads(capsys.readouterr().out)["firmware"] == firmware


def test_the_monitor_goes_on_below_the_loader_on_the_framebuffer(tmp_path: Path) -> None:
    """A person without a serial line sees what is wrong."""
    parts = [Part(MONITOR, monitor()), Part(DEVELOPMENT_SECRET, SECRET)]
    more = ("-qmp", f"unix:{tmp_path / 'qmp'},server=on,wait=off")
    with boot(tmp_path, image_of(partition_of(parts)), more=more) as machine:
        machine.wait_for(lambda: b"run boxes on this machine\r\n" in machine.output, "its end", SECONDS)
        time.sleep(0.5)  # the screen comes after the line
        shown = screen_text(tmp_path, 60)
    assert shown[3] == "terrane| loader: every entry is what the signed header says; the monitor starts"[:60]
    assert shown[4] == "terrane| refused: the processor has no VT-x, or it is hidden: CPUID leaf 1"[:60]


@functools.cache
def monitor() -> bytes:
    return compile_program(monitor_start, base=MONITOR_BASE).image


def test_what_a_machine_does_not_say_is_named(tmp_path: Path) -> None:
    """A machine that stays silent, one that cannot start, an image that is not there."""
    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    with (
        Qemu(QemuMachine(tmp_path / "empty.img")) as machine,
        pytest.raises(EmulatorError, match=r"expected its end within 1 s, found none"),
    ):
        machine.wait_for(lambda: False, "its end", 1)
    with (
        Qemu(QemuMachine(tmp_path / "empty.img", more=("-device", "nothing"))) as machine,
        pytest.raises(EmulatorError, match="'nothing' is not a valid"),
    ):
        machine.wait_for(lambda: False, "its end", 10)
    with pytest.raises(UsageError, match="expected a readable disk image"):
        Qemu(QemuMachine(tmp_path / "absent.img"))
