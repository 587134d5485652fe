"""Prepare a machine's TPM for Terrane, and certify the machine (docs/evidence.md).

What the owner holds, in keys/provisioning/: the provisioning CA (Ed25519), which certifies device keys, and the policy key (P-256), which
approves what may read a device secret. What the machine's TPM gets: the floor counter, the attestation key, and the device secret, which
nothing but an approved boot can read. What remains of a machine in keys/machines/NAME/ is public.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from dsl.std.x509 import ENDORSEMENT_EXTENSION
from pipeline import chain, der, event_log, evidence, keys, paths, tpm
from pipeline.errors import PipelineError, UsageError
from pipeline.event_log import Event
from pipeline.evidence import Kind
from pipeline.reference import BootReference
from pipeline.tpm_tools import TpmTools

PROVISIONING: Final = "provisioning"
MACHINES: Final = "machines"
APPROVALS: Final = "approvals.bin"
MACHINE_EXTENSION: Final = x509.ObjectIdentifier(ENDORSEMENT_EXTENSION + ".2")
CA_NAME: Final = "Terrane provisioning CA"
NOT_BEFORE: Final = datetime.datetime(2018, 3, 22, 23, 59, 59)
NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59)
SECRET_SIZE: Final = 32
CREDENTIAL_SIZE: Final = 32
BIOS_MASK, UEFI_MASK = 1 << 4, 1 << 4 | 1 << 7  # PCRs that a device secret is bound to

APPROVALS_MAGIC: Final = b"TRNAPRV1"
APPROVALS_SIZE: Final = 4096
APPROVAL_ROWS: Final = 32
COUNTER_ATTRIBUTES: Final = "ownerwrite|nt=counter|ownerread|authread|no_da"
SECRET_ATTRIBUTES: Final = "ownerwrite|policyread|no_da|read_stclear"
AK_ATTRIBUTES: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda"
ENDORSEMENT_CERTIFICATE: Final = (
    0x01C00002  # of the RSA-2048 key, which every TPM has (TCG EK Credential Profile 2.5, section 2.2.1.4)
)
MODULUS_SIZE: Final = 256  # bytes; a TPM2B_PUBLIC of an RSA key ends with it


@dataclass(frozen=True)
class OwnerKeys:
    """What the owner signs with."""

    authority: Ed25519PrivateKey
    policy: ec.EllipticCurvePrivateKey

    @property
    def authority_key(self) -> bytes:
        """The CA's public key."""
        return keys.public_bytes(self.authority)


def load_owner_keys(folder: Path = paths.KEYS) -> OwnerKeys:
    """Read keys/provisioning, making what is missing. Raises UsageError for a damaged file."""
    made: list[str] = []
    authority = Ed25519PrivateKey.from_private_bytes(keys.load_seed(folder / PROVISIONING, "authority", made))
    path = folder / PROVISIONING / "policy.pem"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        keys.write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    keys.check_mode(path)
    try:
        policy = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        policy = None
    if not isinstance(policy, ec.EllipticCurvePrivateKey) or not isinstance(policy.curve, ec.SECP256R1):
        raise UsageError(f"{path}: expected a P-256 private key in PEM, found something else")
    return OwnerKeys(authority, policy)


def authority_key(folder: Path = paths.KEYS) -> bytes | None:
    """The CA's public key, or None where nothing was provisioned by this checkout."""
    if not (folder / PROVISIONING).exists():
        return None
    return load_owner_keys(folder).authority_key


# The approval table


@dataclass(frozen=True)
class Approval:
    """A row of the approval table: PCR values and versions that may read a device secret."""

    mask: int
    counter_base: int
    digest: bytes
    signature: tuple[int, int]

    def pack(self) -> bytes:
        """Its 112 bytes."""
        r, s = self.signature
        head = struct.pack("<IIq", self.mask, 0, self.counter_base)
        return head + self.digest + r.to_bytes(32, "big") + s.to_bytes(32, "big")


