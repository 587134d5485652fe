"""What a TPM shows of a boot, held against the reference: the owner's certificate, the quote, and the event log (docs/evidence.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID

from pipeline import chain, der, event_log, tpm
from pipeline.event_log import Event
from pipeline.evidence import Kind
from pipeline.provision import CA_NAME, MACHINE_EXTENSION
from pipeline.reference import BootReference, Reference
from pipeline.verify_certificates import (
    Node,
    VerificationError,
    check_signature,
    ed25519_key,
    parse_certificate,
    require,
    serial_name,
)

TPM_ITEMS: Final = (Kind.QUOTE, Kind.QUOTE_SIGNATURE, Kind.EVENT_LOG, Kind.DEVICE_CERTIFICATE, Kind.ATTESTATION_KEY)
EXTENSIONS: Final = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER.dotted_string,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string,
    ExtensionOID.BASIC_CONSTRAINTS.dotted_string,
    MACHINE_EXTENSION.dotted_string,
}
BOOT_PCR, HEADER_PCR, CODE_PCR = 4, 8, 9
COMPARED: Final = {
    BOOT_PCR: "the loader of this build",
    HEADER_PCR: "header and descriptors of this build",
    CODE_PCR: "monitor and boxes of this build",
}
CA_LAYER, DEVICE_LAYER, ATTESTATION_LAYER = "provisioning CA", "device certificate", "attestation key"
QUOTE_LAYER, LOG_LAYER = "quote", "event log"
TPM_LAYERS: Final = (CA_LAYER, DEVICE_LAYER, ATTESTATION_LAYER, QUOTE_LAYER, LOG_LAYER)
Read = TypeVar("Read")


@dataclass(frozen=True)
class Pcr:
    """A PCR at the time of the quote, and what it was compared with; empty if with nothing."""

    index: int
    value: str
    compared: str


@dataclass(frozen=True)
class TpmFacts:
    """What was verified. Counters are the TPM's: together they say which boot this was."""

    pcrs: tuple[Pcr, ...]
    reset_count: int
    restart_count: int
    clock_ms: int
    firmware: str  # bios or uefi
    endorsement: str  # how the endorsement key's certificate was checked


def verify_tpm(
    items: dict[Kind, list[bytes]], reference: Reference, device_key: bytes, monitor_key: bytes, nodes: list[Node]
) -> TpmFacts:
    """The owner vouches for device key and attestation key; the quote binds both to this boot; the log says what ran in it.

    Each of them is added to `nodes` once it is verified.
    """
    for kind in TPM_ITEMS:
        require("TPM", f"number of {kind.words}", 1, len(items[kind]))
    authority, owner = reference.authority.hex(), "owner"
    machine = verify_device_certificate(items[Kind.DEVICE_CERTIFICATE][0], reference.authority, device_key)
    nodes.append(Node(CA_LAYER, "", authority, owner, "the reference", 0, "the key in the reference"))
    nodes.append(Node(DEVICE_LAYER, "", device_key.hex(), owner, CA_LAYER, 1, "the device key of the chain"))
    public = items[Kind.ATTESTATION_KEY][0]
    key = structure(ATTESTATION_LAYER, tpm.parse_public, public)
    require(ATTESTATION_LAYER, "name", machine.attestation_name.hex(), key.name.hex())
    missing = tpm.AK_SET & ~key.attributes
    require(ATTESTATION_LAYER, "attributes: missing of restricted, sign, fixed and made in the TPM", 0, missing)
    require(ATTESTATION_LAYER, "attributes: decrypt", 0, key.attributes & tpm.DECRYPT)
    name = key.name[2:].hex()
    nodes.append(Node(ATTESTATION_LAYER, name, "", "TPM", DEVICE_LAYER, 2, "the Name in the device certificate"))
    quote = verify_quote(items, key, tpm.qualifying_data(device_key, monitor_key))
    events = structure(LOG_LAYER, event_log.parse, items[Kind.EVENT_LOG][0])
    values = structure(LOG_LAYER, event_log.replay, events)
    require(QUOTE_LAYER, "PCR digest", tpm.pcr_digest(values, tpm.QUOTED_PCRS).hex(), quote.pcr_digest.hex())
    digest = quote.pcr_digest.hex()
    nodes.append(
        Node(QUOTE_LAYER, digest, "", "TPM", ATTESTATION_LAYER, 3, "device and monitor key; the log, replayed")
    )
    boot = structure(LOG_LAYER, event_log.before_end, items[Kind.EVENT_LOG][0], events)
    check_ours(boot, reference)
    firmware = check_loader(boot, reference.boot)
    sealed = hashlib.sha256(items[Kind.EVENT_LOG][0]).hexdigest()
    nodes.append(
        Node(LOG_LAYER, sealed, "", "TPM", QUOTE_LAYER, 4, "every row of the signed header; the loader's hashes")
    )
    pcrs = tuple(Pcr(index, values[index].hex(), COMPARED.get(index, "")) for index in range(16))
    return TpmFacts(pcrs, quote.reset_count, quote.restart_count, quote.clock, firmware, machine.endorsement)


def structure(layer: str, parse: Callable[..., Read], *values: object) -> Read:
    """What a parser makes of some bytes; its failure as the verifier's."""
    try:
        return parse(*values)
    except (tpm.TpmError, event_log.EventLogError) as error:
        raise VerificationError(layer, "structure", "as the TCG specifies it", error) from None


