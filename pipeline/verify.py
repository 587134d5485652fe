"""The verifier: checks an evidence bundle against expected identities and a nonce, link by link (docs/formats.md, "DICE").

Importable: `verify_evidence` returns a Verdict or raises VerificationError, which names layer, field, what was expected and what
was found. Every certificate is held to all that docs/formats.md says of it; anything more or less in it is a failure.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from dsl.std.x509 import DICE_EXTENSION, ENDORSEMENT_EXTENSION
from pipeline import chain, der, evidence, release
from pipeline.errors import PipelineError
from pipeline.evidence import Kind
from pipeline.reference import LayerReference, Reference

DICE_OID = x509.ObjectIdentifier(DICE_EXTENSION)
ENDORSEMENT_OID = x509.ObjectIdentifier(ENDORSEMENT_EXTENSION)
NOT_BEFORE = datetime.datetime(2018, 3, 22, 23, 59, 59, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
NONCE_SIZE = 32  # bytes
REPORT_SIZE = 32  # bytes: zero-padded text
SIGNATURE_SIZE = 64  # bytes
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
        super().__init__(f"{layer}: {name}: expected {expected}, got {got}")


@dataclass(frozen=True)
class Node:
    """A line of the tree: a layer that was verified."""

    layer: str
    sha256: str
    public_key: str
    mode: str
    signed_by: str
    depth: int


@dataclass(frozen=True)
class Verdict:
    """What was verified. `certificates`: DER by name, for other tools."""

    nodes: tuple[Node, ...]
    box: str
    nonce: str
    report: str  # what the box's program says
    mode: int
    posture: int
    warnings: tuple[str, ...]
    certificates: dict[str, bytes] = field(default_factory=dict)


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


def verify_evidence(
    data: bytes, reference: Reference, nonce: bytes, box: str | None = None, allow_unprovisioned: bool = False
) -> Verdict:
    """Verify a bundle. Raises VerificationError or EvidenceError. `box`: None takes the reference's only closed box.

    `allow_unprovisioned` accepts mode 0, the all-zero device secret that anyone can forge.
    """
    require("nonce", "size", NONCE_SIZE, len(nonce))
    expected = reference.box(box)
    items = sorted_items(evidence.parse(data))
    if reference.mode == chain.MODE_NOT_CONFIGURED and not allow_unprovisioned:
        raise VerificationError("device", "mode", "a configured device secret", "mode 0, which anyone can forge")
    releases = verify_release_chain(items[Kind.RELEASE], reference, expected)
    device = check_certificate("device", items[Kind.DEVICE][0], None, KEY_CERT_SIGN, set())
    require("device", "public key", reference.device_key.hex(), device.public_key.hex())
    monitor = verify_layer(items[Kind.MONITOR][0], device, reference, reference.monitor)
    guest = verify_layer(items[Kind.BOX][0], monitor, reference, expected)
    leaf = verify_endorsement(items[Kind.ENDORSEMENT][0], guest, nonce, items[Kind.WITNESS_DATA])
    mode = chain.MODES[reference.mode]
    nodes = [
        *releases,
        Node("device", "", device.public_key.hex(), mode, "itself", 0),
        Node("monitor", reference.monitor.sha256, monitor.public_key.hex(), mode, "device", 1),
        Node(f"box {expected.name}", expected.sha256, guest.public_key.hex(), mode, "monitor", 2),
        Node("endorsed key", "", leaf.public_key.hex(), mode, f"box {expected.name}", 3),
    ]
    named = {kind.name.lower(): items[kind][0] for kind in (Kind.DEVICE, Kind.MONITOR, Kind.BOX, Kind.ENDORSEMENT)}
    named |= {f"release-{index}": link for index, link in enumerate(items[Kind.RELEASE])}
    words = items[Kind.WITNESS_DATA][0][:REPORT_SIZE].rstrip(b"\0").decode("ascii", "backslashreplace")
    warnings = warnings_of(reference)
    return Verdict(tuple(nodes), expected.name, nonce.hex(), words, reference.mode, reference.posture, warnings, named)


def sorted_items(items: list[evidence.Item]) -> dict[Kind, list[bytes]]:
    """The items by kind: one of each run-time certificate, four release certificates, at most one witness data."""
    found: dict[Kind, list[bytes]] = {kind: [] for kind in Kind}
    for item in items:
        found[item.kind].append(item.data)
    for kind in (Kind.DEVICE, Kind.MONITOR, Kind.BOX, Kind.ENDORSEMENT):
        require("evidence", f"number of {kind.name.lower()} certificates", 1, len(found[kind]))
    require("evidence", "number of release certificates", 4, len(found[Kind.RELEASE]))
    if len(found[Kind.WITNESS_DATA]) > 1:
        raise VerificationError("evidence", "number of witness data", "at most 1", len(found[Kind.WITNESS_DATA]))
    return found


def warnings_of(reference: Reference) -> tuple[str, ...]:
    """What the verdict does not prove."""
    warnings = []
    if reference.mode == chain.MODE_NOT_CONFIGURED:
        warnings.append("NOT AUTHENTIC: mode 0 means an all-zero device secret; anyone can make this evidence")
    if reference.posture & chain.POSTURE_DEVELOPMENT_SECRET:
        warnings.append(
            "the development secret proves the flow, not a machine: whoever has this checkout's keys/ can make this evidence"
        )
    elif reference.posture & chain.POSTURE_DEBUG:
        warnings.append("the monitor is a debug build")
    return tuple(warnings)


def parse_certificate(layer: str, data: bytes) -> x509.Certificate:
    """Parse DER. Raises VerificationError where it is not a certificate."""
    try:
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


@dataclass(frozen=True)
class DiceExtension:
    """The fields of the Open DICE extension that this chain carries."""

    code_hash: bytes
    configuration_hash: bytes
    configuration: bytes
    authority_hash: bytes
    mode: int


def parse_dice_extension(layer: str, value: bytes) -> DiceExtension:
    """Read the extension: SEQUENCE of EXPLICIT [0], [2], [3], [4] OCTET STRING and [6] ENUMERATED, strict DER."""

    def explicit(rest: bytes, number: int, tag: int) -> tuple[bytes, bytes]:
        wrapped, rest = der.take(rest, der.EXPLICIT + number)
        return der.only(wrapped, tag), rest

    try:
        rest = der.only(value, der.SEQUENCE)
        code, rest = explicit(rest, 0, der.OCTET_STRING)
        configuration_hash, rest = explicit(rest, 2, der.OCTET_STRING)
        configuration, rest = explicit(rest, 3, der.OCTET_STRING)
        authority, rest = explicit(rest, 4, der.OCTET_STRING)
        mode, rest = explicit(rest, 6, der.ENUMERATED)
        if rest:
            raise der.DerError(f"expected nothing after the mode, found {len(rest)} bytes")
        return DiceExtension(code, configuration_hash, configuration, authority, der.number(mode))
    except der.DerError as error:
        raise VerificationError(layer, "DICE extension", "strict DER as docs/formats.md has it", error) from None


def verify_layer(data: bytes, parent: Certified, reference: Reference, expected: LayerReference) -> Certified:
    """A layer's certificate: everything measured must be what was built, and the key the one that follows from it."""
    layer = "monitor" if expected is reference.monitor else f"box {expected.name}"
    certified = check_certificate(layer, data, parent, KEY_CERT_SIGN, {DICE_EXTENSION})
    found = parse_dice_extension(layer, certified.extensions[DICE_EXTENSION])
    require(layer, "mode", mode_name(reference.mode), mode_name(found.mode))
    check_configuration(layer, expected, found)
    require(layer, "code hash", chain.sha512(expected.row).hex(), found.code_hash.hex())
    require(layer, "authority hash", chain.sha512(reference.header_key).hex(), found.authority_hash.hex())
    require(layer, "public key", expected.public_key.hex(), certified.public_key.hex())
    return certified


