"""`run --engine kvm`: which hosts are refused and why, QEMU's command line, and the whole way against a stand-in. No KVM is used."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from pipeline import arguments, disk, doctor, evidence, kvm, machines, paths, qemu, reference, run_verb
from pipeline import run as runner
from pipeline.bochs import Machine as BochsMachine
from pipeline.errors import OK, REFUSED, PipelineError, UsageError
from pipeline.evidence import Kind
from pipeline.qemu import QemuMachine
from pipeline.run import Refused, Terminal
from pipeline.verify import Root, verify_evidence
from tests.pipeline.forge import NONCE, Machine
from tests.pipeline.forge_tpm import TpmMachine

pytestmark = pytest.mark.t0
INTEL, AMD, NEITHER = "fpu vmx adx", "fpu svm adx", "fpu hypervisor adx"
ADVICE = "as root: modprobe -r kvm_intel && modprobe kvm_intel nested=1"


def host(folder: Path, flags: str = INTEL, nested: str | None = "Y\n", device: bool = True) -> Path:
    """The files of a host that are looked at."""
    proc, setting, dev = folder / "proc", folder / "sys/module/kvm_intel/parameters", folder / "dev"
    for place in (proc, dev):
        place.mkdir(parents=True)
    (proc / "cpuinfo").write_text(f"processor\t: 0\nvmx flags\t: vnmi vmx\nflags\t\t: {flags}\nbugs\t\t: vmx\n")
    if nested is not None:
        setting.mkdir(parents=True)
        (setting / "nested").write_text(nested)
    if device:
        (dev / "kvm").write_bytes(b"")
    return folder


@pytest.mark.parametrize("setting", ["Y\n", "1\n"])
def test_a_host_that_can(tmp_path: Path, setting: str) -> None:
    """Both spellings of the module's setting."""
    assert kvm.lacking(host(tmp_path, nested=setting)) == []


@pytest.mark.parametrize(
    ("flags", "nested", "device", "reasons"),
    [
        (INTEL, "Y", False, ["/dev/kvm (found none: no KVM in this kernel, or"]),
        (INTEL, "N\n", True, [f"the module kvm_intel's setting nested = Y (found 'N'; {ADVICE})"]),
        (INTEL, None, True, ["the kernel module kvm_intel (found none loaded; as root: modprobe kvm_intel nested=1)"]),
        (AMD, None, True, ["an Intel processor's VT-x (found AMD's SVM, which the monitor does not drive)"]),
        (NEITHER, "Y", True, ["an Intel processor's VT-x (found a processor without vmx)"]),
        (INTEL, "0", False, ["/dev/kvm (found none", "nested = Y (found '0'"]),
    ],
)
def test_a_host_that_cannot(tmp_path: Path, flags: str, nested: str | None, device: bool, reasons: list[str]) -> None:
    """Each reason, with what was found; a word in another line of cpuinfo counts for nothing."""
    found = kvm.lacking(host(tmp_path, flags, nested, device))
    assert len(found) == len(reasons)
    assert all(wanted in reason for wanted, reason in zip(reasons, found, strict=True))


def test_a_device_without_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and not ours."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (reason,) = kvm.lacking(host(tmp_path))
    assert reason.startswith("a readable and writable /dev/kvm (found one without access")


def test_a_host_that_says_nothing(tmp_path: Path) -> None:
    """No cpuinfo, and one without flags."""
    assert kvm.lacking(tmp_path) == ["/proc/cpuinfo with a flags line"]
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("vmx flags : vmx\n")
    assert kvm.lacking(tmp_path) == ["/proc/cpuinfo with a flags line"]


def test_doctor_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row has the reasons that `run` would give."""
    monkeypatch.setattr(kvm, "HOST", host(tmp_path, AMD))
    (row,) = [row for row in doctor.examine() if str(row["name"]).startswith("T4")]
    assert not row["ok"]
    assert any("AMD's SVM" in reason for reason in row["missing"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("machine", [
    QemuMachine(Path("i.img")), QemuMachine(Path("i,j.img"), 512, "uefi", "nvme", secure_boot=True, tpm="crb"),
])  # fmt: skip
def test_the_command_line_differs_in_accelerator_and_processor_alone(tmp_path: Path, machine: QemuMachine) -> None:
    """Firmware, disk, TPM and all else are what the other engine boots. A comma in a path is two."""
    (tmp_path / "tpm").mkdir()
    (tmp_path / "tpm" / "tpm2-00.permall").write_bytes(b"made before")
    values = {**vars(machine), "tpm_state": tmp_path / "tpm"}
    emulated = qemu.arguments(QemuMachine(**values), tmp_path)
    lent = qemu.arguments(QemuMachine(**values | {"accelerator": qemu.KVM}), tmp_path)
    assert emulated[:5] == [qemu.QEMU, "-accel", "tcg", "-cpu", "max"]
    assert lent == [qemu.QEMU, "-accel", "kvm", "-cpu", "host", *emulated[5:]]
    assert f"if=none,id=disk,format=raw,snapshot=on,file={str(machine.image).replace(',', ',,')}" in lent


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image and its reference, on a host that can, with the stand-in for QEMU first on the path."""
    machine = Machine()
    path = tmp_path / "made.img"
    disk.write_sparse(path, disk.build_disk(b"\xfa", b"2" * 1000, machine.partition.data))
    reference.write(tmp_path / "made.json", machine.values)
    folder = tmp_path / "bin"
    folder.mkdir()
    words = (
        f"echo \"$@\" >'{tmp_path}/words'\nPYTHONPATH={paths.ROOT} exec {sys.executable} -m tests.pipeline.fake_machine"
    )
    (folder / qemu.QEMU).write_text(f"#!/bin/sh\n{words}\n")
    (folder / qemu.QEMU).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(paths, "OUT", tmp_path / "out")
    monkeypatch.setattr(kvm, "HOST", host(tmp_path / "host"))
    return path


