"""What people give `provision`, `verify` and `build` that is damaged, or of another build or machine: an error with expected and found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from boot.approvals import APPROVAL_ROWS
from pipeline import approvals, arguments, cli, evidence, machines, paths, provision, provision_verb, reference, tpm
from pipeline.approvals import NO_APPROVALS
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.evidence import Item, Kind
from pipeline.provision import Endorsement, Provisioned
from pipeline.verify import verify_evidence
from pipeline.verify_certificates import VerificationError
from tests.pipeline.forge import NONCE, Machine
from tests.pipeline.forge_tpm import TpmMachine, private_key

pytestmark = pytest.mark.t0
BASE = 40  # counter_base of the machine below


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TpmMachine:
    """A machine that was provisioned as `mine` by a checkout whose keys are in `tmp_path`, its reference beside them."""
    monkeypatch.setattr(paths, "KEYS", tmp_path / "keys")
    machine = TpmMachine()
    provision.load_owner_keys(paths.KEYS)
    items = {item.kind: item.data for item in machine.tpm_items()}
    certificate = x509.load_der_x509_certificate(items[Kind.DEVICE_CERTIFICATE])
    endorsement = Endorsement(bytes(34), "SHA-256 00")
    made = Provisioned(bytes(32), items[Kind.ATTESTATION_KEY], endorsement, BASE, certificate)
    machines.keep(made, "mine", paths.KEYS)
    machine.reference(tmp_path)
    return machine


def approve(folder: Path, data: bytes | None, *words: str) -> int:
    """`provision mine --approve` of a file with these bytes, or of one that is not there."""
    path = folder / "evidence.bin"
    if data is not None:
        path.write_bytes(data)
    given = ["provision", "mine", "--approve", str(path), "--expect", str(folder / "terrane.json"), *words]
    return provision_verb.perform(arguments.parser().parse_args(given))


def changed(machine: TpmMachine, kind: Kind, change: Callable[[bytes], bytes]) -> bytes:
    """The machine's bundle, one item of it changed; nothing remains of one that becomes empty."""
    items = [Item(item.kind, change(item.data) if item.kind is kind else item.data) for item in machine.items()]
    return evidence.pack([item for item in items if item.data])


def test_approval_of_good_evidence(tmp_path: Path, kept: TpmMachine) -> None:
    """A row for exactly this boot, signed; the second time nothing changes."""
    assert approve(tmp_path, kept.bundle()) == OK
    table = approvals.load(paths.KEYS)
    assert table is not None
    mask, values = approvals.boot_values(kept.log(), reference.load(tmp_path / "terrane.json").boot)
    (row,) = approvals.rows_of(table, "it")
    assert (row["pcrs"], row["counter_base"]) == (mask, BASE)
    assert row["digest"] == tpm.approved_policy(mask, values, BASE + kept.values["security_version"])
    assert approve(tmp_path, kept.bundle()) == OK
    assert approvals.load(paths.KEYS) == table


def of_another_quote(machine: TpmMachine) -> bytes:
    """Evidence whose log another quote is about."""
    machine.values_digest = bytes(32)
    return machine.bundle()


def of_another_machine(machine: TpmMachine) -> bytes:
    """Evidence that another machine's key signed."""
    machine.signer = private_key("another")
    return machine.bundle()


NO_EVIDENCE: dict[str, tuple[Callable[[TpmMachine], bytes | None], str]] = {
    "absent": (lambda _: None, r"evidence\.bin: expected an evidence file, cannot read it: No such file"),
    "a text": (lambda _: b"not evidence", r"evidence\.bin: evidence: expected the magic b'TRNEVID1' or hex digits, found b'not evid'"),
    "other hex": (lambda _: b"00" * 20, r"evidence\.bin: evidence: expected the magic"),
    "cut": (lambda machine: machine.bundle()[:-1], r"evidence\.bin: evidence: item \d+ at byte \d+: expected \d+ bytes, found"),
    "no log": (lambda machine: changed(machine, Kind.EVENT_LOG, lambda _: b""), r"expected one event log, found 0: did that"),
    "no event log": (lambda machine: changed(machine, Kind.EVENT_LOG, lambda log: log[:50]), r"evidence\.bin: event log: expected"),
    "log without end": (lambda machine: changed(machine, Kind.EVENT_LOG, lambda log: log[:-90]), r"evidence\.bin: event log: "),
    "no quote": (lambda machine: changed(machine, Kind.QUOTE, lambda quote: quote[:9]), r"evidence\.bin: TPM quote: expected"),
    "no signature": (lambda machine: changed(machine, Kind.QUOTE_SIGNATURE, lambda _: b""), r"evidence\.bin: TPM signature: expected"),
    "another's quote": (of_another_machine, r"quote: expected one by the attestation key of mine, found another's"),
    "another's log": (of_another_quote, r"event log: expected one with the quote's PCR digest 0000.*, found "),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_EVIDENCE)