def mode_name(mode: int) -> str:
    """A mode as number and word."""
    return f"{mode} ({chain.MODES.get(mode, 'unknown')})"


def check_configuration(layer: str, expected: LayerReference, found: DiceExtension) -> None:
    """The configuration descriptor, field by field, then as a whole, then its hash."""
    fields: dict[str, Callable[[bytes], object]] = {
        "name": lambda data: data[8:40].rstrip(b"\0").decode("ascii", "replace"),
        "security version": lambda data: int.from_bytes(data[46:54], "big"),
        "posture": lambda data: chain.posture_text(int.from_bytes(data[60:68], "big")),
    }
    require(layer, "configuration descriptor: size", len(expected.configuration), len(found.configuration))
    for name, read in fields.items():
        require(layer, f"configuration: {name}", read(expected.configuration), read(found.configuration))
    require(layer, "configuration descriptor", expected.configuration.hex(), found.configuration.hex())
    require(layer, "configuration hash", chain.sha512(found.configuration).hex(), found.configuration_hash.hex())


def verify_endorsement(data: bytes, box: Certified, nonce: bytes, witness_data: list[bytes]) -> Certified:
    """The leaf: the box vouches for a key of its own program, this nonce and its data."""
    layer = "endorsement"
    certified = check_certificate(layer, data, box, DIGITAL_SIGNATURE, {ENDORSEMENT_EXTENSION})
    try:
        bound = der.only(certified.extensions[ENDORSEMENT_EXTENSION], der.OCTET_STRING)
    except der.DerError as error:
        raise VerificationError(layer, "endorsement extension", "a DER OCTET STRING", error) from None
    require(layer, "endorsement extension: size", NONCE_SIZE + 64, len(bound))
    require(layer, "nonce", nonce.hex(), bound[:NONCE_SIZE].hex())
    data = b"".join(witness_data)
    require(layer, "hash of the witness data", bound[NONCE_SIZE:].hex(), chain.sha512(data).hex())
    require(layer, "witness data: size", REPORT_SIZE + SIGNATURE_SIZE, len(data))
    try:
        certified.key.verify(data[REPORT_SIZE:], data[:REPORT_SIZE] + nonce)
    except InvalidSignature:
        wanted = f"a signature over report and nonce by the endorsed key {certified.public_key.hex()}"
        raise VerificationError(layer, "witness data: signature", wanted, "one that does not verify") from None
    return certified


