"""Evidence of a boot with a TPM, made on the host: a software attestation key, event log, quote and device certificate, all changeable."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pipeline import event_log, keys, provision, tpm
from pipeline.evidence import Item, Kind
from tests.pipeline.forge import Machine, seed_key

READY = 1 << 0 | 1 << 1 | 1 << 8  # debug, TPM, state ready
FIRMWARE = hashlib.sha256(b"firmware").digest()
END = struct.pack("<II", event_log.TAG_END, 0)


def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A fixed P-256 key for tests."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") >> 1, ec.SECP256R1())


def public_area(key: ec.EllipticCurvePrivateKey, attributes: int) -> bytes:
    """Its TPMT_PUBLIC, as an attestation key's."""
    area = bytearray(tpm.policy_key_public(key.public_key()))
    area[4:8] = attributes.to_bytes(4, "big")
    return bytes(area)


@dataclass
class LogEvent:
    """An event as it will be written; `digest` None: of its data."""

    pcr: int
    kind: int
    data: bytes
    digest: bytes | None = None

    def pack(self) -> bytes:
        """A TCG_PCR_EVENT2 with one bank."""
        digest = hashlib.sha256(self.data).digest() if self.digest is None else self.digest
        head = struct.pack("<IIIH", self.pcr, self.kind, 1, event_log.SHA256)
        return head + digest + struct.pack("<I", len(self.data)) + self.data


def tagged(pcr: int, tag: int, content: bytes) -> LogEvent:
    """One of the loader's."""
    return LogEvent(pcr, event_log.EV_EVENT_TAG, struct.pack("<II", tag, len(content)) + content)


def pack_log(events: list[LogEvent]) -> bytes:
    """A whole log, its first event included; an end event without content is given the hash of what is before it."""
    spec = event_log.SIGNATURE + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, event_log.SHA256, 32, 0)
    first = struct.pack("<II20xI", 0, event_log.EV_NO_ACTION, len(spec)) + spec
    log = first
    for event in events:
        sealing = event.data == END
        log += (tagged(4, event_log.TAG_END, hashlib.sha256(log).digest()) if sealing else event).pack()
    return log


class TpmMachine(Machine):
    """A machine whose device secret its TPM released. Change `events`, `attributes`, `attest` and so on before `bundle`."""

    posture = READY

    def __init__(self, firmware: str = "uefi") -> None:
        """`firmware`: uefi or bios."""
        super().__init__()
        self.secret = hashlib.sha256(b"device secret").digest()
        self.derive()
        self.owner = provision.OwnerKeys(seed_key("authority"), private_key("policy"))
        self.values["authority"] = self.owner.authority_key.hex()
        self.attestation, self.attributes = private_key("attestation"), tpm.AK_SET | 1 << 6
        self.certified_attributes = self.attributes
        self.signer = self.attestation
        self.mask, self.label = tpm.QUOTED_PCRS, tpm.LABEL
        self.extra: bytes | None = None
        self.values_digest: bytes | None = None
        self.authority = self.owner
        self.events = self.firmware_events(firmware) + self.loader_events()

    def firmware_events(self, firmware: str) -> list[LogEvent]:
        """What firmware, and on a BIOS the first stages, measured."""
        boot = self.values["boot"]
        events = [LogEvent(pcr, 0x80000008, b"firmware", FIRMWARE) for pcr in range(8)]
        if firmware == "uefi":
            kind = event_log.EV_EFI_BOOT_SERVICES_APPLICATION
            return [*events, LogEvent(4, kind, b"device path", bytes.fromhex(boot["application"]))]
        return events + [LogEvent(4, event_log.EV_IPL, b"stage", bytes.fromhex(digest)) for digest in boot["stages"]]

    def loader_events(self) -> list[LogEvent]:
        """What the loader measured."""
        boot = self.values["boot"]
        events = [tagged(8, event_log.TAG_HEADER, bytes.fromhex(boot["header_sha256"]))]
        for entry in boot["entries"]:
            pcr, tag = (9, event_log.TAG_CODE) if entry["code"] else (8, event_log.TAG_CONFIGURATION)
            events.append(tagged(pcr, tag, bytes.fromhex(entry["row"])))
        return [*events, LogEvent(4, event_log.EV_EVENT_TAG, END)]

    def log(self) -> bytes:
        """The event log."""
        return pack_log(self.events)

    def attest(self) -> bytes:
        """The TPMS_ATTEST of a quote over what the log says."""
        device, monitor = (keys.public_bytes(self.signers[name]) for name in ("device", "monitor"))
        extra = tpm.sha256(self.label, device, monitor) if self.extra is None else self.extra
        values = event_log.replay(event_log.parse(self.log()))
        digest = tpm.pcr_digest(values, self.mask) if self.values_digest is None else self.values_digest
        clock = struct.pack(">QIIBQ", 123456, 7, 1, 1, 0x20191023)
        selection = struct.pack(">IHB", 1, tpm.ALG_SHA256, 3) + self.mask.to_bytes(3, "little")
        head = struct.pack(">IH", tpm.GENERATED_VALUE, tpm.ATTEST_QUOTE)
        return head + tpm.sized(bytes(34)) + tpm.sized(extra) + clock + selection + tpm.sized(digest)

    def signature(self, attest: bytes) -> bytes:
        """A TPMT_SIGNATURE."""
        r, s = decode_dss_signature(self.signer.sign(attest, ec.ECDSA(SHA256(), deterministic_signing=True)))
        head = struct.pack(">HH", tpm.ALG_ECDSA, tpm.ALG_SHA256)
        return head + tpm.sized(r.to_bytes(32, "big")) + tpm.sized(s.to_bytes(32, "big"))

    def tpm_items(self) -> list[Item]:
        """The further items."""
        attest = self.attest()
        certified = public_area(self.attestation, self.certified_attributes)
        endorsement = provision.Endorsement(bytes(34), "SHA-256 00")
        device = keys.public_bytes(self.signers["device"])
        certificate = provision.certify(self.authority, device, certified, endorsement)
        return [
            Item(Kind.QUOTE, attest),
            Item(Kind.QUOTE_SIGNATURE, self.signature(attest)),
            Item(Kind.EVENT_LOG, self.log()),
            Item(Kind.DEVICE_CERTIFICATE, certificate.public_bytes(Encoding.DER)),
            Item(Kind.ATTESTATION_KEY, public_area(self.attestation, self.attributes)),
        ]

    def items(self) -> list[Item]:
        """The bundle's items."""
        return [*super().items(), *self.tpm_items()]

    def monitor_items(self) -> list[Item]:
        """The items of a machine that can run no box."""
        kept = [item for item in super().items() if item.kind in (Kind.DEVICE, Kind.MONITOR)]
        return [*kept, *(Item(Kind.RELEASE, link) for link in self.release[:3]), *self.tpm_items()]
