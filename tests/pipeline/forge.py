"""Evidence made on the host: the run-time chain as a machine would make it, with any field changed on request.

Written with the DER writer alone, so that it can also write what no certificate library would.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from boot.header import FLAG_DEBUG, EntryKind
from pipeline import assemble, chain, der, evidence, image, keys, reference, release
from pipeline.approvals import NO_APPROVALS
from pipeline.evidence import Item, Kind

SET, PRINTABLE, UTC_TIME, GENERALIZED_TIME, BIT_STRING, BOOLEAN, OID = 0x31, 0x13, 0x17, 0x18, 0x03, 0x01, 0x06
SEQUENCE, OCTETS, INTEGER = der.SEQUENCE, der.OCTET_STRING, der.INTEGER
TRUE = bytes([BOOLEAN, 1, 0xFF])
NONCE = bytes(range(32))
REPORT = b"canaries intact".ljust(32, b"\0")
ED25519 = bytes.fromhex("06032b6570")
BOX = "witness"
APPLICATION = b"MZ".ljust(4096, b"\0")


def seed_key(name: str) -> Ed25519PrivateKey:
    """A fixed key for tests."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def all_keys() -> keys.Keys:
    """Fixed keys, as keys/ would hold them."""
    named = {name: seed_key(name) for name in keys.SIGNING_KEYS}
    return keys.Keys(**named, development_secret=hashlib.sha256(b"development-secret").digest(), created=())


@dataclass
class Fields:
    """What a certificate says; a test changes one of these."""

    serial: bytes
    issuer: str
    subject: str
    public_key: bytes
    authority_identifier: bytes
    subject_identifier: bytes
    usage: bytes
    constraints: bytes
    not_before: bytes = b"180322235959Z"
    not_after: bytes = b"99991231235959Z"
    own: list[tuple[str, bool, bytes]] = field(default_factory=list)


