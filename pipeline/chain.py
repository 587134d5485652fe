"""The run-time chain as the host expects it: Open DICE v2.6 derivation, independent of the machine's own code.

Written from the specification and docs/formats.md on purpose, sharing nothing with dsl/std: two implementations that agree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_SALT = bytes.fromhex(
    "63B6A04D2C077FC10F639F21DA793844356CC2B0B441B3A77124035C03F8E1BE"
    "6035D31F282821A7450A02222AB1B3CFF1679B05AB1CA5D1AFFB789CCD2B0B3B"
)
IDENTIFIER_SALT = bytes.fromhex(
    "DBDBAEBC8020DA9FF0DD5A24C83AA5A54286DFC263031E329B4DA148430659FE"
    "62CDB5B7E1E00FC680306711EB444AF77209359496FCFF1DB9520BA51C7B29EA"
)
MODES = {0: "not configured", 1: "normal", 2: "debug", 3: "recovery"}
MODE_NOT_CONFIGURED, MODE_NORMAL, MODE_DEBUG = 0, 1, 2
POSTURES = {0: "debug", 1: "TPM", 2: "IOMMU", 3: "development secret"}  # bit: meaning
POSTURE_DEBUG, POSTURE_TPM, POSTURE_DEVELOPMENT_SECRET = 1 << 0, 1 << 1, 1 << 3
TPM_STATE_SHIFT = 8  # bits 15 to 8 of the posture
TPM_STATES = (
    "absent",
    "ready",
    "unprovisioned",
    "PCRs not measured",
    "locked out",
    "broken",
    "secret withheld",
    "unsupported",
)
TPM_READY = 1
MONITOR_NAME = "terrane monitor"
NAME_SIZE = 32  # bytes
CONFIGURATION_SIZE = 68  # bytes


@dataclass(frozen=True)
class Inputs:
    """What a layer is; hashes are SHA-512."""

    code: bytes
    configuration: bytes
    authority: bytes
    mode: int
    hidden: bytes = bytes(64)


@dataclass(frozen=True)
class Cdi:
    """A layer's two secrets."""

    attest: bytes
    seal: bytes


def sha512(data: bytes) -> bytes:
    """SHA-512."""
    return hashlib.sha512(data).digest()


def kdf(size: int, secret: bytes, salt: bytes, info: str) -> bytes:
    """HKDF-SHA-512 (RFC 5869), as Open DICE orders its arguments."""
    return HKDF(SHA512(), size, salt, info.encode()).derive(secret)


def derive(parent: Cdi, inputs: Inputs) -> Cdi:
    """The CDIs of a layer from its parent's."""
    tail = inputs.authority + bytes([inputs.mode]) + inputs.hidden
    attest = kdf(32, parent.attest, sha512(inputs.code + inputs.configuration + tail), "CDI_Attest")
    return Cdi(attest, kdf(32, parent.seal, sha512(tail), "CDI_Seal"))


def key_of(secret: bytes) -> Ed25519PrivateKey:
    """The key pair of a CDI_Attest, or of a device secret."""
    return Ed25519PrivateKey.from_private_bytes(kdf(32, secret, KEY_SALT, "Key Pair"))


def open_dice_identifier(public_key: bytes) -> bytes:
    """The identifier of a key as Open DICE has it: 20 bytes, top bit clear."""
    raw = kdf(20, public_key, IDENTIFIER_SALT, "ID")
    return bytes([raw[0] & 0x7F]) + raw[1:]


def identifier(public_key: bytes) -> bytes:
    """Ours: a zero first byte becomes 1, so that the DER integer always has 20 bytes."""
    raw = open_dice_identifier(public_key)
    return bytes([raw[0] or 1]) + raw[1:]


def configuration(name: str, security_version: int, posture: int) -> bytes:
    """The 68-byte configuration descriptor: deterministic CBOR but for the fixed widths (docs/formats.md)."""
    label = name.encode("ascii")
    if len(label) > NAME_SIZE:
        raise ValueError(f"component name: expected at most {NAME_SIZE} bytes, found {len(label)}")
    return b"".join(
        (
            bytes.fromhex("a3 3a00011171 7820"),
            label.ljust(NAME_SIZE, b"\0"),
            bytes.fromhex("3a00011174 1b"),
            security_version.to_bytes(8, "big"),
            bytes.fromhex("3a0001193f 1b"),
            posture.to_bytes(8, "big"),
        )
    )


def posture_text(posture: int) -> str:
    """The posture's bits in words."""
    names = [name for bit, name in POSTURES.items() if posture >> bit & 1]
    state = posture >> TPM_STATE_SHIFT & 0xFF
    if 0 < state < len(TPM_STATES):
        names.append(f"TPM {TPM_STATES[state]}")
        posture &= ~(0xFF << TPM_STATE_SHIFT)
    unknown = posture & ~sum(1 << bit for bit in POSTURES)
    return ", ".join([*names, *([f"unknown bits {unknown:#x}"] if unknown else [])]) or "nothing said"


@dataclass(frozen=True)
class ExpectedLayer:
    """A layer that a certificate must describe. `row`: the signed entry row of the image; empty for the device."""

    name: str
    row: bytes
    configuration: bytes
    authority: bytes
    mode: int
    security_version: int
    posture: int
    public_key: bytes

    @property
    def identifier(self) -> str:
        """The identifier of its key, hex."""
        return identifier(self.public_key).hex()


def expected_chain(
    secret: bytes, header_key: bytes, mode: int, posture: int, rows: list[tuple[str, bytes, int]]
) -> list[ExpectedLayer]:
    """Device, monitor and boxes of a machine with this secret. `rows`: (name, entry row, security version), the monitor's first."""
    device = key_of(secret).public_key().public_bytes_raw()
    layers = [ExpectedLayer("device", b"", b"", b"", mode, 0, posture, device)]
    parent = Cdi(secret, secret)
    for index, (name, row, version) in enumerate(rows):
        descriptor = configuration(name, version, posture)
        authority = sha512(header_key)
        cdi = derive(parent, Inputs(sha512(row), sha512(descriptor), authority, mode))
        public = key_of(cdi.attest).public_key().public_bytes_raw()
        layers.append(ExpectedLayer(name, row, descriptor, authority, mode, version, posture, public))
        if index == 0:
            parent = cdi
    return layers
