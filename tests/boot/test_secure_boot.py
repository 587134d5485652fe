"""Secure Boot under OVMF: what db's key signed starts; a changed byte, another signer or no signature is refused by firmware."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsl.compiler.pipeline import compile_program
from pipeline import assemble, disk, qemu, secure_boot
from pipeline.authenticode import sign_image
from pipeline.errors import UsageError
from pipeline.qemu import UEFI, Qemu, QemuMachine
from pipeline.run import Refused
from pipeline.run_qemu import run_qemu
from tests import needs
from tests.boot import enrol_program

pytestmark = needs.whole_machines(needs.firmware)
SECONDS = 120.0
PARTITION = bytes(1 << 20)  # no Terrane partition that the loader takes: that it says so shows that it runs
RUNS = "Terrane partition: expected one on the loader's disk"
SECURITY_VIOLATION = 1 << 63 | 26  # EFI_SECURITY_VIOLATION


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of keys, from which variable stores are made."""
    folder = tmp_path_factory.mktemp("keys") / "secure-boot"
    secure_boot.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qemu, "enrolled_variables", functools.partial(secure_boot.enrolled_variables, folder=folder))
        yield folder


@functools.cache
def application() -> bytes:
    """The loader for UEFI, not signed."""
    from tests.boot.test_uefi import application as program

    return program().pe()


def keys_of(folder: Path) -> secure_boot.SecureBootKeys:
    keys = secure_boot.load(folder)
    assert keys is not None
    return keys


def end_of(folder: Path, application: bytes, secure: bool = True) -> str:
    """What the boot ended with."""
    path = folder / "image.img"
    disk.write_sparse(path, disk.build_disk(b"\xfa", bytes(512), PARTITION, {disk.APPLICATION: application}))
    with pytest.raises(Refused) as refused:
        run_qemu(QemuMachine(path, firmware=UEFI, secure_boot=secure), None, SECONDS, as_json=True)
    return str(refused.value)


def test_what_the_key_signed_starts(folder: Path, tmp_path: Path) -> None:
    """The loader speaks."""
    assert RUNS in end_of(tmp_path, sign_image(application(), keys_of(folder).db))


def test_a_changed_byte_is_refused(folder: Path, tmp_path: Path) -> None:
    """One bit in the code; the same file starts where Secure Boot is off."""
    changed = bytearray(sign_image(application(), keys_of(folder).db))
    changed[-3000] ^= 1  # in the zeros or data before the certificate table
    assert "Access Denied" in end_of(tmp_path, bytes(changed))
    assert RUNS in end_of(tmp_path, bytes(changed), secure=False)


def test_another_signer_is_refused(folder: Path, tmp_path: Path) -> None:
    """A good signature by a key of the same name that nobody enrolled."""
    stranger = secure_boot.make(tmp_path / "others")
    assert "Access Denied" in end_of(tmp_path, sign_image(application(), stranger.db))
    assert "Access Denied" in end_of(tmp_path, application())


def test_firmware_takes_the_enrolment_files(folder: Path, tmp_path: Path) -> None:
    """A machine without keys takes PK, KEK and db as they lie on the stick, and then no KEK or db that another signed."""
    keys = keys_of(folder)
    stranger = secure_boot.make(tmp_path / "others")
    good = changes(keys)
    assert statuses(tmp_path, good) == [0, 0, 0]
    others = changes(secure_boot.SecureBootKeys(stranger.pk, keys.kek, keys.db))
    assert statuses(tmp_path, {**good, "KEK": others["KEK"]})[:2] == [0, SECURITY_VIOLATION]
    others = changes(secure_boot.SecureBootKeys(keys.pk, stranger.kek, keys.db))
    assert statuses(tmp_path, {**good, "db": others["db"]}) == [0, 0, SECURITY_VIOLATION]


def changes(keys: secure_boot.SecureBootKeys) -> dict[str, bytes]:
    """The signed change of each variable."""
    files = secure_boot.enrolment_files(keys)
    return {name: files[f"EFI/TERRANE/{name.upper()}.AUT"] for name in secure_boot.NAMES}


def statuses(folder: Path, changes: dict[str, bytes]) -> list[int]:
    """What a firmware without keys answers to PK, KEK and db."""
    values = {f"test.{name}": change.ljust(enrol_program.CAPACITY, b"\0") for name, change in changes.items()}
    values["test.sizes"] = b"".join(len(changes[name]).to_bytes(8, "little") for name in secure_boot.NAMES)
    program = compile_program(enrol_program.start, base=assemble.APPLICATION_BASE, supplied=values)
    path = folder / "enrol.img"
    disk.write_sparse(path, disk.build_disk(b"\xfa", bytes(512), PARTITION, {disk.APPLICATION: program.pe()}))
    with Qemu(QemuMachine(path, firmware=UEFI)) as machine:
        machine.wait_for(lambda: b"enrolment ends" in machine.output, "the end", SECONDS)
        lines = bytes(machine.output).decode("latin-1").splitlines()
    return [int(line.split()[-1], 16) for line in lines if line.startswith("enrolled, status")]


def test_a_machine_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    """`run --secure-boot` before `keys --secure-boot`."""
    with pytest.raises(UsageError, match=r"build\.py keys --secure-boot"):
        secure_boot.enrolled_variables(qemu.OVMF_VARIABLES, tmp_path / "out", tmp_path / "none")