def object_identifier(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = b""
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return der.element(OID, content)


def extension(dotted: str, critical: bool, value: bytes) -> bytes:
    """One extension."""
    return der.element(SEQUENCE, object_identifier(dotted) + (TRUE if critical else b"") + der.element(OCTETS, value))


def name(text: str) -> bytes:
    """A name of one serialNumber."""
    attribute = der.element(SEQUENCE, object_identifier("2.5.4.5") + der.element(PRINTABLE, text.encode()))
    return der.element(SEQUENCE, der.element(SET, attribute))


def certificate(fields: Fields, signer: Ed25519PrivateKey) -> bytes:
    """A certificate with these fields."""
    algorithm = der.element(SEQUENCE, ED25519)
    extensions = [
        extension("2.5.29.35", False, der.element(SEQUENCE, der.element(0x80, fields.authority_identifier))),
        extension("2.5.29.14", False, der.element(OCTETS, fields.subject_identifier)),
        extension("2.5.29.15", True, fields.usage),
        extension("2.5.29.19", True, fields.constraints),
        *(extension(*own) for own in fields.own),
    ]
    validity = der.element(UTC_TIME, fields.not_before) + der.element(GENERALIZED_TIME, fields.not_after)
    body = der.element(
        SEQUENCE,
        der.element(0xA0, bytes([INTEGER, 1, 2]))
        + der.element(INTEGER, fields.serial)
        + algorithm
        + name(fields.issuer)
        + der.element(SEQUENCE, validity)
        + name(fields.subject)
        + der.element(SEQUENCE, algorithm + der.element(BIT_STRING, b"\0" + fields.public_key))
        + der.element(0xA3, der.element(SEQUENCE, b"".join(extensions))),
    )
    return der.element(SEQUENCE, body + algorithm + der.element(BIT_STRING, b"\0" + signer.sign(body)))


def plain_fields(public_key: bytes, issuer_key: bytes, leaf: bool = False) -> Fields:
    """What docs/formats.md asks for."""
    mine, issuer = chain.identifier(public_key), chain.identifier(issuer_key)
    usage = "03020780" if leaf else "03020204"
    constraints = "3000" if leaf else "30030101ff"
    return Fields(
        mine, issuer.hex(), mine.hex(), public_key, issuer, mine, bytes.fromhex(usage), bytes.fromhex(constraints)
    )


@dataclass
class Dice:
    """What the DICE extension says."""

    code: bytes
    configuration: bytes
    authority: bytes
    mode: int
    configuration_hash: bytes | None = None

    def value(self) -> bytes:
        """The extension's value."""
        hashed = chain.sha512(self.configuration) if self.configuration_hash is None else self.configuration_hash
        parts = [(0, self.code), (2, hashed), (3, self.configuration), (4, self.authority)]
        body = b"".join(der.element(0xA0 + number, der.element(OCTETS, data)) for number, data in parts)
        return der.element(SEQUENCE, body + der.element(0xA6, bytes([0x0A, 1, self.mode])))


class Machine:
    """A built image with placeholder binaries, and the machine that booted it. Change `fields` or `dice` before `bundle`."""

    posture = 9  # debug, development secret

    def __init__(self, monitor: bytes = b"monitor" * 300, descriptor: bytes = b"w" * 4096) -> None:
        """Boxes: debian (open) and witness (closed)."""
        self.keys = all_keys()
        self.secret = self.keys.development_secret
        loader = hashlib.sha256(b"loader").digest()
        boxes = [("debian", b"d" * 4096), (BOX, descriptor)]
        identities = [(name, hashlib.sha256(data).digest()) for name, data in boxes]
        self.release = release.release_chain(self.keys, 1, loader, hashlib.sha256(monitor).digest(), identities)
        entries = image.collect_entries(
            monitor, boxes, [b"segment"], self.release, self.keys.development_secret, NO_APPROVALS
        )
        self.partition = image.build_partition(entries, 1, FLAG_DEBUG, self.keys)
        closed: list[Any] = [FakeBox(name == BOX, f"{name} ready") for name, _ in boxes]
        self.values = assemble.reference_values(self.keys, loader, self.partition, self.release, closed, "00" * 32)
        self.values["boot"] = assemble.boot_values(b"stage 1", b"2" * 40000, APPLICATION, self.partition)
        self.values["authority"] = ""
        self.derive()

    def derive(self) -> None:
        """Make every key and certificate's content as the machine would."""
        secret = self.secret
        header_key = keys.public_bytes(self.keys.header)
        kinds = EntryKind
        rows = {"monitor": self.partition.rows(kinds.MONITOR)[0].row, BOX: self.partition.rows(kinds.DESCRIPTOR)[1].row}
        self.signers = {"device": chain.key_of(secret)}
        self.dice: dict[str, Dice] = {}
        parent = chain.Cdi(secret, secret)
        for layer, label in (("monitor", chain.MONITOR_NAME), (BOX, BOX)):
            configuration = chain.configuration(label, 1, self.posture)
            authority = chain.sha512(header_key)
            self.dice[layer] = Dice(chain.sha512(rows[layer]), configuration, authority, 2)
            inputs = chain.Inputs(chain.sha512(rows[layer]), chain.sha512(configuration), authority, 2)
            parent = chain.derive(parent, inputs)
            self.signers[layer] = chain.key_of(parent.attest)
        self.signers["endorsement"] = seed_key("the witness's own")
        self.nonce = NONCE
        self.bound: bytes | None = None
        self.data: bytes | None = None
        public = {layer: keys.public_bytes(key) for layer, key in self.signers.items()}
        self.fields = {
            "device": plain_fields(public["device"], public["device"]),
            "monitor": plain_fields(public["monitor"], public["device"]),
            BOX: plain_fields(public[BOX], public["monitor"]),
            "endorsement": plain_fields(public["endorsement"], public[BOX], leaf=True),
        }
        self.signed_by = {"device": "device", "monitor": "device", BOX: "monitor", "endorsement": BOX}

    def certificate(self, layer: str) -> bytes:
        """A layer's certificate as it stands."""
        fields = self.fields[layer]
        if layer in self.dice and not fields.own:
            fields.own = [("1.3.6.1.4.1.11129.2.1.24", True, self.dice[layer].value())]
        if layer == "endorsement" and not fields.own:
            bound = self.nonce + chain.sha512(self.witness_data()) if self.bound is None else self.bound
            value = der.element(OCTETS, bound)
            fields.own = [("2.25.329800735698586629295641978511506172918", True, value)]
        return certificate(fields, self.signers[self.signed_by[layer]])

    def witness_data(self) -> bytes:
        """Report, and signature over report and nonce."""
        return REPORT + self.signers["endorsement"].sign(REPORT + self.nonce) if self.data is None else self.data

    def items(self) -> list[Item]:
        """The bundle's items."""
        kinds = {"device": Kind.DEVICE, "monitor": Kind.MONITOR, BOX: Kind.BOX, "endorsement": Kind.ENDORSEMENT}
        items = [Item(kind, self.certificate(layer)) for layer, kind in kinds.items()]
        items += [Item(Kind.RELEASE, link) for link in (*self.release[:3], self.release[4])]
        return [*items, Item(Kind.WITNESS_DATA, self.witness_data())]

    def bundle(self) -> bytes:
        """The evidence."""
        return evidence.pack(self.items())

    def reference(self, folder: Any) -> reference.Reference:
        """The reference file, written and read back."""
        path = folder / "terrane.json"
        reference.write(path, self.values)
        return reference.load(path)


@dataclass(frozen=True)
class FakeBox:
    """What the reference file asks of a box."""

    closed: bool
    ready: str
    memory: int = 2 << 20
    packages: tuple[Any, ...] = ()
