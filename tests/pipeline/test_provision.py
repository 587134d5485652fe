"""Provisioning against a TPM in software: what was prepared releases the secret to an approved boot, and to no other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline import approvals, chain, keys, provision, tpm
from pipeline.errors import PipelineError, UsageError
from pipeline.provision import OwnerKeys, Provisioned
from pipeline.swtpm import CA_FOLDER, Swtpm
from pipeline.tpm_tools import TpmTools
from tests import needs

pytestmark = needs.whole_machines(needs.tpm)
FLOOR = 3
BOOTED = b"what firmware would have measured"
POLICY = b"\x07" * 32


class Bench:
    """A provisioned TPM, and its owner."""

    def __init__(self, folder: Path, tools: TpmTools) -> None:
        self.tools, self.keys = tools, folder / "keys"
        self.owner: OwnerKeys = provision.load_owner_keys(self.keys)
        self.authority = x509.load_pem_x509_certificate((folder / "tpm" / CA_FOLDER / "issuercert.pem").read_bytes())
        self.machine: Provisioned = provision.provision(tools, self.owner, FLOOR, [self.authority], False)

    def values(self) -> dict[int, bytes]:
        """PCR 4 and 7 as they are now."""
        raw = self.tools.run("pcrread", "sha256:4,7", "-o", "pcrs") and self.tools.file("pcrs")
        return {4: raw[:32], 7: raw[32:64]}

    def read_secret(self, row: approvals.Approval, command: str = "nvread") -> bytes | None:
        """The secret as a loader with this approval asks for it, or another `command` on it; None where the TPM refuses."""
        tools, folder = self.tools, self.tools.folder
        public = self.owner.policy.public_key()
        (folder / "key.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        tools.run(
            "loadexternal", "-C", "o", "-G", "ecc256:ecdsa-sha256", "-u", "key.pem", "-c", "key.ctx", "-n", "key.name"
        )
        (folder / "digest").write_bytes(row.digest)
        (folder / "message").write_bytes(row.digest)  # the policy reference is empty
        (folder / "signature").write_bytes(encode_dss_signature(*row.signature))
        words = ("-c", "key.ctx", "-g", "sha256", "-m", "message", "-s", "signature", "-f", "ecdsa", "-t", "ticket")
        if tools.attempt("verifysignature", *words).returncode:
            return None
        tools.run("startauthsession", "--policy-session", "-S", "s.ctx")
        (folder / "operand").write_bytes((row.counter_base + self.version).to_bytes(8, "big"))
        pcrs = ",".join(str(index) for index in range(24) if row.mask >> index & 1)
        counter = hex(tpm.COUNTER_INDEX)
        steps = [
            ("policypcr", "-S", "s.ctx", "-l", f"sha256:{pcrs}"),
            ("policynv", "-S", "s.ctx", "-i", "operand", counter, "ule"),
            ("policyauthorize", "-S", "s.ctx", "-i", "digest", "-n", "key.name", "-t", "ticket"),
        ]
        for step in steps:
            if tools.attempt(*step).returncode:
                return None
        done = tools.attempt(command, hex(tpm.SECRET_INDEX), "-P", "session:s.ctx")
        return None if done.returncode else done.stdout

    version = FLOOR  # security version of the image that asks


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One TPM for these tests; they run in order."""
    folder = tmp_path_factory.mktemp("provision")
    with Swtpm(folder / "tpm", for_tools=True) as software, TpmTools(software.tcti) as tools:
        yield Bench(folder, tools)


def test_the_policy_is_the_one_that_the_tpm_computes(bench: Bench) -> None:
    """The index's policy, the attestation key's Name and the counter's Name, as the TPM says them."""
    said = bench.tools.run("nvreadpublic", hex(tpm.SECRET_INDEX)).decode()
    assert tpm.authorize_policy(bench.owner.policy.public_key()).hex() in said.lower()
    assert "read_stclear" in said
    assert "authread" not in said
    assert "ownerread" not in said
    key = bench.tools.run("readpublic", "-c", hex(tpm.AK_HANDLE)).decode()
    assert tpm.name_of(bench.machine.attestation_key).hex() in key


