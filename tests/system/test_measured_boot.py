"""Whole boots with a TPM: measured, provisioned, approved, quoted, refused below the floor. Real loader, real monitor, swtpm."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline import assemble, disk, event_log, evidence, image, keys, provision, qemu, reference, report, tpm
from pipeline.assemble import Choices, Terms
from pipeline.console import MONITOR
from pipeline.errors import UsageError
from pipeline.evidence import Kind
from pipeline.qemu import Qemu, QemuMachine
from pipeline.reference import Reference
from pipeline.run import EVIDENCE, Terminal, checked_bundle, with_release_chain
from pipeline.swtpm import CA_FOLDER, Swtpm
from pipeline.swtpm import check_installed as check_swtpm
from pipeline.tpm_tools import TpmTools
from pipeline.verify import verify_monitor

try:
    qemu.check_installed("uefi")
    check_swtpm()
    MISSING = "" if shutil.which("tpm2") else "tpm2 (Debian package tpm2-tools) is missing"
except UsageError as error:
    MISSING = str(error)
pytestmark = [
    pytest.mark.t3,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "nothing is missing"),
]
SECONDS = 240.0


@dataclass
class Booted:
    """What a boot said, and the bundle that its monitor printed."""

    words: str
    bundle: bytes


@dataclass
class Bench:
    """An owner, a machine of this firmware and TPM interface, and its images."""

    folder: Path
    firmware: str
    interface: str
    owner: provision.OwnerKeys = field(init=False)
    machine: provision.Provisioned | None = None
    table: bytes = image.NO_APPROVALS

    def __post_init__(self) -> None:
        self.owner = provision.load_owner_keys(self.folder)

    def build(self, terms: Terms = Terms(), damage: bytes = b"") -> tuple[Path, Reference]:
        """An image without boxes, as `build` makes it. `damage`: other bytes for the loader's first line on the screen."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keys, "load", functools.partial(keys.load, self.folder))
            patch.setattr(provision, "authority_key", lambda: self.owner.authority_key)
            patch.setattr(assemble, "approvals", lambda: self.table)
            built = assemble.build(Choices((), 256 << 20, terms=terms))
        content = built.disk.replace(b"loader: checking the image", damage) if damage else built.disk
        assert (content != built.disk) == bool(damage)
        disk.write_sparse(self.folder / "terrane.img", content)
        reference.write(self.folder / "terrane.json", built.reference)
        return self.folder / "terrane.img", reference.load(self.folder / "terrane.json")

    def boot(self, path: Path, until: str = "end-evidence") -> Booted:
        """Boot it once; power on is a reset of the TPM."""
        terminal = Terminal(show=False)
        machine = QemuMachine(path, firmware=self.firmware, tpm=self.interface, tpm_state=self.folder / "tpm")
        with Qemu(machine, terminal.take) as emulator:
            said = functools.partial(terminal.transcript.said, MONITOR)
            done = (lambda: EVIDENCE.search(said()) is not None) if until == "end-evidence" else lambda: until in said()
            emulator.wait_for(done, until, SECONDS)
        words = said()
        return Booted(words, checked_bundle(words) if until == "end-evidence" else b"")

    def provision(self) -> None:
        """Prepare the TPM; its maker's CA is trusted."""
        with Swtpm(self.folder / "tpm", for_tools=True) as software, TpmTools(software.tcti) as tools:
            authority = x509.load_pem_x509_certificate(
                (self.folder / "tpm" / CA_FOLDER / "issuercert.pem").read_bytes()
            )
            self.machine = provision.provision(tools, self.owner, 1, [authority], False)
            provision.keep(self.machine, "bench", self.folder)

    def raise_floor(self, floor: int) -> None:
        """The deliberate act."""
        assert self.machine is not None
        with Swtpm(self.folder / "tpm", for_tools=True) as software, TpmTools(software.tcti) as tools:
            provision.raise_floor(tools, self.machine.counter_base, floor)

    def approve(self, booted: Booted, expected: Reference) -> None:
        """Approve boots of an image on the machine that booted; that may have been another image."""
        assert self.machine is not None
        mask, values = provision.boot_values(item(booted.bundle, Kind.EVENT_LOG), expected.boot)
        row = provision.approve(self.owner, mask, values, self.machine.counter_base, expected.security_version)
        table = self.table if any(self.table[16:80]) else provision.empty_table(self.owner.policy.public_key())
        self.table = provision.add_approval(table, self.owner, row)

    def complete(self, booted: Booted, path: Path) -> bytes:
        """The bundle with what the machine does not have."""
        links = image.read_release_chain(disk.read_terrane_partition(path))
        return provision.with_machine(with_release_chain(booted.bundle, links[:3]), self.folder / "machines" / "bench")


def item(bundle: bytes, kind: Kind) -> bytes:
    """The one item of a kind."""
    (found,) = [each.data for each in evidence.parse(bundle) if each.kind is kind]
    return found