def approve(owner: OwnerKeys, mask: int, values: dict[int, bytes], counter_base: int, version: int) -> Approval:
    """Approve a boot with these PCR values, of an image with this security version."""
    digest = tpm.approved_policy(mask, values, counter_base + version)
    signed = owner.policy.sign(tpm.sha256(digest), ec.ECDSA(Prehashed(SHA256())))
    return Approval(mask, counter_base, digest, decode_dss_signature(signed))


def empty_table(public: ec.EllipticCurvePublicKey | None = None) -> bytes:
    """A table without rows."""
    head = struct.pack("<8sII", APPROVALS_MAGIC, 0, 0)
    if public is not None:
        numbers = public.public_numbers()
        head += numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    return head.ljust(APPROVALS_SIZE, b"\0")


def add_approval(table: bytes, owner: OwnerKeys, row: Approval) -> bytes:
    """The table with a row more, unless its digest is there; the oldest goes where it is full. Raises PipelineError for another key's."""
    magic, count, _ = struct.unpack_from("<8sII", table)
    mine = empty_table(owner.policy.public_key())
    if len(table) != APPROVALS_SIZE or magic != APPROVALS_MAGIC or count > APPROVAL_ROWS or table[16:80] != mine[16:80]:
        raise PipelineError(
            f"{APPROVALS}: expected an approval table of this checkout's policy key, found something else"
        )
    rows = [table[80 + 112 * index : 192 + 112 * index] for index in range(count)]
    if any(old[16:48] == row.digest for old in rows):
        return table
    rows = [*rows, row.pack()][-APPROVAL_ROWS:]
    head = struct.pack("<8sII", APPROVALS_MAGIC, len(rows), 0) + table[16:80]
    return (head + b"".join(rows)).ljust(APPROVALS_SIZE, b"\0")


def read_table(owner: OwnerKeys, folder: Path = paths.KEYS) -> bytes:
    """keys/approvals.bin, or an empty table of the owner's."""
    path = folder / APPROVALS
    return path.read_bytes() if path.exists() else empty_table(owner.policy.public_key())


def write_table(table: bytes, folder: Path = paths.KEYS) -> None:
    """Replace keys/approvals.bin; complete or not at all."""
    temporary = folder / f".{APPROVALS}"
    temporary.write_bytes(table)
    temporary.replace(folder / APPROVALS)


def boot_values(log: bytes, boot: BootReference) -> tuple[int, dict[int, bytes]]:
    """The PCRs that the device secret of a machine is to be bound to for an image, as they are when the loader asks for it.

    `log`: of any boot of that machine, for what its firmware measures; what is measured of the image comes from its reference, so that
    an update can be approved before it ever booted. Raises EventLogError for a log of another way of booting.
    """
    events = event_log.before_end(log, event_log.parse(log))
    by_firmware = [event.kind == event_log.EV_EFI_BOOT_SERVICES_APPLICATION for event in events]
    if any(by_firmware):
        mask, kind, digests = UEFI_MASK, event_log.EV_EFI_BOOT_SERVICES_APPLICATION, [boot.application]
    else:
        mask, kind, digests = BIOS_MASK, event_log.EV_IPL, list(boot.stages)
    booted = [event for event in events if event.pcr == 4]
    places = [index for index, event in enumerate(booted) if event.kind == kind]
    if not places or places != list(range(places[0], places[0] + len(places))) or not all(digests):
        raise event_log.EventLogError(
            f"event log: expected one run of events of type {kind:#x} in PCR 4, found {places}"
        )
    loader = [Event(4, kind, {event_log.SHA256: bytes.fromhex(digest)}, b"") for digest in digests]
    others = [event for event in events if event.pcr != 4]
    values = event_log.replay([*others, *booted[: places[0]], *loader, *booted[places[-1] + 1 :]])
    return mask, {index: values[index] for index in range(24) if mask >> index & 1}


# What a TPM is given


@dataclass(frozen=True)
class Endorsement:
    """A TPM's endorsement key: the Name, and how its certificate was checked."""

    name: bytes
    certificate: str


@dataclass(frozen=True)
class Provisioned:
    """What provisioning left of a machine; all of it is public."""

    device_key: bytes
    attestation_key: bytes  # TPMT_PUBLIC
    endorsement: Endorsement
    counter_base: int
    certificate: x509.Certificate


