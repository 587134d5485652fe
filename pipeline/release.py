"""The release chain: who vouches for these bytes. root -> boot -> VMM -> box, X.509 with Ed25519, made offline by the build.

Each certificate names what it vouches for in an extension: SEQUENCE of UTF8String layer, OCTET STRING SHA-256, INTEGER security
version. Deterministic: serial numbers come from the content, validity is fixed.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from dsl.std.x509 import ENDORSEMENT_EXTENSION
from pipeline import der
from pipeline.keys import Keys

RELEASE_EXTENSION = x509.ObjectIdentifier(ENDORSEMENT_EXTENSION + ".1")
NOT_BEFORE = datetime.datetime(2018, 3, 22, 23, 59, 59)
NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59)
ROOT_LAYER, BOOT_LAYER, MONITOR_LAYER = "release root", "boot loader", "monitor"


@dataclass(frozen=True)
class Release:
    """What a release certificate says of its layer. The root names nothing: `sha256` is empty."""

    layer: str
    sha256: bytes
    security_version: int

    def encode(self) -> bytes:
        """The extension's value."""
        return der.element(
            der.SEQUENCE,
            der.element(der.UTF8_STRING, self.layer.encode())
            + der.element(der.OCTET_STRING, self.sha256)
            + der.integer(self.security_version),
        )


def parse_release(value: bytes) -> Release:
    """Read the extension's value. Raises DerError."""
    content = der.only(value, der.SEQUENCE)
    layer, content = der.take(content, der.UTF8_STRING)
    sha256, content = der.take(content, der.OCTET_STRING)
    version = der.number(der.only(content, der.INTEGER))
    return Release(layer.decode("utf-8", "replace"), sha256, version)


def certificate(
    release: Release, key: Ed25519PublicKey, issuer: str, issuer_key: Ed25519PrivateKey, depth: int
) -> x509.Certificate:
    """One link, signed by the issuer's key. `depth`: how many certificates may follow."""
    serial = hashlib.sha256(release.encode() + key.public_bytes_raw()).digest()[:20]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(release.layer))
        .issuer_name(name_of(issuer))
        .public_key(key)
        .serial_number(int.from_bytes(bytes([serial[0] & 0x7F | 1]) + serial[1:], "big"))
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(usage(depth), critical=True)
        .add_extension(x509.BasicConstraints(ca=depth > 0, path_length=depth - 1 if depth else None), critical=True)
        .add_extension(x509.UnrecognizedExtension(RELEASE_EXTENSION, release.encode()), critical=False)
    )
    return builder.sign(issuer_key, None)


def usage(depth: int) -> x509.KeyUsage:
    """Issuers sign certificates; the last key signs box contents."""
    return x509.KeyUsage(
        digital_signature=depth == 0,
        key_cert_sign=depth > 0,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def name_of(layer: str) -> x509.Name:
    """The distinguished name of a layer."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Terrane {layer}")])


def box_layer(name: str) -> str:
    """What the chain calls a box."""
    return f"box {name}"


def release_chain(
    keys: Keys, version: int, loader: bytes, monitor: bytes, boxes: list[tuple[str, bytes]]
) -> list[bytes]:
    """All certificates, DER, root first, then boot, VMM, and one for each box. Hashes are SHA-256; boxes as (name, hash)."""
    root = Release(ROOT_LAYER, b"", version)
    links = [
        certificate(root, keys.root.public_key(), ROOT_LAYER, keys.root, 3),
        certificate(Release(BOOT_LAYER, loader, version), keys.boot.public_key(), ROOT_LAYER, keys.root, 2),
        certificate(Release(MONITOR_LAYER, monitor, version), keys.vmm.public_key(), BOOT_LAYER, keys.boot, 1),
    ]
    for name, digest in boxes:
        release = Release(box_layer(name), digest, version)
        links.append(certificate(release, keys.box.public_key(), MONITOR_LAYER, keys.vmm, 0))
    return [link.public_bytes(Encoding.DER) for link in links]


def fingerprint(certificate_der: bytes) -> str:
    """SHA-256 of a certificate, hex."""
    return hashlib.sha256(certificate_der).hexdigest()