@pytest.fixture(scope="module", params=[("bios", "tis"), ("uefi", "crb")], ids=["bios-tis", "uefi-crb"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One machine after the other; the tests below are its life, in order."""
    return Bench(tmp_path_factory.mktemp("bench"), *request.param)


def test_an_unprovisioned_tpm_is_said_and_gives_no_secret(bench: Bench, tmp_path: Path) -> None:
    """Its own line and its own mark; the log is one that tpm2-tools read; what is not provisioned cannot boot a release."""
    path, _ = bench.build()
    booted = bench.boot(path)
    assert "not provisioned" in booted.words
    assert "DEVELOPMENT SECRET" in booted.words
    assert Kind.QUOTE not in {each.kind for each in evidence.parse(booted.bundle)}
    log = tmp_path / "log"
    log.write_bytes(item(booted.bundle, Kind.EVENT_LOG))
    shown = subprocess.run(["tpm2", "eventlog", str(log)], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    values = event_log.replay(event_log.parse(log.read_bytes()))
    for index in (4, 8, 9):
        assert values[index].hex() in shown.stdout.lower()
    bench.provision()
    path, expected = bench.build(Terms(release=True))
    assert "the header wants a TPM's" in bench.boot(path, "stopped").words
    bench.approve(booted, expected)


def test_an_approved_boot_is_quoted_and_verified(bench: Bench, tmp_path: Path) -> None:
    """From the owner's CA to the monitor; other people's tools accept certificates and quote."""
    path, expected = bench.build(Terms(release=True))
    booted = bench.boot(path)
    assert "DEVELOPMENT SECRET" not in booted.words
    verdict = verify_monitor(bench.complete(booted, path), expected)
    assert report.closing_line(verdict) == "VERIFIED"
    assert verdict.tpm is not None
    assert verdict.tpm.firmware == bench.firmware
    again = verify_monitor(bench.complete(bench.boot(path), path), expected)
    assert again.tpm is not None
    assert again.tpm.reset_count > verdict.tpm.reset_count
    for name, kind in (("device", Kind.DEVICE), ("monitor", Kind.MONITOR)):
        certificate = x509.load_der_x509_certificate(item(booted.bundle, kind))
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    words = [
        "openssl",
        "verify",
        "-ignore_critical",
        "-CAfile",
        str(tmp_path / "device.pem"),
        str(tmp_path / "monitor.pem"),
    ]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert check_quote(bench, booted, tmp_path) == 0
    changed = Booted("", booted.bundle.replace(item(booted.bundle, Kind.QUOTE_SIGNATURE), bytes(72)))
    assert check_quote(bench, changed, tmp_path) != 0


def check_quote(bench: Bench, booted: Booted, folder: Path) -> int:
    """What tpm2_checkquote ends with."""
    assert bench.machine is not None
    key = tpm.parse_public(bench.machine.attestation_key).key
    public_key = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    device, monitor = (item(booted.bundle, kind) for kind in (Kind.DEVICE, Kind.MONITOR))
    raw = [x509.load_der_x509_certificate(data).public_key().public_bytes_raw() for data in (device, monitor)]  # type: ignore[union-attr]
    (folder / "key.pem").write_bytes(public_key)
    (folder / "quote").write_bytes(item(booted.bundle, Kind.QUOTE))
    (folder / "signature").write_bytes(item(booted.bundle, Kind.QUOTE_SIGNATURE))
    words = ["tpm2", "checkquote", "-u", "key.pem", "-m", "quote", "-s", "signature", "-g", "sha256"]
    words += ["-q", tpm.qualifying_data(raw[0], raw[1]).hex()]
    return subprocess.run(words, cwd=folder, capture_output=True).returncode


def test_another_loader_gets_nothing(bench: Bench) -> None:
    """One word of the loader changed: measured as something else, so the TPM withholds the secret."""
    path, _ = bench.build(damage=b"loader: Checking the image")
    booted = bench.boot(path)
    assert "withholds the device secret" in booted.words
    assert "DEVELOPMENT SECRET" in booted.words


def test_below_the_floor_nothing_boots(bench: Bench) -> None:
    """Validly signed, approved once, and too old."""
    bench.raise_floor(2)
    path, _ = bench.build()
    words = bench.boot(path, "stopped").words
    assert "security version: expected at least 0x0000000000000002 (the TPM's floor), found 0x0000000000000001" in words
    path, _ = bench.build(Terms(security_version=2))
    booted = bench.boot(path)
    assert "withholds" in booted.words  # a new version is a new approval
    path, expected = bench.build(Terms(security_version=2, release=True))
    bench.approve(booted, expected)
    path, expected = bench.build(Terms(security_version=2, release=True))
    assert report.closing_line(verify_monitor(bench.complete(bench.boot(path), path), expected)) == "VERIFIED"