def endorse(tools: TpmTools, trusted: list[x509.Certificate], unchecked: bool) -> Endorsement:
    """Make the endorsement key from its standard template, and check its certificate. Raises PipelineError.

    `trusted`: certificates of TPM makers' CAs; `unchecked`: go on without one, which the device certificate then says.
    """
    tools.run("createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub")
    public = tools.file("ek.pub")[2:]  # TPM2B_PUBLIC
    name = tpm.name_of(public)
    if unchecked:
        return Endorsement(name, "unchecked")
    certificate = endorsement_certificate(tools)
    if certificate is None:
        raise PipelineError(
            "TPM: expected an endorsement certificate for its RSA-2048 key (NV 0x01C00002), found none;"
            " --endorsement-unchecked goes on without, and the machine's certificate will say so"
        )
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.public_numbers().n != int.from_bytes(public[-MODULUS_SIZE:], "big"):
        raise PipelineError("TPM: endorsement certificate: expected that of the TPM's own key, found another's")
    check_issued(certificate, trusted)
    return Endorsement(name, f"SHA-256 {certificate.fingerprint(SHA256()).hex()}")


def endorsement_certificate(tools: TpmTools) -> x509.Certificate | None:
    """The RSA-2048 endorsement key's certificate in the TPM, or None."""
    done = tools.attempt("nvread", hex(ENDORSEMENT_CERTIFICATE), "-C", "o")
    if done.returncode:
        return None
    try:
        size = len(der.element(der.SEQUENCE, der.take(done.stdout, der.SEQUENCE)[0]))
        return x509.load_der_x509_certificate(done.stdout[:size])
    except ValueError as error:
        raise PipelineError(f"TPM: endorsement certificate: expected DER X.509, found: {error}") from None


def check_issued(certificate: x509.Certificate, trusted: list[x509.Certificate]) -> None:
    """The certificate must come from one of the trusted CAs, directly or over others of them. Raises PipelineError."""
    for issuer in trusted:
        try:
            certificate.verify_directly_issued_by(issuer)
            return
        except Exception:  # another's name, key or signature: try the next
            continue
    names = "; ".join(issuer.subject.rfc4514_string() for issuer in trusted) or "none were given: --endorsement-ca FILE"
    raise PipelineError(
        f"TPM: endorsement certificate: expected one issued by a trusted CA ({names}),"
        f" found one issued by {certificate.issuer.rfc4514_string()}"
    )


def make_attestation_key(tools: TpmTools) -> bytes:
    """Make the attestation key below the endorsement key and keep it in the TPM; its TPMT_PUBLIC."""
    tools.run("startauthsession", "--policy-session", "-S", "session.ctx")
    tools.run("policysecret", "-S", "session.ctx", "-c", "e")
    words = ("-C", "ek.ctx", "-P", "session:session.ctx", "-G", "ecc256:ecdsa-sha256:null", "-g", "sha256")
    tools.run("create", *words, "-a", AK_ATTRIBUTES, "-u", "ak.pub", "-r", "ak.priv")
    tools.run("flushcontext", "session.ctx")
    tools.run("startauthsession", "--policy-session", "-S", "session.ctx")
    tools.run("policysecret", "-S", "session.ctx", "-c", "e")
    tools.run("load", "-C", "ek.ctx", "-P", "session:session.ctx", "-u", "ak.pub", "-r", "ak.priv", "-c", "ak.ctx")
    tools.run("flushcontext", "session.ctx")
    tools.attempt("evictcontrol", "-C", "o", "-c", hex(tpm.AK_HANDLE))  # one from an earlier provisioning
    tools.run("evictcontrol", "-C", "o", "-c", "ak.ctx", hex(tpm.AK_HANDLE))
    return tools.file("ak.pub")[2:]