@dataclass(frozen=True)
class MachineCertificate:
    """What the owner says of a machine."""

    attestation_name: bytes
    endorsement: str


def verify_device_certificate(data: bytes, authority: bytes, device_key: bytes) -> MachineCertificate:
    """The provisioning CA's certificate for the device key."""
    layer = DEVICE_LAYER
    parsed = parse_certificate(layer, data)
    signer = Ed25519PublicKey.from_public_bytes(authority)
    check_signature(layer, parsed, signer, "the provisioning CA")
    require(layer, "public key", device_key.hex(), ed25519_key(layer, parsed).public_bytes_raw().hex())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, CA_NAME)])
    require(layer, "issuer", issuer.rfc4514_string(), parsed.issuer.rfc4514_string())
    subject = serial_name(chain.identifier(device_key).hex())
    require(layer, "subject", subject.rfc4514_string(), parsed.subject.rfc4514_string())
    require(layer, "extensions", sorted(EXTENSIONS), sorted(item.oid.dotted_string for item in parsed.extensions))
    value = parsed.extensions.get_extension_for_oid(MACHINE_EXTENSION).value
    assert isinstance(value, x509.UnrecognizedExtension)
    try:
        content = der.only(value.value, der.SEQUENCE)
        name, content = der.take(content, der.OCTET_STRING)
        _, content = der.take(content, der.OCTET_STRING)
        return MachineCertificate(name, der.only(content, der.UTF8_STRING).decode("utf-8", "replace"))
    except der.DerError as error:
        raise VerificationError(layer, "machine extension", "strict DER as docs/evidence.md has it", error) from None


def verify_quote(items: dict[Kind, list[bytes]], key: tpm.SigningKey, wanted: bytes) -> tpm.Quote:
    """The attestation key signed it, over PCR 0 to 15, for this chain."""
    attest, signature = items[Kind.QUOTE][0], items[Kind.QUOTE_SIGNATURE][0]
    if not structure(QUOTE_LAYER, key.verify, signature, attest):
        raise VerificationError(QUOTE_LAYER, "signature", "one by the attestation key", "one that does not verify")
    quote = structure(QUOTE_LAYER, tpm.parse_quote, attest)
    require(QUOTE_LAYER, "qualifying data: hash of device and monitor key", wanted.hex(), quote.extra_data.hex())
    require(QUOTE_LAYER, "PCRs", f"{tpm.QUOTED_PCRS:#x}", f"{quote.pcr_mask:#x}")
    return quote


def our_events(events: list[Event]) -> list[tuple[int, int, bytes]]:
    """PCR, tag and content of the loader's events, each with a digest that is its data's."""
    found = []
    for event in events:
        tagged = event.tagged()
        if event.pcr in (HEADER_PCR, CODE_PCR) or (tagged and tagged[0] >> 16 == event_log.TAG_HEADER >> 16):
            if tagged is None:
                raise VerificationError(
                    LOG_LAYER, f"PCR {event.pcr}", "the loader's events alone", f"type {event.kind:#x}"
                )
            digest = hashlib.sha256(event.data).hexdigest()
            require(LOG_LAYER, f"digest of event {tagged[0]:#x}", digest, event.digests[event_log.SHA256].hex())
            found.append((event.pcr, *tagged))
    return found


def check_ours(events: list[Event], reference: Reference) -> None:
    """PCR 8 and 9: the signed header, and then each row of it, in its order, and nothing else."""
    wanted = [(HEADER_PCR, event_log.TAG_HEADER, "header", bytes.fromhex(reference.boot.header_sha256))]
    for entry in reference.boot.entries:
        pcr, tag = (CODE_PCR, event_log.TAG_CODE) if entry.is_code else (HEADER_PCR, event_log.TAG_CONFIGURATION)
        wanted.append((pcr, tag, entry.name, entry.row))
    found = our_events(events)
    for index, (pcr, tag, name, content) in enumerate(wanted):
        got = found[index] if index < len(found) else None
        require(LOG_LAYER, f"{name}: PCR", pcr, got and got[0])
        require(LOG_LAYER, f"{name}: tag", f"{tag:#x}", got and f"{got[1]:#x}")
        require(LOG_LAYER, f"{name}: measured", content.hex(), got and got[2].hex())
    require(LOG_LAYER, "number of the loader's events", len(wanted), len(found))


def check_loader(events: list[Event], boot: BootReference) -> str:
    """PCR 4: what firmware started, and on a BIOS what that measured in its turn, is the loader of this build. Which firmware it was."""
    measured = [event for event in events if event.pcr == BOOT_PCR]
    started = [event for event in measured if event.kind == event_log.EV_EFI_BOOT_SERVICES_APPLICATION]
    if started:
        digests = [event.digests[event_log.SHA256].hex() for event in started]
        require(LOG_LAYER, "PCR 4: UEFI applications that were started", [boot.application], digests)
        return "uefi"
    stages = [event.digests[event_log.SHA256].hex() for event in measured if event.kind == event_log.EV_IPL]
    require(LOG_LAYER, "PCR 4: boot sector, stage 2 and loader", list(boot.stages), stages)
    return "bios"
