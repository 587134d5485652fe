"""What the verifier asks of every certificate, and how a failure says it (docs/formats.md, "DICE")."""

from __future__ import annotations

import datetime
import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from pipeline import chain
from pipeline.errors import PipelineError

NOT_BEFORE = datetime.datetime(2018, 3, 22, 23, 59, 59, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
SIGNATURE_SIZE = 64  # bytes
WHOLE_BYTES = bytes([0x03, 1 + SIGNATURE_SIZE, 0])  # a BIT STRING whose last byte has no padding
KEY_CERT_SIGN, DIGITAL_SIGNATURE = "keyCertSign", "digitalSignature"
USAGES = {
    "digital_signature": DIGITAL_SIGNATURE,
    "content_commitment": "contentCommitment",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": KEY_CERT_SIGN,
    "crl_sign": "cRLSign",
}


class VerificationError(PipelineError):
    """Evidence that does not show what was expected."""

    def __init__(self, layer: str, name: str, expected: object, got: object) -> None:
        """Name the layer and its field, what was expected there and what was found."""
        self.layer, self.field, self.expected, self.got = layer, name, str(expected), str(got)
        self.nodes: tuple[Node, ...] = ()  # what was verified before
        super().__init__(f"{layer}: {name}: expected {expected}, got {got}")


@dataclass(frozen=True)
class Node:
    """A line of the tree: a layer that was verified. `compared`: what it was held against."""

    layer: str
    sha256: str
    public_key: str
    mode: str
    signed_by: str
    depth: int
    compared: str = "its issuer's signature"


@dataclass(frozen=True)
class Certified:
    """A certificate that passed the checks common to its kind."""

    layer: str
    key: Ed25519PublicKey
    public_key: bytes
    subject: x509.Name
    extensions: dict[str, bytes]  # dotted OID -> value, of those that we read ourselves


def require(layer: str, name: str, expected: object, got: object) -> None:
    """Fail unless both are equal."""
    if expected != got:
        raise VerificationError(layer, name, expected, got)


def parse_certificate(layer: str, data: bytes) -> x509.Certificate:
    """Parse DER. Raises VerificationError where it is not a certificate."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what the parser only frowns at is no certificate of ours
            parsed = x509.load_der_x509_certificate(data)
            _ = parsed.extensions, parsed.subject, parsed.issuer, parsed.version  # parsed lazily
    except Exception as error:  # the parser's errors have no common base
        raise VerificationError(layer, "certificate", "DER X.509", f"{len(data)} bytes: {error}") from None
    return parsed


def ed25519_key(layer: str, parsed: x509.Certificate) -> Ed25519PublicKey:
    """The subject's key, which must be Ed25519."""
    try:
        key = parsed.public_key()
    except Exception as error:
        raise VerificationError(layer, "public key", "Ed25519", error) from None
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError(layer, "public key", "Ed25519", type(key).__name__)
    return key


def check_signature(layer: str, parsed: x509.Certificate, signer: Ed25519PublicKey, signer_name: str) -> None:
    """The signature must be the signer's."""
    require(layer, "signature algorithm", "Ed25519", algorithm_name(parsed))
    end = parsed.public_bytes(Encoding.DER)[-len(WHOLE_BYTES) - SIGNATURE_SIZE : -SIGNATURE_SIZE]
    require(layer, "signature: head of its bit string", WHOLE_BYTES.hex(), end.hex())  # the parser takes any padding
    try:
        signer.verify(parsed.signature, parsed.tbs_certificate_bytes)
    except InvalidSignature:
        raise VerificationError(
            layer,
            "signature",
            f"one by the key of {signer_name}, {signer.public_bytes_raw().hex()}",
            "one that does not verify",
        ) from None


def algorithm_name(parsed: x509.Certificate) -> str:
    """The signature algorithm, by name where it is ours."""
    identifier = parsed.signature_algorithm_oid
    return "Ed25519" if identifier == SignatureAlgorithmOID.ED25519 else identifier.dotted_string


def serial_name(text: str) -> x509.Name:
    """The name that certificates of the run-time chain use."""
    return x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, text)])


