"""A walk through the verbs with what people get wrong: each ends in one message with what was expected and found, and no traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import build
from pipeline import boot_program, burn, disk, mutate, paths, provision_verb, qemu, reference, run_verb, setup, swtpm
from pipeline.errors import UsageError
from tests.pipeline.forge import NONCE, Machine

pytestmark = pytest.mark.t0
LONG = "9" * 30
LOADED = (boot_program, burn, mutate, provision_verb, run_verb)  # before a test changes what they take from `paths`


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, its reference and its evidence; a short image, and files that are none; a stand-in for QEMU."""
    folder, machine = tmp_path_factory.mktemp("place"), Machine()
    whole = disk.build_disk(b"\xfa", b"2" * 1000, machine.partition.data)
    disk.write_sparse(folder / "good.img", whole)
    disk.write_sparse(folder / "short.img", whole[: disk.TERRANE_FIRST * disk.SECTOR + 5000])
    (folder / "text.img").write_bytes(b"not an image\n" * 1000)
    for name in ("good", "short", "text"):
        reference.write(folder / f"{name}.json", machine.values)
    (folder / "evidence.bin").write_bytes(machine.bundle())
    (folder / "file").write_bytes(b"no folder")
    (folder / "program").mkdir()
    (folder / "program" / qemu.QEMU).write_text("#!/bin/sh\nexit 9\n")
    (folder / "program" / qemu.QEMU).chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def settled(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is set up, and nothing of this checkout's within reach."""
    monkeypatch.setattr(setup, "ensure", lambda groups, again=False: None)
    monkeypatch.setattr(setup, "enter_environment", lambda groups, argv: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(paths, "OUT", tmp_path / "out")
    monkeypatch.setattr(paths, "KEYS", tmp_path / "keys")
    monkeypatch.chdir(place)


def status(*words: str) -> int:
    """What build.py ends with."""
    try:
        return build.main(list(words))
    except SystemExit as error:  # argparse
        return int(error.code or 0)


RUN = ("run", "--engine", "qemu")
VERIFY = ("verify", "evidence.bin", "--expect", "good.json")
WRONG: list[tuple[tuple[str, ...], str]] = [
    ((*RUN, "--firmware", "foo"), "--firmware: invalid choice: 'foo' (choose from"),
    ((*RUN, "--memory", "0"), "--memory: expected a number from 1 to 1048576, found '0'"),
    ((*RUN, "--memory", LONG), f"--memory: expected a number from 1 to 1048576, found '{LONG}'"),
    ((*RUN, "--timeout", "-5"), "--timeout: expected a number from 1 to"),
    ((*RUN, "--timeout", "1.5"), "--timeout: expected a number from 1 to"),
    ((*RUN, "--image", "absent.img"), "absent.img: expected a readable disk image, found none"),
    ((*RUN, "--image", "."), ".: expected a readable disk image, found none"),
    ((*RUN, "--image", "good.img", "--expect", "absent.json"), "absent.json: expected a reference file, cannot read it"),
    ((*RUN, "--image", "good.img", "--expect", "evidence.bin"), "evidence.bin: expected JSON"),
    ((*RUN, "--image", "good.img", "--release"), "--image: takes an image as it is; --boxes, --pool, --selftest, --release"),
    ((*RUN, "--image", "good.img", "--security-version", "2"), "--image: takes an image as it is"),
    ((*RUN, "--expect", "good.json"), "--expect: has a meaning only with --image"),
    ((*RUN, "--tpm-state", "file"), "--tpm-state: expected --tpm with it, found none"),
    (("burn", "/dev/nosuch", "--image", "good.img", "--boxes", "debian"), "--image: takes an image as it is"),
    (("burn", "file", "--image", "good.img"), "expected a whole disk, such as /dev/sdb, found file"),
    (("burn", "/dev/null", "--image", "good.img"), "expected a whole disk, such as /dev/sdb, found /dev/null"),
    (("build", "--pool", "3"), "registers, found 3"),
    (("build", "--pool", "99"), "registers, found 99"),
    (("build", "--security-version", LONG), "--security-version: expected a number from 1 to 4294967295, found"),
    (("build", "--boxes", "nosuch"), "--boxes: expected folders under guests/ with a box.toml"),
    (("build", "--boxes", ","), "--boxes: expected at least one name, found none"),
    (("build", "--selftest", "--boxes", "debian"), "--selftest: the self-test has no boxes"),
    (("build", "--release"), "--release: expected the owner's keys in"),
    (("provision", "new", "--floor", "0"), "--floor: expected a number from 1 to 4294967295, found '0'"),
    ((*VERIFY,), "--nonce: expected 64 hex digits, found 'none'"),
    ((*VERIFY, "--nonce", "00"), "--nonce: expected 64 hex digits, found '00'"),
    ((*VERIFY, "--nonce", "0" * 65), "--nonce: expected 64 hex digits, found"),
    ((*VERIFY, "--monitor", "--nonce", NONCE.hex()), "--monitor: a monitor's bundle has neither nonce nor box"),
    ((*VERIFY, "--nonce", NONCE.hex(), "--box", "nosuch"), "expected a box 'nosuch', found debian (open), witness (closed)"),
    (("verify", ".", "--expect", "good.json", "--nonce", NONCE.hex()), ".: expected an evidence file, cannot read it: Is a directory"),
    (("verify", "evidence.bin", "--expect", ".", "--nonce", NONCE.hex()), ".: expected a reference file, cannot read it: Is a directory"),
    (("mutate", "nosuch"), "expected std or handlers, found nosuch"),
    (("boot", "absent.py"), "absent.py: expected a Python file, found none"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words)[:60] for words, _ in WRONG])
def test_wrong_use(tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    """Status 2; and no image is left of it."""
    assert status(*words) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


REFUSED: list[tuple[tuple[str, ...], str]] = [
    ((*RUN, "--image", "short.img"), "short.img: expected "),
    ((*RUN, "--image", "text.img"), "text.img: expected a GPT header at LBA 1, found b'"),
    (("verify", "text.img", "--expect", "good.json", "--nonce", NONCE.hex()), "text.img: evidence: expected the magic"),
    ((*VERIFY, "--nonce", "ff" * 32), "endorsement: nonce: expected ffff"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words)[:60] for words, _ in REFUSED])
def test_damaged_things(capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    """Status 1, before any emulator is started."""
    assert status(*words) == 1
    assert message in capfd.readouterr().err


def test_a_tpm_in_software_that_is_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Said before anything is built or started; the package is named."""
    monkeypatch.setenv("PATH", str(place / "program"))
    assert status(*RUN, "--tpm", "--image", "good.img") == 2
    assert "expected the program swtpm (Debian package swtpm), found none" in capfd.readouterr().err


UNWRITABLE: list[tuple[tuple[str, ...], str]] = [
    ((*VERIFY, "--nonce", NONCE.hex(), "--html", "absent/page.html"), "absent/page.html: expected to read or write it, found: No"),
    ((*VERIFY, "--nonce", NONCE.hex(), "--html", "/dev/full"), "found: No space left on device"),
    ((*VERIFY, "--nonce", NONCE.hex(), "--certificates", "file"), "file: expected to read or write it, found: File exists"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), UNWRITABLE, ids=[" ".join(words)[-40:] for words, _ in UNWRITABLE])
def test_places_that_cannot_be_written(capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    """A folder that is not there, a full device, a file in a folder's place: named, with the system's own reason."""
    assert status(*words) == 1
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_full_disk_leaves_the_old_image(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is written beside the old one and then takes its place: cut short, it does not."""
    old = (place / "good.img").read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        disk.write_sparse(place / "good.img", b"new" * 1000)
    assert (place / "good.img").read_bytes() == old


def test_a_reader_that_went_away() -> None:
    """`build.py ... | head`: no message, and no traceback."""
    command = [sys.executable, str(paths.ROOT / "build.py"), "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_a_tpm_folder_that_is_a_file(place: Path) -> None:
    """The TPM in software cannot be made there."""
    try:
        swtpm.check_installed()
    except UsageError as error:
        pytest.skip(str(error))
    with pytest.raises(OSError, match="file"):
        swtpm.manufacture(place / "file")