def run(image: Path, *words: str) -> int:
    """`run --engine kvm --image`, in this process; its status."""
    return run_verb.perform(arguments.parser().parse_args(["run", "--engine", "kvm", "--image", str(image), *words]))


def test_all_of_it_runs_there(image: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """As in Bochs: the closed box answers a fresh nonce, and its evidence is verified down to the box."""
    monkeypatch.setenv("FAKE", "good")
    assert run(image, "--json", "--disk", "usb") == OK
    shown = capfd.readouterr()
    values = json.loads(shown.out)
    assert (values["verified"], values["box"], values["nonce"] != NONCE.hex()) == (True, "witness", True)
    assert "Booting made.img in QEMU under KVM (bios, usb, 256 MiB)" in shown.err
    assert "-accel kvm -cpu host" in (image.parent / "words").read_text()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("old-nonce", "endorsement: nonce: expected"),
        ("refuse", "refused: header: signature"),
        ("stop", "QEMU closed the"),
    ],
)
def test_what_goes_wrong_there(image: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, message: str) -> None:
    """A refusal of the machine's, another evidence, and QEMU's own end."""
    monkeypatch.setenv("FAKE", behaviour)
    with pytest.raises(PipelineError, match=message) as caught:
        run(image)
    assert caught.value.status == REFUSED


def test_firmware_that_refuses_ends_the_run(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OVMF's own line counts as a refusal, under every engine."""
    monkeypatch.setenv("FAKE", "secure-boot")
    with pytest.raises(Refused, match=r"firmware does not start EFI/BOOT/BOOTX64\.EFI: Access Denied"):
        run(image)


def test_a_host_that_cannot_is_refused_before_anything_starts(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reason, and the engine that would do."""
    monkeypatch.setattr(kvm, "HOST", host(image.parent / "other", NEITHER, device=False))
    with pytest.raises(
        UsageError, match=r"--engine kvm: expected a host .*missing: /dev/kvm .*; an Intel.*--engine bochs"
    ):
        run(image)
    assert not (image.parent / "words").exists()
    assert not (image.parent / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cpu", "other"), "--cpu: expected --engine bochs, whose models it names, found kvm with 'other'"),
        (("--secure-boot",), "--secure-boot: expected --firmware uefi, found bios"),
        (("--tpm-state", "x"), "--tpm-state: expected --tpm with it, found none"),
        (("--attach", "other"), "--attach: expected one of debian, witness, found 'other'"),
    ],
)
def test_options_without_a_meaning(image: Path, words: tuple[str, ...], message: str) -> None:
    """Wrong use, before anything starts."""
    with pytest.raises(UsageError, match=message):
        run(image, *words)
    assert not (image.parent / "words").exists()


def test_evidence_of_a_provisioned_machine_is_completed_and_wants_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the engine: the owner's two items are added, and the chain has to begin in the TPM."""
    machine, kept = TpmMachine(), (Kind.DEVICE_CERTIFICATE, Kind.ATTESTATION_KEY, Kind.RELEASE)
    place = tmp_path / machines.FOLDER / "mine"
    place.mkdir(parents=True)
    items = {item.kind: item.data for item in machine.tpm_items()}
    (place / "device.der").write_bytes(items[Kind.DEVICE_CERTIFICATE])
    (place / "attestation-key.tpmt").write_bytes(items[Kind.ATTESTATION_KEY])
    monkeypatch.setattr(paths, "KEYS", tmp_path)
    monkeypatch.setattr(paths, "OUT", tmp_path / "out")
    terminal = Terminal(show=False)
    printed = evidence.pack([item for item in machine.items() if item.kind not in kept])
    whole = runner.completed(printed, [*machine.release[:3], machine.release[4]], terminal)
    assert (tmp_path / "out" / "evidence.bin").read_bytes() == whole
    root = runner.root_of(QemuMachine(Path("i.img"), tpm="tis"), whole, terminal)
    assert root is Root.TPM
    assert verify_evidence(whole, machine.reference(tmp_path), NONCE, root=root).tpm is not None


def test_a_tpm_that_gave_no_secret_has_no_root(capfd: pytest.CaptureFixture[str]) -> None:
    """Not verified, and told how to go on; without a TPM it is the development secret's."""
    bundle, terminal = Machine().bundle(), Terminal(show=False)
    assert runner.root_of(QemuMachine(Path("i.img"), tpm="tis"), bundle, terminal) is None
    assert "`build.py provision` prepares a TPM" in capfd.readouterr().err
    for machine in (QemuMachine(Path("i.img")), BochsMachine(Path("i.img"))):
        assert runner.root_of(machine, bundle, terminal) is Root.DEVELOPMENT
