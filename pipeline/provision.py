"""Prepare a machine's TPM for Terrane, and certify the machine (docs/evidence.md).

What the owner holds, in keys/provisioning/: the provisioning CA (Ed25519), which certifies device keys, and the policy key (P-256), which
approves what may read a device secret. What the machine's TPM gets: the floor counter, the attestation key, and the device secret, which
nothing but an approved boot can read. What remains of a machine (`machines.py`) is public; what may read a secret is in `approvals.py`.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from dsl.std.x509 import ENDORSEMENT_EXTENSION
from pipeline import chain, der, keys, tpm
from pipeline.errors import PipelineError, UsageError
from pipeline.tpm_tools import TpmTools

PROVISIONING: Final = "provisioning"
MACHINE_EXTENSION: Final = x509.ObjectIdentifier(ENDORSEMENT_EXTENSION + ".2")
CA_NAME: Final = "Terrane provisioning CA"
NOT_BEFORE: Final = datetime.datetime(2018, 3, 22, 23, 59, 59)
NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59)
SECRET_SIZE: Final = 32
CREDENTIAL_SIZE: Final = 32
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


def load_owner_keys(folder: Path) -> OwnerKeys:
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


def authority_key(folder: Path) -> bytes | None:
    """The CA's public key, or None where nothing was provisioned by this checkout."""
    if not (folder / PROVISIONING).exists():
        return None
    return load_owner_keys(folder).authority_key


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