def test_the_secret_is_released_to_an_approved_boot_alone(bench: Bench) -> None:
    """Right PCRs, right version, the policy key's signature: the key of what is read is the certified one. Each alone changed: nothing."""
    base = bench.machine.counter_base
    for mask in (approvals.BIOS_MASK, approvals.UEFI_MASK):
        row = approvals.approve(bench.owner.policy, mask, bench.values(), base, FLOOR)
        secret = bench.read_secret(row)
        assert secret is not None
        assert keys.public_bytes(chain.key_of(secret)) == bench.machine.device_key
    good = approvals.approve(bench.owner.policy, approvals.UEFI_MASK, bench.values(), base, FLOOR)
    r, s = good.signature
    assert bench.read_secret(approvals.Approval(good.mask, base, good.digest, (r, s ^ 1))) is None
    wrong = {**bench.values(), 4: hashlib.sha256(b"another loader").digest()}
    assert bench.read_secret(approvals.approve(bench.owner.policy, good.mask, wrong, base, FLOOR)) is None
    assert bench.read_secret(approvals.Approval(approvals.BIOS_MASK, base, good.digest, good.signature)) is None


def test_an_older_version_gets_nothing_once_the_floor_is_raised(bench: Bench) -> None:
    """The deliberate act: from then on the approved old version is refused by the TPM, the new one is not."""
    base = bench.machine.counter_base
    old = approvals.approve(bench.owner.policy, approvals.UEFI_MASK, bench.values(), base, FLOOR)
    new = approvals.approve(bench.owner.policy, approvals.UEFI_MASK, bench.values(), base, FLOOR + 2)
    assert bench.read_secret(old) is not None
    assert provision.raise_floor(bench.tools, base, FLOOR + 2) == base + FLOOR + 2
    assert bench.read_secret(old) is None
    bench.version = FLOOR + 2
    assert bench.read_secret(new) is not None
    with pytest.raises(UsageError, match=f"expected more than the present floor {FLOOR + 2}, found {FLOOR}"):
        provision.raise_floor(bench.tools, base, FLOOR)


def test_a_boot_that_went_on_gets_nothing(bench: Bench) -> None:
    """After one more extend of PCR 4, the loader's end event, no approval holds."""
    row = approvals.approve(
        bench.owner.policy, approvals.BIOS_MASK, bench.values(), bench.machine.counter_base, bench.version
    )
    assert bench.read_secret(row) is not None
    bench.tools.run("pcrextend", "4:sha256=" + "11" * 32)
    assert bench.read_secret(row) is None


def test_a_read_lock_holds_and_provisioning_again_begins_anew(bench: Bench) -> None:
    """After NV_ReadLock nothing is read until reset, whatever the policy says; a new secret is another; the counter stays."""
    before = provision.read_counter(bench.tools)
    bench.machine = provision.provision(bench.tools, bench.owner, FLOOR, [bench.authority], False)
    assert bench.machine.counter_base == before - FLOOR
    bench.version = FLOOR
    row = approvals.approve(bench.owner.policy, approvals.BIOS_MASK, bench.values(), bench.machine.counter_base, FLOOR)
    secret = bench.read_secret(row)
    assert secret is not None
    assert keys.public_bytes(chain.key_of(secret)) == bench.machine.device_key
    assert bench.read_secret(row, "nvreadlock") is not None
    assert bench.read_secret(row) is None


def test_an_endorsement_key_that_no_trusted_maker_signed_is_refused(bench: Bench) -> None:
    """Another CA, or none; told so, it goes on, and the machine's certificate says it."""
    stranger = self_signed("a stranger")
    for trusted in ([stranger], []):
        with pytest.raises(PipelineError, match="expected one issued by a trusted CA"):
            provision.endorse(bench.tools, trusted, False)
    assert provision.endorse(bench.tools, [], True).certificate == "unchecked"


def self_signed(name: str) -> x509.Certificate:
    """A CA that made no TPM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(provision.NOT_BEFORE).not_valid_after(provision.NOT_AFTER)
    return builder.sign(key, SHA256())
