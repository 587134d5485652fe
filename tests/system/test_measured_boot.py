"""Whole boots with a TPM: measured, provisioned, approved, quoted, refused below the floor. Real loader, real monitor, swtpm."""

from __future__ import annotations

import functools
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dsl.std.x509 import DICE_EXTENSION
from pipeline import (
    approvals,
    assemble,
    chain,
    disk,
    event_log,
    evidence,
    image,
    keys,
    machines,
    provision,
    reference,
    report,
    tpm,
)
from pipeline.assemble import Choices, Terms
from pipeline.console import MONITOR
from pipeline.evidence import Kind
from pipeline.qemu import Qemu, QemuMachine
from pipeline.reference import Reference
from pipeline.run import EVIDENCE, Terminal, checked_bundle, with_release_chain
from pipeline.swtpm import CA_FOLDER, Swtpm, manufacture
from pipeline.tpm_tools import TpmTools
from pipeline.verify import parse_dice_extension, verify_monitor
from tests import needs

pytestmark = needs.whole_machines(needs.firmware, needs.tpm)
SECONDS = 240.0
ALL_BANKS = "sha1,sha256,sha384,sha512"


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
    banks: str = "sha256"
    machine: provision.Provisioned | None = None
    table: bytes = approvals.NO_APPROVALS

    def __post_init__(self) -> None:
        self.owner = provision.load_owner_keys(self.folder)
        manufacture(self.folder / "tpm")
        command = ["swtpm_setup", "--tpm2", "--reconfigure", "--tpmstate", str(self.folder / "tpm")]
        subprocess.run([*command, "--pcr-banks", self.banks], capture_output=True, timeout=120, check=True)

    def build(self, terms: Terms = Terms(), damage: bytes = b"") -> tuple[Path, Reference]:
        """An image without boxes, as `build` makes it. `damage`: other bytes for the loader's first line on the screen."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keys, "load", functools.partial(keys.load, self.folder))
            patch.setattr(provision, "authority_key", lambda folder: self.owner.authority_key)
            patch.setattr(approvals, "load", lambda folder: self.table)
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
            machines.keep(self.machine, "bench", self.folder)

    def raise_floor(self, floor: int) -> None:
        """The deliberate act."""
        assert self.machine is not None
        with Swtpm(self.folder / "tpm", for_tools=True) as software, TpmTools(software.tcti) as tools:
            provision.raise_floor(tools, self.machine.counter_base, floor)

    def approve(self, booted: Booted, expected: Reference) -> None:
        """Approve boots of an image on the machine that booted; that may have been another image."""
        assert self.machine is not None
        mask, values = approvals.boot_values(item(booted.bundle, Kind.EVENT_LOG), expected.boot)
        row = approvals.approve(self.owner.policy, mask, values, self.machine.counter_base, expected.security_version)
        policy = self.owner.policy.public_key()
        table = self.table if any(self.table[16:80]) else approvals.table(policy, [])
        self.table = approvals.add(table, policy, row)

    def complete(self, booted: Booted, path: Path) -> bytes:
        """The bundle with what the machine does not have."""
        links = image.read_release_chain(disk.read_terrane_partition(path))
        return machines.with_machine(with_release_chain(booted.bundle, links[:3]), self.folder / "machines" / "bench")


def item(bundle: bytes, kind: Kind) -> bytes:
    """The one item of a kind."""
    (found,) = [each.data for each in evidence.parse(bundle) if each.kind is kind]
    return found


def posture_and_mode(bundle: bytes) -> tuple[int, int]:
    """What the monitor's certificate says of how it was started."""
    certificate = x509.load_der_x509_certificate(item(bundle, Kind.MONITOR))
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(DICE_EXTENSION)).value
    found = parse_dice_extension("monitor", extension.public_bytes())
    return int.from_bytes(found.configuration[-8:], "big"), found.mode


MACHINES = [("bios", "tis", ALL_BANKS), ("uefi", "crb", ALL_BANKS)]


@pytest.fixture(scope="module", params=MACHINES, ids=["bios-tis", "uefi-crb"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One machine after the other; the tests below are its life, in order."""
    return Bench(tmp_path_factory.mktemp("bench"), *request.param)


def test_an_unprovisioned_tpm_is_said_and_gives_no_secret(bench: Bench, tmp_path: Path) -> None:
    """Its own line and its own mark; the log is one that tpm2-tools read; what is not provisioned cannot boot a release."""
    path, expected = bench.build()
    booted = bench.boot(path)
    assert "not provisioned" in booted.words
    assert "DEVELOPMENT SECRET" in booted.words
    assert Kind.QUOTE not in {each.kind for each in evidence.parse(booted.bundle)}
    assert posture_and_mode(booted.bundle) == (0x209, chain.MODE_DEBUG)
    assert expected.device_key in item(booted.bundle, Kind.DEVICE)
    check_log(bench, item(booted.bundle, Kind.EVENT_LOG), tmp_path / "log")
    bench.provision()
    path, expected = bench.build(Terms(release=True))
    assert "the header wants a TPM's" in bench.boot(path, "stopped").words
    bench.approve(booted, expected)


def check_log(bench: Bench, log: bytes, path: Path) -> None:
    """tpm2_eventlog replays the log to what ours does; there is a digest of each bank, where firmware (OVMF) does not leave some out."""
    path.write_bytes(log)
    shown = subprocess.run(["tpm2", "eventlog", str(path)], capture_output=True, text=True, timeout=60, check=True)
    banks = re.split(r"^  (sha\d+):$", shown.stdout.split("\npcrs:\n")[1], flags=re.MULTILINE)
    found = re.findall(r"(\d+) *: 0x([0-9a-f]+)", banks[banks.index("sha256") + 1])
    theirs = {int(pcr): bytes.fromhex(value) for pcr, value in found}
    events = event_log.parse(log)
    ours = event_log.replay(events)
    assert theirs == {pcr: value for pcr, value in ours.items() if pcr in theirs}
    assert {0, 4, 7, 8, 9} <= set(theirs)
    if bench.firmware == "bios":
        assert len(events[0].digests) == len(bench.banks.split(","))


def test_an_approved_boot_is_quoted_and_verified(bench: Bench, tmp_path: Path) -> None:
    """From the owner's CA to the monitor; other people's tools accept certificates and quote."""
    path, expected = bench.build(Terms(release=True))
    booted = bench.boot(path)
    assert "loader: TPM: the device secret was read, and is locked until reset" in booted.words
    assert "DEVELOPMENT SECRET" not in booted.words
    assert posture_and_mode(booted.bundle) == (0x102, chain.MODE_NORMAL)
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
    assert posture_and_mode(booted.bundle) == (0x609, chain.MODE_DEBUG)
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


@pytest.mark.parametrize(("firmware", "interface"), [("bios", "crb"), ("uefi", "tis")])
def test_the_other_interfaces(tmp_path: Path, firmware: str, interface: str) -> None:
    """A machine of the other kind, from new to verified."""
    bench = Bench(tmp_path, firmware, interface)
    bench.provision()
    path, expected = bench.build()
    bench.approve(bench.boot(path), expected)
    path, expected = bench.build()
    booted = bench.boot(path)
    assert posture_and_mode(booted.bundle) == (0x103, chain.MODE_DEBUG)
    assert verify_monitor(bench.complete(booted, path), expected).tpm is not None
    assert check_quote(bench, booted, tmp_path) == 0