def verify_release_chain(links: list[bytes], reference: Reference, box: LayerReference) -> list[Node]:
    """Root -> boot -> VMM -> box: each signed by the one before, each naming what was built."""
    version = reference.security_version
    expected = [
        release.Release(release.ROOT_LAYER, b"", version),
        release.Release(release.BOOT_LAYER, bytes.fromhex(reference.loader_sha256), version),
        release.Release(release.MONITOR_LAYER, bytes.fromhex(reference.monitor.sha256), version),
        release.Release(release.box_layer(box.name), bytes.fromhex(box.sha256), version),
    ]
    nodes: list[Node] = []
    parent: x509.Certificate | None = None
    for depth, (data, wanted) in enumerate(zip(links, expected, strict=True)):
        layer = f"release: {wanted.layer}"
        parsed = parse_certificate(layer, data)
        if parent is None:
            require(layer, "fingerprint", reference.release_root, hashlib.sha256(data).hexdigest())
        signer = parent or parsed
        check_signature(layer, parsed, ed25519_key(layer, signer), "itself" if parent is None else nodes[-1].layer)
        check_release_certificate(layer, parsed, signer, wanted, len(expected) - 1 - depth)
        key = ed25519_key(layer, parsed).public_bytes_raw().hex()
        by = "itself" if parent is None else nodes[-1].layer
        nodes.append(Node(layer, wanted.sha256.hex(), key, "release", by, depth))
        parent = parsed
    return nodes


def check_release_certificate(
    layer: str, parsed: x509.Certificate, signer: x509.Certificate, wanted: release.Release, below: int
) -> None:
    """Names, usage and the release extension of one link; `below` certificates follow it."""
    require(layer, "subject", release.name_of(wanted.layer).rfc4514_string(), parsed.subject.rfc4514_string())
    require(layer, "issuer", signer.subject.rfc4514_string(), parsed.issuer.rfc4514_string())
    try:
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = parsed.extensions.get_extension_for_class(x509.KeyUsage).value
        named = parsed.extensions.get_extension_for_oid(release.RELEASE_EXTENSION).value
    except x509.ExtensionNotFound as error:
        raise VerificationError(layer, f"extension {error.oid.dotted_string}", "present", "absent") from None
    require(layer, "basic constraints: CA", below > 0, constraints.ca)
    require(layer, "basic constraints: path length", below - 1 if below else None, constraints.path_length)
    require(layer, "key usage: keyCertSign", below > 0, usage.key_cert_sign)
    assert isinstance(named, x509.UnrecognizedExtension)
    try:
        found = release.parse_release(named.value)
    except der.DerError as error:
        raise VerificationError(layer, "release extension", "strict DER", error) from None
    require(layer, "layer", wanted.layer, found.layer)
    require(layer, "SHA-256", wanted.sha256.hex(), found.sha256.hex())
    require(layer, "security version", wanted.security_version, found.security_version)
    allowed = {"2.5.29.35", "2.5.29.14", "2.5.29.15", "2.5.29.19", release.RELEASE_EXTENSION.dotted_string}
    extra = sorted(
        extension.oid.dotted_string for extension in parsed.extensions if extension.oid.dotted_string not in allowed
    )
    require(layer, "further extensions", [], extra)
