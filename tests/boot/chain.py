"""The first two links of the run-time chain, derived again with another library (Open DICE v2.6, docs/formats.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_SALT = bytes.fromhex(
    "63B6A04D2C077FC10F639F21DA793844356CC2B0B441B3A77124035C03F8E1BE"
    "6035D31F282821A7450A02222AB1B3CFF1679B05AB1CA5D1AFFB789CCD2B0B3B"
)


@dataclass(frozen=True)
class Expected:
    """What the loader must have derived."""

    cdi_attest: bytes
    cdi_seal: bytes
    device: Ed25519PrivateKey
    monitor: Ed25519PrivateKey
    code: bytes


def sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def expand(secret: bytes, salt: bytes, information: bytes) -> bytes:
    return HKDF(algorithm=SHA512(), length=32, salt=salt, info=information).derive(secret)


def derive(
    secret: bytes, row: bytes, signer: bytes, *, security_version: int, mode: int = 2, posture: int = 9
) -> Expected:
    """`posture`: by default debug and development secret."""
    descriptor = bytes.fromhex("a33a000111717820") + b"terrane monitor".ljust(32, b"\0")
    descriptor += bytes.fromhex("3a000111741b") + struct.pack(">Q", security_version)
    descriptor += bytes.fromhex("3a0001193f1b") + struct.pack(">Q", posture)
    code, authority = sha512(row), sha512(signer)
    hidden = bytes(64)
    attest = expand(secret, sha512(code + sha512(descriptor) + authority + bytes([mode]) + hidden), b"CDI_Attest")
    seal = expand(secret, sha512(authority + bytes([mode]) + hidden), b"CDI_Seal")
    keys = [Ed25519PrivateKey.from_private_bytes(expand(value, KEY_SALT, b"Key Pair")) for value in (secret, attest)]
    return Expected(attest, seal, keys[0], keys[1], code)


def check(device_der: bytes, monitor_der: bytes, expected: Expected) -> None:
    """Check keys, signatures and the measured code of both certificates."""
    device, monitor = x509.load_der_x509_certificate(device_der), x509.load_der_x509_certificate(monitor_der)
    for certificate, key in ((device, expected.device), (monitor, expected.monitor)):
        public = certificate.public_key()
        assert isinstance(public, Ed25519PublicKey)
        assert public.public_bytes_raw() == key.public_key().public_bytes_raw()
        expected.device.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes)
    assert expected.code in monitor_der
    assert monitor.issuer == device.subject
