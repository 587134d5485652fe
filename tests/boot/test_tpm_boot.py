"""Whole boots in QEMU with swtpm: a machine is provisioned, booted, approved, booted again; the TCG's own tools accept log and quote."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from boot.handoff import MONITOR_BASE
from boot.uefi import start
from dsl.compiler.pipeline import compile_program
from pipeline import assemble, chain, disk, event_log, evidence, provision, swtpm, tpm
from pipeline.errors import UsageError
from pipeline.evidence import Kind
from pipeline.qemu import BIOS, UEFI, Qemu, QemuMachine, check_installed
from pipeline.run import EVIDENCE, Terminal, checked_bundle
from pipeline.swtpm import Swtpm
from pipeline.tpm_tools import TpmTools
from tests.boot.images import DEVELOPMENT_SECRET, MONITOR, Part, loader, partition_of, usual_parts
from tests.boot.keys import FONT, PUBLIC_KEY, SECRET
from vmm.main import start as monitor_start

try:
    check_installed(UEFI)
    swtpm.check_installed()
    MISSING = "" if shutil.which("tpm2") else "tpm2 (Debian package tpm2-tools) is missing"
except UsageError as error:
    MISSING = str(error)
pytestmark = [
    pytest.mark.t3,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "nothing is missing"),
]
SECONDS = 150.0
ALL_BANKS = "sha1,sha256,sha384,sha512"
VERSION = 7  # of the tests' header
APPROVALS = 6


@functools.cache
def application() -> bytes:
    """The loader for UEFI, trusting the tests' key."""
    supplied = {"boot.header_key": PUBLIC_KEY, "std.font": FONT}
    return compile_program(start, base=assemble.APPLICATION_BASE, supplied=supplied).pe()


@functools.cache
def monitor() -> bytes:
    """The real one: it prints the evidence."""
    return compile_program(monitor_start, base=MONITOR_BASE).image


def write_image(path: Path, approvals: bytes, *, flags: int = 1) -> None:
    """An image with this approval table."""
    secret = [part for part in usual_parts() if part.kind == DEVELOPMENT_SECRET and flags & 1]
    others = [part for part in usual_parts() if part.kind not in (MONITOR, DEVELOPMENT_SECRET)]
    parts = [Part(MONITOR, monitor(), VERSION), *others, *secret, Part(APPROVALS, approvals)]
    content = partition_of(parts, flags=flags, security_version=VERSION)
    stage1, stage2 = assemble.loader_stages(loader().image, len(content))
    disk.write_sparse(path, disk.build_disk(stage1, stage2, content, {disk.APPLICATION: application()}))


@dataclass
class Boot:
    """What a boot showed."""

    said: list[str]
    items: dict[Kind, bytes]
    posture: int
    mode: int


def boot(machine: QemuMachine) -> Boot:
    """Boot up to the evidence that the monitor prints."""
    terminal = Terminal(show=False)
    with Qemu(machine, terminal.take) as qemu:
        said = terminal.transcript.said
        qemu.wait_for(lambda: EVIDENCE.search(said("terrane")) is not None, "evidence", SECONDS)
    items = {item.kind: item.data for item in evidence.parse(checked_bundle(said("terrane")))}
    certificate = items[Kind.MONITOR]
    at = certificate.index(bytes.fromhex("3a0001193f1b")) + 6
    mode = certificate[certificate.index(bytes.fromhex("a6030a01")) + 4]
    return Boot(said("terrane").splitlines(), items, int.from_bytes(certificate[at : at + 8], "big"), mode)