def check_certificate(layer: str, data: bytes, issuer: Certified | None, usage: str, own: set[str]) -> Certified:
    """All that docs/formats.md says of every certificate of the run-time chain. `issuer` None: self-signed.

    `own`: the critical extensions, by dotted OID, that this kind carries besides the common four.
    """
    parsed = parse_certificate(layer, data)
    key = ed25519_key(layer, parsed)
    public = key.public_bytes_raw()
    subject = serial_name(chain.identifier(public).hex())
    issuer_name, issuer_key = (subject, public) if issuer is None else (issuer.subject, issuer.public_key)
    check_signature(layer, parsed, key if issuer is None else issuer.key, "itself" if issuer is None else issuer.layer)
    require(layer, "version", "v3", parsed.version.name)
    require(layer, "serial number", chain.identifier(public).hex(), f"{parsed.serial_number:040x}")
    require(layer, "subject", subject.rfc4514_string(), parsed.subject.rfc4514_string())
    require(layer, "issuer", issuer_name.rfc4514_string(), parsed.issuer.rfc4514_string())
    require(layer, "not before", NOT_BEFORE, parsed.not_valid_before_utc)
    require(layer, "not after", NOT_AFTER, parsed.not_valid_after_utc)
    check_extension_set(layer, parsed, own)
    require(layer, "authority key identifier", chain.identifier(issuer_key).hex(), authority_identifier(layer, parsed))
    subject_identifier = parsed.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    require(layer, "subject key identifier", chain.identifier(public).hex(), subject_identifier)
    check_usage(layer, parsed, usage)
    return Certified(layer, key, public, subject, own_values(parsed, own))


def authority_identifier(layer: str, parsed: x509.Certificate) -> str:
    """The issuer's identifier that the certificate names, hex; it must name nothing else."""
    value = parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    require(layer, "authority key identifier's issuer", None, value.authority_cert_issuer)
    require(layer, "authority key identifier's serial number", None, value.authority_cert_serial_number)
    return (value.key_identifier or b"").hex()


def check_extension_set(layer: str, parsed: x509.Certificate, own: set[str]) -> None:
    """Exactly the extensions of this kind, each critical or not as it must be."""
    expected = {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER.dotted_string: False,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string: False,
        ExtensionOID.KEY_USAGE.dotted_string: True,
        ExtensionOID.BASIC_CONSTRAINTS.dotted_string: True,
        **dict.fromkeys(own, True),
    }
    got = {extension.oid.dotted_string: extension.critical for extension in parsed.extensions}
    for oid in sorted(expected.keys() | got.keys()):
        require(layer, f"extension {oid}", criticality(expected.get(oid)), criticality(got.get(oid)))


def criticality(value: bool | None) -> str:
    """How an extension stands in a certificate."""
    return "absent" if value is None else "critical" if value else "not critical"


def check_usage(layer: str, parsed: x509.Certificate, usage: str) -> None:
    """Key usage is one bit; only certificate signers are authorities, without a path length."""
    value = parsed.extensions.get_extension_for_class(x509.KeyUsage).value
    bits = [name for attribute, name in USAGES.items() if getattr(value, attribute)]
    require(layer, "key usage", usage, " ".join(bits))
    constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
    require(layer, "basic constraints: CA", usage == KEY_CERT_SIGN, constraints.ca)
    require(layer, "basic constraints: path length", None, constraints.path_length)


def own_values(parsed: x509.Certificate, own: set[str]) -> dict[str, bytes]:
    """The raw values of the extensions that we read ourselves."""
    values = {}
    for extension in parsed.extensions:
        if extension.oid.dotted_string in own and isinstance(extension.value, x509.UnrecognizedExtension):
            values[extension.oid.dotted_string] = extension.value.value
    return values
