"""`run --engine qemu` says how far it came, and fails when that was not to the monitor; against a stand-in for QEMU."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline import disk, evidence, qemu
from pipeline.errors import UsageError
from pipeline.evidence import Kind
from pipeline.qemu import DISKS, QemuMachine
from tests.pipeline.forge import Machine

pytestmark = pytest.mark.t0
ROOT = Path(__file__).resolve().parents[2]
LOADER = r"\033[2Jfirmware\r\nterrane| loader: checking the image\r\n"
WITHOUT = r"terrane| refused: the processor has no VT-x, or it is hidden: CPUID leaf 1, ECX bit 5; found 0x0\r\n"


MACHINE = Machine()


def printed(bundle: bytes) -> str:
    """A bundle as the monitor prints it."""
    lines = ["begin-evidence", *textwrap.wrap(bundle.hex(), 64), f"end-evidence {hashlib.sha256(bundle).hexdigest()}"]
    return "".join(rf"terrane| {line}\r\n" for line in lines)


def monitor_bundle() -> bytes:
    """What a monitor prints that can run no box."""
    return evidence.pack([item for item in MACHINE.items() if item.kind in (Kind.DEVICE, Kind.MONITOR)])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of placeholders, and its reference."""
    path = tmp_path / "terrane.img"
    disk.write_sparse(path, disk.build_disk(b"\xfa", b"2" * 1000, MACHINE.partition.data))
    MACHINE.reference(tmp_path)
    return path


def run(image: Path, said: str, *words: str, end: str = "sleep 60") -> subprocess.CompletedProcess[str]:
    """Run it with a stand-in first on the path, which says this and then does that."""
    folder = image.parent / "bin"
    folder.mkdir()
    program = folder / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho \"$@\" >'{image.parent}/words'\nprintf '%b' '{said}'\n{end}\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "build.py"), "run", "--engine", "qemu", "--image", str(image), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_monitor_is_reached_and_verified(image: Path) -> None:
    """Status 0; the chain ends at the monitor, and the last line claims no more than that."""
    result = run(image, LOADER + WITHOUT + printed(monitor_bundle()), "--disk", "nvme")
    assert result.returncode == 0, result.stderr
    verdict, last = result.stdout.rstrip().splitlines()[-2:]
    assert verdict.startswith("VERIFIED (the development secret proves the flow")
    assert last == "The monitor runs. QEMU has no VT-x to give, so that no box was started."
    assert "box witness" not in result.stdout
    words = (image.parent / "words").read_text()
    assert "-device nvme,serial=terrane,drive=disk,bootindex=1" in words
    assert f"snapshot=on,file={image}" in words
    assert "pflash" not in words


def test_a_monitor_of_another_build_is_refused(image: Path) -> None:
    """Status 1, with layer and field."""
    other = Machine(monitor=b"other" * 500)
    bundle = evidence.pack([item for item in other.items() if item.kind in (Kind.DEVICE, Kind.MONITOR)])
    result = run(image, LOADER + WITHOUT + printed(bundle))
    assert result.returncode == 1
    assert "monitor: code hash: expected" in result.stderr


def test_json_alone_on_standard_output(image: Path) -> None:
    """The console goes to standard error."""
    result = run(image, LOADER + WITHOUT + printed(monitor_bundle()), "--json")
    values = json.loads(result.stdout)
    assert (values["verified"], values["reached"], values["firmware"]) == (True, "monitor", "bios")
    assert values["end"].startswith("refused: the processor has no VT-x")
    assert "terrane| loader" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "end", "message"),
    [
        (LOADER + r"terrane| refused: header: signature: another\r\n", "sleep 60", "refused: header: signature: another"),
        (LOADER, "echo broken >&2; exit 3", "QEMU closed the serial line (status 3)\n  broken"),
        (LOADER, "sleep 60", "expected the monitor's word about this processor within 3 s, found none; the last line was: terrane"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said(image: Path, said: str, end: str, message: str) -> None:
    """Status 1, one message, no traceback."""
    result = run(image, said, "--timeout", "3", end=end)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--attach", "debian"), "--attach: expected --engine bochs, found qemu"),
        (("--cpu", "other"), "--cpu: expected --engine bochs, whose models it names, found qemu with 'other'"),
        (("--engine", "bochs", "--firmware", "uefi"), "expected --engine qemu, found bochs"),
        (("--engine", "bochs", "--disk", "usb"), "expected --engine qemu, found bochs"),
    ],
)
def test_options_without_a_meaning_are_refused(image: Path, words: tuple[str, ...], message: str) -> None:
    """Status 2, before anything is started."""
    result = run(image, LOADER + WITHOUT, *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert not (image.parent / "words").exists()


def test_a_host_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which package to install."""
    monkeypatch.setattr(qemu, "OVMF_CODE", tmp_path / "absent.fd")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"expected the program qemu-system-x86_64 \(Debian package qemu-system-x86\)"):
        qemu.check_installed("bios")
    (tmp_path / qemu.QEMU).write_text("#!/bin/sh\n")
    (tmp_path / qemu.QEMU).chmod(0o755)
    qemu.check_installed("bios")
    with pytest.raises(UsageError, match=r"absent\.fd \(Debian package ovmf\), found none"):
        qemu.check_installed("uefi")


@pytest.mark.parametrize("kind", DISKS)
def test_the_command_line(kind: str, tmp_path: Path) -> None:
    """Firmware as flash only for UEFI; variables of this run's own."""
    words = " ".join(qemu.arguments(QemuMachine(Path("i.img"), firmware="uefi", disk=kind, more=("-s",)), tmp_path))
    assert f"file={qemu.OVMF_CODE}" in words
    assert f"file={tmp_path / 'variables.fd'}" in words
    assert words.endswith(" ".join(DISKS[kind]) + " -s")