def check_with_tools(folder: Path, booted: Boot, attestation_key: bytes, extra: bytes) -> None:
    """tpm2_eventlog replays the log to what ours does; tpm2_checkquote accepts quote, signature and qualifying data, and no other data."""
    log, key = booted.items[Kind.EVENT_LOG], tpm.parse_public(attestation_key).key
    for name, data in (
        ("log", log),
        ("attest", booted.items[Kind.QUOTE]),
        ("signature", booted.items[Kind.QUOTE_SIGNATURE]),
    ):
        (folder / name).write_bytes(data)
    (folder / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    shown = subprocess.run(
        ["tpm2", "eventlog", "log"], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    banks = re.split(r"^  (sha\d+):$", shown.stdout.split("\npcrs:\n")[1], flags=re.MULTILINE)
    theirs = {
        int(pcr): bytes.fromhex(value)
        for pcr, value in re.findall(r"(\d+) *: 0x([0-9a-f]+)", banks[banks.index("sha256") + 1])
    }
    ours = event_log.replay(event_log.parse(log))
    assert theirs == {pcr: value for pcr, value in ours.items() if pcr in theirs}
    assert {0, 4, 7, 8, 9} <= set(theirs)
    check = ["tpm2", "checkquote", "-u", "key.pem", "-m", "attest", "-s", "signature", "-g", "sha256", "-q"]
    accepted = subprocess.run(
        [*check, extra.hex()], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert accepted.returncode == 0, accepted.stderr
    assert subprocess.run(
        [*check, bytes(32).hex()], cwd=folder, capture_output=True, timeout=60, check=False
    ).returncode


@pytest.mark.parametrize(("firmware", "interface", "banks"), [
    (BIOS, "tis", ALL_BANKS), (BIOS, "crb", "sha256"), (UEFI, "tis", "sha256"), (UEFI, "crb", ALL_BANKS),
])  # fmt: skip
def test_a_machine_from_new_to_attested(tmp_path: Path, firmware: str, interface: str, banks: str) -> None:
    """New: development secret, state 2. Provisioned: state 6. Approved: the certified key, mode normal, a quote over the log's PCRs."""
    state, image = tmp_path / "tpm", tmp_path / "image.img"
    state.mkdir()
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--pcr-banks", banks]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    machine = QemuMachine(image, firmware=firmware, tpm=interface, tpm_state=state)
    owner = provision.load_owner_keys(tmp_path / "keys")
    table = provision.empty_table(owner.policy.public_key())
    if interface == "tis":
        write_image(image, table)
        new = boot(machine)
        assert (new.posture, new.mode, Kind.QUOTE in new.items) == (0x209, 2, False)
        assert chain.key_of(SECRET).public_key().public_bytes_raw() in new.items[Kind.DEVICE]
    with Swtpm(state, for_tools=True) as software, TpmTools(software.tcti) as tools:
        made = provision.provision(tools, owner, VERSION, [], True)

    write_image(image, table, flags=0)
    withheld = boot(machine)
    assert (withheld.posture, withheld.mode) == (0x600, 0)
    log = withheld.items[Kind.EVENT_LOG]
    mask, values = 0x90 if firmware == UEFI else 0x10, event_log.replay(event_log.before_end(log, event_log.parse(log)))
    row = provision.approve(owner, mask, values, made.counter_base, VERSION)
    write_image(image, provision.add_approval(table, owner, row), flags=2)
    booted = boot(machine)
    assert "loader: TPM: the device secret was read, and is locked until reset" in booted.said
    assert (booted.posture, booted.mode) == (0x102, 1)
    assert made.device_key in booted.items[Kind.DEVICE]

    events = event_log.parse(booted.items[Kind.EVENT_LOG])
    assert len(events[0].digests) == (len(banks.split(",")) if firmware == BIOS else len(events[0].digests))
    event_log.before_end(booted.items[Kind.EVENT_LOG], events)
    quote = tpm.parse_quote(booted.items[Kind.QUOTE])
    assert quote.pcr_digest == tpm.pcr_digest(event_log.replay(events), 0xFFFF)
    keys = [public_key(booted.items[kind]) for kind in (Kind.DEVICE, Kind.MONITOR)]
    extra = tpm.sha256(b"terrane-chain-v1", *keys)
    assert quote.extra_data == extra
    check_with_tools(tmp_path, booted, made.attestation_key, extra)


def public_key(certificate: bytes) -> bytes:
    """The Ed25519 key that a certificate is about."""
    return certificate[certificate.index(bytes.fromhex("302a300506032b6570032100")) + 12 :][:32]