def activate_credential(tools: TpmTools, attestation_key: bytes) -> None:
    """Show that the attestation key lives in the TPM that holds the endorsement key. Raises PipelineError.

    The CA's half (make) knows both public keys alone; the TPM gives the credential back only if both are its own.
    """
    credential = secrets.token_bytes(CREDENTIAL_SIZE)
    (tools.folder / "credential").write_bytes(credential)
    name = tpm.name_of(attestation_key).hex()
    tools.run("makecredential", "-T", "none", "-u", "ek.pub", "-s", "credential", "-n", name, "-o", "blob")
    (tools.folder / "credential").unlink()
    tools.run("startauthsession", "--policy-session", "-S", "session.ctx")
    tools.run("policysecret", "-S", "session.ctx", "-c", "e")
    words = ("-c", hex(tpm.AK_HANDLE), "-C", "ek.ctx", "-P", "session:session.ctx", "-i", "blob", "-o", "returned")
    tools.run("activatecredential", *words)
    tools.run("flushcontext", "session.ctx")
    if tools.file("returned") != credential:
        raise PipelineError("TPM: credential activation: expected the credential back, found other bytes")


def check_attestation_key(public: bytes) -> None:
    """It must be restricted, made in the TPM, and unable to leave it. Raises PipelineError."""
    found = tpm.parse_public(public).attributes
    if found & tpm.AK_SET != tpm.AK_SET or found & tpm.DECRYPT:
        raise PipelineError(
            f"attestation key: expected attributes with {tpm.AK_SET:#x} and no decrypt, found {found:#x}"
        )


def make_counter(tools: TpmTools, floor: int) -> int:
    """Define the floor counter unless it is there; the counter_base for which it means `floor`."""
    index = hex(tpm.COUNTER_INDEX)
    if tools.attempt("nvreadpublic", index).returncode:
        tools.run("nvdefine", index, "-C", "o", "-a", COUNTER_ATTRIBUTES, "-s", "8")
        tools.run("nvincrement", index, "-C", "o")
    return read_counter(tools) - floor


def read_counter(tools: TpmTools) -> int:
    """The floor counter's value. Raises PipelineError for an index of another kind."""
    index = hex(tpm.COUNTER_INDEX)
    if f"name: {tpm.counter_name().hex()}" not in tools.run("nvreadpublic", index).decode():
        raise PipelineError(f"TPM: NV index {index}: expected the floor counter, found an index of another kind")
    return int.from_bytes(tools.run("nvread", index, "-C", "o"), "big")


def write_secret(tools: TpmTools, owner: OwnerKeys) -> bytes:
    """Make the device secret in the TPM's reach; the device public key. The secret is in nobody's hands afterwards."""
    index = hex(tpm.SECRET_INDEX)
    if not tools.attempt("nvreadpublic", index).returncode:
        tools.run("nvundefine", index, "-C", "o")
    (tools.folder / "policy").write_bytes(tpm.authorize_policy(owner.policy.public_key()))
    size = str(SECRET_SIZE)
    tools.run("nvdefine", index, "-C", "o", "-a", SECRET_ATTRIBUTES, "-s", size, "-L", "policy")
    secret = new_secret(tools)
    tools.run("nvwrite", index, "-C", "o", "-i", "-", given=secret)
    return keys.public_bytes(chain.key_of(secret))


def new_secret(tools: TpmTools) -> bytes:
    """A device secret: random even if one of the two sources, this host's and the TPM's, is not."""
    random = tools.run("getrandom", str(SECRET_SIZE))
    return bytes(a ^ b for a, b in zip(secrets.token_bytes(SECRET_SIZE), random, strict=True))


def certify(owner: OwnerKeys, device_key: bytes, attestation_key: bytes, endorsement: Endorsement) -> x509.Certificate:
    """The device certificate: the CA's word that this key is that of the machine with this attestation key."""
    value = machine_extension(tpm.name_of(attestation_key), endorsement)
    serial = hashlib.sha256(device_key + value).digest()[:20]
    subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, chain.identifier(device_key).hex())])
    public = Ed25519PublicKey.from_public_bytes(device_key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)]))
        .public_key(public)
        .serial_number(int.from_bytes(bytes([serial[0] & 0x7F | 1]) + serial[1:], "big"))
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(owner.authority.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier(chain.identifier(device_key)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.UnrecognizedExtension(MACHINE_EXTENSION, value), critical=True)
        .sign(owner.authority, None)
    )