def test_approval_of_what_is_no_evidence_of_that_machine(tmp_path: Path, kept: TpmMachine, name: str) -> None:
    """Refused, and the table stays as it was."""
    make, message = NO_EVIDENCE[name]
    with pytest.raises(PipelineError, match=message):
        approve(tmp_path, make(kept))
    assert approvals.load(paths.KEYS) is None


def test_approval_for_a_machine_that_was_never_provisioned(tmp_path: Path, kept: TpmMachine) -> None:
    """Named with the file that is missing; a damaged one too; and nothing is made."""
    facts = machines.place_of("mine", paths.KEYS) / machines.FACTS
    for text in ("{", "[]", "{}", '{"counter_base": "40"}', '{"counter_base": true}'):
        facts.write_text(text)
        with pytest.raises(UsageError, match=r"mine/machine\.json: expected JSON with a number counter_base"):
            approve(tmp_path, kept.bundle())
    facts.unlink()
    with pytest.raises(
        UsageError, match=r"mine/machine\.json: expected what `provision` left of a machine: No such file"
    ):
        approve(tmp_path, kept.bundle())


def test_an_image_below_every_floor_is_not_approved(tmp_path: Path, kept: TpmMachine) -> None:
    """What no counter can allow is said, not signed."""
    facts = machines.place_of("mine", paths.KEYS) / machines.FACTS
    facts.write_text('{"counter_base": -7}')
    with pytest.raises(UsageError, match=r"security version: expected at least 8, below which .*, found 1"):
        approve(tmp_path, kept.bundle())


def test_the_image_of_an_approval_has_a_reference(tmp_path: Path, kept: TpmMachine) -> None:
    """None, and one of a build without UEFI's application."""
    with pytest.raises(UsageError, match="expected a reference file, cannot read it"):
        approve(tmp_path, kept.bundle(), "--expect", str(tmp_path / "absent.json"))
    kept.values["boot"]["application"] = ""
    kept.reference(tmp_path)
    with pytest.raises(PipelineError, match="event log: expected one run of events of type 0x80000003"):
        approve(tmp_path, kept.bundle())


# keys/approvals.bin


def table_of(count: int) -> bytes:
    """A table with so many rows of the test's policy key."""
    policy = private_key("policy")
    table = approvals.table(policy.public_key(), [])
    for index in range(count):
        row = approvals.approve(policy, approvals.BIOS_MASK, {4: bytes(32)}, -3, 4 + index)
        table = approvals.add(table, policy.public_key(), row)
    return table


def with_byte(data: bytes, offset: int, value: int) -> bytes:
    """One byte changed."""
    assert data[offset] != value
    return data[:offset] + bytes([value]) + data[offset + 1 :]


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "size: expected 4096 bytes, found 0"),
    "cut": (table_of(1)[:-1], "size: expected 4096 bytes, found 4095"),
    "other magic": (with_byte(table_of(1), 0, 0), r"magic: expected b'TRNAPRV1', found b'\\x00RNAPRV1'"),
    "too many rows": (with_byte(table_of(1), 8, 33), "rows: expected at most 32, found 33"),
    "reserved head": (with_byte(table_of(1), 12, 1), "byte 12: expected 0: it is reserved, found 1"),
    "reserved in a row": (with_byte(table_of(2), 80 + 112 + 4, 7), "byte 196: expected 0: it is reserved, found 7"),
    "unused row": (with_byte(table_of(1), 80 + 112, 1), "byte 192: expected 0: it is reserved, found 1"),
    "tail": (with_byte(table_of(32), 4095, 1), "byte 4095: expected 0: it is reserved, found 1"),
    "a row less than said": (with_byte(table_of(1), 8, 2), "row 1: expected a signature by the table's policy key, found one"),
    "digest": (with_byte(table_of(3), 80 + 224 + 16, 0), "row 2: expected a signature by the table's policy key, found one"),
    "key": (with_byte(table_of(1), 17, table_of(0)[17] ^ 1), "row 0: expected a signature by the table's policy key, found one"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_is_refused_where_it_is_read(tmp_path: Path, kept: TpmMachine, name: str) -> None:
    """By a build, which would carry it, and by the next approval, which would lose rows; the file stays."""
    data, message = DAMAGED[name]
    (paths.KEYS / approvals.FILE).write_bytes(data)
    for act in (lambda: approvals.load(paths.KEYS), lambda: approve(tmp_path, kept.bundle())):
        with pytest.raises(UsageError, match=f"approvals.bin: approval table: {message}"):
            act()
    assert (paths.KEYS / approvals.FILE).read_bytes() == data


@pytest.mark.parametrize(("data", "found"), [(table_of(1), "another's"), (NO_APPROVALS, "none")])
def test_a_table_of_another_owner_is_not_added_to(tmp_path: Path, kept: TpmMachine, data: bytes, found: str) -> None:
    """Whole, and of another policy key than keys/provisioning's."""
    (paths.KEYS / approvals.FILE).write_bytes(data)
    with pytest.raises(UsageError, match=f"policy key: expected that of keys/provisioning, found {found}"):
        approve(tmp_path, kept.bundle())


def test_a_full_table_loses_its_oldest_row() -> None:
    """32 rows, and the 33rd in place of the first."""
    policy = private_key("policy")
    full = table_of(APPROVAL_ROWS)
    first, second = (row["digest"] for row in approvals.rows_of(full, "it")[:2])
    row = approvals.approve(policy, approvals.BIOS_MASK, {4: bytes(32)}, -3, 99)
    digests = [row["digest"] for row in approvals.rows_of(approvals.add(full, policy.public_key(), row), "it")]
    assert (len(digests), digests[0], digests[-1]) == (32, second, row.digest)
    assert first not in digests


# What a new machine is provisioned with


def provision_with(*words: str) -> int:
    """`provision new`, up to the first use of a TPM, which is not there."""
    return provision_verb.perform(arguments.parser().parse_args(["provision", "new", *words]))


@pytest.mark.parametrize(("content", "found"), [
    (None, "cannot read it: No such file"), (b"", "found something else"), (b"-----BEGIN CERTIFICATE-----\nAA==\n", "found something else"),
    (b"DER", "found something else"),
])  # fmt: skip
def test_a_makers_ca_that_is_no_pem(tmp_path: Path, kept: TpmMachine, content: bytes | None, found: str) -> None:
    """Named before the TPM is touched. DER is not PEM: a certificate that is good but for its form is refused too."""
    path = tmp_path / "maker.pem"
    if content is not None:
        der = {item.kind: item.data for item in kept.tpm_items()}[Kind.DEVICE_CERTIFICATE]
        path.write_bytes(der if content == b"DER" else content)
    with pytest.raises(UsageError, match=rf"maker\.pem: expected certificates in PEM, {found}"):
        provision_with("--endorsement-ca", str(path), "--tcti", "none")


def test_provisioning_without_a_tpm(kept: TpmMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No device; a name that is a path; options without a meaning."""
    monkeypatch.setattr(provision_verb, "TPM_DEVICE", tmp_path / "tpmrm0")
    with pytest.raises(UsageError, match=r"expected a TPM at .*tpmrm0, found none; --tcti or --swtpm names another"):
        provision_with()
    with pytest.raises(UsageError, match="--expect: has a meaning only with --approve"):
        provision_with("--expect", "x.json")
    for name in ("a/b", "..", ".x", ""):
        with pytest.raises(UsageError, match="NAME: expected a plain name, found"):
            provision_verb.perform(arguments.parser().parse_args(["provision", name]))
    for words in (("--approve", "x", "--raise-floor", "2"), ("--swtpm", "x", "--tcti", "y")):
        with pytest.raises(SystemExit):
            arguments.parser().parse_args(["provision", "new", *words])


# verify --machine


def verify(folder: Path, *words: str) -> int:
    """`verify` of the bundle without the owner's items."""
    expect = ["--expect", str(folder / "terrane.json"), "--nonce", NONCE.hex()]
    return cli.verify(arguments.parser().parse_args(["verify", str(folder / "evidence.bin"), *expect, *words]))


@pytest.fixture
def printed(tmp_path: Path, kept: TpmMachine) -> Path:
    """The bundle as the machine prints it; the folder of the machine."""
    owned = (Kind.DEVICE_CERTIFICATE, Kind.ATTESTATION_KEY)
    bundle = evidence.pack([item for item in kept.items() if item.kind not in owned])
    (tmp_path / "evidence.bin").write_bytes(bundle)
    return machines.place_of("mine", paths.KEYS)


def test_a_machine_from_its_folder(tmp_path: Path, printed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The right one verifies; without one, the item that is missing is named."""
    assert verify(tmp_path, "--machine", str(printed)) == OK
    with pytest.raises(VerificationError, match="TPM: number of device certificate: expected 1, got 0"):
        verify(tmp_path)


@pytest.mark.parametrize(("file", "content", "message"), [
    (None, b"", r"none/device\.der: expected what `provision` left of a machine: No such file"),
    (machines.CERTIFICATE, b"no DER", r"device\.der: expected a certificate in DER, found none: "),
    (machines.CERTIFICATE, b"", r"device\.der: expected a certificate in DER, found none: "),
    (machines.ATTESTATION_KEY, b"", r"attestation-key\.tpmt: TPM public area: expected 2 bytes at byte 0, found 0"),
    (machines.ATTESTATION_KEY, b"\0\x08", r"attestation-key\.tpmt: TPM public area: type: expected 0x23 or 0x1, found 0x8"),
])  # fmt: skip
def test_a_folder_that_is_no_machines(
    tmp_path: Path, printed: Path, file: str | None, content: bytes, message: str
) -> None:
    """Wrong folder, damaged files: wrong use, not a verdict."""
    if file is not None:
        (printed / file).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        verify(tmp_path, "--machine", str(printed if file is not None else tmp_path / "none"))


def test_another_machines_folder(tmp_path: Path, kept: TpmMachine, printed: Path) -> None:
    """A good folder of another machine: the certificate is for another key."""
    key = bytes(range(32))
    items = {item.kind: item.data for item in kept.tpm_items()}
    other = provision.certify(kept.owner, key, items[Kind.ATTESTATION_KEY], Endorsement(bytes(34), "unchecked"))
    (printed / machines.CERTIFICATE).write_bytes(other.public_bytes(Encoding.DER))
    with pytest.raises(VerificationError, match=f"device certificate: public key: expected .*, got {key.hex()}"):
        verify(tmp_path, "--machine", str(printed))
    assert machines.machine_of((tmp_path / "evidence.bin").read_bytes(), paths.KEYS) is None


# A release, and references


def test_a_release_that_no_provisioning_made(tmp_path: Path, kept: TpmMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reference names no owner: no root is left. Building one without the owner's keys is refused."""
    kept.values["authority"] = ""
    kept.values["device"]["public_key"] = ""
    with pytest.raises(
        VerificationError, match="root: expected a reference with the owner's provisioning CA, got one without"
    ):
        verify_evidence(kept.bundle(), kept.reference(tmp_path), NONCE)
    monkeypatch.setattr(paths, "KEYS", tmp_path / "new")
    with pytest.raises(UsageError, match=r"--release: expected the owner's keys in .*new/provisioning"):
        cli.write_image(arguments.parser().parse_args(["build", "--release"]))
    assert not (tmp_path / "new").exists()


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in some JSON."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    """A copy with something else there."""
    if not at:
        return by
    whole = copy.deepcopy(value)
    inner = whole
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = by
    return whole


WRONG: tuple[Any, ...] = (None, True, -1, 9, 1 << 64, "", "zz", "\N{SNOWMAN}", "x" * 200, "00", [], {}, [{}])


def test_no_reference_ends_in_a_traceback(tmp_path: Path) -> None:
    """Each value of a reference file replaced by each of several: an error with the place, or a verdict; with a TPM and without."""
    path, refused = tmp_path / "terrane.json", list[str]()
    for machine in (Machine(), TpmMachine()):
        machine.reference(tmp_path)
        bundle, values = machine.bundle(), json.loads(path.read_text())
        for at in places(values):
            for wrong in WRONG:
                path.write_text(json.dumps(replaced(values, at, wrong)))
                try:
                    verify_evidence(bundle, reference.load(path), NONCE)
                except PipelineError as error:
                    refused.append(str(error))
    assert len(refused) > 1000
    assert all("expected" in message for message in refused)
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="expected JSON"):
        reference.load(path)