def machine_extension(attestation_name: bytes, endorsement: Endorsement) -> bytes:
    """SEQUENCE of OCTET STRING attestation key's Name, OCTET STRING endorsement key's Name, UTF8String how that was checked."""
    return der.element(
        der.SEQUENCE,
        der.element(der.OCTET_STRING, attestation_name)
        + der.element(der.OCTET_STRING, endorsement.name)
        + der.element(der.UTF8_STRING, endorsement.certificate.encode()),
    )


def provision(
    tools: TpmTools, owner: OwnerKeys, floor: int, trusted: list[x509.Certificate], unchecked: bool
) -> Provisioned:
    """Prepare a TPM. Raises PipelineError; a TPM left half prepared is prepared anew by the next call."""
    endorsement = endorse(tools, trusted, unchecked)
    attestation_key = make_attestation_key(tools)
    check_attestation_key(attestation_key)
    activate_credential(tools, attestation_key)
    counter_base = make_counter(tools, floor)
    device_key = write_secret(tools, owner)
    certificate = certify(owner, device_key, attestation_key, endorsement)
    return Provisioned(device_key, attestation_key, endorsement, counter_base, certificate)


def keep(machine: Provisioned, name: str, folder: Path = paths.KEYS) -> Path:
    """Write what is public of a machine; its folder."""
    place = folder / MACHINES / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "device.der").write_bytes(machine.certificate.public_bytes(Encoding.DER))
    (place / "attestation-key.tpmt").write_bytes(machine.attestation_key)
    values = {
        "device_key": machine.device_key.hex(),
        "endorsement_key_name": machine.endorsement.name.hex(),
        "endorsement_certificate": machine.endorsement.certificate,
        "counter_base": machine.counter_base,
    }
    (place / "machine.json").write_text(json.dumps(values, indent=1) + "\n")
    return place


def with_machine(bundle: bytes, place: Path) -> bytes:
    """A bundle with the owner's two items about a machine, which the machine does not have itself. Raises UsageError, EvidenceError."""
    kinds = (Kind.DEVICE_CERTIFICATE, Kind.ATTESTATION_KEY)
    items = [item for item in evidence.parse(bundle) if item.kind not in kinds]
    for kind, name in zip(kinds, ("device.der", "attestation-key.tpmt"), strict=True):
        try:
            items.append(evidence.Item(kind, (place / name).read_bytes()))
        except OSError as error:
            raise UsageError(f"{place / name}: expected what `provision` left of a machine: {error.strerror}") from None
    return evidence.pack(items)


def machine_of(bundle: bytes, folder: Path = paths.KEYS) -> Path | None:
    """The folder of the machine that made a bundle, by its device key; None for a machine that was not provisioned here."""
    devices = [item.data for item in evidence.parse(bundle) if item.kind is Kind.DEVICE]
    for place in sorted((folder / MACHINES).glob("*")) if len(devices) == 1 else ():
        certificate = x509.load_der_x509_certificate((place / "device.der").read_bytes())
        if certificate.public_key() == x509.load_der_x509_certificate(devices[0]).public_key():
            return place
    return None


def counter_base_of(name: str, folder: Path = paths.KEYS) -> int:
    """The counter base of a machine that was provisioned. Raises UsageError."""
    path = folder / MACHINES / name / "machine.json"
    try:
        return int(json.loads(path.read_text())["counter_base"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path}: expected what `provision` left of this machine, found none, or a damaged file"
        ) from None


def raise_floor(tools: TpmTools, base: int, floor: int) -> int:
    """Raise the floor to a security version, step by step: what is older will not start there again. The new counter value."""
    value = read_counter(tools)
    if value - base > floor:
        raise UsageError(
            f"--raise-floor: expected more than the present floor {value - base}, found {floor}; it cannot go down"
        )
    while value - base < floor:
        tools.run("nvincrement", hex(tpm.COUNTER_INDEX), "-C", "o")
        value = read_counter(tools)
    return value
